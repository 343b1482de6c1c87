//! The actions of the machine, carried out: spawn, signal, kill, prove gone.

use super::driver::{Driver, Owner};
use super::launch::{self, Circumstances};
use super::probing::Question;
use super::words::Words;
use crate::os::descent;
use crate::os::lock::{Lock, LockError};
use crate::os::output::Capture;
use crate::os::procfs::{self, Process};
use crate::os::spawn::SpawnRequest;
use crate::probe::ProbeError;
use crate::spec::{ServiceName, ServiceSpec};
use crate::state::{Event, Happened, Pid, Run, Service, State, Whole};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How soon we look again whether a descent is gone; an ending looks at once.
const RECHECK: Duration = Duration::from_millis(10);

/// A run that has, or may have, processes.
pub(super) struct Life {
    pub(super) name: ServiceName,
    /// Its first process, while that is not reaped.
    pub(super) leader: Option<i32>,
    /// Its process group, which may outlive the leader.
    group: i32,
    pub(super) captures: Vec<Capture>,
    readers: Vec<AbortHandle>,
    /// What is under way with its descent.
    pub(super) task: Task,
    /// We have sent it a SIGKILL.
    pub(super) killed: bool,
}

/// What is under way with a descent, until a look at the processes proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing.
    None,
    /// It is being stopped where it stands.
    Freezing,
    /// It is to go on, and could not be looked at yet.
    Thawing,
    /// Its leader has ended; the rest is being killed.
    Clearing,
}

impl Driver {
    /// The runs with which this is under way.
    pub(super) fn under(&self, task: Task) -> Vec<Run> {
        self.lives.iter().filter(|(_, life)| life.task == task).map(|(run, _)| *run).collect()
    }

    /// Processes are looked at again then, if not before.
    pub(super) fn look_at(&mut self, at: Instant) {
        self.recheck = Some(self.recheck.map_or(at, |before| before.min(at)));
    }

    /// Starts the process of a run. `None`: the answer follows, because its lock is not free yet.
    pub(super) fn spawn(&mut self, name: &ServiceName, run: Run) -> Option<Happened> {
        let lock = self.machine.plan().spec(name).and_then(|s| s.lock.clone());
        if let Some(path) = lock.filter(|path| !self.locks.contains_key(path)) {
            match self.take_lock(&path) {
                Ok(()) => {}
                Err(LockError::Busy { .. }) => {
                    let until = Instant::now() + self.args.stop_budget;
                    tracing::warn!(service = %name, lock = %path.display(), "the lock is busy; waiting for it");
                    self.waiting_for_lock.push((name.clone(), run, until));
                    return None;
                }
                Err(error @ LockError::Io { .. }) => return Some(Happened::SpawnFailed(error.to_string())),
            }
        }
        Some(self.launch(name, run).unwrap_or_else(Happened::SpawnFailed))
    }

    fn take_lock(&mut self, path: &Path) -> Result<(), LockError> {
        let lock = Lock::take(path, &self.holder)?;
        self.locks.insert(path.to_path_buf(), lock);
        Ok(())
    }

    /// Whether a lock that was busy is free now; past the deadline the holder is named and everything stops.
    pub(super) fn retry_locks(&mut self, now: Instant) {
        for (name, run, until) in std::mem::take(&mut self.waiting_for_lock) {
            let Some(path) = self.machine.plan().spec(&name).and_then(|s| s.lock.clone()) else { continue };
            let over = matches!(self.machine.whole(), Whole::Stopping { .. } | Whole::Ended(_));
            // One that was stopped, or fenced, meanwhile waits no longer, and ends nobody by waiting in vain.
            let state = self.machine.service(&name).map(Service::state);
            let stopping = over || matches!(state, Some(State::Spawning { stop: Some(_), .. }));
            if stopping {
                let why = "stopped while it waited for its lock".to_owned();
                self.happened(&name, run, Happened::SpawnFailed(why));
                continue;
            }
            let taken = if self.locks.contains_key(&path) { Ok(()) } else { self.take_lock(&path) };
            match taken {
                Ok(()) => {
                    let what = self.launch(&name, run).unwrap_or_else(Happened::SpawnFailed);
                    self.happened(&name, run, what);
                }
                Err(LockError::Busy { .. }) if now < until => self.waiting_for_lock.push((name, run, until)),
                Err(error @ LockError::Busy { .. }) => {
                    let why =
                        format!("{error}; stop it there first, or give this machine a volume of its own");
                    self.refused = Some(why.clone());
                    self.feed(Event::Stop(why.clone()));
                    self.happened(&name, run, Happened::SpawnFailed(why));
                }
                Err(error @ LockError::Io { .. }) => {
                    self.happened(&name, run, Happened::SpawnFailed(error.to_string()));
                }
            }
        }
    }

    /// What a process of this run gets.
    fn request(&self, spec: &ServiceSpec, run: Run, lock: Option<RawFd>) -> Result<SpawnRequest, String> {
        let around = Circumstances {
            privilege: self.privilege,
            environment: &self.args.environment,
            descent: &self.rundir.descent,
            notify: &self.rundir.notify_socket(),
            run: run.0,
            share: self.machine.plan().share(&spec.name),
            lock,
            nofile: self.nofile,
        };
        launch::request(spec, &around)
    }

