//! The task that owns everything: it waits for the next thing to happen, tells the machine, and does what comes out.
//! Nothing else holds state of a service. No panic ends it: a turn that panics is logged and the next one begins,
//! because the supervisor's end is everybody's.

use super::RunArgs;
use super::perform::{Life, Task};
use super::probing::{Probes, Question};
use super::rundir::RunDir;
use crate::control::server::{self, Call};
use crate::exit::{Exit, Failure};
use crate::os::descent::{self, Pass};
use crate::os::limits::OpenFiles;
use crate::os::lock::Lock;
use crate::os::notify::{Message, NotifySocket};
use crate::os::oom::OomWatch;
use crate::os::output::{Rings, Writer};
use crate::os::privilege::Privilege;
use crate::os::reaper::{Ended, How, Left, Processes};
use crate::os::room::{self, Looks};
use crate::os::signals::{Asked, Signals};
use crate::probe::ProbeError;
use crate::spec::ServiceName;
use crate::state::{Action, Answer, Core, Ending, Event, Found, Happened, Killer, Machine, Run, Whole};
use crate::status::Reported;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How late we must wake to have stood still.
const OVERSLEPT: Duration = Duration::from_millis(500);
/// How long those who stood with us get to move again.
const GRACE: Duration = Duration::from_secs(1);
/// How long after a change the memory that it took is given back.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// What a process was started for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The leader of a run.
    Leader(ServiceName, Run),
    /// A question to a run.
    Probe(Question),
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
    pub(super) rings: Rings,
    pub(super) reported: BTreeMap<ServiceName, Reported>,
    pub(super) readers: JoinSet<()>,
    pub(super) probes: Probes,
    pub(super) looks: Looks,
    pub(super) oom: OomWatch,
    pub(super) begun: Instant,
    pub(super) recheck: Option<Instant>,
    /// Until when nobody looks at processes again.
    pub(super) pause: Option<Instant>,
    /// Why we cannot look at processes, while we cannot.
    pub(super) blind: Option<String>,
    /// Who asked for a freeze of which is not said yet what became of it; none: by a signal, and reads the log.
    pub(super) freezers: Vec<Option<oneshot::Sender<server::Answer>>>,
    /// What was last said of a service: its state, and how often it had been started.
    pub(super) shown: BTreeMap<ServiceName, (&'static str, u64)>,
    pub(super) stop_told: bool,
    /// When memory is given back, unless something changes again.
    pub(super) quiet: Option<Instant>,
    /// Limit of open files before we raised our own.
    pub(super) nofile: Option<OpenFiles>,
}

/// Everything that can happen to us.
enum Happening {
    Signal(Asked),
    Notified(Message),
    Called(Call),
    Answered(Question, Result<(), ProbeError>),
    Looked(room::Answer),
    Time,
}

/// What we listen to.
pub(super) struct Ears {
    pub(super) signals: Signals,
    pub(super) notify: NotifySocket,
    pub(super) called: mpsc::Receiver<Call>,
    /// Serves the control socket while we live.
    pub(super) _servers: JoinSet<()>,
}

/// How it ended, and since when it had been stopping.
pub(super) type Outcome = (Result<Exit, Failure>, Option<Instant>);

