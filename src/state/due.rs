//! What follows from time alone, and from a service that gives up and takes everything with it.

use super::machine::{Cause, Machine, Whole};
use super::states::{Phase, State};
use super::{Action, Service, Then, Why};
use crate::exit::Exit;
use crate::spec::{GivesUp, ServiceName};
use std::time::Instant;

impl Machine {
    pub(super) fn deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        let mut moved = false;
        if let Whole::Stopping { since, .. } = self.whole
            && now.saturating_duration_since(since) >= self.plan.last_call()
        {
            for service in self.services.values_mut() {
                // Whoever has not even begun to stop by now begins with the end.
                let last = service.spec().stop.rungs().len() + 1;
                let why = Then::Down(Why::Asked("the stop budget is spent".to_owned()));
                if service.state().phase() == Phase::Running {
                    actions.extend(service.stop(why, last, &self.plan, now));
                }
                actions.extend(service.kill());
            }
        }
        let due = |s: &&Service| s.deadline().is_some_and(|d| d <= now);
        let due: Vec<ServiceName> = self.services.values().filter(due).map(|s| s.name().clone()).collect();
        for name in due {
            let Some(service) = self.services.get_mut(&name) else { continue };
            match service.state().clone() {
                State::Starting { .. } => {
                    actions.extend(service.stop(Then::Failed(Why::NeverReady), 0, &self.plan, now));
                }
                State::Ready { up, .. } if up.proof.is_some_and(|by| by <= now) => {
                    actions.extend(self.overdue(&name, now));
                }
                State::Ready { .. } => {
                    actions.extend(service.stop(Then::Failed(Why::Watchdog), 0, &self.plan, now));
                }
                State::Stopping { .. } => actions.extend(service.next_rung(&self.plan, now)),
                State::Cramped(_) => {
                    // Nothing is started before the thaw, so nothing is looked at before it.
                    if !self.services.get(&name).is_some_and(|s| self.may_start(s)) {
                        continue;
                    }
                    let Some(service) = self.services.get_mut(&name) else { continue };
                    actions.extend(service.look_due(&self.plan, now));
                }
                // Whether a restart is due is for `advance`, which knows whether the whole is up.
                State::Backoff { .. }
                | State::Waiting
                | State::Absent
                | State::Spawning { .. }
                | State::Frozen { .. }
                | State::Clearing { .. }
                | State::Done
                | State::Down(_)
                | State::GaveUp(_) => continue,
            }
            moved = true;
        }
        moved
    }

    /// A service that gave up and takes the whole with it.
    pub(super) fn give_up(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        if self.is_stopping() {
            return false;
        }
        let fatal = self.services.values().find_map(|s| match s.given_up() {
            Some(given) if given.how == GivesUp::StopAll => Some((s, given)),
            Some(_) | None => None,
        });
        let Some((service, given)) = fatal else { return false };
        let passed = given.last.code().filter(|c| service.spec().pass_exit.contains(c));
        let exit = passed.and_then(|c| Exit::from_code(i32::from(c))).unwrap_or(Exit::GaveUp);
        let cause = Cause::GaveUp { name: service.name().clone(), why: given.why.clone(), exit };
        self.begin_to_stop(cause, now, actions);
        true
    }
}
