//! A service on its way down: rungs, hurry, SIGKILL, the fence.

use super::mutant::{self, Mutant};
use super::service::Forced;
use super::{Action, End, Ending, GivenUp, Pid, Run, Service, State, Then, Why};
use crate::plan::Plan;
use crate::spec::GivesUp;
use std::time::Instant;

impl Service {
    /// Begins the way down, at rung `rung` of the ladder.
    pub(super) fn stop(&mut self, then: Then, rung: usize, plan: &Plan, now: Instant) -> Vec<Action> {
        match &mut self.state {
            State::Spawning { stop, .. } => {
                if !matches!(stop, Some(Then::Held(_))) {
                    *stop = Some(then);
                }
                Vec::new()
            }
            State::Starting { run, pid } | State::Ready { run, pid, .. } => {
                let (run, pid) = (*run, *pid);
                self.stop_running(run, pid, then, rung, plan, now)
            }
            State::Frozen { run, pid, .. } => {
                let (run, pid) = (*run, *pid);
                let mut actions = vec![Action::Thaw { name: self.spec.name.clone(), run }];
                actions.extend(self.stop_running(run, pid, then, rung, plan, now));
                actions
            }
            State::Stopping { then: former, .. } | State::Clearing { then: former, .. } => {
                // A stop for good outranks a restart, and being held outranks both.
                if !matches!(former, Then::Held(_)) {
                    *former = then;
                }
                Vec::new()
            }
            State::Waiting | State::Backoff { .. } | State::Cramped(_) => {
                self.settle(then, now);
                Vec::new()
            }
            State::Absent | State::Done | State::Down(_) | State::GaveUp(_) => Vec::new(),
        }
    }

    fn stop_running(
        &mut self,
        run: Run,
        pid: Pid,
        then: Then,
        rung: usize,
        plan: &Plan,
        now: Instant,
    ) -> Vec<Action> {
        let ready_for = self.ready_for(now);
        self.set(State::Stopping { run, pid, rung, until: now, then, ready_for }, now);
        self.forced = if self.spec.stop.forces(rung) { Forced::Yes } else { Forced::No };
        self.on_rung(plan, now)
    }

    pub(super) fn settle(&mut self, then: Then, now: Instant) {
        match then {
            Then::Down(why) => self.set(State::Down(why), now),
            Then::Again(_) => self.anew(now),
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

    /// Wanted again, with all its attempts.
    pub(super) fn anew(&mut self, now: Instant) {
        self.attempt = 0;
        self.starts.clear();
        self.set(State::Waiting, now);
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
        let end = self.spec.stop.rungs().len();
        let State::Stopping { rung, .. } = &mut self.state else { return Vec::new() };
        if *rung > end {
            return Vec::new();
        }
        if !mutant::is(Mutant::RungStays) {
            *rung += 1;
        }
        if self.spec.stop.forces(*rung) {
            self.forced = Forced::Yes;
        }
        self.on_rung(plan, now)
    }

    /// SIGKILL for everything of it, whatever the ladder.
    pub(super) fn kill(&mut self) -> Vec<Action> {
        let last = self.spec.stop.rungs().len() + 1;
        let State::Stopping { rung, run, .. } = &mut self.state else { return Vec::new() };
        if *rung >= last {
            return Vec::new();
        }
        *rung = last;
        self.forced = Forced::Yes;
        vec![Action::Kill { name: self.spec.name.clone(), run: *run }]
    }

    /// Freeze and kill, no ladder; then held.
    pub(super) fn fence(&mut self, why: &str, now: Instant) -> Vec<Action> {
        let then = Then::Held(Why::Fenced(why.to_owned()));
        match &mut self.state {
            State::Starting { run, pid }
            | State::Ready { run, pid, .. }
            | State::Frozen { run, pid, .. }
            | State::Stopping { run, pid, .. } => {
                let (run, pid, rung) = (*run, *pid, self.spec.stop.rungs().len() + 1);
                let ready_for = self.ready_for(now);
                self.set(State::Stopping { run, pid, rung, until: now, then, ready_for }, now);
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
            State::Waiting | State::Backoff { .. } | State::Cramped(_) | State::Done | State::GaveUp(_) => {
                self.settle(then, now);
                Vec::new()
            }
            // Nothing of it lives; whether somebody may start it again is decided over all services.
            State::Absent | State::Down(_) => Vec::new(),
        }
    }
}

pub(super) fn end(why: &Why) -> End {
    match why {
        Why::Fenced(_) => End::Fenced,
        Why::Asked(_)
        | Why::GaveUp(_)
        | Why::NeverReady
        | Why::Watchdog
        | Why::NotLive(_)
        | Why::AfterOutage(_) => End::Mendable,
    }
}
