//! What it says, and what it leaves behind: helpers, an epmd, files.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Which of its habits are switched off.
pub(super) struct Flags {
    pub(super) ignores_int: bool,
    keeps_files: bool,
    starts_epmd: bool,
}

impl Flags {
    pub(super) fn of(text: &str) -> Flags {
        let words: Vec<&str> = text.split_whitespace().collect();
        let said = |flag: &str, value: &str| words.windows(2).any(|w| w == [flag, value]);
        Flags {
            ignores_int: words.contains(&"+Bi"),
            keeps_files: !said("+JPperf", "false"),
            starts_epmd: !said("-start_epmd", "false"),
        }
    }
}

enum Word {
    Line(String),
    Flush(Sender<()>),
}

static LOGGER: OnceLock<SyncSender<Word>> = OnceLock::new();

/// One thread writes; while it cannot, lines are dropped and everything else goes on.
pub(super) fn start_logger() {
    let (to, from) = sync_channel::<Word>(256);
    std::thread::spawn(move || write_all(&from));
    LOGGER.set(to).expect("one logger");
}

fn write_all(from: &Receiver<Word>) {
    let mut stdout = std::io::stdout();
    let mut broken = false;
    while let Ok(word) = from.recv() {
        match word {
            Word::Line(line) if !broken => {
                broken = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err()
            }
            Word::Line(_) => {}
            Word::Flush(done) => drop(done.send(())),
        }
    }
}

/// A line, as the real one writes them with `SUPAVISOR_LOG_FORMAT=json`.
pub(super) fn say(level: &str, text: &str) {
    let micros =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
    let line = serde_json::json!({
        "event_message": text, "metadata": { "level": level, "region": "local" },
        "timestamp": u64::try_from(micros).unwrap_or(0),
    });
    if let Some(logger) = LOGGER.get() {
        let _ = logger.try_send(Word::Line(format!("{line}\n")));
    }
}

/// Returns when everything is written: never while nobody reads and the pipe is full.
pub(super) fn flush() {
    let (done, wait) = channel();
    if LOGGER.get().is_some_and(|logger| logger.send(Word::Flush(done)).is_ok()) {
        let _ = wait.recv();
    }
}

/// Whether a prompt on stdin would read its end.
pub(super) fn stdin_ends() -> bool {
    let target = std::fs::read_link("/proc/self/fd/0");
    target.is_ok_and(|t| t == std::path::Path::new("/dev/null"))
}

/// Files that nobody deletes, helpers that end with us, an epmd that does not.
pub(super) fn leave_behind(flags: &Flags, server: bool) {
    let pid = std::process::id();
    if flags.keeps_files {
        // 64 MB and 9 MB with the real one.
        for name in [format!("/tmp/jit-{pid}.dump"), format!("/tmp/perf-{pid}.map")] {
            let _ = std::fs::write(name, vec![0; 4096]);
        }
    }
    if flags.starts_epmd {
        let mut launcher = own("epmd-launcher").stdin(Stdio::null()).spawn().expect("epmd");
        let _ = launcher.wait();
    }
    if server {
        let mut setup = own("helper").arg("nest").stdin(Stdio::piped()).spawn().expect("a helper");
        // Its end is ours.
        std::mem::forget(setup.stdin.take());
    }
}

fn own(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our own file"));
    command.arg(role).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// `erl_child_setup` and, nested in it, memsup and the like: sessions of their own, until their pipe ends.
pub(super) fn helper() {
    let _ = nix::unistd::setsid();
    let mut nested: Vec<_> = Vec::new();
    if std::env::args().any(|a| a == "nest") {
        nested.extend((0..2).map(|_| own("helper").stdin(Stdio::piped()).spawn().expect("a helper")));
    }
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    // Its own children become orphans that somebody else must reap.
    std::process::exit(255);
}

pub(super) fn launch_epmd() {
    drop(own("epmd").arg0("epmd").stdin(Stdio::null()).spawn().expect("epmd"));
}

/// Belongs to nobody and goes for nobody.
pub(super) fn epmd() {
    let _ = nix::unistd::setsid();
    loop {
        std::thread::park();
    }
}
