//! The whole: who may start when, who must stop when, and how it ends.

use super::mutant::{self, Mutant};
use super::outage;
use super::service::Installed;
use super::single::Again;
use super::states::Phase;
use super::{Action, Dependents, Found, Happened, Run, Service, Stage, State, Then, Why};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::spec::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What can happen to the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a run of a service.
    Service {
        /// Whose.
        name: ServiceName,
        /// Which run; a former one changes nothing.
        run: Run,
        /// What.
        what: Happened,
    },
    /// Stop everything; said again, hurry.
    Stop(String),
    /// Start a service that is down, was held or gave up.
    Start(ServiceName),
    /// Stop one service.
    StopOne {
        /// Which.
        name: ServiceName,
        /// And those who come after it?
        dependents: Dependents,
        /// Who says so.
        by: String,
    },
    /// Stop one service and start it again.
    RestartOne {
        /// Which.
        name: ServiceName,
        /// And those who come after it?
        dependents: Dependents,
        /// Who says so.
        by: String,
    },
    /// Let everything stand still.
    Freeze(String),
    /// Let everything go on.
    Thaw(String),
    /// A service says that those who named it in `fence_by` must be fenced.
    Fence {
        /// Who says so.
        by: ServiceName,
        /// Why.
        why: String,
    },
    /// It was looked how much room there is for a start.
    Looked {
        /// For whom.
        name: ServiceName,
        /// Which look; a former one changes nothing.
        number: u64,
        /// What was found.
        found: Found,
    },
    /// Time has passed.
    Tick,
    /// So much time has passed in which the supervisor itself stood still, after the moment when it wanted to wake.
    Overslept(Duration),
}

/// Why the whole stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked.
    Asked(String),
    /// A service gave up; what its end means for our own exit.
    GaveUp {
        /// Which.
        name: ServiceName,
        /// In words.
        why: String,
        /// Our exit because of it.
        exit: Exit,
    },
}

/// Where the whole is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Services run, or are on their way.
    Up,
    /// Everything is about to stand still.
    Freezing {
        /// Who asked.
        by: String,
        /// When this stage must be over.
        until: Instant,
        /// How far it is.
        stage: Stage,
    },
    /// Everything stands still.
    Frozen {
        /// Who asked.
        by: String,
        /// Since when.
        at: Instant,
    },
    /// Everything goes down.
    Stopping {
        /// Since when.
        since: Instant,
        /// Why.
        cause: Cause,
        /// How often somebody has hurried us.
        hurried: usize,
    },
    /// Nothing of ours lives any more; how we end.
    Ended(Exit),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is being done.
    Accepted,
    /// There is nothing to do, and why.
    Nothing(String),
    /// It is not done, and why.
    Rejected(String),
}

/// Every service and the whole.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) plan: Plan,
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) whole: Whole,
    pub(super) runs: u64,
    /// Services that are to go, and what follows for each.
    pub(super) leaving: BTreeMap<ServiceName, Then>,
    /// Services whose outages matter to others.
    pub(super) seen: BTreeMap<ServiceName, outage::Seen>,
    /// Why the last freeze did not come about.
    pub(super) refused: Option<String>,
}

impl Machine {
    /// Everything is wanted and nothing runs. `absent` names services whose program is not installed.
    #[must_use]
    pub fn new(plan: Plan, absent: &BTreeSet<ServiceName>, now: Instant) -> Machine {
        let services = plan
            .order()
            .iter()
            .filter_map(|name| {
                let installed = if absent.contains(name) { Installed::No } else { Installed::Yes };
                Some((name.clone(), Service::new(plan.spec(name)?.clone(), installed, now)))
            })
            .collect();
        Machine {
            plan,
            services,
            whole: Whole::Up,
            runs: 0,
            leaving: BTreeMap::new(),
            seen: BTreeMap::new(),
            refused: None,
        }
    }

    /// The plan it follows.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the whole is.
    #[must_use]
    pub fn whole(&self) -> &Whole {
        &self.whole
    }

