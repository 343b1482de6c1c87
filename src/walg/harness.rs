//! Runs the engine: a process group of its own, a deadline of ours, every line of its output in our log.
//!
//! WAL-G has no total time-out and does not end on SIGTERM while it sleeps between retries (`facts/walg.md` 5), so the
//! way to end it is SIGKILL to its whole group: at the deadline, and when nobody waits for it any more.

use super::output::{self, Masks, Tail};
use crate::config::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long the engine's last output is waited for when its group is gone. Only a process that left the group can
/// hold the pipes longer, and it must not hold us beyond the deadline.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often a running engine is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The same at first when it has closed its output, which is mostly the end.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// How the engine ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself; a hint, not a proof.
    Itself(ExitStatus),
    /// We killed it at its deadline.
    Deadline,
    /// Nobody waited any more.
    Abandoned,
}

/// How it ended and what it said last.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) last_lines: Vec<String>,
}

/// One run of the engine.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, Secret)>,
    pub(super) run_as: Option<(u32, u32)>,
    pub(super) deadline: Duration,
}

/// Ends the engine when the future that waits for it is dropped.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A running engine; dropped, it is killed.
pub(super) struct Running {
    thread: tokio::task::JoinHandle<std::io::Result<Outcome>>,
    _abandon: Abandon,
}

/// Runs the engine and waits for its end; for what takes moments.
pub(super) fn run(program: &Path, job: &Job) -> std::io::Result<Outcome> {
    blocking(program, job, &AtomicBool::new(false))
}

/// Starts the engine.
pub(super) fn start(program: &Path, job: Job) -> Running {
    let abandoned = Arc::new(AtomicBool::new(false));
    let guard = Abandon(abandoned.clone());
    let program = program.to_path_buf();
    let thread = tokio::task::spawn_blocking(move || blocking(&program, &job, &abandoned));
    Running { thread, _abandon: guard }
}

impl Running {
    /// Waits for its end, for about a second; `None` when it runs on.
    pub(super) async fn second(&mut self) -> Option<std::io::Result<Outcome>> {
        tokio::select! {
            outcome = &mut self.thread => Some(outcome.unwrap_or_else(|e| Err(std::io::Error::other(e)))),
            () = tokio::time::sleep(Duration::from_secs(1)) => None,
        }
    }
}

fn blocking(program: &Path, job: &Job, abandoned: &AtomicBool) -> std::io::Result<Outcome> {
    let mut command = Command::new(program);
    command.args(&job.arguments).env_clear().current_dir("/").process_group(0);
    command.envs(job.environment.iter().map(|(k, v)| (k, v.reveal())));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some((uid, gid)) = job.run_as {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn()?;
    let masks = Masks::of(&job.environment);
    let tail = Tail::default();
    let closed = Arc::new(AtomicBool::new(false));
    let (open, ended_reading) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        output::reader(out, masks.clone(), tail.clone(), closed.clone(), open.clone());
    }
    if let Some(err) = child.stderr.take() {
        output::reader(err, masks, tail.clone(), closed.clone(), open.clone());
    }
    drop(open);
    let ended = wait(&mut child, job.deadline, abandoned, &ended_reading)?;
    // Nothing is ever sent: this ends when both readers have, or when we no longer wait for them.
    let _ = ended_reading.recv_timeout(LAST_WORDS);
    closed.store(true, Ordering::SeqCst);
    Ok(Outcome { ended, last_lines: tail.take() })
}

/// Waits for its end. `reading` is cut when all of its output is closed.
fn wait(
    child: &mut Child,
    deadline: Duration,
    abandoned: &AtomicBool,
    reading: &mpsc::Receiver<()>,
) -> std::io::Result<Ended> {
    let begun = Instant::now();
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let mut pause = LAST_LOOK;
    let why = loop {
        if waitid(Id::Pid(pid), look)? != WaitStatus::StillAlive {
            break None;
        }
        if abandoned.load(Ordering::SeqCst) {
            break Some(Ended::Abandoned);
        }
        if begun.elapsed() >= deadline {
            break Some(Ended::Deadline);
        }
        match reading.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(LOOK);
            }
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
    };
    // Before it is reaped: until then its number, which is its group's, can be nobody else's. What it started ends too.
    // ESRCH would mean that nothing is left, which is what we want.
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait()?;
    Ok(why.unwrap_or(Ended::Itself(status)))
}

#[cfg(test)]
mod tests;
