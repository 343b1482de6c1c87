//! One service: its states and what moves it from one to the next.

use super::mutant::{self, Mutant};
use super::{Action, End, Ending, GivenUp, Happened, Pid, Run, Then, Why};
use crate::plan::Plan;
use crate::spec::{GivesUp, Kind, Ready, ServiceName, ServiceSpec, When};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A service that was ready for so long begins its attempts anew.
const STABLE: Duration = Duration::from_secs(60);

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
    spec: ServiceSpec,
    state: State,
    since: Instant,
    attempt: u32,
    starts: VecDeque<Instant>,
    restarts: u64,
    last: Option<Ending>,
    forced: Forced,
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

    /// Begins the way down, at rung `rung` of the ladder.
    pub(super) fn stop(&mut self, then: Then, rung: usize, plan: &Plan, now: Instant) -> Vec<Action> {
        match &mut self.state {
            State::Spawning { stop, .. } => {
                *stop = Some(then);
                Vec::new()
            }
            State::Starting { run, pid } | State::Ready { run, pid, .. } => {
                let (run, pid) = (*run, *pid);
                self.set(State::Stopping { run, pid, rung, until: now, then }, now);
                self.forced = if rung > 0 { Forced::Yes } else { Forced::No };
                self.on_rung(plan, now)
            }
            State::Stopping { then: former, .. } | State::Clearing { then: former, .. } => {
                // A stop for good outranks a restart, and being held outranks both.
                if !matches!(former, Then::Held(_)) {
                    *former = then;
                }
                Vec::new()
            }
            State::Waiting | State::Backoff { .. } => {
                // Nothing is alive: a force used in a former run is none of this stop.
                if !mutant::is(Mutant::OldForceCounts) {
                    self.forced = Forced::No;
                }
                self.settle(then, now);
                Vec::new()
            }
            State::Absent | State::Done | State::Down(_) | State::GaveUp(_) => Vec::new(),
        }
    }

    fn settle(&mut self, then: Then, now: Instant) {
        match then {
            Then::Down(why) => self.set(State::Down(why), now),
            Then::Held(why) => {
                let last = self.last.clone().unwrap_or(Ending::Exited(0));
                self.set(
                    State::GaveUp(GivenUp { end: end(&why), how: GivesUp::Hold, last, why: why.to_string() }),
                    now,
                );
            }
            Then::Policy | Then::Failed(_) => {}
        }
    }

    /// Sends what the present rung says, and sets when the next one follows.
    fn on_rung(&mut self, plan: &Plan, now: Instant) -> Vec<Action> {
        let State::Stopping { run, rung, until, .. } = &mut self.state else { return Vec::new() };
        let (name, run) = (self.spec.name.clone(), *run);
        match (self.spec.stop.rungs().get(*rung), plan.rungs(&name).get(*rung)) {
            (Some(step), Some(length)) => {
                *until = now + *length;
                vec![Action::Signal { name, run, signal: step.signal }]
            }
            (Some(_), None) | (None, _) => {
                *rung = self.spec.stop.rungs().len() + 1;
                self.forced = Forced::Yes;
                if mutant::is(Mutant::NoKillAtTheEnd) {
                    return Vec::new();
                }
                vec![Action::Kill { name, run }]
            }
        }
    }

    /// The next rung, now: a deadline passed, or somebody is in a hurry.
    pub(super) fn next_rung(&mut self, plan: &Plan, now: Instant) -> Vec<Action> {
        match &mut self.state {
            State::Stopping { rung, .. } if *rung <= self.spec.stop.rungs().len() => {
                if !mutant::is(Mutant::RungStays) {
                    *rung += 1;
                }
                self.forced = Forced::Yes;
                self.on_rung(plan, now)
            }
            State::Stopping { .. }
            | State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => Vec::new(),
        }
    }

    /// SIGKILL for everything of it, whatever the ladder.
    pub(super) fn kill(&mut self) -> Vec<Action> {
        let last = self.spec.stop.rungs().len() + 1;
        match &mut self.state {
            State::Stopping { rung, run, .. } if *rung < last => {
                *rung = last;
                self.forced = Forced::Yes;
                vec![Action::Kill { name: self.spec.name.clone(), run: *run }]
            }
            State::Stopping { .. }
            | State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => Vec::new(),
        }
    }

    /// Freeze and kill, no ladder; then held.
    pub(super) fn fence(&mut self, why: &str, now: Instant) -> Vec<Action> {
        let then = Then::Held(Why::Fenced(why.to_owned()));
        match &mut self.state {
            State::Starting { run, pid }
            | State::Ready { run, pid, .. }
            | State::Stopping { run, pid, .. } => {
                let (run, pid, rung) = (*run, *pid, self.spec.stop.rungs().len() + 1);
                self.set(State::Stopping { run, pid, rung, until: now, then }, now);
                vec![Action::Fence { name: self.spec.name.clone(), run }]
            }
            State::Spawning { run, stop } => {
                if !mutant::is(Mutant::FenceLostWhileSpawning) {
                    *stop = Some(then);
                }
                vec![Action::Fence { name: self.spec.name.clone(), run: *run }]
            }
            State::Clearing { then: former, .. } => {
                *former = then;
                Vec::new()
            }
            State::Waiting | State::Backoff { .. } | State::Done | State::GaveUp(_) => {
                self.settle(then, now);
                Vec::new()
            }
            // Down is for good: there is nothing to fence, and how it went down must stay known.
            State::Absent | State::Down(_) => Vec::new(),
        }
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

    /// Its descent is gone (or never was): what follows.
    fn concluded(
        &mut self,
        ending: Ending,
        then: Then,
        ready_for: Option<Duration>,
        plan: &Plan,
        now: Instant,
    ) {
        self.last = Some(ending.clone());
        match then {
            Then::Down(why) => self.set(State::Down(why), now),
            Then::Held(why) => {
                self.set(
                    State::GaveUp(GivenUp {
                        end: end(&why),
                        how: GivesUp::Hold,
                        last: ending,
                        why: why.to_string(),
                    }),
                    now,
                );
            }
            Then::Failed(why) => self.again_or_give_up(ending, Some(why), ready_for, plan, now),
            Then::Policy => {
                let well = ending == Ending::Exited(0);
                match (self.spec.kind, self.spec.restart.when, well) {
                    (Kind::Oneshot, When::Never | When::OnFailure, true)
                    | (Kind::Daemon, When::Never | When::OnFailure, true) => self.set(State::Done, now),
                    (Kind::Oneshot, When::Always, true) => self.set(State::Done, now),
                    (Kind::Daemon, When::Always, true) | (Kind::Daemon | Kind::Oneshot, _, false) => {
                        self.again_or_give_up(ending, None, ready_for, plan, now);
                    }
                }
            }
        }
    }

    fn again_or_give_up(
        &mut self,
        ending: Ending,
        why: Option<Why>,
        ready_for: Option<Duration>,
        plan: &Plan,
        now: Instant,
    ) {
        let policy = &self.spec.restart;
        if ready_for.is_some_and(|d| d >= STABLE) {
            self.attempt = 0;
            self.starts.clear();
            self.starts.push_back(now);
        }
        while self.starts.front().is_some_and(|t| now.saturating_duration_since(*t) > policy.window) {
            self.starts.pop_front();
        }
        let recent = u32::try_from(self.starts.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let final_code = ending.code().is_some_and(|c| policy.final_codes.contains(&c));
        let spent = if final_code {
            Some(format!("{ending}, which is final"))
        } else if matches!(policy.when, When::Never) {
            Some(why.as_ref().map_or_else(|| ending.to_string(), |w| format!("{w} ({ending})")))
        } else if recent >= policy.max && !mutant::is(Mutant::UnlimitedAttempts) {
            let span = crate::spec::duration::show(policy.window);
            Some(format!("{} restarts within {span}, the last after: {ending}", policy.max))
        } else {
            None
        };
        if let Some(why) = spent {
            let how = plan.giving_up(&self.spec.gives_up, ending.code());
            self.set(State::GaveUp(GivenUp { end: End::Mendable, how, last: ending, why }), now);
            return;
        }
        let delay = if ready_for.is_some() && self.attempt == 0 { Duration::ZERO } else { self.delay() };
        self.attempt = self.attempt.saturating_add(1);
        self.set(State::Backoff { until: now + delay, last: ending }, now);
    }

    /// Exponential, capped, and a tenth shorter or not by the number of the attempt, so that two services that died
    /// together do not come back together for ever.
    fn delay(&self) -> Duration {
        let policy = &self.spec.restart;
        let doubled = policy.delay.saturating_mul(1u32.checked_shl(self.attempt.min(20)).unwrap_or(u32::MAX));
        let capped = doubled.min(policy.max_delay);
        let spread =
            self.spec.name.as_str().bytes().fold(self.attempt, |h, b| h.wrapping_mul(31) ^ u32::from(b))
                % 100;
        capped - capped * spread / 1_000
    }

    /// Tries again what was held or had given up, on request.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        match &self.state {
            State::GaveUp(GivenUp { end: End::Fenced, .. }) => false,
            State::GaveUp(GivenUp { end: End::Mendable, .. }) | State::Down(_) => {
                self.attempt = 0;
                self.starts.clear();
                self.set(State::Waiting, now);
                true
            }
            State::Backoff { .. } => {
                let State::Backoff { until, .. } = &mut self.state else { return false };
                *until = now;
                true
            }
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Done => false,
        }
    }
}

fn end(why: &Why) -> End {
    match why {
        Why::Fenced(_) => End::Fenced,
        Why::Asked(_) | Why::GaveUp(_) | Why::NeverReady | Why::Watchdog => End::Mendable,
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
