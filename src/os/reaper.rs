//! The one place that waits. Everything we start is registered before anything can be reaped, because both need
//! `&mut Processes`; so no ending can be lost, and a pid that is registered is alive or a zombie of ours: it cannot
//! have been reused, and may be signalled by number.

use super::spawn::{SpawnError, SpawnRequest, Spawned, spawn};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use std::collections::HashMap;

/// How a process ended, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It exited with this status.
    Exit(i32),
    /// A signal ended it.
    Signal {
        /// Its number: not every signal has a name.
        number: i32,
        /// It dumped core.
        core: bool,
    },
}

/// A process of ours that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// Its number, free for reuse from now on.
    pub pid: i32,
    /// What it was started for.
    pub owner: T,
    /// How it ended.
    pub how: How,
}

/// What one round of reaping found.
#[derive(Debug)]
pub struct Reaped<T> {
    /// Our own.
    pub ended: Vec<Ended<T>>,
    /// Adopted processes buried.
    pub strangers: usize,
    /// What is left to do.
    pub left: Left,
}

/// What is left after a round of reaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The round was cut short for the others' sake: come again.
    More,
    /// Children live.
    Alive,
    /// There is no child any more: proof that nothing of ours is left.
    Nobody,
}

/// Every process that we started and have not yet reaped, with what it was started for.
#[derive(Debug)]
pub struct Processes<T> {
    known: HashMap<i32, T>,
}

/// How many are buried before others get a turn.
const ROUND: usize = 4_096;

impl<T: Clone> Processes<T> {
    /// None yet. Makes us the reaper of every orphan below us, PID 1 or not.
    ///
    /// # Errors
    /// The kernel refuses (none since 3.4 does).
    pub fn new() -> std::io::Result<Processes<T>> {
        nix::sys::prctl::set_child_subreaper(true)?;
        Ok(Processes { known: HashMap::new() })
    }

    /// Starts a process.
    ///
    /// # Errors
    /// Nothing was started; says which step failed and why.
    pub fn spawn(&mut self, owner: T, request: &SpawnRequest) -> Result<Spawned, SpawnError> {
        let spawned = spawn(request)?;
        self.known.insert(spawned.pid, owner);
        Ok(spawned)
    }

    /// Buries whoever ended. To be called at every SIGCHLD (which the kernel merges, hence until there is nobody).
    pub fn reap(&mut self) -> Reaped<T> {
        let mut reaped = Reaped { ended: Vec::new(), strangers: 0, left: Left::More };
        for _ in 0..ROUND {
            let mut status = 0;
            #[allow(unsafe_code, reason = "nix's waitpid fails on deaths by realtime signals and loses them")]
            // SAFETY: `status` is a live local.
            // JUSTIFICATION: an ending must never be lost, whatever signal caused it.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid == 0 {
                reaped.left = Left::Alive;
                break;
            }
            if pid < 0 {
                if Errno::last() == Errno::EINTR {
                    continue;
                }
                reaped.left = Left::Nobody;
                break;
            }
            let how = if libc::WIFEXITED(status) {
                How::Exit(libc::WEXITSTATUS(status))
            } else {
                How::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
            };
            match self.known.remove(&pid) {
                Some(owner) => reaped.ended.push(Ended { pid, owner, how }),
                None => reaped.strangers += 1,
            }
        }
        reaped
    }

    /// What a process was started for, while it is not reaped.
    #[must_use]
    pub fn owner(&self, pid: i32) -> Option<&T> {
        self.known.get(&pid)
    }

    /// Signals a process of ours. One that has been reaped is none any more, and its number may be another's.
    pub fn signal(&self, pid: i32, signal: Signal) {
        if self.known.contains_key(&pid) {
            // A zombie takes every signal; nothing that can go wrong with a child of ours changes what we do.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
    }
}
