//! From a complete request to a running process that has exactly what the request says: session, signal state,
//! descriptors, limits, identity, directory and environment, and nothing else of ours.
//!
//! Between fork and exec only async-signal-safe calls are made, on memory prepared before. The order matters: what
//! needs privilege comes before the identity changes (groups, then gid, then uid, then the proof that there is no way
//! back), and the parent-death signal comes after it, because a change of uid clears it. A step that fails is named:
//! its number travels through a pipe of its own, since `std` hands on nothing but the errno.

mod child;

use child::{Prepared, STEPS};
use nix::sys::signal::Signal;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved uid.
    pub uid: u32,
    /// Real, effective and saved gid.
    pub gid: u32,
    /// Supplementary groups, without the run's own.
    pub groups: Vec<u32>,
}

/// Everything a new process gets.
#[derive(Clone)]
pub struct SpawnRequest {
    /// The program (absolute) and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; `/` when not said.
    pub directory: Option<PathBuf>,
    /// `None`: we may not change it.
    pub identity: Option<Identity>,
    /// The run's own supplementary group.
    pub tag: Option<u32>,
    /// Descriptors inherited under the same numbers (locks).
    pub keep: Vec<RawFd>,
    /// Soft and hard limit of open files.
    pub nofile: Option<(u64, u64)>,
    /// Soft and hard limit of a core dump in bytes; `u64::MAX` is none.
    pub core: Option<u64>,
    /// The capabilities that remain, one bit each (capabilities(7)); `None`: whatever the user has.
    pub capabilities: Option<u64>,
    /// Scheduling priority.
    pub nice: Option<i32>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The signal it gets when we die.
    pub parent_death: Option<Signal>,
}

impl std::fmt::Debug for SpawnRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(k, _)| k.as_str()).collect();
        f.debug_struct("SpawnRequest").field("argv", &self.argv).field("env", &names).finish_non_exhaustive()
    }
}

/// A process just started.
#[derive(Debug)]
pub struct Spawned {
    /// Its number; ours until it is reaped.
    pub pid: i32,
    /// The reading end of its stdout, nonblocking.
    pub stdout: OwnedFd,
    /// The reading end of its stderr, nonblocking.
    pub stderr: OwnedFd,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {source}")]
pub struct SpawnError {
    /// What was tried.
    pub step: &'static str,
    /// What the system said.
    pub source: std::io::Error,
}

pub(super) fn spawn(request: &SpawnRequest) -> Result<Spawned, SpawnError> {
    let failed = |step| move |source: std::io::Error| SpawnError { step, source };
    let Some(program) = request.argv.first() else {
        return Err(failed("run the program")(std::io::Error::other("there is no program to run")));
    };
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(std::io::Error::from);
    let (stdout, stdout_child) = pipe().map_err(failed("make a pipe for its stdout"))?;
    let (stderr, stderr_child) = pipe().map_err(failed("make a pipe for its stderr"))?;
    let (told, tell) = pipe().map_err(failed("make a pipe for its errors"))?;
    if let Some(who) = request.identity.as_ref().filter(|who| who.uid != nix::unistd::geteuid().as_raw()) {
        // A pipe belongs to who made it; without this a service could not open its own /dev/stderr. That is no reason
        // not to start it where we may change users and not owners.
        for fd in [&stdout_child, &stderr_child] {
            let (uid, gid) = (nix::unistd::Uid::from_raw(who.uid), nix::unistd::Gid::from_raw(who.gid));
            let _ = nix::unistd::fchown(fd, Some(uid), Some(gid));
        }
    }
    for fd in [&stdout, &stderr] {
        nonblocking(fd).map_err(failed("make its output nonblocking"))?;
    }
    // `std` makes the pipes, forks and hands the errno back; the exec is ours (see `Prepared::exec`).
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(stdout_child).stderr(stderr_child);
    let mut prepared = Prepared::new(request, tell.as_raw_fd()).map_err(failed("hand over its arguments"))?;
    #[allow(unsafe_code, reason = "what happens between fork and exec has no safe interface")]
    // SAFETY: the closure makes only async-signal-safe system calls on memory allocated before the fork; it neither
    // allocates nor locks, and on failure it only returns an errno.
    // JUSTIFICATION: groups, parent-death signal and session of a child can be set nowhere else.
    unsafe {
        command.pre_exec(move || prepared.become_the_service());
    }
    let spawned = command.spawn();
    drop(command);
    drop(tell);
    match spawned {
        Ok(child) => {
            let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
            // The handle is dropped, never waited on: `std` does neither kill nor wait then. The reaper owns the pid.
            drop(child);
            Ok(Spawned { pid, stdout, stderr })
        }
        Err(source) => {
            let mut step = [0_u8; 1];
            let told =
                nonblocking(&told).and_then(|()| std::fs::File::from(told).read(&mut step)).unwrap_or(0);
            let step = if told == 1 { usize::from(step[0]) } else { 0 };
            Err(SpawnError { step: STEPS.get(step).unwrap_or(&STEPS[0]), source })
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> std::io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).map_err(std::io::Error::from)
}

/// Hands a raw descriptor that was just received from the kernel to an owner.
#[allow(unsafe_code, reason = "a descriptor returned by a raw system call has no owner yet")]
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass a descriptor that the kernel returned to them in this very call.
    // JUSTIFICATION: `pidfd_open` is not in `nix`.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
