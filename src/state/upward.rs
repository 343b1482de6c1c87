//! The whole on its way up: who may start, and what keeps the others.

use super::machine::Machine;
use super::mutant::{self, Mutant};
use super::{Action, Run, Service, State};
use crate::spec::ServiceName;
use std::collections::BTreeSet;
use std::time::Instant;

impl Machine {
    /// What a waiting service waits for, in words; `None` when it waits for nothing.
    #[must_use]
    pub fn waits_for(&self, name: &ServiceName) -> Option<String> {
        let service = self.services.get(name)?;
        let State::Waiting = service.state() else { return None };
        let going =
            |n: &&ServiceName| self.leaving.contains_key(*n) && !mutant::is(Mutant::DependentsStartEarly);
        let get = |n: &&ServiceName| self.services.get(*n).filter(|_| !going(n));
        let missing: Vec<String> = service
            .spec()
            .requires
            .iter()
            .filter(|n| !get(n).is_some_and(Service::serves) && !mutant::is(Mutant::RequiresIgnored))
            .chain(
                service
                    .spec()
                    .after
                    .iter()
                    .filter(|n| !get(n).is_some_and(|s| s.serves() || s.lacks_room() || self.without(s))),
            )
            .map(|n| n.to_string())
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    pub(super) fn start(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        // A restart that is due asks again for what it requires: a held or failed one keeps it down like a first start.
        let unmet = |s: &Service| {
            let due = matches!(s.state(), State::Backoff { until, .. } if *until <= now);
            // What is to go is no ground any more.
            let serves = |n: &ServiceName| {
                !self.leaving.contains_key(n) && self.services.get(n).is_some_and(Service::serves)
            };
            due && self.may_start(s)
                && !s.spec().requires.iter().all(serves)
                && !mutant::is(Mutant::RequiresIgnoredOnRestart)
        };
        let unmet: Vec<ServiceName> =
            self.services().filter(|s| unmet(s)).map(|s| s.name().clone()).collect();
        for name in &unmet {
            if let Some(service) = self.services.get_mut(name) {
                service.set(State::Waiting, now);
            }
        }
        let due = |s: &Service| match s.state() {
            State::Waiting => self.may_start(s) && self.waits_for(s.name()).is_none(),
            State::Backoff { until, .. } => self.may_start(s) && *until <= now,
            State::Absent
            | State::Cramped(_)
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => false,
        };
        let due: Vec<ServiceName> = self.services().filter(|s| due(s)).map(|s| s.name().clone()).collect();
        for name in &due {
            if let Some(service) = self.services.get_mut(name) {
                self.runs += 1;
                actions.push(service.spawn(Run(self.runs), now));
            }
        }
        !due.is_empty() || !unmet.is_empty()
    }

    /// Whether this service will not come by itself: it gave up, is absent, or waits for one that will not come.
    fn without(&self, service: &Service) -> bool {
        // Each is looked at once: the ways through a graph are many more than its services.
        let mut seen = BTreeSet::new();
        let mut open = vec![service];
        while let Some(next) = open.pop() {
            if next.is_without() {
                return true;
            }
            if matches!(next.state(), State::Waiting) {
                let further = next.spec().requires.iter().filter_map(|n| self.services.get(n));
                open.extend(further.filter(|s| seen.insert(s.name())));
            }
        }
        false
    }

    /// Whether this service will not come by itself, for the status.
    #[must_use]
    pub fn is_blocked(&self, name: &ServiceName) -> bool {
        self.services.get(name).is_some_and(|s| self.without(s))
    }
}
