//! What we say of our services: one line for each change, and the early word to those who asked for it (`on_stop`).

use super::driver::{Driver, QUIET};
use crate::spec::ServiceName;
use crate::state::{Cramped, Fitness, Held, Look, State, Then, Up, Whole};
use std::time::Instant;

impl Driver {
    /// Logs each change of a service once, and sends `on_stop` when the whole stop begins.
    pub(super) fn tell_changes(&mut self) {
        let changed: Vec<(ServiceName, (&'static str, u64))> = self
            .machine
            .services()
            .map(|s| (&s.spec().name, (word(s.state()), s.restarts())))
            .filter(|(name, now)| self.shown.get(*name) != Some(now))
            .map(|(name, now)| (name.clone(), now))
            .collect();
        if !changed.is_empty() {
            self.quiet = Some(Instant::now() + QUIET);
        }
        for (name, now) in changed {
            let (state, _) = now;
            self.shown.insert(name.clone(), now);
            let Some(service) = self.machine.service(&name) else { continue };
            let detail = detail(service.state());
            match service.state() {
                State::GaveUp(_) => {
                    let output = self.rings.ring(name.as_str()).lines().join("\n");
                    tracing::error!(service = %name, state, detail, last_output = output, "gave up");
                }
                State::Backoff { .. } => {
                    tracing::warn!(service = %name, state, detail, "will be started again");
                }
                State::Cramped(Cramped { look: Look::Rests { .. } | Look::Again { .. }, .. }) => {
                    tracing::warn!(service = %name, state, detail, "waits for room, and starts when there is some");
                }
                State::Ready { up: Up { fitness: Fitness::Unfit(_), .. }, .. } => {
                    tracing::warn!(service = %name, state, detail, "{name} is {state}");
                }
                State::Clearing { ending, then: Then::Policy | Then::Failed(_), .. }
                    if ending.code() != Some(0) =>
                {
                    tracing::warn!(service = %name, state, detail, "{name} ended unasked");
                }
                State::Absent => {
                    let why = service.spec().lacks();
                    tracing::info!(service = %name, state, "absent: {why}");
                }
                State::Waiting
                | State::Spawning { .. }
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Frozen { .. }
                | State::Stopping { .. }
                | State::Clearing { .. }
                | State::Cramped(_)
                | State::Done
                | State::Down(_) => tracing::info!(service = %name, state, detail, "{name} is {state}"),
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
}

const fn word(state: &State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Absent => "absent",
        State::Spawning { .. } => "being spawned",
        State::Starting { .. } => "starting",
        State::Ready { up: Up { fitness: Fitness::Unfit(_), .. }, .. } => "unready",
        State::Ready { .. } => "ready",
        State::Frozen { held: Held::Asked, .. } => "freezing",
        State::Frozen { held: Held::Proved, .. } => "frozen",
        State::Stopping { .. } => "stopping",
        State::Clearing { .. } => "clearing",
        State::Backoff { .. } => "in backoff",
        // For a moment: of what follows from it, each has a word of its own.
        State::Cramped(Cramped { look: Look::First { .. }, .. }) => "clearing",
        State::Cramped(Cramped { look: Look::Rests { .. } | Look::Again { .. }, .. }) => "without room",
        State::Done => "done",
        State::Down(_) => "down",
        State::GaveUp(_) => "given up",
    }
}

fn detail(state: &State) -> String {
    match state {
        State::Spawning { run, .. } => format!("run {}", run.0),
        State::Ready { up: Up { fitness: Fitness::Unfit(why), .. }, .. } => why.clone(),
        State::Starting { run, pid } | State::Ready { run, pid, .. } | State::Frozen { run, pid, .. } => {
            format!("run {}, pid {}", run.0, pid.0)
        }
        State::Stopping { run, pid, then, .. } => {
            let why = match then {
                Then::Down(why) | Then::Failed(why) | Then::Held(why) | Then::Again(why) => why.to_string(),
                Then::Policy => "to be started again".to_owned(),
            };
            format!("run {}, pid {}: {why}", run.0, pid.0)
        }
        State::Clearing { ending, .. } => ending.to_string(),
        State::Backoff { last, .. } => last.to_string(),
        State::Cramped(Cramped { last, look, .. }) => {
            look.lack().map_or_else(|| last.to_string(), |lack| format!("{lack}; it ended with: {last}"))
        }
        State::Down(why) => why.to_string(),
        State::GaveUp(given) => given.why.clone(),
        State::Waiting | State::Absent | State::Done => String::new(),
    }
}
