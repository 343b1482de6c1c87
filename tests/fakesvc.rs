//! A stand-in service that does as it is told: its arguments are a script, carried out word by word.
//!
//! `say TEXT` · `tail TEXT` (no newline) · `long N` (a line of N bytes) · `flood N` (lines) · `bytes HEX` · `slowly TEXT`
//! (a line, byte by byte) · `gush N BYTES` (numbered lines of that length, written many at once) · `close` (stdout and
//! stderr) · `mark FILE TEXT` (append a
//! line) · `sleep MS` · `ready` (sd_notify) · `ignore-term` · `child SCRIPT` (same group; words joined by commas) ·
//! `orphan SCRIPT` (own session, parent gone) · `pid FILE` · `inspect FILE` · `once FILE CODE` (the first time: exit
//! with CODE) · `serve FILE NAME` (until TERM, then mark `stopped NAME` and exit 0) · `wait` · `exit N` · `abort` ·
//! `notify TEXT` (any message; `\n` is a newline) · `garbage` (no text to the notify socket) · `stamp FILE` (monotonic
//! milliseconds) · `until FILE` (that it exists) · `on SIGNAL CODE` (only this one ends it, TERM does not) ·
//! `slow MS FILE NAME` (at TERM mark `stopping NAME`, later `stopped NAME`) · `signals FILE` (mark each, end at none) ·
//! `hold FILE` (keep it open) · `raise SIGNAL` · `hog MB` (of memory, kept) · `trace PID` (stop it as a debugger does)
//! · `headless` (its first thread ends, another stays)
//! · `run PROGRAM` (and wait for it) · `alive MS` (say so, for ever) · `fade MS` (until TERM, and so long after it)
//!
//! A script that takes signals somewhere takes them from its first word on: whoever saw a trace of it may send one.

#![allow(clippy::expect_used, clippy::panic, reason = "part of the tests: a broken script must be seen")]

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// What the first word that takes signals takes, from now on.
fn armed() -> Option<Signals> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (at, verb) = words
        .iter()
        .enumerate()
        .find(|(_, w)| matches!(w.as_str(), "serve" | "fade" | "on" | "slow" | "signals"))?;
    let taken = match verb.as_str() {
        "on" => vec![15, signal(words.get(at + 1).expect("a signal")) as i32],
        "signals" => vec![1, 2, 3, 10, 12, 15],
        _ => vec![15],
    };
    // One that comes between the system's handler and what it is to do would be lost.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).expect("to block signals");
    let signals = Signals::new(taken).expect("signals");
    before.thread_set_mask().expect("to let them come as before");
    Some(signals)
}

fn main() -> ExitCode {
    let mut signals = armed();
    let mut signals = move || signals.take().expect("one word that takes signals, once");
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
                let _ = signals().forever().next();
                mark(&file, &format!("stopped {name}"));
                return ExitCode::SUCCESS;
            }
            "fade" => {
                let late = Duration::from_millis(word().parse().expect("a number"));
                let _ = signals().forever().next();
                std::thread::sleep(late);
                return ExitCode::SUCCESS;
            }
            "notify" => drop(supafly::control::client::notify(&word().replace("\\n", "\n"))),
            "garbage" => garbage(),
            "stamp" => mark(&word(), &now().to_string()),
            "until" => {
                let file = word();
                while !std::path::Path::new(&file).exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "on" => {
                let (wanted, code) = (signal(&word()), word());
                let _ = signals().forever().find(|s| *s == wanted as i32);
                return ExitCode::from(code.parse::<u8>().expect("a status"));
            }
            "slow" => {
                let (ms, file, name) = (word(), word(), word());
                let _ = signals().forever().next();
                mark(&file, &format!("stopping {name}"));
                std::thread::sleep(Duration::from_millis(ms.parse().expect("a number")));
                mark(&file, &format!("stopped {name}"));
                return ExitCode::SUCCESS;
            }
            "signals" => {
                let file = word();
                mark(&file, "up");
                for number in signals().forever() {
                    let name = Signal::try_from(number).expect("a signal");
                    mark(&file, &format!("{name} {}", now()));
                }
            }
            "hold" => std::mem::forget(
                std::fs::OpenOptions::new().append(true).create(true).open(word()).expect("the file to hold"),
            ),
            "raise" => {
                let which = signal(&word());
                // Twice: the runtime's own handler of SIGSEGV only takes itself away the first time.
                for _ in 0..2 {
                    let _ = nix::sys::signal::raise(which);
                }
            }
            "hog" => {
                let megabytes: usize = word().parse().expect("a number");
                for _ in 0..megabytes {
                    std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "run" => drop(Command::new(word()).stdin(Stdio::null()).status()),
            "alive" => {
                let every = Duration::from_millis(word().parse().expect("a number"));
                loop {
                    let _ = supafly::control::client::notify("WATCHDOG=1");
                    std::thread::sleep(every);
                }
            }
            "headless" => headless(),
            "trace" => trace(word().parse().expect("a pid")),
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

fn now() -> u128 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    Duration::from(nix::time::clock_gettime(clock).expect("the clock")).as_millis()
}

fn signal(name: &str) -> Signal {
    name.parse().expect("the name of a signal")
}

/// Bytes that are no text, where a notification is expected.
fn garbage() {
    let socket = std::env::vars().find(|(k, _)| k == "NOTIFY_SOCKET").expect("a socket").1;
    let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let _ = sender.send_to(b"READY=1\xff\xfe\n\0READY", socket);
}

/// Holds a process in a ptrace stop until it dies.
#[allow(unsafe_code, reason = "nix is built without ptrace")]
fn trace(pid: i32) {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: numbers and null pointers only; `status` is a live local.
    // JUSTIFICATION: a debugger's stop cannot be had otherwise.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, pid, none, none), 0, "it cannot be traced");
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none), 0, "it cannot be stopped");
        let mut status = 0;
        // Every stop is kept, every signal with it; only the end is let through.
        while libc::waitpid(pid, &raw mut status, libc::__WALL) == pid && !libc::WIFSIGNALED(status) {}
    }
}

/// Ends the first thread alone: the process looks like a zombie, and lives.
#[allow(unsafe_code, reason = "no library ends the first thread alone")]
fn headless() {
    std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3_600)));
    // SAFETY: a number only; this thread holds nothing that the other needs.
    // JUSTIFICATION: the system call itself ends one thread, the C library's `exit` all.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn run(script: &str) -> std::io::Result<std::process::Child> {
    Command::new(std::env::args_os().next().expect("a name"))
        .args(script.split(','))
        .stdin(Stdio::null())
        .spawn()
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
