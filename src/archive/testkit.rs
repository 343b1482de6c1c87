//! Real WAL for tests: a small cluster made by the installed Postgres, in single-user mode, so that nothing listens
//! and nothing is left behind. It is made once in a test run and kept in memory.

use crate::postgres::lsn::{Lsn, Segment, SegmentSize};
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Whole segments of a real cluster, and what `pg_waldump` says of them.
pub(crate) struct Real {
    pub(crate) system: u64,
    pub(crate) size: SegmentSize,
    pub(crate) segments: Vec<RealSegment>,
    /// The last segment, in the middle of which the WAL ends; behind that lies what the file held before.
    pub(crate) open: RealSegment,
    /// Where the WAL ends, as `pg_waldump` says.
    pub(crate) end: Lsn,
}

pub(crate) struct RealSegment {
    pub(crate) segment: Segment,
    pub(crate) bytes: Vec<u8>,
    /// Where its records begin, as `pg_waldump` says.
    pub(crate) records: Vec<Lsn>,
}

impl Real {
    /// A segment that is full of records.
    pub(crate) fn full(&self) -> &RealSegment {
        let span = |s: &RealSegment| s.records.last().unwrap().0 - s.records[0].0;
        self.segments.iter().max_by_key(|s| span(s)).unwrap()
    }

    pub(crate) fn name(&self, index: usize) -> String {
        self.segments[index].segment.name(self.size)
    }
}

pub(crate) fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(make)
}

fn programs() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root).map(|d| d.filter_map(Result::ok).map(|e| e.path()).collect());
    let mut versions: Vec<PathBuf> = versions.unwrap_or_default();
    versions.retain(|v| v.join("bin/initdb").exists());
    versions.sort_by_key(|v| v.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok()));
    let newest = versions.pop().unwrap_or_else(|| {
        panic!("this test needs a real Postgres below {}: install the package `postgresql`", root.display())
    });
    newest.join("bin")
}

/// A program of Postgres, which refuses to be root.
fn program(name: &str) -> Command {
    let path = programs().join(name);
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    }
}

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn make() -> Real {
    let directory = tempfile::tempdir().unwrap();
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user `postgres`");
        chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    let data = directory.path().join("pgdata");
    let (ok, said) = output(program("initdb").current_dir(directory.path()).arg("-D").arg(&data).args([
        "-k",
        "-N",
        "-E",
        "UTF8",
        "--locale=C",
        "--wal-segsize=1",
    ]));
    assert!(ok, "initdb: {said}");
    let mut single = program("postgres");
    single.current_dir(directory.path()).arg("--single").arg("-D").arg(&data);
    single.args(["-c", "fsync=off", "-c", "wal_keep_size=512MB", "-c", "max_wal_size=1GB", "postgres"]);
    let mut child = single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sql = "create table t (a int, b text)\n\
        insert into t select n, repeat(md5(n::text), 12) from generate_series(1, 6000) n\n\
        select pg_switch_wal()\n\
        insert into t select n, md5(n::text) from generate_series(1, 100) n\n\
        select pg_switch_wal()\n\
        insert into t select n, md5(n::text) from generate_series(1, 300) n\n";
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "postgres --single");

    let (_, control) = output(program("pg_controldata").current_dir(directory.path()).arg(&data));
    let system = control.lines().find_map(|l| l.strip_prefix("Database system identifier:")).unwrap();
    let system = system.trim().parse().unwrap();
    let size = SegmentSize::try_from(1 << 20).unwrap();
    let pg_wal = data.join("pg_wal");
    let mut names: Vec<String> = std::fs::read_dir(&pg_wal)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok())
        .filter(|n| Segment::parse(n, size).is_ok())
        .collect();
    names.sort();
    let mut end = Lsn(0);
    let mut segments = Vec::new();
    for name in names {
        let dump = program("pg_waldump")
            .current_dir(directory.path())
            .arg("-p")
            .arg(&pg_wal)
            .arg(&name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&dump.stdout);
        let lsn = |text: &str, before: &str| {
            let (_, after) = text.split_once(before)?;
            after.split([',', ':', ' ']).next()?.parse::<Lsn>().ok()
        };
        let records: Vec<Lsn> = text.lines().filter_map(|l| lsn(l, "lsn: ")).collect();
        if let Some(at) = lsn(&String::from_utf8_lossy(&dump.stderr), "invalid record length at ") {
            end = end.max(at);
        }
        let bytes = std::fs::read(pg_wal.join(&name)).unwrap();
        segments.push(RealSegment { segment: Segment::parse(&name, size).unwrap(), bytes, records });
    }
    // Postgres keeps segments ready ahead for later; they are none yet.
    segments.retain(|s| s.segment.start(size) < end);
    let open = segments.pop().unwrap();
    Real { system, size, segments, open, end }
}
