//! The whole on its way down: who may stop when, and how it ends.

use super::machine::{Cause, Machine, Whole};
use super::mutant::{self, Mutant};
use super::service::Forced;
use super::states::Phase;
use super::{Action, End, Service, State, Then, Why};
use crate::exit::Exit;
use crate::spec::ServiceName;
use std::time::Instant;

impl Machine {
    pub(super) fn go_down(
        &mut self,
        cause: &Cause,
        hurried: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> bool {
        let why = match cause {
            Cause::Asked(by) => Why::Asked(by.clone()),
            Cause::GaveUp { name, .. } => Why::GaveUp(name.clone()),
        };
        let may_stop = |s: &Service| {
            let waiting = matches!(s.state(), State::Waiting | State::Backoff { .. } | State::Cramped(_));
            let to_come = matches!(s.state(), State::Spawning { stop: None, .. });
            let up = to_come || s.state().phase() == Phase::Running;
            // What is on its way down for a restart must not come up again.
            let coming_back = s.state().then().is_some_and(|then| match then {
                Then::Policy | Then::Failed(_) | Then::Again(_) => true,
                Then::Down(_) | Then::Held(_) => false,
            });
            let free =
                !self.plan.dependents(s.name()).filter_map(|d| self.services.get(d)).any(Service::is_alive);
            waiting || coming_back || (up && (free || mutant::is(Mutant::NoStopOrder)))
        };
        let names: Vec<ServiceName> =
            self.services().filter(|s| may_stop(s)).map(|s| s.name().clone()).collect();
        for name in &names {
            if let Some(service) = self.services.get_mut(name) {
                // Hurry skips rungs, but nobody gets SIGKILL before any other signal: what comes late still ends in order.
                let last = service.spec().stop.rungs().len().saturating_sub(1);
                let rung = if mutant::is(Mutant::HurryKillsFirst) { hurried } else { hurried.min(last) };
                actions.extend(service.stop(Then::Down(why.clone()), rung, &self.plan, now));
            }
        }
        if !self.services.values().any(Service::is_alive) {
            self.whole = Whole::Ended(self.exit(cause));
            return true;
        }
        !names.is_empty()
    }

    fn exit(&self, cause: &Cause) -> Exit {
        match cause {
            _ if mutant::is(Mutant::AlwaysClean) => Exit::Clean,
            Cause::GaveUp { exit, .. } => *exit,
            Cause::Asked(_) => {
                // Another machine may be the writer: whatever ended in order, this was no wanted stop.
                let fenced = |s: &Service| s.given_up().is_some_and(|g| g.end == End::Fenced);
                if self.services.values().any(fenced) {
                    return Exit::Refused;
                }
                let forced = |s: &Service| matches!(s.state(), State::Down(_)) && s.forced() == Forced::Yes;
                if self.services.values().any(forced) {
                    return Exit::Forced;
                }
                let passed = self.services.values().find_map(|s| {
                    let code = s.last()?.code().filter(|c| *c != 0 && s.spec().pass_exit.contains(c))?;
                    matches!(s.state(), State::Down(_)).then_some(code)
                });
                passed.and_then(|c| Exit::from_code(i32::from(c))).unwrap_or(Exit::Clean)
            }
        }
    }
}
