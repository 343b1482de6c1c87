//! What a service file says, as types that cannot be wrong.
//!
//! A [`ServiceSpec`] exists only when every key of its file was understood ([`parse`]); after that nothing checks again.
//! Whatever a particular program needs is a generic key here, never a name in the supervisor.

mod asking;
mod capability;
pub mod duration;
pub mod keys;
mod names;
mod parse;
mod policy;
pub mod problem;
mod reader;
pub mod room;
#[cfg(test)]
mod tests;

pub use capability::Capability;
pub use names::{Pass, ServiceName};
pub use parse::parse;
pub use room::Room;

use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Whether a service is meant to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs for ever; ready when its readiness says so.
    Daemon,
    /// Runs once; ready when it has exited with 0.
    Oneshot,
}

/// When a service counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A daemon: as soon as it runs. A oneshot: when it has exited with 0.
    Started,
    /// When it sends `READY=1` (sd_notify(3)).
    Notify,
    /// When a probe succeeds.
    Probe(Probe),
}

/// A question asked again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// How often.
    pub every: Duration,
    /// How long one answer may take; shorter than `every`.
    pub timeout: Duration,
    /// How many bad answers in a row count as a no, once it had said yes.
    pub failures: u32,
}

/// Whether a service that is ready still lives: a no restarts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The question.
    pub probe: Probe,
    /// How long after it became ready nothing is held against it.
    pub grace: Duration,
}

/// A service that does not come back by itself after a long outage of another one is started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfterOutage {
    /// Whose outage.
    pub of: ServiceName,
    /// Shorter ones do not count.
    pub longer_than: Duration,
    /// How long it may take to be ready after the outage, before it is started again.
    pub ready_within: Duration,
}

/// What a service is told when another one is out, so that it can let its own clients wait meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageSignals {
    /// Whose outage.
    pub of: ServiceName,
    /// Sent when that no longer serves.
    pub begins: Signal,
    /// Sent when it serves again.
    pub ends: Signal,
}

/// Whether a service stands still while everything is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezing {
    /// It does.
    Stands,
    /// It goes on: it answers for the others, or drives the freeze.
    GoesOn,
}

/// What a descendant is that runs another program than the service's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helpers {
    /// Work under way, such as an archive command: nothing is frozen while it lives.
    ShortLived,
    /// A part of the service that stays.
    Resident,
}

/// How large a core dump may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreLimit {
    /// So many bytes; 0 is none.
    Bytes(u64),
    /// As large as it likes.
    Unlimited,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET on loopback, any 2xx.
    Http {
        /// The port.
        port: u16,
        /// The path, with its slash.
        path: String,
    },
    /// A connection on loopback.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A connection to a Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
    },
    /// A program that exits with 0.
    Exec {
        /// Program (absolute) and arguments.
        argv: Vec<String>,
    },
}

/// How long a rung of the stop ladder lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many parts of the whole stop's budget, against the parts of every other rung on the way.
    Share(u32),
    /// So long, whatever the budget.
    Wait(Duration),
}

/// One step of the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What is sent.
    pub signal: Signal,
    /// How long it may take effect.
    pub length: Length,
    /// What it means when it had to be used.
    pub manner: Manner,
}

/// What the use of a rung means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The service ends by it as it should.
    Orderly,
    /// It did not end when it should have.
    Forced,
}

/// The way down: rungs, and SIGKILL after the last. Never empty, and SIGKILL is never a rung of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopLadder(Vec<Rung>);

impl StopLadder {
    /// A ladder of these rungs; `None` when there is none or one of them is SIGKILL.
    #[must_use]
    pub fn new(rungs: Vec<Rung>) -> Option<StopLadder> {
        (!rungs.is_empty() && rungs.iter().all(|r| r.signal != Signal::SIGKILL)).then_some(StopLadder(rungs))
    }

    /// Whether a service that has come to this rung was forced; what is beyond the last is SIGKILL.
    #[must_use]
    pub fn forces(&self, rung: usize) -> bool {
        match self.0.get(..=rung) {
            Some(used) => used.iter().any(|r| r.manner == Manner::Forced),
            None => true,
        }
    }

    /// The rungs before SIGKILL.
    #[must_use]
    pub fn rungs(&self) -> &[Rung] {
        &self.0
    }
}

impl Default for StopLadder {
    fn default() -> StopLadder {
        StopLadder(vec![Rung { signal: Signal::SIGTERM, length: Length::Share(1), manner: Manner::Orderly }])
    }
}

/// When an ended service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever its end.
    Always,
    /// When it ended otherwise than with 0.
    OnFailure,
    /// Not by itself.
    Never,
}

/// The restart policy: exponential delay from `delay` to `max_delay`, and a breaker of `max` restarts in `window`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// On which ends.
    pub when: When,
    /// Before the first restart of a service that had not been ready; doubled each time.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
    /// The span in which restarts are counted.
    pub window: Duration,
    /// How many of them before it gives up.
    pub max: u32,
    /// Exit codes after which trying again is pointless: it gives up at once.
    pub final_codes: BTreeSet<u8>,
}

