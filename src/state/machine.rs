//! The whole: who may start when, who must stop when, and how it ends.

use super::mutant::{self, Mutant};
use super::outage;
use super::service::Installed;
use super::single::Again;
use super::states::Phase;
use super::{Action, Dependents, Happened, Run, Service, Stage, State, Then, Why};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::spec::{GivesUp, ServiceName};
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
        let sleeps = |s: &Service| matches!(s.state(), State::Backoff { .. }) && !self.may_start(s);
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
                    .filter(|n| !get(n).is_some_and(|s| s.serves() || self.without(s))),
            )
            .map(|n| n.to_string())
            .collect();
        (!missing.is_empty()).then(|| missing.join(", "))
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
            Event::Tick => Answer::Accepted,
            Event::Overslept(by) => {
                self.overslept(by);
                Answer::Accepted
            }
        };
        self.settle(now, &mut actions);
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

    fn is_stopping(&self) -> bool {
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
    fn begin_to_stop(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
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
            self.outages(now);
            if !moved && actions.len() == before {
                break;
            }
        }
    }

    fn deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
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
    fn give_up(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
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

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
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

fn killable(service: &Service) -> bool {
    let on_the_ladder = |rung: usize| rung <= service.spec().stop.rungs().len();
    matches!(service.state(), State::Stopping { rung, .. } if on_the_ladder(*rung))
        || service.state().phase() == Phase::Running
}
