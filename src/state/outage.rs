//! A service that was out for long, and those who do not find back to it by themselves: some wait longer after every
//! failure, and stay away for half a minute after the other has returned (`after_outage`).

use super::machine::Machine;
use super::states::{Fitness, State};
use super::{Action, Then, Why};
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
    pub(super) fn outages(&mut self, now: Instant) {
        let watched: Vec<_> =
            self.services.values().filter_map(|s| Some(s.spec.after_outage.as_ref()?.of.clone())).collect();
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