    /// Why the last freeze that was accepted did not come about.
    #[must_use]
    pub fn not_frozen_because(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Every service, dependencies first.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.plan.order().iter().filter_map(|name| self.services.get(name))
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        // What is not started before the thaw need not be woken for.
        let sleeps = |s: &Service| {
            matches!(s.state(), State::Backoff { .. } | State::Cramped(_)) && !self.may_start(s)
        };
        let services = self.services.values().filter(|s| !sleeps(s)).filter_map(Service::deadline).min();
        let whole = match &self.whole {
            // Past the last call everything was killed already: there is nothing more to wake for.
            Whole::Stopping { since, .. } if self.services.values().any(killable) => {
                since.checked_add(self.plan.last_call())
            }
            Whole::Freezing { until, .. } => Some(*until),
            Whole::Up | Whole::Frozen { .. } | Whole::Stopping { .. } | Whole::Ended(_) => None,
        };
        [services, whole].into_iter().flatten().min()
    }

    /// The next thing that happens. Total: every event has an outcome in every state.
    pub fn step(&mut self, event: Event, now: Instant) -> (Vec<Action>, Answer) {
        let mut actions = Vec::new();
        let answer = match event {
            Event::Service { name, run, what } => self.told(&name, run, what, now, &mut actions),
            Event::Stop(by) => self.stop(by, now, &mut actions),
            Event::Start(name) => self.start_one(&name, Again::OnlyFailed, now),
            Event::StopOne { name, dependents, by } => self.stop_one(&name, dependents, &by),
            Event::RestartOne { name, dependents, by } => self.restart_one(&name, dependents, &by, now),
            Event::Freeze(by) => self.freeze(by, now, &mut actions),
            Event::Thaw(by) => self.thaw(&by, now, &mut actions),
            Event::Fence { by, why } => self.fence(&by, &why, now, &mut actions),
            Event::Looked { name, number, found } => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.looked(number, found, &self.plan, now);
                }
                Answer::Accepted
            }
            Event::Tick => Answer::Accepted,
            Event::Overslept(by) => {
                self.overslept(by);
                Answer::Accepted
            }
        };
        self.settle(now, &mut actions);
        // Who is to go meanwhile is not looked after any more.
        actions.retain(|action| match action {
            Action::Look { name, number } => self.services.get(name).is_some_and(|s| s.awaits_look(*number)),
            Action::Spawn { .. }
            | Action::Signal { .. }
            | Action::Tell { .. }
            | Action::Kill { .. }
            | Action::Clear { .. }
            | Action::Freeze { .. }
            | Action::Thaw { .. }
            | Action::Quiesce { .. }
            | Action::Resume { .. }
            | Action::Fence { .. } => true,
        });
        (actions, answer)
    }

    fn told(
        &mut self,
        name: &ServiceName,
        run: Run,
        what: Happened,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Answer {
        match &what {
            Happened::Quiesced => self.quiesced(name, run, now, actions),
            Happened::Busy(why) => self.busy(run, why, now, actions),
            // It may be silent because of what it requires; that comes back without its restart. And when everything
            // stops, its turn comes.
            Happened::NotLive(_) if !self.ground(name) || self.is_stopping() => {
                return Answer::Nothing("silence does not count now".to_owned());
            }
            Happened::NotLive(_)
            | Happened::Spawned(_)
            | Happened::SpawnFailed(_)
            | Happened::Ready
            | Happened::Unready(_)
            | Happened::Live
            | Happened::Alive
            | Happened::Frozen
            | Happened::Exited(_)
            | Happened::DescentGone => {}
        }
        match self.services.get_mut(name) {
            Some(service) => {
                actions.extend(service.happened(run, what, &self.plan, now));
                Answer::Accepted
            }
            None => Answer::Rejected(format!("there is no service `{name}`")),
        }
    }

    /// A deadline is for others, and most of them stood as we did. The stop's budget is a promise to whoever stops us,
    /// and their clock went on.
    fn overslept(&mut self, by: Duration) {
        if !self.is_stopping() && !mutant::is(Mutant::OversleepingCounts) {
            self.services.values_mut().for_each(|s| s.postpone(by));
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.whole, Whole::Stopping { .. } | Whole::Ended(_))
    }

    /// Whether everything that a service requires serves.
    fn ground(&self, name: &ServiceName) -> bool {
        let serves = |n: &ServiceName| self.services.get(n).is_some_and(Service::serves);
        mutant::is(Mutant::LiveWithoutGround)
            || self.services.get(name).is_some_and(|s| s.spec().requires.iter().all(serves))
    }

    fn stop(&mut self, by: String, now: Instant, actions: &mut Vec<Action>) -> Answer {
        match &mut self.whole {
            Whole::Up | Whole::Freezing { .. } | Whole::Frozen { .. } => {
                self.begin_to_stop(Cause::Asked(by), now, actions);
                Answer::Accepted
            }
            Whole::Stopping { hurried, .. } => {
                *hurried += 1;
                for service in self.services.values_mut() {
                    actions.extend(service.next_rung(&self.plan, now));
                }
                Answer::Accepted
            }
            Whole::Ended(_) => Answer::Nothing("everything has stopped".to_owned()),
        }
    }

    /// What stands goes on first: nobody can stop in order who does not move.
    pub(super) fn begin_to_stop(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        let stood = matches!(self.whole, Whole::Freezing { .. } | Whole::Frozen { .. });
        self.whole = Whole::Stopping { since: now, cause, hurried: 0 };
        self.leaving.clear();
        if stood {
            self.go_on(now, actions);
        }
        // Force that was used in an earlier stop of one service is none of this stop.
        let resting =
            |s: &&mut Service| s.state().phase() == Phase::Resting && !mutant::is(Mutant::OldForceCounts);
        for service in self.services.values_mut().filter(resting) {
            service.no_force();
        }
    }

    fn fence(&mut self, by: &ServiceName, why: &str, now: Instant, actions: &mut Vec<Action>) -> Answer {
        if let Whole::Ended(_) = self.whole {
            return Answer::Nothing("everything has stopped".to_owned());
        }
        let stopping = self.is_stopping();
        let fenced: Vec<_> =
            self.services.values_mut().filter(|s| s.spec().fence_by.as_ref() == Some(by)).collect();
        if fenced.is_empty() {
            return Answer::Nothing(format!("no service names `{by}` in fence_by"));
        }
        for service in fenced {
            actions.extend(service.fence(why, now));
            // Somebody could start it again. In the whole stop nobody can, and how it went down must stay known.
            if !stopping && matches!(service.state, State::Down(_)) {
                service.settle(Then::Held(Why::Fenced(why.to_owned())), now);
            }
        }
        Answer::Accepted
    }

    /// Everything that follows by itself. Each turn moves a service forward, so this ends; the bound is a safeguard.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for _ in 0..=4 * self.services.len() {
            let before = actions.len();
            let moved = self.deadlines(now, actions)
                | self.give_up(now, actions)
                | self.freezing(now, actions)
                | self.leavers(now, actions)
                | self.advance(now, actions);
            self.outages(now, actions);
            if !moved && actions.len() == before {
                break;
            }
        }
    }

    /// Starts what may start; when stopping, stops what may stop, and ends when nothing is left.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        match self.whole.clone() {
            Whole::Up | Whole::Freezing { .. } | Whole::Frozen { .. } => self.start(now, actions),
            Whole::Stopping { cause, hurried, .. } => {
                if mutant::is(Mutant::StartWhileStopping) {
                    self.start(now, actions);
                }
                self.go_down(&cause, hurried, now, actions)
            }
            Whole::Ended(_) => false,
        }
    }
}

fn killable(service: &Service) -> bool {
    let on_the_ladder = |rung: usize| rung <= service.spec().stop.rungs().len();
    matches!(service.state(), State::Stopping { rung, .. } if on_the_ladder(*rung))
        || service.state().phase() == Phase::Running
}
