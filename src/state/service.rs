//! One service: its states and what moves it from one to the next.

use super::mutant::{self, Mutant};
use super::{Action, Ending, GivenUp, Happened, Pid, Run, Then, Why};
use crate::plan::Plan;
use crate::spec::{Kind, Ready, ServiceName, ServiceSpec};
use std::collections::VecDeque;
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
    /// It runs and is ready.
    Ready {
        /// The run.
        run: Run,
        /// Its leader.
        pid: Pid,
        /// The last sign of life.
        alive: Instant,
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
    /// It ended well, as it was meant to.
    Done,
    /// Not wanted.
    Down(Why),
    /// It will not be tried again by itself.
    GaveUp(GivenUp),
}

/// One service with its history.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) spec: ServiceSpec,
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) attempt: u32,
    pub(super) starts: VecDeque<Instant>,
    pub(super) restarts: u64,
    pub(super) last: Option<Ending>,
    pub(super) forced: Forced,
}

/// Whether this service's last stop had to go beyond its first rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forced {
    No,
    Yes,
}

impl Service {
    pub(super) fn new(spec: ServiceSpec, installed: Installed, now: Instant) -> Service {
        let state = match installed {
            Installed::Yes => State::Waiting,
            Installed::No => State::Absent,
        };
        Service {
            spec,
            state,
            since: now,
            attempt: 0,
            starts: VecDeque::new(),
            restarts: 0,
            last: None,
            forced: Forced::No,
        }
    }

    /// Its file.
    #[must_use]
    pub fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Since when it is there.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How often it was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// How it last ended.
    #[must_use]
    pub fn last(&self) -> Option<&Ending> {
        self.last.as_ref()
    }

    /// The run that has, or may have, processes.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        match &self.state {
            State::Spawning { run, .. }
            | State::Starting { run, .. }
            | State::Ready { run, .. }
            | State::Stopping { run, .. }
            | State::Clearing { run, .. } => Some(*run),
            State::Waiting
            | State::Absent
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    /// The leader that lives, as far as we know.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match &self.state {
            State::Starting { pid, .. } | State::Ready { pid, .. } | State::Stopping { pid, .. } => {
                Some(*pid)
            }
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    pub(super) fn forced(&self) -> Forced {
        self.forced
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.spec.name
    }

    /// Whether what requires it may start.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, State::Ready { .. } | State::Done)
    }

    /// Whether it will not serve unless somebody does something: what comes merely after it need not wait.
    pub(super) fn is_without(&self) -> bool {
        matches!(self.state, State::Absent | State::GaveUp(_) | State::Down(_))
    }

    pub(super) fn set(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    /// When something is due by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { .. } => self.spec.start_deadline.and_then(|d| self.since.checked_add(d)),
            State::Ready { alive, .. } => self.spec.watchdog.and_then(|d| alive.checked_add(d)),
            State::Stopping { until, rung, .. } => (*rung <= self.spec.stop.rungs().len()).then_some(*until),
            State::Backoff { until, .. } => Some(*until),
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Clearing { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    /// What happened to a run of it. A run that is not the present one changes nothing.
    pub(super) fn happened(&mut self, run: Run, what: Happened, plan: &Plan, now: Instant) -> Vec<Action> {
        if self.run() != Some(run) && !mutant::is(Mutant::StaleEvents) {
            return Vec::new();
        }
        match what {
            Happened::Spawned(pid) => self.spawned(run, pid, plan, now),
            Happened::SpawnFailed(why) => {
                if let State::Spawning { stop, .. } = &self.state {
                    let then = stop.clone().unwrap_or(Then::Policy);
                    self.concluded(Ending::SpawnFailed(why), then, None, plan, now);
                }
                Vec::new()
            }
            Happened::Ready => {
                if let State::Starting { pid, .. } = self.state {
                    if mutant::is(Mutant::ReadinessForgives) {
                        self.starts.clear();
                    }
                    self.set(State::Ready { run, pid, alive: now }, now);
                }
                Vec::new()
            }
            Happened::Alive => {
                if let State::Ready { alive, .. } = &mut self.state {
                    *alive = now;
                }
                Vec::new()
            }
            Happened::Exited(ending) => self.exited(run, ending, now),
            Happened::DescentGone => {
                if let State::Clearing { ending, then, ready_for, .. } = &self.state {
                    let (ending, then, ready_for) = (ending.clone(), then.clone(), *ready_for);
                    self.concluded(ending, then, ready_for, plan, now);
                }
                Vec::new()
            }
        }
    }

    fn spawned(&mut self, run: Run, pid: Pid, plan: &Plan, now: Instant) -> Vec<Action> {
        let State::Spawning { stop, .. } = &self.state else { return Vec::new() };
        let stop = stop.clone();
        let started = matches!(self.spec.ready, Ready::Started) && matches!(self.spec.kind, Kind::Daemon);
        let state =
            if started { State::Ready { run, pid, alive: now } } else { State::Starting { run, pid } };
        self.set(state, now);
        match stop {
            None => Vec::new(),
            Some(Then::Held(Why::Fenced(why))) => self.fence(&why, now),
            Some(then) => self.stop(then, 0, plan, now),
        }
    }

    fn exited(&mut self, run: Run, ending: Ending, now: Instant) -> Vec<Action> {
        let (then, ready_for) = match &self.state {
            State::Starting { .. } => (Then::Policy, None),
            State::Ready { .. } => (Then::Policy, Some(now.saturating_duration_since(self.since))),
            State::Stopping { then, .. } => (then.clone(), None),
            // The answer to the spawn is on its way, but the end was faster; what was remembered still holds.
            State::Spawning { stop, .. } => (stop.clone().unwrap_or(Then::Policy), None),
            State::Waiting
            | State::Absent
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => return Vec::new(),
        };
        self.set(State::Clearing { run, ending, then, ready_for }, now);
        vec![Action::Clear { name: self.spec.name.clone(), run }]
    }

    pub(super) fn spawn(&mut self, run: Run, now: Instant) -> Action {
        // Not by `starts`, which forgets what is older than the policy's window.
        if self.last.is_some() {
            self.restarts += 1;
        }
        self.forced = Forced::No;
        self.starts.push_back(now);
        self.set(State::Spawning { run, stop: None }, now);
        Action::Spawn { name: self.spec.name.clone(), run }
    }
}

/// Whether a service's program is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It is.
    Yes,
    /// It is not.
    No,
}
