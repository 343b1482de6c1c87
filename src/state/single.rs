//! One service started, stopped or started again by somebody's wish. Every wish gets an answer; a stop that would pull
//! the ground from under others is refused by their names, unless they are to stop too: then they go first.

use super::machine::{Answer, Machine, Whole};
use super::mutant::{self, Mutant};
use super::states::Phase;
use super::{Action, End, Ending, GivenUp, State, Then, Why};
use crate::spec::{Kind, ServiceName};
use std::collections::BTreeSet;
use std::time::Instant;

/// What becomes of those who come after the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// If one is active, nothing is done.
    Keep,
    /// They stop before it (and start again after it, when it does).
    Too,
}

impl Machine {
    pub(super) fn stop_one(&mut self, name: &ServiceName, dependents: Dependents, by: &str) -> Answer {
        if let Some(refused) = self.not_now(name) {
            return refused;
        }
        let Some(service) = self.services.get(name) else { return unknown(name) };
        match service.state() {
            State::Absent => return Answer::Nothing(format!("`{name}` is not installed")),
            State::Done => return Answer::Nothing(format!("`{name}` is done: nothing of it runs")),
            State::Down(_) | State::GaveUp(_) => {
                return Answer::Nothing(format!("`{name}` is down already"));
            }
            State::Waiting
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_) => {}
        }
        self.leave(name, dependents, &Then::Down(Why::Asked(format!("asked by {by}"))))
    }

    pub(super) fn restart_one(
        &mut self,
        name: &ServiceName,
        dependents: Dependents,
        by: &str,
        now: Instant,
    ) -> Answer {
        if let Some(refused) = self.not_now(name) {
            return refused;
        }
        let Some(service) = self.services.get(name) else { return unknown(name) };
        let again = Then::Again(Why::Asked(format!("asked by {by}")));
        match (service.state(), service.spec().kind) {
            // What was done once, others stand on.
            (State::Done, Kind::Oneshot) => match dependents {
                Dependents::Keep => {
                    if let Some(refused) = self.stands_under_others(name) {
                        return refused;
                    }
                    self.start_one(name, Again::EvenDone, now)
                }
                Dependents::Too => self.leave(name, dependents, &again),
            },
            (State::Done, Kind::Daemon)
            | (
                State::Waiting
                | State::Absent
                | State::Backoff { .. }
                | State::Cramped(_)
                | State::Down(_)
                | State::GaveUp(_),
                _,
            ) => self.start_one(name, Again::EvenDone, now),
            // A restart of a dependency restarts no dependent, unless that is wished.
            (
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Frozen { .. }
                | State::Stopping { .. }
                | State::Clearing { .. },
                _,
            ) => match dependents {
                Dependents::Too => self.leave(name, dependents, &again),
                Dependents::Keep => {
                    self.leaving.insert(name.clone(), again);
                    Answer::Accepted
                }
            },
        }
    }

    pub(super) fn start_one(&mut self, name: &ServiceName, again: Again, now: Instant) -> Answer {
        if let Some(refused) = self.not_now(name) {
            return refused;
        }
        let waits = self.waits_for(name).unwrap_or_default();
        let called_off = self.leaving.remove(name).is_some();
        let Some(service) = self.services.get_mut(name) else { return unknown(name) };
        match &mut service.state {
            State::Absent => {
                let why = service.spec.lacks();
                Answer::Rejected(format!(
                    "`{name}` is absent: {why}; this is looked at when everything starts"
                ))
            }
            State::Waiting if waits.is_empty() => Answer::Nothing(format!("`{name}` is about to start")),
            State::Waiting => Answer::Nothing(format!("`{name}` waits for {waits}")),
            State::Spawning { stop: stop @ Some(_), .. } => {
                if let Some(Then::Held(why)) = stop {
                    return held(name, &why.to_string());
                }
                *stop = None;
                Answer::Accepted
            }
            State::Spawning { stop: None, .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Frozen { .. } => match called_off {
                true => Answer::Accepted,
                false => Answer::Nothing(format!("`{name}` runs already")),
            },
            State::Clearing { then: Then::Policy, ending: Ending::Exited(0), .. }
                if service.spec.kind == Kind::Oneshot =>
            {
                Answer::Nothing(format!("`{name}` is done; `restart` would run it again"))
            }
            State::Stopping { then, .. } | State::Clearing { then, .. } => match then {
                Then::Held(why) => held(name, &why.to_string()),
                // Its policy might as well give up now.
                Then::Down(why) | Then::Failed(why) => {
                    *then = Then::Again(why.clone());
                    Answer::Accepted
                }
                Then::Policy => {
                    *then = Then::Again(Why::Asked("asked to start".to_owned()));
                    Answer::Accepted
                }
                Then::Again(_) => {
                    Answer::Nothing(format!("`{name}` is on its way down and will be started again"))
                }
            },
            State::Done if again == Again::OnlyFailed => {
                Answer::Nothing(format!("`{name}` is done; `restart` would run it again"))
            }
            State::GaveUp(GivenUp { end: End::Fenced, why, .. }) => held(name, why),
            State::Done
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Down(_)
            | State::GaveUp(GivenUp { end: End::Mendable, .. }) => {
                service.anew(now);
                Answer::Accepted
            }
        }
    }

    /// This service, and with it those who come after it, are to go; `then` follows for each.
    fn leave(&mut self, name: &ServiceName, dependents: Dependents, then: &Then) -> Answer {
        match dependents {
            Dependents::Keep => {
                if let Some(refused) = self.stands_under_others(name) {
                    return refused;
                }
            }
            Dependents::Too => {
                for other in self.active_dependents(name) {
                    self.leaving.insert(other, then.clone());
                }
            }
        }
        self.leaving.insert(name.clone(), then.clone());
        Answer::Accepted
    }

    fn stands_under_others(&self, name: &ServiceName) -> Option<Answer> {
        let active = self.active_dependents(name);
        if active.is_empty() || mutant::is(Mutant::StopPullsTheGround) {
            return None;
        }
        let names: Vec<String> = active.iter().map(|n| format!("`{n}`")).collect();
        let verb = if active.len() == 1 { "runs and comes" } else { "run and come" };
        Some(Answer::Rejected(format!(
            "{} {verb} after `{name}`: stop that first, or add --with-dependents",
            names.join(", ")
        )))
    }

    /// Everybody who comes after this service, directly or by others who live, and of whom something lives.
    fn active_dependents(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = BTreeSet::new();
        let mut open = vec![name.clone()];
        while let Some(next) = open.pop() {
            for dependent in self.plan.dependents(&next) {
                let lives = self.services.get(dependent).is_some_and(|s| s.state().phase() != Phase::Resting);
                if lives && found.insert(dependent.clone()) {
                    open.push(dependent.clone());
                }
            }
        }
        found
    }

    /// Whoever is to go goes as soon as nobody who comes after it is still to go.
    pub(super) fn leavers(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        let mut moved = false;
        for (name, then) in self.leaving.clone() {
            let last = !self.plan.dependents(&name).any(|d| self.leaving.contains_key(d));
            let Some(service) = self.services.get_mut(&name) else { continue };
            match service.state().phase() {
                Phase::Resting => {
                    if !last {
                        continue;
                    }
                    match (&then, service.state()) {
                        // It may have ended by itself meanwhile; the wish stands, but no fence is undone.
                        (Then::Again(_), State::Done | State::Down(_))
                        | (Then::Again(_), State::GaveUp(GivenUp { end: End::Mendable, .. })) => {
                            service.anew(now);
                        }
                        _ => actions.extend(service.stop(then, 0, &self.plan, now)),
                    }
                    self.leaving.remove(&name);
                    moved = true;
                }
                Phase::Spawning | Phase::Running | Phase::Stopping | Phase::Clearing if last => {
                    actions.extend(service.stop(then, 0, &self.plan, now));
                }
                Phase::Spawning | Phase::Running | Phase::Stopping | Phase::Clearing => {}
            }
        }
        moved
    }

    /// Why no wish for one service can be granted at this time.
    fn not_now(&self, name: &ServiceName) -> Option<Answer> {
        if !self.services.contains_key(name) {
            return Some(unknown(name));
        }
        match &self.whole {
            Whole::Up => None,
            Whole::Freezing { .. } | Whole::Frozen { .. } => {
                Some(Answer::Rejected("everything is frozen: `supafly thaw` first".to_owned()))
            }
            Whole::Stopping { .. } | Whole::Ended(_) => {
                Some(Answer::Rejected("everything is stopping".to_owned()))
            }
        }
    }
}

/// Whether what is done may be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    OnlyFailed,
    EvenDone,
}

fn unknown(name: &ServiceName) -> Answer {
    Answer::Rejected(format!("there is no service `{name}`"))
}

fn held(name: &ServiceName, why: &str) -> Answer {
    Answer::Rejected(format!(
        "`{name}` was {why}: nothing starts it again in this life, because another machine may be the writer"
    ))
}
