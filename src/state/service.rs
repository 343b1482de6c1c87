//! One service, and what moves it from one state to the next.

use super::mutant::{self, Mutant};
use super::states::{Before, Fitness, Held, Phase, State, Up};
use super::{Action, Ending, GivenUp, Happened, Pid, Run, Then, Why};
use crate::plan::Plan;
use crate::spec::{Kind, Ready, ServiceName, ServiceSpec};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
    pub(super) took: Option<Duration>,
    /// How often was looked for room.
    pub(super) looks: u64,
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
            took: None,
            looks: 0,
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

    /// Since when it is there: for one that has been ready, since it last became ready or unready, and for one that stands
    /// still, since then. What it stood is of neither.
    #[must_use]
    pub fn since(&self) -> Instant {
        match &self.state {
            State::Ready { up, .. } => up.turned,
            State::Frozen { at, .. } => *at,
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => self.since,
        }
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

    /// How long its last start took until it was ready (a oneshot: done).
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.took
    }

    /// The run that has, or may have, processes.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        match &self.state {
            State::Spawning { run, .. }
            | State::Starting { run, .. }
            | State::Ready { run, .. }
            | State::Frozen { run, .. }
            | State::Stopping { run, .. }
            | State::Clearing { run, .. } => Some(*run),
            State::Waiting
            | State::Absent
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    /// The leader that lives, as far as we know.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match &self.state {
            State::Starting { pid, .. }
            | State::Ready { pid, .. }
            | State::Frozen { pid, .. }
            | State::Stopping { pid, .. } => Some(*pid),
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    /// Whether anything of it lives, or may.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.state.phase() {
            Phase::Resting => false,
            Phase::Clearing => !mutant::is(Mutant::EndsWhileClearing),
            Phase::Spawning | Phase::Running | Phase::Stopping => true,
        }
    }

    /// What giving up meant, when it has.
    #[must_use]
    pub fn given_up(&self) -> Option<&GivenUp> {
        if let State::GaveUp(given) = &self.state { Some(given) } else { None }
    }

    pub(super) fn no_force(&mut self) {
        self.forced = Forced::No;
    }

    pub(super) fn forced(&self) -> Forced {
        self.forced
    }

    pub(super) fn name(&self) -> &ServiceName {
        &self.spec.name
    }

    /// Whether what requires it may start.
    pub(super) fn serves(&self) -> bool {
        match &self.state {
            State::Ready { up, .. } => up.fitness == Fitness::Fit,
            State::Done => true,
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Down(_)
            | State::GaveUp(_) => false,
        }
    }

    /// Whether it will not serve unless somebody does something: what comes merely after it need not wait.
    pub(super) fn is_without(&self) -> bool {
        matches!(self.state, State::Absent | State::GaveUp(_) | State::Down(_))
    }

    /// Whether it waits for room: that may take days, and what comes merely after it need not.
    pub(super) fn lacks_room(&self) -> bool {
        matches!(&self.state, State::Cramped(cramped) if cramped.look.lack().is_some())
    }

    pub(super) fn set(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    /// When something is due by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting { .. } => self.spec.start_deadline.and_then(|d| self.since.checked_add(d)),
            State::Ready { up, .. } => {
                let watchdog = self.spec.watchdog.and_then(|d| up.alive.checked_add(d));
                [watchdog, up.proof].into_iter().flatten().min()
            }
            State::Stopping { until, rung, .. } => (*rung <= self.spec.stop.rungs().len()).then_some(*until),
            State::Backoff { until, .. } => Some(*until),
            State::Cramped(cramped) => Some(cramped.look.until()),
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Frozen { .. }
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
                let State::Spawning { stop, .. } = &self.state else { return Vec::new() };
                let then = stop.clone().unwrap_or(Then::Policy);
                self.concluded(Ending::SpawnFailed(why), then, None, plan, now)
            }
            Happened::Ready => {
                self.answered_ready(run, now);
                Vec::new()
            }
            Happened::Alive => {
                if let State::Ready { up, .. } = &mut self.state {
                    up.alive = now;
                }
                Vec::new()
            }
            Happened::Unready(why) => {
                self.unready(why, now);
                Vec::new()
            }
            Happened::Live => {
                if let State::Ready { up, .. } = &mut self.state {
                    up.silent = 0;
                }
                Vec::new()
            }
            Happened::NotLive(why) => self.not_live(why, plan, now),
            Happened::Frozen => {
                if let State::Frozen { held, .. } = &mut self.state {
                    *held = Held::Proved;
                }
                Vec::new()
            }
            // What becomes of these is decided over all services.
            Happened::Busy(_) | Happened::Quiesced => Vec::new(),
            Happened::Exited(ending) => self.exited(run, ending, now),
            Happened::DescentGone => {
                let State::Clearing { ending, then, ready_for, .. } = &self.state else { return Vec::new() };
                let (ending, then, ready_for) = (ending.clone(), then.clone(), *ready_for);
                self.concluded(ending, then, ready_for, plan, now)
            }
        }
    }

    fn spawned(&mut self, run: Run, pid: Pid, plan: &Plan, now: Instant) -> Vec<Action> {
        let State::Spawning { stop, .. } = &self.state else { return Vec::new() };
        let stop = stop.clone();
        let started = matches!(self.spec.ready, Ready::Started) && matches!(self.spec.kind, Kind::Daemon);
        let state = if started {
            self.took = Some(Duration::ZERO);
            State::Ready { run, pid, up: Up::new(now) }
        } else {
            State::Starting { run, pid }
        };
        self.set(state, now);
        match stop {
            None => Vec::new(),
            Some(Then::Held(Why::Fenced(why))) => self.fence(&why, now),
            Some(then) => self.stop(then, 0, plan, now),
        }
    }

    /// Its deadline comes later.
    pub(super) fn postpone(&mut self, by: Duration) {
        match &mut self.state {
            State::Starting { .. } => self.since += by,
            State::Ready { up, .. } => {
                up.alive += by;
                up.proof = up.proof.map(|at| at + by);
            }
            State::Stopping { until, .. } => {
                *until += by;
                self.since += by;
            }
            State::Cramped(cramped) => cramped.look.postpone(by),
            // A thaw moves what stands by all the time that it stood.
            State::Frozen { .. }
            | State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => {}
        }
    }

    /// Whether the run has been ready, and for how long.
    pub(super) fn ready_for(&self, now: Instant) -> Option<Duration> {
        match &self.state {
            State::Ready { .. } => Some(now.saturating_duration_since(self.since)),
            // What it stood still does not count.
            State::Frozen { at, before: Before::Ready(_), .. } => {
                Some(at.saturating_duration_since(self.since))
            }
            State::Stopping { ready_for, .. } | State::Clearing { ready_for, .. } => *ready_for,
            State::Frozen { before: Before::Starting, .. }
            | State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        }
    }

    fn exited(&mut self, run: Run, ending: Ending, now: Instant) -> Vec<Action> {
        let ready_for = self.ready_for(now);
        let then = match &self.state {
            State::Starting { .. } | State::Ready { .. } | State::Frozen { .. } => Then::Policy,
            State::Stopping { then, .. } => then.clone(),
            // The answer to the spawn is on its way, but the end was faster; what was remembered still holds.
            State::Spawning { stop, .. } => stop.clone().unwrap_or(Then::Policy),
            State::Waiting
            | State::Absent
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => return Vec::new(),
        };
        let done = self.spec.kind == Kind::Oneshot && ending == Ending::Exited(0);
        if done && matches!(self.state, State::Starting { .. }) {
            self.took = Some(now.saturating_duration_since(self.since));
        }
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
