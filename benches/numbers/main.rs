//! `cargo bench --bench numbers -- [--quick] [--alone] [--again] [--out DIRECTORY] [ROW…]`: what `make bench` runs.
//! `--alone` leaves the peers out, for comparing two builds: `SUPAFLY_BENCH_BASELINE` names the other one (rows of a
//! cluster have no such comparison). `--again` puts the rows that are named in place of the former ones of a whole run's
//! report, each with its commit and day.
//!
//! As root everything runs in a pid namespace of its own, whose end is the end of whatever a peer leaves behind; the
//! directories are this first process's and are removed by it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a program for a person at a terminal; a row that panics is caught and reported"
)]

#[path = "mod.rs"]
mod numbers;

use numbers::machine::Facts;
use numbers::row::{Context, Depth, Invited, Row};
use numbers::rows::ROWS;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Set for the process inside the namespace: where it may work, in memory and on a disk.
const INSIDE: &str = "SUPAFLY_BENCH_INSIDE";

struct Wanted {
    rows: Vec<&'static Row>,
    depth: Depth,
    invited: Invited,
    out: PathBuf,
    written: Written,
}

/// What becomes of the report that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Anew,
    /// Some of its rows are replaced.
    Again,
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::from(2);
        }
    };
    let environment = supafly::facts::environment();
    match environment.get(INSIDE).and_then(|places| places.split_once(':')) {
        Some((scratch, disk)) => inside(&wanted, &environment, Path::new(scratch), Path::new(disk)),
        None => outside(),
    }
}

fn wanted(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut rows, mut depth, mut invited, mut out) = (Vec::new(), Depth::Full, Invited::Peers, None);
    let mut written = Written::Anew;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--alone" => invited = Invited::Baseline,
            "--quick" => depth = Depth::Quick,
            "--again" => written = Written::Again,
            "--out" => out = Some(PathBuf::from(arguments.next().ok_or("--out needs a directory")?)),
            name => {
                let row = ROWS.iter().find(|r| r.name == name).copied();
                rows.push(row.ok_or_else(|| format!("there is no row `{name}`; there are: {}", names()))?);
            }
        }
    }
    let published = depth == Depth::Full && invited == Invited::Peers;
    if written == Written::Again && (rows.is_empty() || !published) {
        return Err("--again replaces rows that are named, measured in full beside their peers".to_owned());
    }
    // Only a whole run is published, and what is measured again as that was.
    let whole = published && (rows.is_empty() || written == Written::Again);
    if rows.is_empty() {
        rows.extend(ROWS);
    }
    let out = out.unwrap_or_else(|| root.join(if whole { "docs" } else { "target/numbers" }));
    Ok(Wanted { rows, depth, invited, out, written })
}

fn names() -> String {
    ROWS.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
}

fn outside() -> ExitCode {
    let room = |parent: &Path| {
        let dir = tempfile::Builder::new().prefix("supafly-bench-").tempdir_in(parent).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        dir
    };
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { room(memory) } else { room(&std::env::temp_dir()) };
    let disk = room(&std::env::temp_dir());
    let own = std::env::current_exe().unwrap();
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut c = Command::new("unshare");
        c.args(["--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "tini", "--"]).arg(own);
        c
    } else {
        Command::new(own)
    };
    command.args(std::env::args_os().skip(1));
    command.env(INSIDE, format!("{}:{}", scratch.path().display(), disk.path().display()));
    match wait(&mut command) {
        Ok(status) => {
            status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(e) => {
            eprintln!("bench: cannot start unshare or ourselves: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the end; asked to stop, it ends everything and goes on to remove what is there.
fn wait(command: &mut Command) -> std::io::Result<ExitStatus> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&asked))?;
    }
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if asked.load(Ordering::SeqCst) {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn inside(wanted: &Wanted, environment: &BTreeMap<String, String>, scratch: &Path, disk: &Path) -> ExitCode {
    // Measured is the release build; the harness and the actor, the same for all contestants, need none.
    let built = Path::new(env!("CARGO_BIN_EXE_supafly")).parent().unwrap();
    let release = built.parent().unwrap().join("release/supafly");
    let named = environment.get("SUPAFLY_BENCH_BINARY").map(PathBuf::from);
    let context = Context {
        binary: named.clone().unwrap_or(release),
        baseline: environment.get("SUPAFLY_BENCH_BASELINE").map(PathBuf::from),
        actor: built.join("examples/actor"),
        scratch: scratch.to_path_buf(),
        disk: disk.to_path_buf(),
        depth: wanted.depth,
        invited: wanted.invited,
    };
    for needed in
        [Some(&context.binary), Some(&context.actor), context.baseline.as_ref()].into_iter().flatten()
    {
        if !needed.is_file() {
            eprintln!("bench: {} is not there: run `make bench`", needed.display());
            return ExitCode::FAILURE;
        }
    }
    let mut facts = Facts::gather();
    if let Some(named) = named {
        facts.say("binary under test", named.display().to_string());
    }
    if wanted.depth == Depth::Quick {
        facts.say("depth", "a quick run: one small round a row, its figures mean nothing");
    }
    let lines = numbers::run(&context, &wanted.rows);
    fs::create_dir_all(&wanted.out).unwrap();
    let (list, page) = (wanted.out.join("benchmarks.json"), wanted.out.join("benchmarks.md"));
    let texts = match wanted.written {
        Written::Anew => Ok((numbers::report::json(&lines), numbers::report::page(&lines, &facts))),
        Written::Again => {
            let there =
                |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
            there(&list).and_then(|list| {
                let page = there(&page)?;
                numbers::report::renewed((&list, &page), &lines, &facts)
            })
        }
    };
    match texts {
        Ok((list_text, page_text)) => {
            fs::write(list, list_text).unwrap();
            fs::write(page, page_text).unwrap();
        }
        Err(why) => {
            eprintln!("bench: nothing is written: {why}");
            return ExitCode::FAILURE;
        }
    }
    let missed: Vec<_> = lines.iter().filter(|l| !l.met()).map(|l| l.row.name).collect();
    eprintln!(
        "{}/benchmarks.md and .json are written; {} of {} met",
        wanted.out.display(),
        lines.len() - missed.len(),
        lines.len()
    );
    if !missed.is_empty() {
        eprintln!("missed: {}", missed.join(", "));
    }
    ExitCode::SUCCESS
}
