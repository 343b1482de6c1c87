//! The states of a service. What exists only in a state is in its variant, so that nothing can be asked that is not there.

use super::{Cramped, Ending, GivenUp, Pid, Run, Then, Why};
use std::time::{Duration, Instant};

/// Where a service is. What exists only in a state is in its variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Wanted; what it waits for is not there yet.
    Waiting,
    /// Its program is not installed, and it need not be.
    Absent,
    /// A process was asked for, and there is no answer yet. A stop that comes meanwhile is remembered.
    Spawning {
        /// The run.
        run: Run,
        /// A stop that came meanwhile.
        stop: Option<Then>,
    },
    /// It runs and is not ready.
    Starting {
        /// The run.
        run: Run,
        /// Its leader.
        pid: Pid,
    },
    /// It runs and has been ready.
    Ready {
        /// The run.
        run: Run,
        /// Its leader.
        pid: Pid,
        /// How it is.
        up: Up,
    },
    /// It stands still, or is about to, with everything that it was in the middle of.
    Frozen {
        /// The run.
        run: Run,
        /// Its leader.
        pid: Pid,
        /// Since when.
        at: Instant,
        /// Whether that is proved.
        held: Held,
        /// What it goes on with.
        before: Before,
    },
    /// It is on its ladder down.
    Stopping {
        /// The run.
        run: Run,
        /// Its leader.
        pid: Pid,
        /// Which rung; one past the last is SIGKILL.
        rung: usize,
        /// When the next rung follows.
        until: Instant,
        /// What follows.
        then: Then,
        /// Whether the run had been ready, and how long.
        ready_for: Option<Duration>,
    },
    /// Its leader has ended; its descent is being killed and counted.
    Clearing {
        /// The run.
        run: Run,
        /// How the leader ended.
        ending: Ending,
        /// What follows.
        then: Then,
        /// Whether the run had been ready, and how long.
        ready_for: Option<Duration>,
    },
    /// It is started again at `until`.
    Backoff {
        /// When.
        until: Instant,
        /// How it last ended.
        last: Ending,
    },
    /// It has failed, and whether there is room for another start is being looked at, or there is too little.
    Cramped(Cramped),
    /// It ended well, as it was meant to.
    Done,
    /// Not wanted.
    Down(Why),
    /// It will not be tried again by itself.
    GaveUp(GivenUp),
}

/// A service that has been ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The last sign of life (`watchdog`).
    pub alive: Instant,
    /// Whether it is ready now.
    pub fitness: Fitness,
    /// Since when it is ready, or not ready any more.
    pub turned: Instant,
    /// Bad answers in a row to the question whether it is ready.
    pub unready: u32,
    /// Bad answers in a row to the question whether it lives.
    pub silent: u32,
    /// After an outage: when it must be ready again.
    pub proof: Option<Instant>,
    /// What it was told of the service whose outages it wants to know.
    pub told: Told,
}

/// What a service was told of another one (`outage_signals`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or that its outage is over.
    Serves,
    /// That it is out.
    Out,
}

impl Up {
    pub(super) fn new(now: Instant) -> Up {
        Up {
            alive: now,
            fitness: Fitness::Fit,
            turned: now,
            unready: 0,
            silent: 0,
            proof: None,
            told: Told::Serves,
        }
    }

    /// The newest reason counts, and the first moment.
    pub(super) fn turn(&mut self, fitness: Fitness, now: Instant) {
        if std::mem::discriminant(&self.fitness) != std::mem::discriminant(&fitness) {
            self.turned = now;
        }
        self.fitness = fitness;
    }
}

/// Whether a service that has been ready still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It is.
    Fit,
    /// It is not; the last answer.
    Unfit(String),
}

/// Whether a freeze is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Asked for.
    Asked,
    /// Every process of it stands.
    Proved,
}

/// What a frozen service goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It was not ready yet.
    Starting,
    /// It was ready.
    Ready(Up),
}

/// What of a service lives, for decisions that depend on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Resting,
    /// A process was asked for.
    Spawning,
    /// Its leader, and it is meant to.
    Running,
    /// Its leader, and it is on its way down.
    Stopping,
    /// Perhaps some of its descent.
    Clearing,
}

impl State {
    /// What follows the end that it is on its way to.
    pub(super) fn then(&self) -> Option<&Then> {
        match self {
            State::Spawning { stop, .. } => stop.as_ref(),
            State::Stopping { then, .. } | State::Clearing { then, .. } => Some(then),
            State::Waiting
            | State::Absent
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Frozen { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    /// What of it lives.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            State::Waiting
            | State::Absent
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => Phase::Resting,
            State::Spawning { .. } => Phase::Spawning,
            State::Starting { .. } | State::Ready { .. } | State::Frozen { .. } => Phase::Running,
            State::Stopping { .. } => Phase::Stopping,
            State::Clearing { .. } => Phase::Clearing,
        }
    }
}
