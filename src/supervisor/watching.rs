//! What services say of themselves, and what we ask them: notifications, readiness and liveness.

use super::driver::Driver;
use super::probing::{Pace, Question, Topic};
use crate::os::descent;
use crate::os::notify::Message;
use crate::probe::ProbeError;
use crate::spec::{Check, Probe, Ready, ServiceName};
use crate::state::{Happened, Run, Service, State};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Driver {
    pub(super) fn notified(&mut self, message: &Message) {
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
                ("X_SUPAFLY_QUIESCED", "1") => self.happened(&name, run, Happened::Quiesced),
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

    /// Asks what is due, and ends what has no answer in time.
    pub(super) fn ask(&mut self, now: Instant) {
        let wanted: BTreeMap<Question, (Pace, &Probe)> =
            self.machine.services().flat_map(questions).collect();
        let paces = wanted.iter().map(|(question, (pace, _))| (*question, *pace)).collect();
        self.probes.keep(&paces, now);
        let due = self.probes.due(now).into_iter();
        let due: Vec<(Question, Probe)> =
            due.filter_map(|question| Some((question, wanted.get(&question)?.1.clone()))).collect();
        for (question, pid) in self.probes.overdue(now) {
            // It leads a session of its own; the answer comes with its end.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            self.probes.command(question, pid, now + Duration::from_secs(3_600));
        }
        for (question, Probe { check, timeout, .. }) in due {
            match check {
                Check::Exec { argv } => self.ask_by_command(question, argv, now + timeout),
                check @ (Check::Http { .. } | Check::Tcp { .. } | Check::Unix { .. }) => {
                    self.probes.ask(question, check, timeout);
                }
            }
        }
    }

    pub(super) fn answered(&mut self, question: Question, answer: Result<(), ProbeError>) {
        self.probes.answered(question, Instant::now());
        let (run, topic) = question;
        let Some(name) = self.lives.get(&run).map(|l| l.name.clone()) else { return };
        let what = match (topic, answer) {
            (Topic::Ready, Ok(())) => {
                self.reported.entry(name.clone()).or_default().probe = None;
                Happened::Ready
            }
            (Topic::Ready, Err(error)) => {
                let error = error.to_string();
                self.reported.entry(name.clone()).or_default().probe = Some(error.clone());
                Happened::Unready(error)
            }
            (Topic::Live, Ok(())) => Happened::Live,
            (Topic::Live, Err(error)) => Happened::NotLive(error.to_string()),
        };
        self.happened(&name, run, what);
    }
}

/// What is to be asked of a service now: until it is ready whether it is, soon and often; then that and whether it lives.
fn questions(s: &Service) -> impl Iterator<Item = (Question, (Pace, &Probe))> {
    let ready = |run: &Run, pace: fn(&Probe) -> Pace| match &s.spec().ready {
        Ready::Probe(probe) => Some(((*run, Topic::Ready), (pace(probe), probe))),
        Ready::Started | Ready::Notify => None,
    };
    let live = |run: &Run| {
        let probe = &s.spec().live.as_ref()?.probe;
        Some(((*run, Topic::Live), (Pace::Steady(probe.every), probe)))
    };
    let asked = match s.state() {
        State::Starting { run, .. } => [ready(run, Pace::eager), None],
        State::Ready { run, .. } => [ready(run, |probe| Pace::Steady(probe.every)), live(run)],
        State::Waiting
        | State::Absent
        | State::Spawning { .. }
        | State::Frozen { .. }
        | State::Stopping { .. }
        | State::Clearing { .. }
        | State::Backoff { .. }
        | State::Cramped(_)
        | State::Done
        | State::Down(_)
        | State::GaveUp(_) => [None, None],
    };
    asked.into_iter().flatten()
}
