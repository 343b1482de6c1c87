//! A freeze, carried out: the whole descent of a run is stopped, leader first, and proved to stand.
//!
//! Leader first, because it is the one that forks. What runs another program than the leader is work under way, unless
//! the service says otherwise (`helpers`); it is looked for before, and again when everything stands, because it may
//! have begun in between. Names of programs are compared (`/proc/PID/comm`), which needs no privilege.

use super::driver::{Driver, Owner};
use super::perform::{Task, kill_group};
use crate::control::server;
use crate::os::descent::{self, Pass};
use crate::os::procfs;
use crate::spec::Helpers;
use crate::state::{Answer, Event, Happened, Run, Whole};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How soon we look again whether everything stands.
const RECHECK: Duration = Duration::from_millis(5);

impl Driver {
    pub(super) fn freeze_by_signal(&mut self) {
        match self.feed(Event::Freeze("SIGUSR1".to_owned())) {
            Answer::Accepted => {
                tracing::info!("asked to freeze everything by SIGUSR1");
                self.freezers.push(None);
                self.tell_freezers();
            }
            Answer::Nothing(why) => tracing::info!("SIGUSR1: nothing to do: {why}"),
            Answer::Rejected(why) => tracing::warn!("SIGUSR1: not frozen: {why}"),
        }
    }

    pub(super) fn thaw_by_signal(&mut self) {
        match self.feed(Event::Thaw("SIGUSR2".to_owned())) {
            Answer::Accepted => tracing::info!("thawed everything by SIGUSR2"),
            Answer::Nothing(why) => tracing::info!("SIGUSR2: nothing to do: {why}"),
            Answer::Rejected(why) => tracing::warn!("SIGUSR2: not thawed: {why}"),
        }
    }

    /// Stops everybody of a run. `None`: the answer follows.
    pub(super) fn freeze(&mut self, run: Run) -> Option<Happened> {
        if !procfs::is_ours() {
            return Some(Happened::Busy(
                "/proc does not show our processes: nothing can be proved".to_owned(),
            ));
        }
        if let Some(why) = self.work_under_way(run) {
            return Some(Happened::Busy(why));
        }
        let life = self.lives.get_mut(&run)?;
        life.task = Task::Freezing;
        if let Some(pid) = life.leader {
            self.processes.signal(pid, Signal::SIGSTOP);
        }
        self.freeze_on(run)
    }

    fn freeze_on(&mut self, run: Run) -> Option<Happened> {
        descent::signal_all(Signal::SIGSTOP, || self.members(run));
        if descent::stopped(|| self.members(run)) != Pass::Proved {
            self.look_at(Instant::now() + RECHECK);
            return None;
        }
        let busy = self.work_under_way(run);
        let life = self.lives.get_mut(&run)?;
        life.task = Task::None;
        Some(busy.map_or(Happened::Frozen, Happened::Busy))
    }

    /// Looks again at those who did not stand yet, and at those who were not seen when they were to go on.
    pub(super) fn freeze_further(&mut self) {
        self.under(Task::Thawing).into_iter().for_each(|run| self.thaw(run));
        for run in self.under(Task::Freezing) {
            // A former answer may have thawed it.
            let Some(life) = self.lives.get(&run).filter(|life| life.task == Task::Freezing) else {
                continue;
            };
            let name = life.name.clone();
            if let Some(what) = self.freeze_on(run) {
                self.happened(&name, run, what);
            }
        }
    }

    /// Everybody of a run goes on, children first: a leader finds them as it left them. Whoever cannot be seen now (no
    /// descriptor is left to look with) goes on later, but the leader and its group do at once.
    pub(super) fn thaw(&mut self, run: Run) {
        let blind = Cell::new(false);
        descent::signal_all(Signal::SIGCONT, || {
            let mut members = self.members(run).inspect_err(|_| blind.set(true))?;
            members.reverse();
            Ok(members)
        });
        let Some(life) = self.lives.get_mut(&run).filter(|life| life.task != Task::Clearing) else { return };
        life.task = if blind.get() { Task::Thawing } else { Task::None };
        if blind.get() {
            if let Some(pid) = life.leader {
                kill_group(pid, Signal::SIGCONT);
            }
            self.look_at(Instant::now() + RECHECK);
        }
    }

    /// A signal that means something to this service alone.
    pub(super) fn tell(&mut self, run: Run, signal: Signal) {
        if let Some(pid) = self.lives.get(&run).and_then(|l| l.leader) {
            self.processes.signal(pid, signal);
        }
    }

    fn work_under_way(&self, run: Run) -> Option<String> {
        let life = self.lives.get(&run)?;
        let spec = self.machine.plan().spec(&life.name)?;
        if spec.helpers == Helpers::Resident {
            return None;
        }
        let leader = life.leader?;
        let members = match self.members(run) {
            Ok(members) => members,
            Err(why) => return Some(format!("the processes of `{}` cannot be seen: {why}", life.name)),
        };
        let own = procfs::program(leader)?;
        let probe = |pid| matches!(self.processes.owner(pid), Some(Owner::Probe(_)));
        members.into_iter().filter(|p| !probe(p.who.pid)).find_map(|p| {
            let program = procfs::program(p.who.pid).filter(|program| *program != own)?;
            Some(format!("`{}` has work under way: {program}, pid {}", life.name, p.who.pid))
        })
    }

    /// What became of a freeze, once: in the log, and to whoever asked for it over the control socket.
    pub(super) fn tell_freezers(&mut self) {
        if self.freezers.is_empty() {
            return;
        }
        let answer = match self.machine.whole() {
            Whole::Freezing { .. } => return,
            Whole::Frozen { .. } => server::Answer::Accepted,
            Whole::Up => server::Answer::Rejected(
                self.machine.not_frozen_because().unwrap_or("it was thawed meanwhile").to_owned(),
            ),
            Whole::Stopping { .. } | Whole::Ended(_) => {
                server::Answer::Rejected("everything is stopping".to_owned())
            }
        };
        if let server::Answer::Rejected(why) = &answer {
            tracing::warn!("not frozen: {why}");
        } else {
            tracing::info!("everything that freezes stands, and that is proved");
        }
        for freezer in self.freezers.drain(..).flatten() {
            // Who has gone meanwhile need not be told.
            let _ = freezer.send(answer.clone());
        }
    }
}
