//! What the world sees: one typed status, made from the machine, published over the control socket.
//!
//! `supafly status`, health probes and every later face read this and nothing else. The shape is versioned; fields are
//! added, never changed. Ages instead of times of day, because the wall clock of a resumed machine is wrong for a while.

mod table;
#[cfg(test)]
mod tests;
mod whole;

pub use table::{Colour, render};

use crate::spec::ServiceName;
use crate::state::{Cramped, Fitness, Held, Machine, Service, State, Then, Up};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A row of its own that a service reports, such as keeper's `archive` or `backup (wal-g 3.0.9)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub name: String,
    /// One word: `ok`, or what is wrong.
    pub state: String,
    /// For people.
    #[serde(default)]
    pub detail: String,
}

/// What a service reported of itself, and when.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// Rows of its own.
    pub rows: Vec<Row>,
    /// Whether clients can be served, as it sees it, and the reason.
    pub health: Option<(bool, String, Instant)>,
    /// A line on what it does right now (`STATUS=` of sd_notify(3)).
    pub text: Option<String>,
    /// The last bad answer to the question whether it is ready, while it is not.
    pub probe: Option<String>,
    /// Free values for `--json`.
    pub values: serde_json::Map<String, serde_json::Value>,
}

/// The state of the whole, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// On its way up.
    Starting,
    /// All that is installed serves.
    Ready,
    /// It runs, and not all of it as it should: [`Readiness`] says whether clients can be served nevertheless.
    Degraded,
    /// It stands still, or is about to, as somebody asked.
    Frozen,
    /// On its way down.
    Stopping,
    /// Down.
    Stopped,
}

impl Overall {
    /// As it is shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Overall::Starting => "starting",
            Overall::Ready => "ready",
            Overall::Degraded => "degraded",
            Overall::Frozen => "frozen",
            Overall::Stopping => "stopping",
            Overall::Stopped => "stopped",
        }
    }
}

/// Whether clients can be served by what must not fail: by every service whose giving up is more than a degradation, and
/// by those that report for clients; and every oneshot must have ended once, well or not. What may fail on its own (a pooler, an API) makes the whole degraded, not unready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Readiness {
    /// They can.
    Ready,
    /// They cannot.
    Not {
        /// Why.
        because: String,
    },
}

/// Of a status that does not say.
impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::Not { because: "the supervisor is of another release and does not say".to_owned() }
    }
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this shape.
    pub version: u32,
    /// One word.
    pub state: Overall,
    /// Why the whole is not as it should be; empty when it is.
    pub reason: String,
    /// Whether this machine may be given clients.
    #[serde(default)]
    pub readiness: Readiness,
    /// Since the supervisor's start, in milliseconds.
    pub up_ms: u64,
    /// Each service, dependencies first.
    pub services: Vec<ServiceStatus>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// One word.
    pub state: String,
    /// What it waits for, why it failed, what it is doing.
    #[serde(default)]
    pub detail: String,
    /// How long it has been in this state, in milliseconds.
    pub for_ms: u64,
    /// Number of its present run.
    pub run: Option<u64>,
    /// Its leader.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u64,
    /// How it last ended.
    pub last: Option<String>,
    /// How long its last start took until it was ready (a oneshot: done), in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// The last lines that it printed before it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// What it reports in rows of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// Free values.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub values: serde_json::Map<String, serde_json::Value>,
}

/// Makes the status of the machine.
#[must_use]
pub fn status(
    machine: &Machine,
    reported: &BTreeMap<ServiceName, Reported>,
    output: &BTreeMap<ServiceName, Vec<String>>,
    begun: Instant,
    now: Instant,
) -> Status {
    let services: Vec<_> = machine
        .services()
        .map(|s| {
            let empty = Reported::default();
            let facts = reported.get(&s.spec().name).unwrap_or(&empty);
            service(machine, s, facts, output.get(&s.spec().name), now)
        })
        .collect();
    let (state, reason, readiness) = whole::whole(machine, reported, now);
    let up = now.saturating_duration_since(begun);
    Status { version: 1, state, reason, readiness, up_ms: ms(up), services }
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn service(
    machine: &Machine,
    s: &Service,
    facts: &Reported,
    output: Option<&Vec<String>>,
    now: Instant,
) -> ServiceStatus {
    let name = &s.spec().name;
    let said = facts.text.clone().unwrap_or_default();
    let (state, detail, failed) = match s.state() {
        State::Waiting => {
            let on = machine.waits_for(name).unwrap_or_default();
            let word = if machine.is_blocked(name) { "blocked" } else { "waiting" };
            (word, format!("for {on}"), false)
        }
        State::Absent => ("absent", s.spec().lacks(), false),
        State::Spawning { .. } | State::Starting { .. } => {
            ("starting", facts.probe.clone().unwrap_or(said), false)
        }
        State::Ready { up: Up { fitness: Fitness::Unfit(why), .. }, .. } => ("unready", why.clone(), false),
        State::Ready { .. } => ("ready", said, false),
        State::Frozen { held: Held::Asked, .. } => ("freezing", said, false),
        State::Frozen { held: Held::Proved, .. } => ("frozen", said, false),
        State::Stopping { then, rung, .. } => {
            let why = match then {
                Then::Down(why) | Then::Failed(why) | Then::Held(why) => why.to_string(),
                Then::Again(why) => format!("to be started again: {why}"),
                Then::Policy => String::new(),
            };
            let sent = s.spec().stop.rungs().get(*rung).map_or("SIGKILL", |r| r.signal.as_str());
            ("stopping", format!("{sent} sent; {why}"), false)
        }
        State::Clearing { ending, .. } => {
            ("stopping", format!("{ending}; its descendants are being cleared"), false)
        }
        State::Backoff { until, last } => {
            let left = crate::spec::duration::show(until.saturating_duration_since(now));
            ("backoff", format!("{last}; again in {left}"), true)
        }
        State::Cramped(Cramped { last, look, .. }) => match look.lack() {
            None => ("stopping", format!("{last}; whether it had room is being looked at"), true),
            Some(lack) => ("no-room", format!("{lack}; starts when there is; it ended with: {last}"), true),
        },
        State::Done => ("done", String::new(), false),
        State::Down(why) => ("stopped", why.to_string(), false),
        State::GaveUp(given) => {
            let word = match given.how {
                crate::spec::GivesUp::Hold => "held",
                crate::spec::GivesUp::Degrade | crate::spec::GivesUp::StopAll => "failed",
            };
            (word, given.why.clone(), true)
        }
    };
    ServiceStatus {
        name: name.to_string(),
        state: state.to_owned(),
        detail,
        for_ms: ms(now.saturating_duration_since(s.since())),
        run: s.run().map(|r| r.0),
        pid: s.pid().map(|p| p.0),
        restarts: s.restarts(),
        last: s.last().map(ToString::to_string),
        start_ms: s.took().map(ms),
        output: if failed { output.cloned().unwrap_or_default() } else { Vec::new() },
        rows: facts.rows.clone(),
        values: facts.values.clone(),
    }
}
