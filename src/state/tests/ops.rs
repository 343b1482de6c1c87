//! What happens in a history: each turn of the world, and the promises that belong to that turn alone.

use super::world::{Process, World};
use super::*;
use std::time::Instant;

impl World {
    pub(super) fn say(&mut self, name: &ServiceName, run: Run, what: Happened) -> Result<(), String> {
        self.step(Event::Service { name: name.clone(), run, what })
    }

    pub(super) fn answer(&mut self, name: &ServiceName, ok: bool) -> Result<(), String> {
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

    pub(super) fn ready(&mut self, name: &ServiceName) -> Result<(), String> {
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

    pub(super) fn exit(&mut self, name: &ServiceName, ending: Ending) -> Result<(), String> {
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
            // What it begins anew with; who starts by a wish has nothing behind him.
            let begins = if self.excused.contains(name) { Vec::new() } else { vec![self.now] };
            self.starts.insert(name.clone(), begins);
        }
        let forced = self.processes.get(name).is_some_and(|p| p.forced && p.in_stop);
        self.lasts.insert(name.clone(), (ending.clone(), forced));
        self.say(name, run, Happened::Exited(ending))
    }

    pub(super) fn gone(&mut self, name: &ServiceName) -> Result<(), String> {
        let cleared = |p: &&mut Process| p.answered && !p.leader;
        let Some(process) = self.processes.get_mut(name).filter(cleared) else { return Ok(()) };
        let run = process.run;
        let (ending, _) = self.lasts.get(name).cloned().unwrap();
        self.end(name, ending);
        self.say(name, run, Happened::DescentGone)
    }

    /// The process leaves the books, and its force, if it fell into the whole stop, is remembered.
    pub(super) fn end(&mut self, name: &ServiceName, ending: Ending) {
        let forced = self.processes.remove(name).is_some_and(|p| p.forced && p.in_stop);
        self.lasts.insert(name.clone(), (ending, forced));
    }

    /// Whatever the machine's clock asks for until `until`, in order.
    pub(super) fn wait(&mut self, until: Instant) -> Result<(), String> {
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

    pub(super) fn run(&mut self, op: Op) -> Result<(), String> {
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
            Op::Fails(i) => pick(i).map_or(Ok(()), |n| {
                self.answer(&n, true)?;
                self.exit(&n, Ending::Exited(3))?;
                self.gone(&n)
            }),
            Op::Looked(i, what) => pick(i).map_or(Ok(()), |n| self.looked(&n, what)),
            Op::Oversleep(ms) => self.oversleep(Duration::from_millis(ms)),
            Op::Fence => self.fence(),
            Op::Stop => self.step(Event::Stop("SIGTERM".to_owned())),
        }
    }

    /// We wake at our deadline, but so much later.
    pub(super) fn oversleep(&mut self, late: Duration) -> Result<(), String> {
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
    pub(super) fn moving(&self, name: &ServiceName) -> Option<Run> {
        self.processes.get(name).filter(|p| p.leader && p.stands.is_none()).map(|p| p.run)
    }

    /// Not ready is never a reason for anything, unless the time after an outage is over.
    pub(super) fn unready(&mut self, name: &ServiceName) -> Result<(), String> {
        let Some(run) = self.moving(name) else { return Ok(()) };
        self.step(Event::Tick)?;
        let before = self.state(name).clone();
        self.say(name, run, Happened::Unready("503".to_owned()))?;
        let same = std::mem::discriminant(&before) == std::mem::discriminant(self.state(name));
        promise!(same, "{name} is not ready and therefore {:?}", self.state(name));
        Ok(())
    }

    /// Silence is held against a service only when all that it requires serves.
    pub(super) fn not_live(&mut self, name: &ServiceName) -> Result<(), String> {
        let Some(run) = self.moving(name) else { return Ok(()) };
        self.step(Event::Tick)?;
        let ground = self.machine.service(name).unwrap().spec().requires.iter().all(|r| self.serves(r));
        let before = std::mem::discriminant(self.state(name));
        self.say(name, run, Happened::NotLive("timeout".to_owned()))?;
        let same = before == std::mem::discriminant(self.state(name));
        promise!(same || ground, "{name} is ended for its silence while what it requires is away");
        Ok(())
    }

    pub(super) fn of_standing(&mut self, name: &ServiceName, what: Happened) -> Result<(), String> {
        let Some(run) = self.processes.get(name).filter(|p| p.stands.is_some()).map(|p| p.run) else {
            return Ok(());
        };
        // The edge proves a run once.
        if matches!(self.state(name), State::Frozen { held: Held::Proved, .. }) {
            return Ok(());
        }
        self.say(name, run, what)
    }

    pub(super) fn stale(&mut self, name: &ServiceName, run: Run, what: u8) -> Result<(), String> {
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
    pub(super) fn fence(&mut self) -> Result<(), String> {
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
                | State::Cramped(_)
                | State::Done => false,
            };
            promise!(held, "{name} is fenced and {:?}", service.state());
        }
        Ok(())
    }

    /// Everything is told to stop, everybody is as stubborn as can be, and the edge does its work at once.
    pub(super) fn finish(&mut self) -> Result<(), String> {
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