    fn launch(&mut self, name: &ServiceName, run: Run) -> Result<Happened, String> {
        let spec = self.machine.plan().spec(name).ok_or("there is no such service")?.clone();
        let lock = spec.lock.as_ref().and_then(|path| self.locks.get(path)).map(Lock::descriptor);
        let request = self.request(&spec, run, lock)?;
        let owner = Owner::Leader(name.clone(), run);
        let spawned = self.processes.spawn(owner, &request).map_err(|e| e.to_string())?;
        let mut life = Life {
            name: name.clone(),
            leader: Some(spawned.pid),
            group: spawned.pid,
            captures: Vec::new(),
            readers: Vec::new(),
            task: Task::None,
            killed: false,
        };
        let ring = self.rings.ring(name.as_str());
        for (pipe, stream) in [(spawned.stdout, "stdout"), (spawned.stderr, "stderr")] {
            match Capture::new(pipe, (name.as_str(), run.0, stream), &self.writer, &ring) {
                Ok(capture) => {
                    life.captures.push(capture.clone());
                    life.readers.push(self.readers.spawn(capture.follow()));
                }
                Err(error) => tracing::error!(service = %name, stream, %error, "cannot read its output"),
            }
        }
        // A new life begins without the facts of the former.
        self.reported.remove(name);
        self.lives.insert(run, life);
        Ok(Happened::Spawned(Pid(spawned.pid)))
    }

    /// A probe that is a command: it runs as the service, and belongs to its run.
    pub(super) fn ask_by_command(&mut self, question: Question, argv: Vec<String>, until: Instant) {
        let (run, _) = question;
        let Some(name) = self.lives.get(&run).map(|l| l.name.clone()) else { return };
        let started = self.machine.plan().spec(&name).cloned().ok_or("there is no such service".to_owned());
        let started = started.and_then(|mut spec| {
            spec.exec = argv;
            let request = self.request(&spec, run, None)?;
            self.processes.spawn(Owner::Probe(question), &request).map_err(|e| e.to_string())
        });
        match started {
            Ok(spawned) => {
                self.probes.command(question, spawned.pid, until);
                let pipes = [spawned.stderr, spawned.stdout].into_iter();
                let pipes = pipes.filter_map(|p| tokio::net::unix::pipe::Receiver::from_owned_fd(p).ok());
                let words: Vec<_> = pipes.map(Words::new).collect();
                let readers = words.iter().map(|w| self.readers.spawn(w.clone().listen())).collect();
                self.probes.reads(question, readers, words);
            }
            Err(why) => {
                self.answered(question, Err(ProbeError::Command(format!("could not be started: {why}"))));
            }
        }
    }

    /// To the leader only: what its children get is its own affair. SIGCONT follows, because a stopped process would
    /// not see the signal.
    pub(super) fn signal(&mut self, run: Run, signal: Signal) {
        let Some(life) = self.lives.get_mut(&run) else { return };
        life.killed |= signal == Signal::SIGKILL;
        if let Some(pid) = life.leader {
            self.processes.signal(pid, signal);
            self.processes.signal(pid, Signal::SIGCONT);
        }
    }

    pub(super) fn members(&self, run: Run) -> std::io::Result<Vec<Process>> {
        self.rundir.descent.members(run.0, &self.runs())
    }

    /// To everybody of a run, leader first.
    pub(super) fn kill(&mut self, run: Run, signal: Signal) {
        let Some(life) = self.lives.get_mut(&run) else { return };
        life.killed = true;
        let group = life.group;
        if let Some(pid) = life.leader {
            self.processes.signal(pid, signal);
        }
        if !procfs::is_ours() {
            kill_group(group, signal);
        }
        descent::signal_all(signal, || self.members(run));
    }

    /// Kills what is left of the runs whose leaders have ended, all in one look, and tells the machine of those of whom
    /// two looks show nobody. A look costs what there are processes: with thousands of them we spend half of our time
    /// on looking and no more.
    pub(super) fn clear(&mut self) {
        let clearing: BTreeSet<u64> = self.under(Task::Clearing).into_iter().map(|run| run.0).collect();
        if clearing.is_empty() {
            return;
        }
        let begun = Instant::now();
        if let Some(pause) = self.pause.filter(|until| *until > begun) {
            self.look_at(pause);
            return;
        }
        let left = if procfs::is_ours() {
            let runs = self.runs();
            descent::sweep(|| self.rundir.descent.members_of(&clearing, &runs))
        } else {
            // Nothing can be seen: the group is all that can be reached.
            let groups = self.lives.iter().filter(|(run, _)| clearing.contains(&run.0));
            groups.for_each(|(_, life)| kill_group(life.group, Signal::SIGKILL));
            Ok(BTreeSet::new())
        };
        let took = begun.elapsed();
        self.pause = Some(begun + took * 2);
        let left = match left {
            Ok(left) => {
                self.blind = None;
                left
            }
            Err(error) => {
                let said = self.blind.replace(error.to_string());
                if said != self.blind {
                    tracing::warn!(%error, "cannot look at our processes; until we can, nobody is taken for gone");
                }
                clearing.clone()
            }
        };
        if !left.is_empty() {
            self.look_at(Instant::now() + took.max(RECHECK));
        }
        for run in clearing.difference(&left).map(|number| Run(*number)) {
            let Some(life) = self.lives.remove(&run) else { continue };
            life.captures.iter().for_each(Capture::drain);
            life.readers.iter().for_each(AbortHandle::abort);
            self.happened(&life.name, run, Happened::DescentGone);
        }
    }
}

pub(super) fn kill_group(group: i32, signal: Signal) {
    // Who is gone needs no signal.
    let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), signal);
}
