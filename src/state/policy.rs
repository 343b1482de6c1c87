//! What follows an end: done, again after a pause, or given up.

use super::ladder::end;
use super::mutant::{self, Mutant};
use super::{Action, End, Ending, GivenUp, Service, State, Then, Why};
use crate::plan::Plan;
use crate::spec::{GivesUp, Kind, When};
use std::time::{Duration, Instant};

/// A service that was ready for so long begins its attempts anew.
const STABLE: Duration = Duration::from_secs(60);

impl Service {
    /// Its descent is gone (or never was): what follows.
    pub(super) fn concluded(
        &mut self,
        ending: Ending,
        then: Then,
        ready_for: Option<Duration>,
        plan: &Plan,
        now: Instant,
    ) -> Vec<Action> {
        self.last = Some(ending.clone());
        match then {
            Then::Down(why) => self.set(State::Down(why), now),
            Then::Again(_) => self.anew(now),
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
            Then::Failed(why) => return self.failed(ending, Some(why), ready_for, plan, now),
            Then::Policy => {
                let well = ending == Ending::Exited(0);
                match (self.spec.kind, self.spec.restart.when, well) {
                    (Kind::Oneshot, When::Never | When::OnFailure, true)
                    | (Kind::Daemon, When::Never | When::OnFailure, true)
                    | (Kind::Oneshot, When::Always, true) => self.set(State::Done, now),
                    (Kind::Daemon, When::Always, true) | (Kind::Daemon | Kind::Oneshot, _, false) => {
                        return self.failed(ending, None, ready_for, plan, now);
                    }
                }
            }
        }
        Vec::new()
    }

    /// A service that has been well for long begins its attempts anew.
    pub(super) fn forgive(&mut self, ready_for: Option<Duration>, now: Instant) {
        if ready_for.is_some_and(|d| d >= STABLE) {
            self.attempt = 0;
            self.starts.clear();
            self.starts.push_back(now);
        }
    }

    pub(super) fn is_final(&self, ending: &Ending) -> bool {
        ending.code().is_some_and(|c| self.spec.restart.final_codes.contains(&c))
    }

    pub(super) fn again_or_give_up(
        &mut self,
        ending: Ending,
        why: Option<Why>,
        ready_for: Option<Duration>,
        plan: &Plan,
        now: Instant,
    ) {
        self.forgive(ready_for, now);
        let policy = &self.spec.restart;
        while self.starts.front().is_some_and(|t| now.saturating_duration_since(*t) > policy.window) {
            self.starts.pop_front();
        }
        let recent = u32::try_from(self.starts.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let spent = if self.is_final(&ending) {
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
    pub(super) fn delay(&self) -> Duration {
        let policy = &self.spec.restart;
        let doubled = policy.delay.saturating_mul(1u32.checked_shl(self.attempt.min(20)).unwrap_or(u32::MAX));
        let capped = doubled.min(policy.max_delay);
        let spread =
            self.spec.name.as_str().bytes().fold(self.attempt, |h, b| h.wrapping_mul(31) ^ u32::from(b))
                % 100;
        capped - capped * spread / 1_000
    }
}
