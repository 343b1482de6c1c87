//! The task that owns everything: it waits for the next thing to happen, tells the machine, and does what comes out.
//! Nothing else holds state of a service. No panic ends it: a turn that panics is logged and the next one begins,
//! because the supervisor's end is everybody's.

use super::RunArgs;
use super::perform::Life;
use super::probing::Probes;
use super::rundir::RunDir;
use crate::control::server::{self, Call};
use crate::exit::{Exit, Failure};
use crate::os::descent::{self, Pass};
use crate::os::lock::Lock;
use crate::os::notify::{Message, NotifySocket};
use crate::os::oom::OomWatch;
use crate::os::output::{Tail, Writer};
use crate::os::privilege::Privilege;
use crate::os::reaper::{Ended, How, Left, Processes};
use crate::os::signals::{Asked, Signals};
use crate::plan::Plan;
use crate::probe::ProbeError;
use crate::spec::{Check, Probe, Ready, ServiceName};
use crate::state::{Action, Answer, Core, Ending, Event, Happened, Machine, Run, State, Then, Whole};
use crate::status::Reported;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a process was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The leader of a run.
    Leader(ServiceName, Run),
    /// A question to a run.
    Probe(Run),
}

/// The supervisor's whole state.
pub(super) struct Driver {
    pub(super) args: RunArgs,
    pub(super) machine: Machine,
    pub(super) processes: Processes<Owner>,
    pub(super) rundir: RunDir,
    pub(super) privilege: Privilege,
    pub(super) holder: String,
    pub(super) writer: Writer,
    pub(super) lives: BTreeMap<Run, Life>,
    pub(super) locks: BTreeMap<PathBuf, Lock>,
    pub(super) waiting_for_lock: Vec<(ServiceName, Run, Instant)>,
    pub(super) refused: Option<String>,
    pub(super) tails: BTreeMap<ServiceName, Tail>,
    pub(super) reported: BTreeMap<ServiceName, Reported>,
    pub(super) readers: JoinSet<()>,
    pub(super) probes: Probes,
    pub(super) oom: OomWatch,
    pub(super) begun: Instant,
    pub(super) recheck: Option<Instant>,
    shown: BTreeMap<ServiceName, &'static str>,
    stop_told: bool,
}

/// Everything that can happen to us.
enum Happening {
    Signal(Asked),
    Notified(Message),
    Called(Call),
    Answered(Run, Result<(), ProbeError>),
    Time,
}

/// Sets up the sockets and runs until everything is down.
pub(super) async fn drive(
    args: RunArgs,
    plan: Plan,
    rundir: RunDir,
    privilege: Privilege,
    holder: String,
    writer: Writer,
) -> Result<Exit, Failure> {
    let failed = |what: String| move |e: std::io::Error| Failure::config(format!("cannot {what}: {e}"));
    let mut signals = Signals::new().map_err(failed("take signals".to_owned()))?;
    let processes = Processes::new().map_err(failed("become a subreaper".to_owned()))?;
    let path = rundir.notify_socket();
    let notify = NotifySocket::bind(&path).map_err(failed(format!("make {}", path.display())))?;
    let path = rundir.control_socket();
    let listener = server::bind(&path).map_err(failed(format!("make {}", path.display())))?;
    let (calls, mut called) = mpsc::channel(64);
    let mut servers = JoinSet::new();
    servers.spawn(server::serve(listener, calls));
    let begun = Instant::now();
    let absent = super::load::absent(&plan, &args.environment);
    for name in &absent {
        let program = plan.spec(name).and_then(|s| s.exec.first()).map_or("", String::as_str);
        tracing::info!(service = %name, program, "absent: its program is not installed");
    }
    let users =
        plan.order().iter().filter_map(|n| plan.spec(n)).any(|s| s.user.is_some() || s.group.is_some());
    if users && matches!(privilege, Privilege::None) {
        tracing::warn!(
            "not privileged: `user`, `group` and `groups` are ignored, everything runs as one user"
        );
    }
    if !crate::os::procfs::is_ours() {
        tracing::warn!(
            "/proc does not show our processes: descendants are ended by their process group only"
        );
    }
    let machine = Machine::new(plan, &absent, begun);
    let mut driver = Driver {
        args,
        machine,
        processes,
        rundir,
        privilege,
        holder,
        writer,
        lives: BTreeMap::new(),
        locks: BTreeMap::new(),
        waiting_for_lock: Vec::new(),
        refused: None,
        tails: BTreeMap::new(),
        reported: BTreeMap::new(),
        readers: JoinSet::new(),
        probes: Probes::new(begun),
        oom: OomWatch::new(),
        begun,
        recheck: None,
        shown: BTreeMap::new(),
        stop_told: false,
    };
    let mut happening = Happening::Time;
    loop {
        // Notifications that are there already come before the death of their sender.
        if matches!(happening, Happening::Signal(Asked::Child)) {
            for _ in 0..64 {
                let Some(message) = notify.try_next() else { break };
                driver.guarded(Happening::Notified(message));
            }
        }
        driver.guarded(happening);
        if let Whole::Ended(exit) = *driver.machine.whole() {
            return driver.end(exit).await;
        }
        let due = driver.next_due();
        happening = tokio::select! {
            asked = signals.next() => Happening::Signal(asked),
            Some(call) = called.recv() => Happening::Called(call),
            message = notify.next() => match message {
                Ok(message) => Happening::Notified(message),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the notify socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Happening::Time
                }
            },
            (run, answer) = driver.probes.answer() => Happening::Answered(run, answer),
            Some(_) = driver.readers.join_next() => continue_with_time(),
            () = sleep_until(due) => Happening::Time,
        };
    }
}

