//! The other side and its books: which processes there are, what was said to them, and whether the machine did right.

use super::*;
use crate::spec::{Manner, Rung};
use std::time::Instant;

pub(super) struct Process {
    pub(super) run: Run,
    pub(super) answered: bool,
    pub(super) leader: bool,
    pub(super) killed: bool,
    pub(super) stopped: bool,
    pub(super) ready: Option<Instant>,
    pub(super) forced: bool,
    pub(super) in_stop: bool,
    /// It stands still since then.
    pub(super) stands: Option<Instant>,
    /// It was told that the service is out whose outages it wants to know.
    pub(super) told: bool,
    /// When it may be held against it that it is not ready, or silent.
    pub(super) due: Option<Instant>,
    /// For how long it was ready when it was first told to stop.
    pub(super) served: Option<Duration>,
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) names: Vec<ServiceName>,
    pub(super) processes: BTreeMap<ServiceName, Process>,
    pub(super) starts: BTreeMap<ServiceName, Vec<Instant>>,
    pub(super) lasts: BTreeMap<ServiceName, (Ending, bool)>,
    pub(super) stopping: Option<Instant>,
    pub(super) fatal: Option<Exit>,
    /// Services that somebody wished down, or down and up.
    pub(super) wished: BTreeSet<ServiceName>,
    /// What goes down with a service, and must not come back before that has gone.
    pub(super) gone_first: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Of whom it was seen that there is no room for them, and nothing else since: from when on they may be tried all the same.
    pub(super) cramped: BTreeMap<ServiceName, Instant>,
    /// Each service's last look for room: its number, and when.
    pub(super) looks: BTreeMap<ServiceName, (u64, Instant)>,
    /// Of whom somebody has ever wished something.
    pub(super) excused: BTreeSet<ServiceName>,
}

impl World {
    pub(super) fn new(shapes: &[Shape]) -> World {
        let mut specs: Vec<ServiceSpec> = shapes.iter().enumerate().map(|(i, s)| spec(i, s)).collect();
        // A plan takes one that quiesces; which one is as random as before.
        specs.iter_mut().filter(|s| s.quiesces.is_some()).skip(1).for_each(|s| s.quiesces = None);
        let now = Instant::now();
        let machine = Machine::new(Plan::new(specs, BUDGET, BTreeSet::new()).unwrap(), &BTreeSet::new(), now);
        World {
            machine,
            now,
            names: (0..shapes.len()).map(named).collect(),
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            lasts: BTreeMap::new(),
            stopping: None,
            fatal: None,
            wished: BTreeSet::new(),
            gone_first: BTreeMap::new(),
            cramped: BTreeMap::new(),
            looks: BTreeMap::new(),
            excused: BTreeSet::new(),
        }
    }

    /// Everybody who lives and comes after a service, directly or by others who live.
    pub(super) fn active_below(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
        let mut found = BTreeSet::new();
        let mut open = vec![name.clone()];
        while let Some(next) = open.pop() {
            for dependent in self.machine.plan().dependents(&next) {
                if self.processes.contains_key(dependent) && found.insert(dependent.clone()) {
                    open.push(dependent.clone());
                }
            }
        }
        found
    }

    pub(super) fn state(&self, name: &ServiceName) -> &State {
        self.machine.service(name).unwrap().state()
    }

    pub(super) fn serves(&self, name: &ServiceName) -> bool {
        let fit = |state: &State| matches!(state, State::Ready { up, .. } if up.fitness == Fitness::Fit);
        fit(self.state(name)) || *self.state(name) == State::Done
    }

    pub(super) fn up(&self) -> bool {
        matches!(self.machine.whole(), Whole::Up)
    }

