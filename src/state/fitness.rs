//! The answers of a service to the questions whether it is ready and whether it lives.

use super::mutant::{self, Mutant};
use super::states::{Fitness, State, Up};
use super::{Action, Run, Service, Then, Why};
use crate::plan::Plan;
use crate::spec::Ready;
use std::time::Instant;

impl Service {
    pub(super) fn answered_ready(&mut self, run: Run, now: Instant) {
        match &mut self.state {
            State::Starting { pid, .. } => {
                let pid = *pid;
                if mutant::is(Mutant::ReadinessForgives) {
                    self.starts.clear();
                }
                // What it stood still does not count: a thaw moves `since`.
                self.took = Some(now.saturating_duration_since(self.since));
                self.set(State::Ready { run, pid, up: Up::new(now) }, now);
            }
            State::Ready { up, .. } => {
                up.unready = 0;
                up.turn(Fitness::Fit, now);
            }
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => {}
        }
    }

    /// Red is said, and restarts nothing: most often it is red because something that it needs is.
    pub(super) fn unready(&mut self, why: String, now: Instant) {
        let Ready::Probe(probe) = &self.spec.ready else { return };
        if let State::Ready { up, .. } = &mut self.state {
            up.unready = up.unready.saturating_add(1);
            if up.unready >= probe.failures {
                up.turn(Fitness::Unfit(why), now);
            }
        }
    }

    pub(super) fn not_live(&mut self, why: String, plan: &Plan, now: Instant) -> Vec<Action> {
        let Some(live) = &self.spec.live else { return Vec::new() };
        let gracious = now.saturating_duration_since(self.since) < live.grace;
        let State::Ready { up, .. } = &mut self.state else { return Vec::new() };
        if gracious {
            return Vec::new();
        }
        up.silent = up.silent.saturating_add(1);
        if up.silent < live.probe.failures {
            return Vec::new();
        }
        self.stop(Then::Failed(Why::NotLive(why)), 0, plan, now)
    }
}
