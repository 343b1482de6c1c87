//! A stand-in service that does as it is told: its arguments are a script, carried out word by word.
//!
//! `say TEXT` · `tail TEXT` (no newline) · `long N` (a line of N bytes) · `flood N` (lines) · `bytes HEX` · `slowly TEXT`
//! (a line, byte by byte) · `gush N BYTES` (numbered lines of that length, written many at once) · `close` (stdout and
//! stderr) · `mark FILE TEXT` (append a
//! line) · `sleep MS` · `ready` (sd_notify) · `ignore-term` · `child SCRIPT` (same group; words joined by commas) ·
//! `orphan SCRIPT` (own session, parent gone) · `pid FILE` · `inspect FILE` · `once FILE CODE` (the first time: exit
//! with CODE) · `serve FILE NAME` (until TERM, then mark `stopped NAME` and exit 0) · `wait` · `exit N` · `abort`

#![allow(clippy::expect_used, clippy::panic, reason = "part of the tests: a broken script must be seen")]

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next();
    let mut stdout = std::io::stdout();
    while let Some(verb) = next() {
        let mut word = || next().expect("the script ends too early");
        match verb.as_str() {
            "say" => drop(writeln!(stdout, "{}", word())),
            "tail" => drop(write!(stdout, "{}", word()).and_then(|()| stdout.flush())),
            "long" => drop(writeln!(stdout, "{}", "x".repeat(word().parse().expect("a number")))),
            "flood" => {
                let lines: u64 = word().parse().expect("a number");
                for i in 0..lines {
                    let _ = writeln!(stdout, "flood line {i} {}", "y".repeat(80));
                }
            }
            "bytes" => drop(std::fs::File::write_all(&mut own_stdout(), &unhex(&word()))),
            "slowly" => {
                let mut out = own_stdout();
                (word() + "\n").bytes().for_each(|byte| drop(out.write_all(&[byte])));
            }
            "gush" => {
                let (lines, length) = (word().parse::<u64>(), word().parse::<usize>());
                let (lines, length) = (lines.expect("a number"), length.expect("a number"));
                let mut out = std::io::BufWriter::with_capacity(1 << 16, own_stdout());
                let filling = "z".repeat(length);
                for i in 0..lines {
                    let _ = writeln!(out, "{i} {}", filling.get(..length - 8).unwrap_or_default());
                }
            }
            "close" => [1, 2].into_iter().for_each(|fd| nix::unistd::close(fd).expect("to close it")),
            "mark" => {
                let file = word();
                mark(&file, &word());
            }
            "sleep" => std::thread::sleep(Duration::from_millis(word().parse().expect("a number"))),
            "ready" => drop(supafly::control::client::notify("READY=1")),
            "ignore-term" => {
                let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
                signal_hook::flag::register(signal_hook::consts::SIGTERM, flag).expect("a handler");
            }
            "child" => drop(run(&word())),
            "orphan" => drop(run(&format!("setsid,then,{}", word().replace(',', "\u{1}")))),
            "setsid" => drop(nix::unistd::setsid()),
            "then" => {
                drop(run(&word().replace('\u{1}', ",")));
                return ExitCode::SUCCESS;
            }
            "pid" => mark(&word(), &std::process::id().to_string()),
            "inspect" => inspect(&word()),
            "once" => {
                let (file, code) = (word(), word());
                if std::fs::File::create_new(file).is_ok() {
                    return ExitCode::from(code.parse::<u8>().expect("a status"));
                }
            }
            "serve" => {
                let (file, name) = (word(), word());
                let mut signals = signal_hook::iterator::Signals::new([15]).expect("signals");
                let _ = signals.forever().next();
                mark(&file, &format!("stopped {name}"));
                return ExitCode::SUCCESS;
            }
            "wait" => loop {
                std::thread::sleep(Duration::from_secs(3_600));
            },
            "exit" => return ExitCode::from(word().parse::<u8>().expect("a status")),
            "abort" => std::process::abort(),
            other => panic!("fakesvc does not know `{other}`"),
        }
    }
    ExitCode::SUCCESS
}

/// Stdout without the buffer that looks for newlines.
fn own_stdout() -> std::fs::File {
    use std::os::fd::AsFd;
    std::io::stdout().as_fd().try_clone_to_owned().expect("a stdout").into()
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    text.as_bytes().chunks(2).map(pair).collect()
}

fn mark(file: &str, text: &str) {
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(file).expect("the file to mark");
    file.write_all(format!("{text}\n").as_bytes()).expect("a mark");
}

fn run(script: &str) -> std::io::Result<std::process::Child> {
    Command::new(std::env::current_exe()?).args(script.split(',')).stdin(Stdio::null()).spawn()
}

/// What this process was given: signal state, groups, descriptors, directory, session and environment.
fn inspect(file: &str) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let wanted = ["SigBlk:", "SigIgn:", "SigCgt:", "Uid:", "Gid:", "Groups:", "NoNewPrivs:"];
    let mut text: String = status
        .lines()
        .filter(|l| wanted.iter().any(|w| l.starts_with(w)))
        .map(|l| format!("{l}\n"))
        .collect();
    for entry in std::fs::read_dir("/proc/self/fd").expect("/proc").flatten() {
        if let Ok(target) = std::fs::read_link(entry.path()) {
            text += &format!("fd {} {}\n", entry.file_name().to_string_lossy(), target.display());
        }
    }
    text += &format!("cwd {}\n", std::env::current_dir().expect("a directory").display());
    let pid = nix::unistd::getpid();
    text += &format!("session own {}\n", nix::unistd::getsid(None) == Ok(pid));
    for (name, value) in std::env::vars() {
        text += &format!("env {name}={value}\n");
    }
    let early = format!("{file}.new");
    std::fs::write(&early, text).and_then(|()| std::fs::rename(early, file)).expect("the file to write");
}