    /// One step of the machine, every promise compared with the books.
    pub(super) fn step(&mut self, event: Event) -> Result<(), String> {
        let due: BTreeSet<ServiceName> = self
            .machine
            .services()
            .filter(|s| s.deadline().is_some_and(|d| d <= self.now))
            .map(|s| s.spec().name.clone())
            .collect();
        let gave_up =
            |m: &Machine, n: &ServiceName| matches!(m.service(n).unwrap().state(), State::GaveUp(_));
        let before: BTreeSet<_> = self.names.iter().filter(|n| gave_up(&self.machine, n)).cloned().collect();
        let looked_at = self.looked_at();
        let (actions, answer) = self.machine.step(event.clone(), self.now);
        let stops = matches!(self.machine.whole(), Whole::Stopping { .. } | Whole::Ended(_));
        if stops && self.stopping.is_none() {
            self.stopping = Some(self.now);
            self.fatal = self.fatal_exit(&event);
            self.processes.values_mut().for_each(|p| p.in_stop = true);
        }
        match (&event, &answer) {
            (Event::Start(name), Answer::Accepted) => {
                // Somebody wished it: what came before does not count.
                self.starts.remove(name);
                self.cramped.remove(name);
                self.excused.insert(name.clone());
            }
            (
                Event::StopOne { name, dependents, .. } | Event::RestartOne { name, dependents, .. },
                Answer::Accepted,
            ) => {
                self.starts.remove(name);
                self.cramped.remove(name);
                let active = self.active_below(name);
                let keeps = *dependents == Dependents::Keep && matches!(event, Event::StopOne { .. });
                promise!(!keeps || active.is_empty(), "{name} is to stop and {active:?} run on it");
                self.wished.insert(name.clone());
                self.excused.insert(name.clone());
                if *dependents == Dependents::Too {
                    self.excused.extend(active.iter().cloned());
                    self.wished.extend(active.iter().cloned());
                    active.iter().for_each(|n| drop(self.starts.remove(n)));
                    let base = matches!(event, Event::RestartOne { .. });
                    self.gone_first.extend(base.then(|| (name.clone(), active)));
                }
            }
            _ => {}
        }
        let _ = before;
        self.forgive(&looked_at);
        for action in actions {
            self.act(&action, &event, &due)?;
        }
        self.compare(&event)
    }

    pub(super) fn act(
        &mut self,
        action: &Action,
        event: &Event,
        due: &BTreeSet<ServiceName>,
    ) -> Result<(), String> {
        let (name, run) = match action {
            Action::Spawn { name, run } => return self.spawn(name, *run),
            Action::Look { name, number } => return self.look(name, *number),
            Action::Signal { name, run, .. }
            | Action::Tell { name, run, .. }
            | Action::Kill { name, run }
            | Action::Clear { name, run }
            | Action::Freeze { name, run }
            | Action::Thaw { name, run }
            | Action::Quiesce { name, run }
            | Action::Resume { name, run }
            | Action::Fence { name, run } => (name.clone(), *run),
        };
        let live = self.processes.get(&name).map(|p| p.run);
        promise!(live == Some(run), "only the live run may be touched: {action:?}, live {live:?}");
        if self.stopping.is_none() {
            let own = match event {
                Event::Service { name: n, .. } => *n == name,
                Event::Fence { .. } => true,
                Event::Stop(_)
                | Event::Start(_)
                | Event::Tick
                | Event::Overslept(_)
                | Event::Looked { .. } => false,
                Event::StopOne { .. } | Event::RestartOne { .. } => self.wished.contains(&name),
                Event::Freeze(_) | Event::Thaw(_) => true,
            };
            let standing = matches!(
                action,
                Action::Freeze { .. }
                    | Action::Thaw { .. }
                    | Action::Quiesce { .. }
                    | Action::Resume { .. }
                    | Action::Tell { .. }
            );
            let reason = own || standing || due.contains(&name) || self.wished.contains(&name);
            promise!(reason, "{event:?} is no reason for {action:?}");
        }
        let dependents: Vec<_> = self.machine.plan().dependents(&name).cloned().collect();
        // Whose stop was wished alone need not wait for others.
        let ordered = self.stopping.is_some() && !due.contains(&name) && !self.wished.contains(&name);
        let down = matches!(self.state(&name), State::Stopping { then: Then::Down(_), .. });
        let alive = dependents.iter().find(|d| self.processes.contains_key(*d)).cloned();
        let late = self.stopping.is_some_and(|s| self.now >= s + self.machine.plan().last_call());
        let spec = self.machine.service(&name).unwrap().spec().clone();
        let late_for_a_deadline = matches!(
            self.state(&name),
            State::Stopping { then: Then::Failed(Why::NeverReady | Why::Watchdog), .. }
        );
        let process = self.processes.get_mut(&name).unwrap();
        match action {
            Action::Spawn { .. } | Action::Look { .. } | Action::Quiesce { .. } | Action::Resume { .. } => {}
            Action::Tell { signal, .. } => {
                promise!(process.leader && !process.stopped, "{name} is told something and is not up");
                let rule = spec.outage_signals.as_ref().unwrap();
                let out = *signal == rule.begins;
                promise!(out != process.told, "{name} is told the same twice");
                process.told = out;
            }
            Action::Freeze { .. } => {
                promise!(spec.freezing == Freezing::Stands, "{name} is frozen and should go on");
                promise!(self.stopping.is_none(), "{name} is frozen while everything stops");
                process.stands = Some(self.now);
            }
            Action::Thaw { .. } => {
                let Some(since) = process.stands.take() else {
                    return Err(format!("{name} is thawed and did not stand"));
                };
                process.due = process.due.map(|due| due + (self.now - since));
                process.ready = process.ready.map(|at| at + (self.now - since));
            }
            Action::Signal { signal, .. } => {
                promise!(process.stands.is_none(), "{name} is signalled while it stands");
                if late_for_a_deadline && !process.stopped {
                    let over = process.due.is_some_and(|due| self.now >= due);
                    promise!(over, "{name} is held to a deadline that is not over");
                }
                if !process.stopped {
                    process.served = process.ready.map(|r| self.now.duration_since(r));
                }
                if ordered && down && !process.stopped && !late {
                    promise!(alive.is_none(), "{name} is stopped while {alive:?} still lives");
                }
                process.stopped = true;
                let orderly = |r: &Rung| r.signal == *signal && r.manner == Manner::Orderly;
                process.forced |= !spec.stop.rungs().iter().any(orderly);
            }
            Action::Kill { .. } => {
                if !process.stopped && !late {
                    return Err(format!("{name} gets SIGKILL first"));
                }
                process.killed = true;
                process.forced = true;
            }
            Action::Fence { .. } => {
                process.stopped = true;
                process.stands = None;
                process.killed = process.answered;
            }
            Action::Clear { .. } => promise!(!process.leader, "{name} is cleared while its leader lives"),
        }
        Ok(())
    }

