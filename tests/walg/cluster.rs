//! A real Postgres that archives by `cp` into the epoch's place of a directory store, and goes with the value.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use supafly::config::Settings;
use supafly::owner::Epoch;
use supafly::postgres::account::Account;
use supafly::walg::Engine;

/// How long anything may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const EPOCH: Epoch = Epoch(1);

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    started: Vec<PathBuf>,
}

/// The engine under test, where every user can run it.
fn engine_path() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/walrus/bin/walrus");
    let named = std::env::var_os("SUPAFLY_WALG").map(PathBuf::from);
    named
        .or_else(|| which::which("wal-g").ok())
        .or_else(|| which::which("walrus").ok())
        .or_else(|| built.exists().then_some(built))
        .unwrap_or_else(|| panic!("no backup engine: run `make test`, or set SUPAFLY_WALG"))
}

/// Writes a program from outside this process: a child that another test forks meanwhile would inherit the open file,
/// and a file that is open for writing cannot be run (ETXTBSY).
fn install(content: &[u8], to: &Path) {
    let mut command = Command::new("install");
    command.args(["-m", "0755", "/dev/stdin"]).arg(to).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    assert!(child.wait().unwrap().success(), "{}", to.display());
}

fn bin() -> PathBuf {
    if let Some(dir) = std::env::var_os("SUPAFLY_PG_BIN") {
        return dir.into();
    }
    let majors = fs::read_dir("/usr/lib/postgresql").expect("no Postgres: run `make test`");
    let newest = majors.filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok()).max();
    Path::new("/usr/lib/postgresql")
        .join(newest.expect("no Postgres: run `make test`").to_string())
        .join("bin")
}

/// The user that Postgres runs as, when we are root.
pub(crate) fn postgres() -> Option<(u32, u32)> {
    nix::unistd::Uid::effective().is_root().then(|| {
        let account = Account::named("postgres").unwrap();
        (account.uid.as_raw(), account.gid.as_raw())
    })
}

fn tool(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(bin().join(name));
    command.args(arguments).current_dir("/");
    if let Some((uid, gid)) = postgres() {
        command.uid(uid).gid(gid);
    }
    let done = command.output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{name} {arguments:?}: {err}");
    String::from_utf8(done.stdout).unwrap()
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        let dir = tempfile::Builder::new().prefix("supafly-walg-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("engine");
        install(&fs::read(engine_path()).unwrap(), &program);
        let at = |name: &str| dir.path().join(name).display().to_string();
        let env = BTreeMap::from(
            [
                ("SUPAFLY_DATA", at("data")),
                ("SUPAFLY_RUN", at("run")),
                ("SUPAFLY_STORE", format!("file://{}", at("store"))),
                ("SUPAFLY_WALG", at("engine")),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let settings = Settings::read(None, &env).unwrap();
        let engine = Engine::find(&settings).unwrap().unwrap();
        let mut cluster = Cluster { dir, settings, engine, started: Vec::new() };
        fs::create_dir_all(cluster.settings.run.join("keeper")).unwrap();
        fs::create_dir_all(cluster.basebackups()).unwrap();
        cluster.owned(&cluster.wal());
        cluster.owned(&cluster.settings.pg_socket_dir());
        let pgdata = cluster.owned(&cluster.settings.pgdata());
        tool("initdb", &["-k", "-U", "supafly", "-A", "trust", "-D", &pgdata.display().to_string()]);
        let archive = format!(
            "listen_addresses = ''\nfsync = off\narchive_mode = on\narchive_command = 'cp %p {}/%f'\n",
            cluster.wal().display()
        );
        let socket = format!("unix_socket_directories = '{}'\n", cluster.settings.pg_socket_dir().display());
        let mut conf = fs::read_to_string(pgdata.join("postgresql.conf")).unwrap();
        conf.push_str(&archive);
        conf.push_str(&socket);
        fs::write(pgdata.join("postgresql.conf"), conf).unwrap();
        cluster.run(&pgdata);
        cluster
            .sql("create table t as select g, repeat('x', 200) as filler from generate_series(1, 20000) g");
        cluster
    }

    /// Makes a directory that Postgres owns.
    pub(crate) fn owned(&self, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        if let Some((uid, gid)) = postgres() {
            chown(dir, Some(uid), Some(gid)).unwrap();
        }
        dir.to_path_buf()
    }

    /// An empty directory to fetch into.
    pub(crate) fn destination(&self, name: &str) -> PathBuf {
        let dir = self.owned(&self.dir.path().join(name));
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        dir
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.dir.path().join("store").join(EPOCH.dir()).join("wal_005")
    }

    pub(crate) fn basebackups(&self) -> PathBuf {
        self.dir.path().join("store").join(EPOCH.dir()).join("basebackups_005")
    }

    /// An engine that does `script`; `$REAL` in it is the real one, `$1`... its arguments.
    pub(crate) fn impostor(&self, name: &str, script: &str) -> Engine {
        let path = self.dir.path().join(name);
        let real = self.engine.path.display();
        install(format!("#!/bin/bash\nREAL={real}\n{script}\n").as_bytes(), &path);
        Engine { path, ..self.engine.clone() }
    }

    fn run(&mut self, data: &Path) {
        let text = data.display().to_string();
        let log = data.with_extension("log").display().to_string();
        self.owned(data.parent().unwrap());
        tool("pg_ctl", &["-w", "-s", "-D", &text, "-l", &log, "start"]);
        self.started.push(data.to_path_buf());
    }

    pub(crate) fn stop(&mut self) {
        for data in self.started.drain(..) {
            tool("pg_ctl", &["-w", "-s", "-m", "immediate", "-D", &data.display().to_string(), "stop"]);
        }
    }

    /// Starts a fetched tree as a recovery from the archive and waits until it is open.
    pub(crate) fn recover(&mut self, data: &Path) {
        let restore = format!("restore_command = 'cp {}/%f %p'\narchive_mode = off\n", self.wal().display());
        let mut conf = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        conf.push_str(&restore);
        fs::write(data.join("postgresql.conf"), conf).unwrap();
        fs::write(data.join("recovery.signal"), "").unwrap();
        self.run(data);
        until("the end of recovery", || (self.sql("select pg_is_in_recovery()") == "f").then_some(()));
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        let socket = self.settings.pg_socket_dir().display().to_string();
        let port = self.settings.pg_port.to_string();
        let output =
            tool("psql", &["-X", "-qAt", "-h", &socket, "-p", &port, "-U", "supafly", "-c", sql, "postgres"]);
        output.trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
