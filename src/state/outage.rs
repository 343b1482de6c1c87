//! A service that was out for long, and those who do not find back to it by themselves: some wait longer after every
//! failure, and stay away for half a minute after the other has returned (`after_outage`). And those who are told of it,
//! because they can let their clients wait meanwhile (`outage_signals`).

use super::machine::Machine;
use super::mutant::{self, Mutant};
use super::states::{Fitness, State, Told};
use super::{Action, Service, Then, Why};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What is known of a service whose outages matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It serves.
    Serving,
    /// It has served, and does not since then.
    Out(Instant),
}

impl Machine {
    /// Notes who serves and who does not; after an outage, those who must show that they are back get their time.
    pub(super) fn outages(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let of = |s: &Service| {
            let (back, told) = (s.spec.after_outage.as_ref(), s.spec.outage_signals.as_ref());
            [back.map(|rule| rule.of.clone()), told.map(|rule| rule.of.clone())]
        };
        let watched: BTreeSet<_> = self.services.values().flat_map(of).flatten().collect();
        for of in watched {
            let Some(service) = self.services.get(&of) else { continue };
            // Standing still is no outage: those who wait stand as well.
            if matches!(service.state(), State::Frozen { .. }) {
                continue;
            }
            match (self.seen.get(&of).copied(), service.serves()) {
                (Some(Seen::Serving), true) | (Some(Seen::Out(_)) | None, false) => {}
                (Some(Seen::Serving), false) => {
                    self.seen.insert(of, Seen::Out(now));
                }
                (None, true) => {
                    self.seen.insert(of, Seen::Serving);
                }
                (Some(Seen::Out(since)), true) => {
                    self.seen.insert(of.clone(), Seen::Serving);
                    self.returned(&of, now.saturating_duration_since(since), now);
                }
            }
        }
        self.tell(actions);
    }

    /// Tells those who are up and know something else; what comes of it is theirs. In a stop nobody waits for a return.
    fn tell(&mut self, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        for (name, service) in &mut self.services {
            let Some(rule) = service.spec.outage_signals.as_ref() else { continue };
            let State::Ready { run, up, .. } = &mut service.state else { continue };
            let (told, signal) = match self.seen.get(&rule.of) {
                Some(Seen::Out(_)) => (Told::Out, rule.begins),
                Some(Seen::Serving) | None => (Told::Serves, rule.ends),
            };
            if up.told == told || (told == Told::Serves && mutant::is(Mutant::OutageNeverEnds)) {
                continue;
            }
            up.told = told;
            // First of all: who is told to end may answer others badly from then on.
            actions.insert(0, Action::Tell { name: name.clone(), run: *run, signal });
        }
    }

    fn returned(&mut self, of: &crate::spec::ServiceName, out: Duration, now: Instant) {
        for service in self.services.values_mut() {
            let Some(rule) = service.spec.after_outage.clone() else { continue };
            if let State::Ready { up, .. } = &mut service.state
                && rule.of == *of
                && out > rule.longer_than
            {
                up.proof = Some(now + rule.ready_within);
            }
        }
    }

    /// The time after an outage is over: who is not back is started again.
    pub(super) fn overdue(&mut self, name: &crate::spec::ServiceName, now: Instant) -> Vec<Action> {
        let Some(service) = self.services.get_mut(name) else { return Vec::new() };
        let Some(rule) = service.spec.after_outage.clone() else { return Vec::new() };
        let State::Ready { up, .. } = &mut service.state else { return Vec::new() };
        up.proof = None;
        match &up.fitness {
            Fitness::Fit => Vec::new(),
            Fitness::Unfit(_) => service.stop(Then::Failed(Why::AfterOutage(rule.of)), 0, &self.plan, now),
        }
    }
}