    pub(super) fn spawn(&mut self, name: &ServiceName, run: Run) -> Result<(), String> {
        promise!(!self.processes.contains_key(name), "two processes of {name}");
        promise!(self.stopping.is_none(), "{name} is started while everything stops");
        let waits = self.cramped.remove(name).is_some_and(|until| self.now < until);
        promise!(!waits, "{name} has no room and is started");
        self.looks.remove(name);
        let stands = self.machine.service(name).unwrap().spec().freezing == Freezing::Stands;
        promise!(self.up() || !stands, "{name} is started while everything stands");
        for (base, with) in &self.gone_first {
            promise!(!with.contains(name), "{name} comes back before {base}, with which it went, has gone");
        }
        self.gone_first.remove(name);
        self.wished.remove(name);
        let spec = self.machine.service(name).unwrap().spec().clone();
        for r in &spec.requires {
            promise!(self.serves(r), "{name} is started and {r}, which it requires, is {:?}", self.state(r));
        }
        let starts = self.starts.entry(name.clone()).or_default();
        starts.push(self.now);
        let (now, window) = (self.now, spec.restart.window);
        let recent = starts.iter().filter(|t| now.duration_since(**t) < window).count();
        promise!(recent <= spec.restart.max as usize + 1, "{name} is started {recent} times in its window");
        if spec.restart.when == When::Never {
            promise!(starts.len() == 1, "{name} is restarted against its policy");
        }
        let process = Process {
            run,
            answered: false,
            leader: false,
            killed: false,
            stopped: false,
            ready: None,
            forced: false,
            in_stop: false,
            stands: None,
            told: false,
            due: None,
            served: None,
        };
        self.processes.insert(name.clone(), process);
        Ok(())
    }