/// A reader has ended; there is nothing to do but to look at the time.
const fn continue_with_time() -> Happening {
    Happening::Time
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    fn guarded(&mut self, happening: Happening) {
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(happening)));
        if turn.is_err() {
            tracing::error!("a turn of the supervisor panicked; this is a bug of supafly; it goes on");
        }
    }

    fn turn(&mut self, happening: Happening) {
        match happening {
            Happening::Signal(Asked::Stop(signal)) => {
                tracing::info!(signal, "asked to stop");
                self.feed(Event::Stop(signal.to_owned()));
            }
            Happening::Signal(Asked::Child) => self.reap(),
            Happening::Signal(Asked::Hangup) => tracing::info!("SIGHUP is ignored"),
            Happening::Signal(Asked::Freeze) => tracing::warn!("SIGUSR1 rejected: freezing is not there yet"),
            Happening::Signal(Asked::Thaw) => tracing::warn!("SIGUSR2 rejected: thawing is not there yet"),
            Happening::Notified(message) => self.notified(&message),
            Happening::Called(call) => self.called(call),
            Happening::Answered(run, answer) => self.answered(run, answer),
            Happening::Time => {}
        }
        let now = Instant::now();
        self.feed(Event::Tick);
        if self.recheck.is_some_and(|at| at <= now) {
            self.recheck = None;
            let clearing: Vec<_> =
                self.lives.iter().filter(|(_, l)| l.clearing).map(|(run, _)| *run).collect();
            for run in clearing {
                self.clear(run);
            }
        }
        self.retry_locks(now);
        self.ask(now);
    }

    /// Tells the machine, and does what comes out until nothing more does.
    pub(super) fn feed(&mut self, event: Event) -> Answer {
        let (actions, answer) = self.machine.step(event, Instant::now());
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if let Some(event) = self.perform(action) {
                actions.extend(self.machine.step(event, Instant::now()).0);
            }
        }
        self.tell_changes();
        answer
    }

    pub(super) fn happened(&mut self, name: &ServiceName, run: Run, what: Happened) {
        self.feed(Event::Service { name: name.clone(), run, what });
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { name, run } => {
                self.spawn(&name, run).map(|what| Event::Service { name, run, what })
            }
            Action::Signal { run, signal, .. } => {
                self.signal(run, signal);
                None
            }
            Action::Kill { run, .. } => {
                self.kill(run, Signal::SIGKILL);
                None
            }
            Action::Fence { run, .. } => {
                self.kill(run, Signal::SIGSTOP);
                self.kill(run, Signal::SIGKILL);
                None
            }
            Action::Clear { name, run } => {
                let life = self.lives.get_mut(&run)?;
                life.clearing = true;
                self.clear_now(run).then_some(Event::Service { name, run, what: Happened::DescentGone })
            }
        }
    }

    /// Logs each change of a service once, and sends `on_stop` when the whole stop begins.
    fn tell_changes(&mut self) {
        let now: Vec<_> = self.machine.services().map(|s| (s.spec().name.clone(), word(s.state()))).collect();
        for (name, state) in now {
            if self.shown.insert(name.clone(), state) != Some(state) {
                let Some(service) = self.machine.service(&name) else { continue };
                let detail = detail(service.state());
                match service.state() {
                    State::GaveUp(_) => {
                        let output = self.tails.get(&name).map(Tail::lines).unwrap_or_default().join("\n");
                        tracing::error!(service = %name, state, detail, last_output = output, "gave up");
                    }
                    State::Backoff { .. } => {
                        tracing::warn!(service = %name, state, detail, "will be started again")
                    }
                    State::Waiting
                    | State::Absent
                    | State::Spawning { .. }
                    | State::Starting { .. }
                    | State::Ready { .. }
                    | State::Stopping { .. }
                    | State::Clearing { .. }
                    | State::Done
                    | State::Down(_) => tracing::info!(service = %name, state, detail, "{name} is {state}"),
                }
            }
        }
        if matches!(self.machine.whole(), Whole::Stopping { .. }) && !self.stop_told {
            self.stop_told = true;
            let told: Vec<_> =
                self.machine.services().filter_map(|s| Some((s.spec().on_stop?, s.pid()?))).collect();
            for (signal, pid) in told {
                self.processes.signal(pid.0, signal);
            }
        }
    }

    fn reap(&mut self) {
        loop {
            let reaped = self.processes.reap();
            for ended in reaped.ended {
                self.ended(ended);
            }
            if reaped.strangers > 0 {
                tracing::debug!(count = reaped.strangers, "buried orphans");
            }
            if reaped.left != Left::More {
                break;
            }
        }
        let clearing: Vec<_> = self.lives.iter().filter(|(_, l)| l.clearing).map(|(run, _)| *run).collect();
        for run in clearing {
            self.clear(run);
        }
    }

    fn ended(&mut self, ended: Ended<Owner>) {
        match ended.owner {
            Owner::Leader(name, run) => {
                let mut killed_by_us = false;
                if let Some(life) = self.lives.get_mut(&run) {
                    life.leader = None;
                    killed_by_us = life.killed;
                    life.captures.iter().for_each(crate::os::output::Capture::drain);
                }
                let ending = self.ending(ended.how, killed_by_us);
                self.happened(&name, run, Happened::Exited(ending));
            }
            Owner::Probe(run) => {
                let answer = match ended.how {
                    How::Exit(0) => Ok(()),
                    How::Exit(code) => Err(ProbeError::Command(format!("ended with exit {code}"))),
                    How::Signal { number, .. } => {
                        Err(ProbeError::Command(format!("was ended by signal {number}")))
                    }
                };
                self.answered(run, answer);
            }
        }
    }

    fn ending(&mut self, how: How, killed_by_us: bool) -> Ending {
        match how {
            How::Exit(code) => Ending::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
            How::Signal { number, core } => match Signal::try_from(number) {
                Ok(Signal::SIGKILL) if !killed_by_us && self.oom.struck() => Ending::OomKilled,
                Ok(signal) => Ending::Signaled { signal, core: if core { Core::Dumped } else { Core::None } },
                // A realtime signal has no name here; shells show it so.
                Err(_) => Ending::Exited(u8::try_from(128 + number).unwrap_or(u8::MAX)),
            },
        }
    }

    fn notified(&mut self, message: &Message) {
        let Some((name, run)) = self.service_of(message.pid) else {
            tracing::warn!(
                pid = message.pid,
                "a notification from a process that is no service of ours is not believed"
            );
            return;
        };
        let by_notify = self.machine.service(&name).is_some_and(|s| matches!(s.spec().ready, Ready::Notify));
        for (key, value) in &message.assignments {
            match (key.as_str(), value.as_str()) {
                ("READY", "1") if by_notify => self.happened(&name, run, Happened::Ready),
                ("WATCHDOG", "1") => self.happened(&name, run, Happened::Alive),
                ("STATUS", text) => {
                    let text: String = text.chars().take(512).collect();
                    self.reported.entry(name.clone()).or_default().text = Some(text);
                }
                _ => {}
            }
        }
    }

    /// The service and the present run that a process belongs to.
    pub(super) fn service_of(&self, pid: i32) -> Option<(ServiceName, Run)> {
        let number = self.rundir.descent.run_of(pid, &self.runs())?;
        let run = Run(number);
        let life = self.lives.get(&run)?;
        Some((life.name.clone(), run))
    }

    pub(super) fn runs(&self) -> Vec<descent::Run> {
        self.lives.iter().map(|(run, life)| descent::Run { number: run.0, leader: life.leader }).collect()
    }

    fn ask(&mut self, now: Instant) {
        let question = |s: &crate::state::Service| match (s.state(), &s.spec().ready) {
            (State::Starting { run, .. }, Ready::Probe(probe)) => Some((*run, probe.clone())),
            _ => None,
        };
        let wanted: BTreeMap<Run, Probe> = self.machine.services().filter_map(question).collect();
        let every = wanted.iter().map(|(run, probe)| (*run, probe.every)).collect();
        self.probes.keep(&every, now);
        for (run, pid) in self.probes.overdue(now) {
            // It leads a session of its own; the answer comes with its end.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            self.probes.command(run, pid, now + Duration::from_secs(3_600));
        }
        for run in self.probes.due(now) {
            let Some(probe) = wanted.get(&run) else { continue };
            match &probe.check {
                Check::Exec { argv } => self.ask_by_command(run, argv, now + probe.timeout),
                Check::Http { .. } | Check::Tcp { .. } | Check::Unix { .. } => {
                    self.probes.ask(run, probe.check.clone(), probe.timeout);
                }
            }
        }
    }

    fn answered(&mut self, run: Run, answer: Result<(), ProbeError>) {
        self.probes.answered(run, Instant::now());
        let Some(name) = self.lives.get(&run).map(|l| l.name.clone()) else { return };
        match answer {
            Ok(()) => self.happened(&name, run, Happened::Ready),
            Err(error) => {
                self.reported.entry(name).or_default().text = Some(error.to_string());
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let lock = (!self.waiting_for_lock.is_empty()).then(|| Instant::now() + Duration::from_millis(100));
        [self.machine.next_deadline(), self.probes.next(), self.recheck, lock].into_iter().flatten().min()
    }

    /// Everything is down: nothing of ours may be left, adopted strangers included.
    async fn end(mut self, exit: Exit) -> Result<Exit, Failure> {
        let everybody = || self.rundir.descent.everybody();
        for _ in 0..200 {
            let left = self.processes.reap().left;
            if left == Left::Nobody && descent::empty(everybody) == Pass::Proved {
                break;
            }
            descent::signal_all(Signal::SIGKILL, everybody);
            if self.processes.reap().left != Left::Nobody {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let left = everybody().len();
        if left > 0 {
            tracing::error!(left, "processes that cannot be ended are left behind");
        }
        self.rundir.clear();
        if let Some(why) = self.refused {
            return Err(Failure::refused(why));
        }
        tracing::info!(exit = exit.code(), "{}", exit.sentence());
        Ok(exit)
    }
}

const fn word(state: &State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Absent => "absent",
        State::Spawning { .. } => "being spawned",
        State::Starting { .. } => "starting",
        State::Ready { .. } => "ready",
        State::Stopping { .. } => "stopping",
        State::Clearing { .. } => "clearing",
        State::Backoff { .. } => "in backoff",
        State::Done => "done",
        State::Down(_) => "down",
        State::GaveUp(_) => "given up",
    }
}

fn detail(state: &State) -> String {
    match state {
        State::Spawning { run, .. } => format!("run {}", run.0),
        State::Starting { run, pid } | State::Ready { run, pid, .. } => {
            format!("run {}, pid {}", run.0, pid.0)
        }
        State::Stopping { run, pid, then, .. } => {
            let why = match then {
                Then::Down(why) | Then::Failed(why) | Then::Held(why) => why.to_string(),
                Then::Policy => "to be started again".to_owned(),
            };
            format!("run {}, pid {}: {why}", run.0, pid.0)
        }
        State::Clearing { ending, .. } => ending.to_string(),
        State::Backoff { last, .. } => last.to_string(),
        State::Down(why) => why.to_string(),
        State::GaveUp(given) => given.why.clone(),
        State::Waiting | State::Absent | State::Done => String::new(),
    }
}
