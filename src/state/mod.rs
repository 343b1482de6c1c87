//! The life of the services, and of the whole: what happened goes in, what to do comes out.
//!
//! ```text
//!  Waiting ─► Spawning ─► Starting ─► Ready          Stopping ─► Clearing ─► Backoff | Done | Down | GaveUp
//!     ▲           │           │         │  (exit, deadline, stop, fence)          │
//!     └───────────┴───────────┴─────────┴──────────────────────────────────────── ┘
//! ```
//!
//! A service that names the room that it needs goes from `Clearing` to `Cramped` when it has failed, and from there to what
//! its policy says, or, while there is too little, waits there (`room.rs`).
//!
//! Everything may be frozen: what runs stands in `Frozen` with all its deadlines, and goes on from there when it is thawed.
//!
//! Pure and total: no clock, no process, no file. One task owns the [`Machine`] and feeds it one stream of events; a
//! late event of a former process can change nothing, because every process has a [`Run`] number. A service is never
//! said to be down before its whole descent is proved gone (`Clearing` ends by [`Happened::DescentGone`] alone), and
//! never started again before that: a new postmaster must not meet old backends.

mod downward;
mod due;
mod fitness;
mod freezing;
mod ladder;
mod machine;
mod mutant;
mod outage;
mod policy;
mod room;
mod service;
mod single;
mod states;
#[cfg(test)]
mod tests;
mod upward;

pub use freezing::Stage;
pub use machine::{Answer, Cause, Event, Machine, Whole};
pub use room::{Cramped, Found, Lack, Look, Seen};
pub use service::{Installed, Service};
pub use single::Dependents;
pub use states::{Before, Fitness, Held, Phase, State, Told, Up};

use crate::spec::{GivesUp, ServiceName};
use nix::sys::signal::Signal;
use std::fmt;

/// Identity of one process of a service. Pids are reused; runs are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Run(pub u64);

/// A process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Pid(pub i32);

/// Whether a core was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// It was.
    Dumped,
    /// It was not.
    None,
}

/// The signal that ended a process. Not every one has a name: realtime signals are counted from SIGRTMIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killer(pub i32);

/// The first realtime signal that a C library leaves to programs (signal(7)).
const SIGRTMIN: i32 = 34;

impl fmt::Display for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => write!(f, "{signal}"),
            Err(_) if self.0 >= SIGRTMIN => write!(f, "SIGRTMIN+{}", self.0 - SIGRTMIN),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// How a process ended, as what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited.
    Exited(u8),
    /// A signal killed it.
    Signaled {
        /// Which.
        signal: Killer,
        /// And whether it left a core.
        core: Core,
    },
    /// The kernel killed it for memory.
    OomKilled,
    /// It never ran; what the system said.
    SpawnFailed(String),
}

impl Ending {
    /// The exit code, when it exited by itself.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        match self {
            Ending::Exited(code) => Some(*code),
            Ending::Signaled { .. } | Ending::OomKilled | Ending::SpawnFailed(_) => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exit {code}"),
            Ending::Signaled { signal, core: Core::Dumped } => write!(f, "{signal}, core dumped"),
            Ending::Signaled { signal, core: Core::None } => write!(f, "{signal}"),
            Ending::OomKilled => f.write_str("OOM killed"),
            Ending::SpawnFailed(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// Why a service, or the whole, goes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A signal to the supervisor or a request.
    Asked(String),
    /// Another service gave up and takes everything with it.
    GaveUp(ServiceName),
    /// It was not ready within its start deadline.
    NeverReady,
    /// It stopped saying that it is alive.
    Watchdog,
    /// It was asked whether it lives, and did not answer well; the last answer.
    NotLive(String),
    /// It did not come back after the outage of another service.
    AfterOutage(ServiceName),
    /// It was fenced; the words are those of the service that asked for it.
    Fenced(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Asked(by) => f.write_str(by),
            Why::GaveUp(name) => write!(f, "{name} gave up"),
            Why::NeverReady => f.write_str("not ready within its start deadline"),
            Why::NotLive(answer) => write!(f, "not live: {answer}"),
            Why::AfterOutage(of) => write!(f, "not ready again after the outage of {of}"),
            Why::Watchdog => f.write_str("hung: no sign of life within its watchdog time"),
            Why::Fenced(why) => write!(f, "fenced: {why}"),
        }
    }
}

/// What follows once a run's descent is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays down.
    Down(Why),
    /// It starts again as soon as it may, with all its attempts: somebody asked for that.
    Again(Why),
    /// The restart policy decides, by how it ended.
    Policy,
    /// It failed for a reason of ours, whatever its exit code: the restart policy decides as for a failure.
    Failed(Why),
    /// It is held.
    Held(Why),
}

/// What the supervisor is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process for this run; answer with [`Happened::Spawned`] or [`Happened::SpawnFailed`].
    Spawn {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Send a signal to the leader of this run (and SIGCONT after it).
    Signal {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
        /// What.
        signal: Signal,
    },
    /// Tell the leader of this run, which goes on, of another service's outage.
    Tell {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
        /// By what.
        signal: Signal,
    },
    /// Kill the whole descent of this run by SIGKILL, leader included.
    Kill {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// The leader has ended: kill what is left of its descent and answer with [`Happened::DescentGone`] when nothing is.
    Clear {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Look how much room there is for a start of this service (`room`); answer with [`Event::Looked`], soon or never.
    Look {
        /// For whom.
        name: ServiceName,
        /// Which of its looks.
        number: u64,
    },
    /// Stop the whole descent where it stands; answer with [`Happened::Frozen`] or [`Happened::Busy`].
    Freeze {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Let the whole descent go on.
    Thaw {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Ask this run to quiesce (SIGUSR1); it answers with [`Happened::Quiesced`].
    Quiesce {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Tell this run that everything goes on (SIGUSR2).
    Resume {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
    /// SIGSTOP the whole descent first, then SIGKILL it: no ladder, no drain.
    Fence {
        /// Whose.
        name: ServiceName,
        /// Its run.
        run: Run,
    },
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It runs.
    Spawned(Pid),
    /// It could not be started.
    SpawnFailed(String),
    /// It said that it is ready, or its probe did.
    Ready,
    /// It said that it is alive.
    Alive,
    /// It was asked whether it is still ready, and the answer is no.
    Unready(String),
    /// It was asked whether it lives, and the answer is yes.
    Live,
    /// It was asked whether it lives, and the answer is no.
    NotLive(String),
    /// Every process of its descent is proved to stand.
    Frozen,
    /// It cannot be frozen now, and why; nothing of it stands.
    Busy(String),
    /// It is ready to be frozen.
    Quiesced,
    /// Its leader ended.
    Exited(Ending),
    /// Nothing of its descent is left.
    DescentGone,
}

/// Whether what gave up may be tried again on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It may: the cause can be mended.
    Mendable,
    /// Not in this life of the supervisor: somebody else may be the writer now.
    Fenced,
}

/// What giving up means, with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// What kind of end it is: whether a request may try again.
    pub end: End,
    /// What follows for the others.
    pub how: GivesUp,
    /// How it last ended.
    pub last: Ending,
    /// In words.
    pub why: String,
}