    pub(super) fn compare(&self, event: &Event) -> Result<(), String> {
        for name in &self.names {
            let service = self.machine.service(name).unwrap();
            let process = self.processes.get(name);
            let run = process.map(|p| p.run);
            promise!(
                service.run() == run,
                "{name}: the books say {run:?}, the machine {:?}",
                service.state()
            );
            if let State::GaveUp(GivenUp { why, .. }) = service.state()
                && why.contains("restarts within")
                && !self.excused.contains(name)
            {
                let (starts, max) = (self.starts.get(name).map_or(0, Vec::len), service.spec().restart.max);
                promise!(starts > max as usize, "{name} gave up and was started only {starts} times");
            }
            if let State::Stopping { until, rung, .. } = service.state() {
                let ladder = self.machine.plan().share(name);
                let spent = self.now.duration_since(service.since()) > ladder;
                let killed = process.is_some_and(|p| p.killed);
                promise!(!spent || killed, "{name} is past its ladder and not killed");
                let over = *rung > service.spec().stop.rungs().len();
                promise!(over || *until > self.now, "{name} missed its rung");
            }
        }
        self.told_the_truth()?;
        let standing = self.processes.values().filter(|p| p.stands.is_some()).count();
        let frozen = self.names.iter().filter(|n| matches!(self.state(n), State::Frozen { .. })).count();
        promise!(standing == frozen, "{standing} stand and {frozen} are said to");
        match self.machine.whole() {
            Whole::Up | Whole::Stopping { .. } | Whole::Ended(_) => {
                promise!(standing == 0, "{standing} stand while nothing is frozen");
            }
            Whole::Frozen { .. } => {
                let doubtful =
                    |n: &&ServiceName| matches!(self.state(n), State::Frozen { held: Held::Asked, .. });
                let moves = |n: &&ServiceName| {
                    self.machine.service(n).unwrap().spec().freezing == Freezing::Stands
                        && matches!(self.state(n), State::Starting { .. } | State::Ready { .. })
                };
                promise!(!self.names.iter().any(|n| doubtful(&n)), "frozen is claimed and not proved");
                promise!(!self.names.iter().any(|n| moves(&n)), "frozen is claimed and somebody moves");
            }
            Whole::Freezing { .. } => {}
        }
        if let Some(next) = self.machine.next_deadline() {
            promise!(next > self.now, "after {event:?} there would be a busy loop");
        }
        if let Whole::Ended(exit) = self.machine.whole() {
            promise!(self.processes.is_empty(), "the end is claimed while something lives");
            self.truthful(*exit)?;
        }
        Ok(())
    }

    /// Who wants to know of another one's outages, and is up, knows of them.
    fn told_the_truth(&self) -> Result<(), String> {
        let ready = |n: &&ServiceName| matches!(self.state(n), State::Ready { .. });
        for name in self.names.iter().filter(ready).filter(|_| self.stopping.is_none()) {
            let spec = self.machine.service(name).unwrap().spec();
            let Some(rule) = &spec.outage_signals else { continue };
            let told = self.processes.get(name).is_some_and(|p| p.told);
            promise!(!told || !self.serves(&rule.of), "{} serves and {name} was not told", rule.of);
            // Ready for no time at all, it was never seen to serve.
            let was_ready = matches!(
                self.state(&rule.of),
                State::Stopping { ready_for: Some(time), .. } | State::Clearing { ready_for: Some(time), .. }
                    if !time.is_zero()
            );
            promise!(told || !was_ready, "{} is out and {name} was not told", rule.of);
        }
        Ok(())
    }

    pub(super) fn passes(&self, name: &ServiceName, ending: &Ending) -> bool {
        ending.code() == Some(77) && self.machine.service(name).unwrap().spec().pass_exit.contains(&77)
    }

    /// When the whole begins to stop otherwise than by request: what that means.
    pub(super) fn fatal_exit(&self, event: &Event) -> Option<Exit> {
        if matches!(event, Event::Stop(_)) {
            return None;
        }
        self.names.iter().find_map(|n| {
            let State::GaveUp(given) = self.state(n) else { return None };
            let passed = if self.passes(n, &given.last) { Exit::Refused } else { Exit::GaveUp };
            (given.how == GivesUp::StopAll).then_some(passed)
        })
    }

    /// The exit code, from the books.
    pub(super) fn truthful(&self, exit: Exit) -> Result<(), String> {
        let passes = |n: &ServiceName, e: &Ending| self.passes(n, e);
        let fenced = |n: &ServiceName| {
            self.machine.service(n).unwrap().given_up().is_some_and(|g| g.end == End::Fenced)
        };
        let right = if let Some(fatal) = self.fatal {
            fatal
        } else if self.names.iter().any(fenced) {
            Exit::Refused
        } else {
            let down = |n: &ServiceName| matches!(self.state(n), State::Down(_));
            let lasts = || self.lasts.iter().filter(|(n, _)| down(n));
            if lasts().any(|(_, (_, forced))| *forced) {
                Exit::Forced
            } else if lasts().any(|(n, (e, _))| passes(n, e)) {
                Exit::Refused
            } else {
                Exit::Clean
            }
        };
        promise!(exit == right, "the exit is {exit:?}, the truth is {right:?}");
        Ok(())
    }
}
