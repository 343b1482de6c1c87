//! The whole: who may start when, who must stop when, and how it ends.

use super::mutant::{self, Mutant};
use super::service::{Forced, Installed};
use super::{Action, Happened, Run, Service, State, Then, Why};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::spec::{GivesUp, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

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
    /// Try a service again that was held or gave up.
    Retry(ServiceName),
    /// A service says that those who named it in `fence_by` must be fenced.
    Fence {
        /// Who says so.
        by: ServiceName,
        /// Why.
        why: String,
    },
    /// Time has passed.
    Tick,
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
    plan: Plan,
    services: BTreeMap<ServiceName, Service>,
    whole: Whole,
    runs: u64,
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
        Machine { plan, services, whole: Whole::Up, runs: 0 }
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
        let services = self.services.values().filter_map(Service::deadline).min();
        let whole = match &self.whole {
            // Past the last call everything was killed already: there is nothing more to wake for.
            Whole::Stopping { since, .. } if self.services.values().any(killable) => {
                since.checked_add(self.plan.last_call())
            }
            Whole::Up | Whole::Stopping { .. } | Whole::Ended(_) => None,
        };
        [services, whole].into_iter().flatten().min()
    }

    /// What a waiting service waits for, in words; `None` when it waits for nothing.
    #[must_use]
    pub fn waits_for(&self, name: &ServiceName) -> Option<String> {
        let service = self.services.get(name)?;
        let State::Waiting = service.state() else { return None };
        let get = |n: &&ServiceName| self.services.get(*n);
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
            Event::Service { name, run, what } => match self.services.get_mut(&name) {
                Some(service) => {
                    actions.extend(service.happened(run, what, &self.plan, now));
                    Answer::Accepted
                }
                None => Answer::Rejected(format!("there is no service `{name}`")),
            },
            Event::Stop(by) => self.stop(by, now, &mut actions),
            Event::Retry(name) => self.retry(&name, now),
            Event::Fence { by, why } => self.fence(&by, &why, now, &mut actions),
            Event::Tick => Answer::Accepted,
        };
        self.settle(now, &mut actions);
        (actions, answer)
    }

    fn stop(&mut self, by: String, now: Instant, actions: &mut Vec<Action>) -> Answer {
        match &mut self.whole {
            Whole::Up => {
                self.whole = Whole::Stopping { since: now, cause: Cause::Asked(by), hurried: 0 };
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

    fn retry(&mut self, name: &ServiceName, now: Instant) -> Answer {
        if !matches!(self.whole, Whole::Up) {
            return Answer::Rejected("everything is stopping".to_owned());
        }
        match self.services.get_mut(name) {
            None => Answer::Rejected(format!("there is no service `{name}`")),
            Some(service) => {
                if service.retry(now) {
                    Answer::Accepted
                } else {
                    match service.state() {
                        State::GaveUp(given) => Answer::Rejected(format!(
                            "`{name}` was {}: nothing starts it again in this life, because another machine may be the writer",
                            given.why
                        )),
                        State::Waiting
                        | State::Absent
                        | State::Spawning { .. }
                        | State::Starting { .. }
                        | State::Ready { .. }
                        | State::Stopping { .. }
                        | State::Clearing { .. }
                        | State::Backoff { .. }
                        | State::Done
                        | State::Down(_) => Answer::Nothing(format!("`{name}` is neither held nor failed")),
                    }
                }
            }
        }
    }

    fn fence(&mut self, by: &ServiceName, why: &str, now: Instant, actions: &mut Vec<Action>) -> Answer {
        if let Whole::Ended(_) = self.whole {
            return Answer::Nothing("everything has stopped".to_owned());
        }
        let fenced: Vec<_> =
            self.services.values_mut().filter(|s| s.spec().fence_by.as_ref() == Some(by)).collect();
        if fenced.is_empty() {
            return Answer::Nothing(format!("no service names `{by}` in fence_by"));
        }
        for service in fenced {
            actions.extend(service.fence(why, now));
        }
        Answer::Accepted
    }

    /// Everything that follows by itself. Each turn moves a service forward, so this ends; the bound is a safeguard.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for _ in 0..=4 * self.services.len() {
            let before = actions.len();
            let moved = self.deadlines(now, actions) | self.give_up(now) | self.advance(now, actions);
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
                if matches!(service.state(), State::Starting { .. } | State::Ready { .. }) {
                    actions.extend(service.stop(why, last, &self.plan, now));
                }
                actions.extend(service.kill());
            }
        }
        for service in self.services.values_mut().filter(|s| s.deadline().is_some_and(|d| d <= now)) {
            match service.state().clone() {
                State::Starting { .. } => {
                    actions.extend(service.stop(Then::Failed(Why::NeverReady), 0, &self.plan, now));
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
    fn give_up(&mut self, now: Instant) -> bool {
        if !matches!(self.whole, Whole::Up) {
            return false;
        }
        let fatal = self.services.values().find_map(|s| match s.state() {
            State::GaveUp(given) if given.how == GivesUp::StopAll => Some((s, given)),
            State::GaveUp(_)
            | State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Done
            | State::Down(_) => None,
        });
        let Some((service, given)) = fatal else { return false };
        let passed = given.last.code().filter(|c| service.spec().pass_exit.contains(c));
        let exit = passed.and_then(|c| Exit::from_code(i32::from(c))).unwrap_or(Exit::GaveUp);
        let cause = Cause::GaveUp { name: service.name().clone(), why: given.why.clone(), exit };
        self.whole = Whole::Stopping { since: now, cause, hurried: 0 };
        true
    }

    /// Starts what may start; when stopping, stops what may stop, and ends when nothing is left.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        match self.whole.clone() {
            Whole::Up => self.start(now, actions),
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
            let serves = |n: &ServiceName| self.services.get(n).is_some_and(Service::serves);
            due && !s.spec().requires.iter().all(serves) && !mutant::is(Mutant::RequiresIgnoredOnRestart)
        };
        let unmet: Vec<ServiceName> =
            self.services().filter(|s| unmet(s)).map(|s| s.name().clone()).collect();
        for name in &unmet {
            if let Some(service) = self.services.get_mut(name) {
                service.set(State::Waiting, now);
            }
        }
        let due = |s: &Service| match s.state() {
            State::Waiting => self.waits_for(s.name()).is_none(),
            State::Backoff { until, .. } => *until <= now,
            State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
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

    fn go_down(&mut self, cause: &Cause, hurried: usize, now: Instant, actions: &mut Vec<Action>) -> bool {
        let why = match cause {
            Cause::Asked(by) => Why::Asked(by.clone()),
            Cause::GaveUp { name, .. } => Why::GaveUp(name.clone()),
        };
        let alive = |s: &Service| match s.state() {
            State::Clearing { .. } => !mutant::is(Mutant::EndsWhileClearing),
            State::Spawning { .. }
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Stopping { .. } => true,
            State::Waiting
            | State::Absent
            | State::Backoff { .. }
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => false,
        };
        let may_stop = |s: &Service| {
            let waiting = matches!(s.state(), State::Waiting | State::Backoff { .. });
            let up = matches!(
                s.state(),
                State::Spawning { stop: None, .. } | State::Starting { .. } | State::Ready { .. }
            );
            // What is on its way down for a restart must not come up again.
            let coming_back = match s.state() {
                State::Stopping { then, .. } | State::Clearing { then, .. } => {
                    matches!(then, Then::Policy | Then::Failed(_))
                }
                State::Waiting
                | State::Absent
                | State::Spawning { .. }
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Backoff { .. }
                | State::Done
                | State::Down(_)
                | State::GaveUp(_) => false,
            };
            let free = !self.plan.dependents(s.name()).filter_map(|d| self.services.get(d)).any(alive);
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
        if !self.services.values().any(alive) {
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

    /// Whether this service will not come by itself: it gave up, is absent, or waits for one that will not come.
    fn without(&self, service: &Service) -> bool {
        let blocked = |s: &Service| {
            matches!(s.state(), State::Waiting)
                && s.spec().requires.iter().filter_map(|n| self.services.get(n)).any(|r| self.without(r))
        };
        service.is_without() || blocked(service)
    }

    /// Whether this service will not come by itself, for the status.
    #[must_use]
    pub fn is_blocked(&self, name: &ServiceName) -> bool {
        self.services.get(name).is_some_and(|s| self.without(s))
    }
}

fn killable(service: &Service) -> bool {
    match service.state() {
        State::Stopping { rung, .. } => *rung <= service.spec().stop.rungs().len(),
        State::Starting { .. } | State::Ready { .. } => true,
        State::Waiting
        | State::Absent
        | State::Spawning { .. }
        | State::Clearing { .. }
        | State::Backoff { .. }
        | State::Done
        | State::Down(_)
        | State::GaveUp(_) => false,
    }
}