/// What follows when a service has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GivesUp {
    /// Everything stops.
    StopAll,
    /// The rest goes on, and what comes after it starts without it.
    Degrade,
    /// What requires it stays down, the rest runs; tried again on request.
    Hold,
}

/// What follows when a service gives up, by circumstance: the exit code first, then the environment, then the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivesUpRule {
    /// Otherwise.
    pub default: GivesUp,
    /// When this variable is set (and not empty) in the supervisor's environment.
    pub when_env: BTreeMap<String, GivesUp>,
    /// When it ended with this code.
    pub codes: BTreeMap<u8, GivesUp>,
}

/// What a missing program means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The service fails.
    Required,
    /// The service is absent, said once, and nobody waits for it.
    Optional,
}

/// One service, as its file says. Every string is expanded already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a field has the name of its key, and services/*.toml show what each is for")]
pub struct ServiceSpec {
    pub name: ServiceName,
    pub kind: Kind,
    pub exec: Vec<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub groups: Vec<String>,
    pub directory: PathBuf,
    pub env: BTreeMap<String, String>,
    pub pass: Vec<Pass>,
    pub requires: Vec<ServiceName>,
    pub after: Vec<ServiceName>,
    pub ready: Ready,
    pub start_deadline: Option<Duration>,
    pub stop: StopLadder,
    pub on_stop: Option<Signal>,
    pub restart: Restart,
    pub gives_up: GivesUpRule,
    pub pass_exit: BTreeSet<u8>,
    pub presence: Presence,
    /// What must be installed for the service to exist; `None`: the program of `exec`.
    pub program: Option<String>,
    pub lock: Option<PathBuf>,
    /// What a start needs free on a file system.
    pub room: Option<Room>,
    pub parent_death: Option<Signal>,
    pub watchdog: Option<Duration>,
    pub reports_health: Option<Duration>,
    pub fence_by: Option<ServiceName>,
    pub live: Option<Live>,
    pub after_outage: Option<AfterOutage>,
    pub outage_signals: Option<OutageSignals>,
    /// `handles = "quiesce"`: how long it may take to quiesce.
    pub quiesces: Option<Duration>,
    pub freezing: Freezing,
    pub helpers: Helpers,
    /// Variables whose values are read from files at every start.
    pub env_files: BTreeMap<String, PathBuf>,
    pub core: Option<CoreLimit>,
    /// What is left of root's powers; `None`: all of them.
    pub capabilities: Option<BTreeSet<Capability>>,
    pub nofile: Option<u64>,
    pub nice: Option<i8>,
    pub oom_score_adj: Option<i16>,
    pub no_new_privileges: NewPrivileges,
}

/// Whether a service's programs may gain privileges by exec (`PR_SET_NO_NEW_PRIVS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewPrivileges {
    /// As usual.
    Allowed,
    /// Never again in this process and its children.
    Never,
}

impl ServiceSpec {
    /// What must be installed for the service to exist.
    #[must_use]
    pub fn needed(&self) -> &str {
        self.program.as_deref().or_else(|| self.exec.first().map(String::as_str)).unwrap_or_default()
    }

    /// Why it is absent when it is, for people.
    #[must_use]
    pub fn lacks(&self) -> String {
        match self.needed() {
            "" => "switched off, or not installed".to_owned(),
            program => format!("{program} is not installed"),
        }
    }

    /// A service with nothing but a name and a program: what tests begin with and what a shortest file gives.
    #[must_use]
    pub fn minimal(name: ServiceName, kind: Kind, exec: Vec<String>) -> ServiceSpec {
        ServiceSpec {
            name,
            kind,
            exec,
            user: None,
            group: None,
            groups: Vec::new(),
            directory: PathBuf::from("/"),
            env: BTreeMap::new(),
            pass: Vec::new(),
            requires: Vec::new(),
            after: Vec::new(),
            ready: Ready::Started,
            start_deadline: None,
            stop: StopLadder::default(),
            on_stop: None,
            restart: Restart {
                when: match kind {
                    Kind::Daemon => When::Always,
                    Kind::Oneshot => When::Never,
                },
                delay: Duration::from_secs(1),
                max_delay: Duration::from_secs(60),
                window: Duration::from_secs(600),
                max: 10,
                final_codes: BTreeSet::new(),
            },
            gives_up: GivesUpRule {
                default: GivesUp::Degrade,
                when_env: BTreeMap::new(),
                codes: BTreeMap::new(),
            },
            pass_exit: BTreeSet::new(),
            presence: Presence::Optional,
            program: None,
            lock: None,
            room: None,
            parent_death: Some(Signal::SIGTERM),
            watchdog: None,
            reports_health: None,
            fence_by: None,
            live: None,
            after_outage: None,
            outage_signals: None,
            quiesces: None,
            freezing: Freezing::Stands,
            helpers: Helpers::ShortLived,
            env_files: BTreeMap::new(),
            core: None,
            capabilities: None,
            nofile: None,
            nice: None,
            oom_score_adj: None,
            no_new_privileges: NewPrivileges::Allowed,
        }
    }
}
