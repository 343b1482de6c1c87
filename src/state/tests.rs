//! Random lives of random sets of services, in a world that keeps its own books.
//!
//! The [`World`] is the other side: it has processes (or none), obeys the machine's actions and reports what happened,
//! promptly or late, truly or stale. After each step it compares what the machine did with its own books; the first
//! broken promise is returned as text. The same histories then run with each deliberate defect of `mutant.rs`, and each
//! must be caught. Every loop is bounded.

mod scenes;

use super::mutant::{self, Mutant};
use super::*;
use crate::exit::Exit;
use crate::plan::Plan;
use crate::spec::{
    AfterOutage, Check, Freezing, Kind, Length, Live, Probe, Ready, Rung, ServiceSpec, StopLadder, When,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const BUDGET: Duration = Duration::from_secs(9);
const STABLE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Shape {
    kind: Kind,
    notify: bool,
    requires: u8,
    after: u8,
    fenced: bool,
    rungs: usize,
    deadline: bool,
    max: u32,
    how: GivesUp,
    pass: bool,
    when: When,
    live: bool,
    probed: bool,
    outage: bool,
    goes_on: bool,
    quiesces: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Answer(usize, bool),
    Ready(usize),
    Alive(usize),
    Exit(usize, u8),
    Segfault(usize),
    Gone(usize),
    Stale(usize, u64, u8),
    Wait(u64),
    Start(usize),
    StopOne(usize, bool),
    RestartOne(usize, bool),
    Unready(usize),
    NotLive(usize),
    Freeze,
    Thaw,
    Proved(usize),
    Busy(usize),
    Quiesced(usize),
    Oversleep(u64),
    Fence,
    Stop,
}

struct Process {
    run: Run,
    answered: bool,
    leader: bool,
    killed: bool,
    stopped: bool,
    ready: Option<Instant>,
    forced: bool,
    in_stop: bool,
    /// It stands still since then.
    stands: Option<Instant>,
    /// When it may be held against it that it is not ready, or silent.
    due: Option<Instant>,
    /// For how long it was ready when it was first told to stop.
    served: Option<Duration>,
}

struct World {
    machine: Machine,
    now: Instant,
    names: Vec<ServiceName>,
    processes: BTreeMap<ServiceName, Process>,
    starts: BTreeMap<ServiceName, Vec<Instant>>,
    lasts: BTreeMap<ServiceName, (Ending, bool)>,
    stopping: Option<Instant>,
    fatal: Option<Exit>,
    /// Services that somebody wished down, or down and up.
    wished: BTreeSet<ServiceName>,
    /// What goes down with a service, and must not come back before that has gone.
    gone_first: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let how = prop_oneof![Just(GivesUp::StopAll), Just(GivesUp::Degrade), Just(GivesUp::Hold)];
    let when = prop_oneof![4 => Just(When::Always), 1 => Just(When::OnFailure), 1 => Just(When::Never)];
    let kind = prop_oneof![3 => Just(Kind::Daemon), 1 => Just(Kind::Oneshot)];
    let bools = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let more =
        (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (kind, (bools, more), any::<u8>(), any::<u8>(), 1usize..3, 0u32..3, how, when).prop_map(
        |(kind, ((notify, fenced, deadline, pass), more), requires, after, rungs, max, how, when)| Shape {
            kind,
            notify,
            requires,
            after,
            fenced,
            rungs,
            deadline,
            max,
            how,
            pass,
            when,
            live: more.0,
            probed: more.1,
            outage: more.2,
            goes_on: more.3,
            quiesces: more.4,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let i = 0usize..4;
    prop_oneof![
        8 => (i.clone(), prop::bool::weighted(0.85)).prop_map(|(i, ok)| Op::Answer(i, ok)),
        6 => i.clone().prop_map(Op::Ready),
        1 => i.clone().prop_map(Op::Alive),
        5 => (i.clone(), prop_oneof![Just(0u8), Just(1), Just(77)]).prop_map(|(i, c)| Op::Exit(i, c)),
        1 => i.clone().prop_map(Op::Segfault),
        5 => i.clone().prop_map(Op::Gone),
        2 => (i.clone(), 0u64..6, 0u8..5).prop_map(|(i, r, w)| Op::Stale(i, r, w)),
        6 => prop_oneof![1u64..3_000, 3_000u64..70_000].prop_map(Op::Wait),
        1 => i.clone().prop_map(Op::Start),
        1 => (i.clone(), any::<bool>()).prop_map(|(i, too)| Op::StopOne(i, too)),
        1 => (i.clone(), any::<bool>()).prop_map(|(i, too)| Op::RestartOne(i, too)),
        2 => i.clone().prop_map(Op::Unready),
        4 => i.clone().prop_map(Op::NotLive),
        2 => Just(Op::Freeze),
        1 => Just(Op::Thaw),
        3 => i.clone().prop_map(Op::Proved),
        1 => i.clone().prop_map(Op::Busy),
        1 => i.prop_map(Op::Quiesced),
        1 => (1_000u64..30_000).prop_map(Op::Oversleep),
        1 => Just(Op::Fence),
        1 => Just(Op::Stop),
    ]
}

fn history() -> impl Strategy<Value = (Vec<Shape>, Vec<Op>)> {
    (prop::collection::vec(shape(), 1..5), prop::collection::vec(op(), 0..90))
}

fn named(i: usize) -> ServiceName {
    ServiceName::new(&format!("s{i}")).unwrap()
}

fn spec(i: usize, shape: &Shape) -> ServiceSpec {
    let mut spec = ServiceSpec::minimal(named(i), shape.kind, vec!["/bin/true".to_owned()]);
    let below = |mask: u8| (0..i).filter(move |j| mask & (1 << j) != 0).map(named);
    spec.requires = below(shape.requires).collect();
    spec.after = below(shape.after & !shape.requires).collect();
    spec.fence_by = (shape.fenced && i > 0).then(|| named(0));
    let probe = |failures| Probe {
        check: Check::Tcp { port: 1 },
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        failures,
    };
    spec.ready = match (shape.notify, shape.probed) {
        (true, true) => Ready::Probe(probe(1)),
        (true, false) => Ready::Notify,
        (false, _) => Ready::Started,
    };
    if shape.kind == Kind::Daemon {
        spec.live = shape.live.then(|| Live {
            probe: probe(1),
            grace: Duration::from_secs(if shape.deadline { 2 } else { 0 }),
        });
        spec.after_outage = (shape.outage && i > 0).then(|| AfterOutage {
            of: named(0),
            longer_than: Duration::from_secs(3),
            ready_within: Duration::from_secs(2),
        });
        spec.watchdog = (shape.live && shape.pass).then(|| Duration::from_secs(20));
        spec.quiesces = shape.quiesces.then(|| Duration::from_secs(10));
    }
    spec.freezing = if shape.goes_on { Freezing::GoesOn } else { Freezing::Stands };
    let signals = [Signal::SIGTERM, Signal::SIGQUIT];
    let rungs = signals.iter().take(shape.rungs).map(|s| Rung { signal: *s, length: Length::Share(1) });
    spec.stop = StopLadder::new(rungs.collect()).unwrap();
    spec.start_deadline = shape.deadline.then(|| Duration::from_secs(5));
    spec.restart.when = shape.when;
    spec.restart.max = shape.max;
    spec.gives_up.default = shape.how;
    spec.pass_exit = if shape.pass { BTreeSet::from([77]) } else { BTreeSet::new() };
    spec
}

macro_rules! promise {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

impl World {
    fn new(shapes: &[Shape]) -> World {
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
        }
    }

    /// Everybody who lives and comes after a service, directly or by others who live.
    fn active_below(&self, name: &ServiceName) -> BTreeSet<ServiceName> {
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

    fn state(&self, name: &ServiceName) -> &State {
        self.machine.service(name).unwrap().state()
    }

    fn serves(&self, name: &ServiceName) -> bool {
        let fit = |state: &State| matches!(state, State::Ready { up, .. } if up.fitness == Fitness::Fit);
        fit(self.state(name)) || *self.state(name) == State::Done
    }

    fn up(&self) -> bool {
        matches!(self.machine.whole(), Whole::Up)
    }

    /// One step of the machine, every promise compared with the books.
    fn step(&mut self, event: Event) -> Result<(), String> {
        let due: BTreeSet<ServiceName> = self
            .machine
            .services()
            .filter(|s| s.deadline().is_some_and(|d| d <= self.now))
            .map(|s| s.spec().name.clone())
            .collect();
        let gave_up =
            |m: &Machine, n: &ServiceName| matches!(m.service(n).unwrap().state(), State::GaveUp(_));
        let before: BTreeSet<_> = self.names.iter().filter(|n| gave_up(&self.machine, n)).cloned().collect();
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
            }
            (
                Event::StopOne { name, dependents, .. } | Event::RestartOne { name, dependents, .. },
                Answer::Accepted,
            ) => {
                self.starts.remove(name);
                let active = self.active_below(name);
                let keeps = *dependents == Dependents::Keep && matches!(event, Event::StopOne { .. });
                promise!(!keeps || active.is_empty(), "{name} is to stop and {active:?} run on it");
                self.wished.insert(name.clone());
                if *dependents == Dependents::Too {
                    self.wished.extend(active.iter().cloned());
                    active.iter().for_each(|n| drop(self.starts.remove(n)));
                    let base = matches!(event, Event::RestartOne { .. });
                    self.gone_first.extend(base.then(|| (name.clone(), active)));
                }
            }
            _ => {}
        }
        let _ = before;
        for action in actions {
            self.act(&action, &event, &due)?;
        }
        self.compare(&event)
    }

    fn act(&mut self, action: &Action, event: &Event, due: &BTreeSet<ServiceName>) -> Result<(), String> {
        let (name, run) = match action {
            Action::Spawn { name, run } => return self.spawn(name, *run),
            Action::Signal { name, run, .. }
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
                Event::Stop(_) | Event::Start(_) | Event::Tick | Event::Overslept(_) => false,
                Event::StopOne { .. } | Event::RestartOne { .. } => self.wished.contains(&name),
                Event::Freeze(_) | Event::Thaw(_) => true,
            };
            let standing = matches!(
                action,
                Action::Freeze { .. } | Action::Thaw { .. } | Action::Quiesce { .. } | Action::Resume { .. }
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
            Action::Spawn { .. } | Action::Quiesce { .. } | Action::Resume { .. } => {}
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
                process.forced |= *signal != Signal::SIGTERM;
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

    fn spawn(&mut self, name: &ServiceName, run: Run) -> Result<(), String> {
        promise!(!self.processes.contains_key(name), "two processes of {name}");
        promise!(self.stopping.is_none(), "{name} is started while everything stops");
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
            due: None,
            served: None,
        };
        self.processes.insert(name.clone(), process);
        Ok(())
    }

    fn compare(&self, event: &Event) -> Result<(), String> {
        for name in &self.names {
            let service = self.machine.service(name).unwrap();
            let process = self.processes.get(name);
            let run = process.map(|p| p.run);
            promise!(
                service.run() == run,
                "{name}: the books say {run:?}, the machine {:?}",
                service.state()
            );
            if let State::Stopping { until, rung, .. } = service.state() {
                let ladder = self.machine.plan().share(name);
                let spent = self.now.duration_since(service.since()) > ladder;
                let killed = process.is_some_and(|p| p.killed);
                promise!(!spent || killed, "{name} is past its ladder and not killed");
                let over = *rung > service.spec().stop.rungs().len();
                promise!(over || *until > self.now, "{name} missed its rung");
            }
        }
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

    fn passes(&self, name: &ServiceName, ending: &Ending) -> bool {
        ending.code() == Some(77) && self.machine.service(name).unwrap().spec().pass_exit.contains(&77)
    }

    /// When the whole begins to stop otherwise than by request: what that means.
    fn fatal_exit(&self, event: &Event) -> Option<Exit> {
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
    fn truthful(&self, exit: Exit) -> Result<(), String> {
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

    fn say(&mut self, name: &ServiceName, run: Run, what: Happened) -> Result<(), String> {
        self.step(Event::Service { name: name.clone(), run, what })
    }

    fn answer(&mut self, name: &ServiceName, ok: bool) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(name).filter(|p| !p.answered) else { return Ok(()) };
        let run = process.run;
        process.answered = true;
        process.leader = ok;
        let spec = self.machine.service(name).unwrap().spec();
        if ok {
            process.due = spec.start_deadline.map(|d| self.now + d);
            if spec.ready == Ready::Started && spec.kind == Kind::Daemon {
                process.ready = Some(self.now);
                process.due = spec.watchdog.map(|d| self.now + d);
            }
            return self.say(name, run, Happened::Spawned(Pid(1_000)));
        }
        self.end(name, Ending::SpawnFailed("ENOENT".to_owned()));
        self.say(name, run, Happened::SpawnFailed("ENOENT".to_owned()))
    }

    fn ready(&mut self, name: &ServiceName) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(name).filter(|p| p.leader) else { return Ok(()) };
        let run = process.run;
        if process.stands.is_some() {
            return Ok(());
        }
        let service = self.machine.service(name).unwrap();
        if matches!(service.state(), State::Starting { .. }) {
            process.ready = Some(self.now);
            process.due = service.spec().watchdog.map(|d| self.now + d);
        }
        self.say(name, run, Happened::Ready)
    }

    fn exit(&mut self, name: &ServiceName, ending: Ending) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(name).filter(|p| p.leader) else { return Ok(()) };
        process.leader = false;
        let run = process.run;
        // What stands does not serve.
        let until = process.stands.unwrap_or(self.now);
        let served = match process.stopped {
            true => process.served,
            false => process.ready.map(|r| until.duration_since(r)),
        };
        process.stands = None;
        if served.is_some_and(|d| d >= STABLE) {
            self.starts.insert(name.clone(), Vec::new());
        }
        let forced = self.processes.get(name).is_some_and(|p| p.forced && p.in_stop);
        self.lasts.insert(name.clone(), (ending.clone(), forced));
        self.say(name, run, Happened::Exited(ending))
    }

    fn gone(&mut self, name: &ServiceName) -> Result<(), String> {
        let cleared = |p: &&mut Process| p.answered && !p.leader;
        let Some(process) = self.processes.get_mut(name).filter(cleared) else { return Ok(()) };
        let run = process.run;
        let (ending, _) = self.lasts.get(name).cloned().unwrap();
        self.end(name, ending);
        self.say(name, run, Happened::DescentGone)
    }

    /// The process leaves the books, and its force, if it fell into the whole stop, is remembered.
    fn end(&mut self, name: &ServiceName, ending: Ending) {
        let forced = self.processes.remove(name).is_some_and(|p| p.forced && p.in_stop);
        self.lasts.insert(name.clone(), (ending, forced));
    }

    /// Whatever the machine's clock asks for until `until`, in order.
    fn wait(&mut self, until: Instant) -> Result<(), String> {
        for _ in 0..500 {
            match self.machine.next_deadline() {
                Some(next) if next <= until => {
                    self.now = next;
                    self.step(Event::Tick)?;
                }
                Some(_) | None => {
                    self.now = until;
                    return self.step(Event::Tick);
                }
            }
        }
        Err("the machine wakes without end".to_owned())
    }

    fn run(&mut self, op: Op) -> Result<(), String> {
        let pick = |i: usize| self.names.get(i).cloned();
        match op {
            Op::Answer(i, ok) => pick(i).map_or(Ok(()), |n| self.answer(&n, ok)),
            Op::Ready(i) => pick(i).map_or(Ok(()), |n| self.ready(&n)),
            Op::Exit(i, code) => pick(i).map_or(Ok(()), |n| self.exit(&n, Ending::Exited(code))),
            Op::Segfault(i) => {
                let ending = Ending::Signaled { signal: Killer(Signal::SIGSEGV as i32), core: Core::Dumped };
                pick(i).map_or(Ok(()), |n| self.exit(&n, ending))
            }
            Op::Gone(i) => pick(i).map_or(Ok(()), |n| self.gone(&n)),
            Op::Alive(i) => {
                let Some(name) = pick(i) else { return Ok(()) };
                let Some(run) = self.moving(&name) else { return Ok(()) };
                let watchdog = self.machine.service(&name).unwrap().spec().watchdog;
                if matches!(self.state(&name), State::Ready { .. })
                    && let Some(process) = self.processes.get_mut(&name)
                {
                    process.due = watchdog.map(|d| self.now + d);
                }
                self.say(&name, run, Happened::Alive)
            }
            Op::Stale(i, run, what) => pick(i).map_or(Ok(()), |n| self.stale(&n, Run(run), what)),
            Op::Wait(ms) => self.wait(self.now + Duration::from_millis(ms)),
            Op::Start(i) => pick(i).map_or(Ok(()), |n| self.step(Event::Start(n))),
            Op::StopOne(i, too) => pick(i).map_or(Ok(()), |name| {
                let dependents = if too { Dependents::Too } else { Dependents::Keep };
                self.step(Event::StopOne { name, dependents, by: "me".to_owned() })
            }),
            Op::RestartOne(i, too) => pick(i).map_or(Ok(()), |name| {
                let dependents = if too { Dependents::Too } else { Dependents::Keep };
                self.step(Event::RestartOne { name, dependents, by: "me".to_owned() })
            }),
            Op::Unready(i) => pick(i).map_or(Ok(()), |n| self.unready(&n)),
            Op::NotLive(i) => pick(i).map_or(Ok(()), |n| self.not_live(&n)),
            Op::Freeze => self.step(Event::Freeze("me".to_owned())),
            Op::Thaw => {
                self.step(Event::Thaw("me".to_owned()))?;
                let frozen = matches!(self.machine.whole(), Whole::Freezing { .. } | Whole::Frozen { .. });
                promise!(!frozen, "a thaw thaws nothing");
                Ok(())
            }
            Op::Proved(i) => pick(i).map_or(Ok(()), |n| self.of_standing(&n, Happened::Frozen)),
            Op::Busy(i) => {
                pick(i).map_or(Ok(()), |n| self.of_standing(&n, Happened::Busy("at work".to_owned())))
            }
            Op::Quiesced(i) => {
                let Some(name) = pick(i) else { return Ok(()) };
                let Some(run) = self.processes.get(&name).map(|p| p.run) else { return Ok(()) };
                self.say(&name, run, Happened::Quiesced)
            }
            Op::Oversleep(ms) => self.oversleep(Duration::from_millis(ms)),
            Op::Fence => self.fence(),
            Op::Stop => self.step(Event::Stop("SIGTERM".to_owned())),
        }
    }

    /// We wake at our deadline, but so much later.
    fn oversleep(&mut self, late: Duration) -> Result<(), String> {
        let Some(due) = self.machine.next_deadline().filter(|_| self.stopping.is_none()) else {
            return Ok(());
        };
        self.now = due + late;
        for name in &self.names {
            let counts = matches!(
                self.machine.service(name).unwrap().state(),
                State::Starting { .. } | State::Ready { .. }
            );
            if let Some(process) = self.processes.get_mut(name).filter(|_| counts) {
                process.due = process.due.map(|at| at + late);
            }
        }
        self.step(Event::Overslept(late))
    }

    /// Whoever stands says nothing of itself; of others it is heard.
    fn moving(&self, name: &ServiceName) -> Option<Run> {
        self.processes.get(name).filter(|p| p.leader && p.stands.is_none()).map(|p| p.run)
    }

    /// Not ready is never a reason for anything, unless the time after an outage is over.
    fn unready(&mut self, name: &ServiceName) -> Result<(), String> {
        let Some(run) = self.moving(name) else { return Ok(()) };
        self.step(Event::Tick)?;
        let before = self.state(name).clone();
        self.say(name, run, Happened::Unready("503".to_owned()))?;
        let same = std::mem::discriminant(&before) == std::mem::discriminant(self.state(name));
        promise!(same, "{name} is not ready and therefore {:?}", self.state(name));
        Ok(())
    }

    /// Silence is held against a service only when all that it requires serves.
    fn not_live(&mut self, name: &ServiceName) -> Result<(), String> {
        let Some(run) = self.moving(name) else { return Ok(()) };
        self.step(Event::Tick)?;
        let ground = self.machine.service(name).unwrap().spec().requires.iter().all(|r| self.serves(r));
        let before = std::mem::discriminant(self.state(name));
        self.say(name, run, Happened::NotLive("timeout".to_owned()))?;
        let same = before == std::mem::discriminant(self.state(name));
        promise!(same || ground, "{name} is ended for its silence while what it requires is away");
        Ok(())
    }

    fn of_standing(&mut self, name: &ServiceName, what: Happened) -> Result<(), String> {
        let Some(run) = self.processes.get(name).filter(|p| p.stands.is_some()).map(|p| p.run) else {
            return Ok(());
        };
        // The edge proves a run once.
        if matches!(self.state(name), State::Frozen { held: Held::Proved, .. }) {
            return Ok(());
        }
        self.say(name, run, what)
    }

    fn stale(&mut self, name: &ServiceName, run: Run, what: u8) -> Result<(), String> {
        if self.processes.get(name).is_some_and(|p| p.run == run) {
            return Ok(());
        }
        self.step(Event::Tick)?;
        let before: Vec<State> = self.machine.services().map(|s| s.state().clone()).collect();
        let what = match what {
            0 => Happened::Spawned(Pid(7)),
            1 => Happened::SpawnFailed("late".to_owned()),
            2 => Happened::Ready,
            3 => Happened::Exited(Ending::Exited(0)),
            _ => Happened::DescentGone,
        };
        let (actions, _) =
            self.machine.step(Event::Service { name: name.clone(), run, what: what.clone() }, self.now);
        let after: Vec<State> = self.machine.services().map(|s| s.state().clone()).collect();
        promise!(actions.is_empty() && before == after, "stale {what:?} of {name} changed something");
        Ok(())
    }

    /// After a fence nobody who is fenced serves, or ever comes up by itself.
    fn fence(&mut self) -> Result<(), String> {
        self.step(Event::Fence { by: named(0), why: "lost".to_owned() })?;
        if let Whole::Ended(_) = self.machine.whole() {
            return Ok(());
        }
        for name in self.names.clone() {
            let service = self.machine.service(&name).unwrap();
            if service.spec().fence_by.is_none() {
                continue;
            }
            let held = match service.state() {
                State::GaveUp(g) => g.how == GivesUp::Hold,
                State::Stopping { then, .. } | State::Clearing { then, .. } => matches!(then, Then::Held(_)),
                State::Spawning { stop, .. } => matches!(stop, Some(Then::Held(_))),
                State::Absent | State::Down(_) => true,
                State::Waiting
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Frozen { .. }
                | State::Backoff { .. }
                | State::Done => false,
            };
            promise!(held, "{name} is fenced and {:?}", service.state());
        }
        Ok(())
    }

    /// Everything is told to stop, everybody is as stubborn as can be, and the edge does its work at once.
    fn finish(&mut self) -> Result<(), String> {
        if self.stopping.is_none() {
            self.step(Event::Stop("SIGTERM".to_owned()))?;
        }
        let begun = self.stopping.unwrap_or(self.now).max(self.now);
        for _ in 0..200 {
            if matches!(self.machine.whole(), Whole::Ended(_)) {
                promise!(self.now.duration_since(begun) <= BUDGET, "the stop took longer than its budget");
                return Ok(());
            }
            for name in self.names.clone() {
                self.answer(&name, true)?;
                if self.processes.get(&name).is_some_and(|p| p.killed) {
                    self.exit(
                        &name,
                        Ending::Signaled { signal: Killer(Signal::SIGKILL as i32), core: Core::None },
                    )?;
                }
                self.gone(&name)?;
            }
            if let Some(next) = self.machine.next_deadline() {
                self.now = next;
                self.step(Event::Tick)?;
            }
        }
        Err(format!("the stop does not end: {:?}", self.machine.whole()))
    }
}

fn live(shapes: &[Shape], ops: &[Op]) -> Result<(), String> {
    let mut world = World::new(shapes);
    world.step(Event::Tick)?;
    for op in ops {
        world.run(*op)?;
    }
    world.finish()
}

/// The first broken promise in so many random lives.
fn broken(mutant: Option<Mutant>, cases: u32) -> Option<String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(&history(), |(shapes, ops)| {
        mutant::with(mutant, || live(&shapes, &ops)).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, (shapes, ops))) => Some(format!("{why}\n{shapes:#?}\n{ops:?}")),
        Err(TestError::Abort(why)) => panic!("the histories cannot be made: {why}"),
    }
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(why) = broken(None, 12_000) {
        panic!("{why}");
    }
}

#[test]
fn every_mutant_is_caught_by_the_promise_that_it_breaks() {
    let all = [
        (Mutant::StaleEvents, "stale"),
        (Mutant::StartWhileStopping, "is started while everything stops"),
        (Mutant::FenceLostWhileSpawning, "is fenced and"),
        (Mutant::NoKillAtTheEnd, "is past its ladder and not killed|the stop does not end"),
        (Mutant::RungStays, "is past its ladder and not killed"),
        (Mutant::ReadinessForgives, "times in its window"),
        (Mutant::UnlimitedAttempts, "times in its window"),
        (Mutant::RequiresIgnored, "which it requires"),
        (Mutant::RequiresIgnoredOnRestart, "which it requires"),
        (Mutant::NoStopOrder, "still lives"),
        (Mutant::EndsWhileClearing, "the end is claimed|still lives"),
        (Mutant::HurryKillsFirst, "gets SIGKILL first"),
        (Mutant::AlwaysClean, "the exit is Clean"),
        (Mutant::OldForceCounts, "the exit is Forced"),
        (Mutant::StartWhileFrozen, "is started while everything stands"),
        (Mutant::StandingCounts, "is held to a deadline|is no reason for"),
        (Mutant::StopPullsTheGround, "run on it"),
        (Mutant::DependentsStartEarly, "comes back before|which it requires"),
        (Mutant::OversleepingCounts, "is held to a deadline"),
        (Mutant::LiveWithoutGround, "is ended for its silence"),
    ];
    for (mutant, promises) in all {
        let why = broken(Some(mutant), 20_000).unwrap_or_default();
        let first = why.lines().next().unwrap_or_default();
        assert!(promises.split('|').any(|p| first.contains(p)), "{mutant:?} is seen only as: {first}");
    }
}
