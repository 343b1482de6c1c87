//! What plays services, writers and mothers of orphans in `make bench`. Small on purpose: it must not be what is measured.
//! It stamps by the monotonic clock into a file, so that nobody has to look at it to know when something happened.
//!
//! `serve FILE NAME [FD]` (until TERM; says to a descriptor that it is ready) · `blocks MB FILE` (lines of 100 bytes, many
//! in a write) · `lines MB FILE` (the same, one in a write) · `orphans N FILE` (one after the other) · `burst N FILE` (that
//! all end at once); a further word `stay`: until TERM

#![allow(clippy::expect_used, clippy::panic, reason = "a wrong word must be seen")]
#![allow(unsafe_code, reason = "fork, in a program of one thread")]

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// A line with its newline.
const LINE: usize = 100;

fn main() {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().expect("to block a signal");
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().expect("a further word");
    match word().as_str() {
        "serve" => {
            let (mut stamps, name) = (append(&word()), word());
            stamp(&mut stamps, &format!("{name} up {}", std::process::id()));
            if let Some(fd) = words.next() {
                let mut ready =
                    File::options().write(true).open(format!("/dev/fd/{fd}")).expect("to be ready");
                ready.write_all(b"\n").expect("to say so");
            }
            term.wait().expect("to be told to stop");
            stamp(&mut stamps, &format!("{name} down {}", std::process::id()));
        }
        "blocks" => {
            let (bytes, mut stamps) = (megabytes(&word()), append(&word()));
            write(bytes, 65_536 / LINE * LINE, &mut stamps);
        }
        "lines" => {
            let (bytes, mut stamps) = (megabytes(&word()), append(&word()));
            write(bytes, LINE, &mut stamps);
        }
        "orphans" => {
            let (number, mut stamps) = (word().parse().expect("a number"), append(&word()));
            orphans(number, &mut stamps);
        }
        "burst" => {
            let (number, mut stamps) = (word().parse().expect("a number"), append(&word()));
            burst(number, &mut stamps);
        }
        other => panic!("actor does not know `{other}`"),
    }
    // Under a supervisor, which would start it again.
    if words.next().is_some_and(|word| word == "stay") {
        term.wait().expect("to be told to stop");
    }
}

fn megabytes(word: &str) -> usize {
    word.parse::<usize>().expect("a number") * 1_000_000
}

fn append(path: &str) -> File {
    File::options().create(true).append(true).open(path).expect("a file for stamps")
}

fn stamp(stamps: &mut File, what: &str) {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock"));
    stamps.write_all(format!("{what} {}\n", now.as_nanos()).as_bytes()).expect("to stamp");
}

/// Lines of numbers and letters, the last of which is the word END, then silence until it is told to stop: a writer
/// whose end would be seen is no service.
fn write(bytes: usize, at_once: usize, stamps: &mut File) {
    let mut block = Vec::with_capacity(at_once);
    while block.len() < at_once {
        let text = format!("{:08} GET /rest/v1/films?select=title,year&order=year.desc ", block.len());
        block.extend_from_slice(format!("{text:.<99}\n").as_bytes());
    }
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned().expect("a stdout"));
    let mut left = bytes;
    stamp(stamps, "begin");
    while left > 0 {
        let now = left.min(block.len());
        out.write_all(block.get(..now).expect("a part")).expect("somebody who reads");
        left -= now;
    }
    out.write_all(b"END\n").expect("somebody who reads");
    stamp(stamps, "written");
}

/// Who PID 1 must bury or has not yet.
fn children_of_init() -> BTreeSet<u32> {
    let text = std::fs::read_to_string("/proc/1/task/1/children").expect("the children of PID 1");
    text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// A child that ends before its own child does: that one ends at once, or when the other end of a pipe is closed.
fn orphan(held: Option<(&PipeReader, &PipeWriter)>) {
    // SAFETY: this program has one thread.
    // JUSTIFICATION: an orphan is made by fork alone.
    let child = match unsafe { fork() }.expect("to fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // SAFETY: as above.
            // JUSTIFICATION: as above.
            let own = unsafe { fork() }.expect("to fork");
            if let (ForkResult::Child, Some((mut held, holder))) = (own, held) {
                // What is closed to release all must not be held by one of them.
                nix::unistd::close(holder.as_raw_fd()).expect("to close it");
                let _ = held.read(&mut [0]);
            }
            // SAFETY: it ends the process and touches nothing.
            // JUSTIFICATION: what is registered for the end of the first process is not for this one.
            unsafe { nix::libc::_exit(0) }
        }
    };
    #[allow(clippy::disallowed_methods, reason = "a program of its own")]
    waitpid(child, None).expect("to bury the child");
}

/// Waits until PID 1 has no children but those it had, and stamps how many are left when that takes too long.
fn drained(before: &BTreeSet<u32>, stamps: &mut File) {
    let own = std::process::id();
    let mut left = 0;
    for _ in 0..30_000 {
        let strange = |pid: &&u32| **pid != own && !before.contains(pid);
        left = children_of_init().iter().filter(strange).count();
        if left == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    stamp(stamps, &format!("drained {left}"));
}

fn orphans(number: u32, stamps: &mut File) {
    let before = children_of_init();
    stamp(stamps, "begin");
    for _ in 0..number {
        orphan(None);
    }
    stamp(stamps, "forked");
    drained(&before, stamps);
}

fn burst(number: u32, stamps: &mut File) {
    let before = children_of_init();
    let (held, holder) = std::io::pipe().expect("a pipe");
    for _ in 0..number {
        orphan(Some((&held, &holder)));
    }
    stamp(stamps, "begin");
    drop(holder);
    drained(&before, stamps);
}
