//! Runs the engine: a process group of its own, a deadline of ours, every line of its output in our log.
//!
//! WAL-G has no total time-out and does not end on SIGTERM while it sleeps between retries (`facts/walg.md` 5), so the
//! way to end it is SIGKILL to its whole group: at the deadline, and when nobody waits for it any more.

use crate::config::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many of the last lines are kept for the error.
const KEPT: usize = 20;
/// A longer line of the engine's is cut.
const LONGEST_LINE: u64 = 8 << 10;
/// How often a running engine is looked at.
const LOOK: Duration = Duration::from_millis(50);

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
    let masks: Vec<String> = secrets(&job.environment);
    let lines = Arc::new(Mutex::new(VecDeque::new()));
    let readers = [
        child.stdout.take().map(|out| reader(out, masks.clone(), lines.clone())),
        child.stderr.take().map(|err| reader(err, masks, lines.clone())),
    ];
    let ended = wait(&mut child, job.deadline, abandoned)?;
    // A grandchild may hold the pipes; the group is gone by now, so the readers end.
    kill_group(&child);
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let last_lines = lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    Ok(Outcome { ended, last_lines })
}

fn wait(child: &mut Child, deadline: Duration, abandoned: &AtomicBool) -> std::io::Result<Ended> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Itself(status));
        }
        let ended = if abandoned.load(Ordering::SeqCst) {
            Some(Ended::Abandoned)
        } else if begun.elapsed() >= deadline {
            Some(Ended::Deadline)
        } else {
            None
        };
        if let Some(ended) = ended {
            kill_group(child);
            child.wait()?;
            return Ok(ended);
        }
        std::thread::park_timeout(LOOK);
    }
}

fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // ESRCH: nothing of it is left, which is what we want.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Values that must not reach the log: whatever came from a credential and is long enough to be one.
fn secrets(environment: &[(String, Secret)]) -> Vec<String> {
    let secret = |name: &str| name.contains("SECRET") || name.contains("TOKEN") || name.contains("KEY");
    let values = environment.iter().filter(|(name, _)| secret(name)).map(|(_, v)| v.reveal());
    values.filter(|v| v.len() >= 8).map(str::to_owned).collect()
}

fn reader(
    from: impl Read + Send + 'static,
    masks: Vec<String>,
    lines: Arc<Mutex<VecDeque<String>>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
            for mask in &masks {
                text = text.replace(mask, "(secret)");
            }
            tracing::info!(target: "engine", "{text}");
            let mut kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(text);
        }
    })
}