impl Driver {
    /// Runs until everything is down.
    pub(super) async fn run(mut self, mut ears: Ears) -> Outcome {
        // Of setting up nothing is needed again.
        crate::os::memory::give_back();
        let mut happening = Happening::Time;
        let mut stopping = None;
        loop {
            // Notifications that are there already come before the death of their sender, and before any deadline.
            for _ in 0..64 {
                let Some(message) = ears.notify.try_next() else { break };
                self.guarded(Happening::Notified(message));
            }
            self.guarded(happening);
            match self.machine.whole() {
                Whole::Ended(exit) => {
                    let exit = *exit;
                    return (self.end(exit).await, stopping);
                }
                Whole::Stopping { since, .. } => stopping = Some(*since),
                Whole::Up | Whole::Freezing { .. } | Whole::Frozen { .. } => {}
            }
            let due = self.next_due();
            happening = tokio::select! {
                asked = ears.signals.next() => Happening::Signal(asked),
                Some(call) = ears.called.recv() => Happening::Called(call),
                message = ears.notify.next() => match message {
                    Ok(message) => Happening::Notified(message),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the notify socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Happening::Time
                    }
                },
                (question, answer) = self.probes.answer() => Happening::Answered(question, answer),
                answer = self.looks.next() => Happening::Looked(answer),
                Some(_) = self.readers.join_next() => continue_with_time(),
                () = sleep_until(due) => Happening::Time,
            };
            self.overslept(due);
        }
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
                self.feed(Event::Stop(format!("asked by {signal}")));
            }
            Happening::Signal(Asked::Child) => self.reap(),
            Happening::Signal(Asked::Hangup) => tracing::info!("SIGHUP is ignored"),
            Happening::Signal(Asked::Freeze) => self.freeze_by_signal(),
            Happening::Signal(Asked::Thaw) => self.thaw_by_signal(),
            Happening::Notified(message) => self.notified(&message),
            Happening::Called(call) => self.called(call),
            Happening::Answered(question, answer) => self.answered(question, answer),
            Happening::Looked((name, number, found)) => {
                if let Found::Unknown(why) = &found {
                    tracing::warn!(service = %name, why, "whether there is room for it cannot be looked at");
                }
                self.feed(Event::Looked { name, number, found });
            }
            Happening::Time => {}
        }
        let now = Instant::now();
        self.feed(Event::Tick);
        // What is cleared may have more to be cleared behind it.
        for _ in 0..64 {
            if self.recheck.is_none_or(|at| at > now) {
                break;
            }
            self.recheck = None;
            self.clear();
            self.freeze_further();
        }
        self.retry_locks(now);
        self.ask(now);
        if self.quiet.is_some_and(|at| at <= now) {
            self.quiet = None;
            crate::os::memory::give_back_soon();
        }
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
        self.tell_freezers();
        answer
    }

    /// We ourselves stood still (a frozen container, a host that gave us no time): what came due meanwhile is not late.
    fn overslept(&mut self, due: Option<Instant>) {
        let late = due.map_or(Duration::ZERO, |due| Instant::now().saturating_duration_since(due));
        if late >= OVERSLEPT {
            tracing::warn!(
                late = crate::spec::duration::show(late),
                "we stood still; deadlines move by as much"
            );
            self.waiting_for_lock.iter_mut().for_each(|(.., until)| *until += late);
            self.feed(Event::Overslept(late + GRACE));
        }
    }

    pub(super) fn happened(&mut self, name: &ServiceName, run: Run, what: Happened) {
        self.feed(Event::Service { name: name.clone(), run, what });
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { name, run } => {
                self.spawn(&name, run).map(|what| Event::Service { name, run, what })
            }
            Action::Look { name, number } => {
                let room = self.machine.plan().spec(&name)?.room.clone()?;
                let found = self.looks.begin(&name, number, room)?;
                Some(Event::Looked { name, number, found })
            }
            Action::Signal { run, signal, .. } => {
                self.signal(run, signal);
                None
            }
            Action::Tell { run, signal, .. } => {
                self.tell(run, signal);
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
            Action::Freeze { name, run } => self.freeze(run).map(|what| Event::Service { name, run, what }),
            Action::Thaw { run, .. } => {
                self.thaw(run);
                None
            }
            Action::Quiesce { run, .. } => {
                self.tell(run, Signal::SIGUSR1);
                None
            }
            Action::Resume { run, .. } => {
                self.tell(run, Signal::SIGUSR2);
                None
            }
            Action::Clear { run, .. } => {
                let life = self.lives.get_mut(&run)?;
                life.task = Task::Clearing;
                // At the end of this turn, together with others.
                self.look_at(self.begun);
                None
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
        if !self.under(Task::Clearing).is_empty() {
            self.look_at(self.begun);
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
            Owner::Probe(question) => {
                let answer = match ended.how {
                    How::Exit(0) => Ok(()),
                    How::Exit(code) => {
                        let words = self.probes.last_words(question).map(|w| format!("\n  | {w}"));
                        let words = words.unwrap_or_default();
                        Err(ProbeError::Command(format!("ended with exit {code}{words}")))
                    }
                    How::Signal { number, .. } => {
                        Err(ProbeError::Command(format!("was ended by signal {number}")))
                    }
                };
                self.answered(question, answer);
            }
        }
    }

    fn ending(&mut self, how: How, killed_by_us: bool) -> Ending {
        match how {
            How::Exit(code) => Ending::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
            How::Signal { number, .. }
                if number == Signal::SIGKILL as i32 && !killed_by_us && self.oom.struck(Instant::now()) =>
            {
                Ending::OomKilled
            }
            How::Signal { number, core } => Ending::Signaled {
                signal: Killer(number),
                core: if core { Core::Dumped } else { Core::None },
            },
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let lock = (!self.waiting_for_lock.is_empty()).then(|| Instant::now() + Duration::from_millis(100));
        [self.machine.next_deadline(), self.probes.next(), self.recheck, lock, self.quiet]
            .into_iter()
            .flatten()
            .min()
    }

    /// Everything is down: nothing of ours may be left, adopted strangers included.
    async fn end(mut self, exit: Exit) -> Result<Exit, Failure> {
        let everybody = || self.rundir.descent.everybody();
        let mut proved = false;
        for _ in 0..200 {
            let left = self.processes.reap().left;
            proved = left == Left::Nobody && descent::empty(everybody) == Pass::Proved;
            if proved {
                break;
            }
            descent::signal_all(Signal::SIGKILL, everybody);
            if self.processes.reap().left != Left::Nobody {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let left = if proved { 0 } else { everybody().map_or(0, |found| found.len()) };
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
