//! `supafly run`: one task on the main thread owns the [`Machine`](crate::state::Machine), consumes one stream of
//! events (signals, endings, notifications, requests, probes, time) and performs the actions that come out. It knows
//! processes, not programs: nothing here names Postgres or a store.
//!
//! Everything is spawned from the main thread, which never ends before the program does: the parent-death signal of a
//! child is tied to the thread that made it.

mod checking;
mod driver;
mod freezing;
mod launch;
mod load;
mod perform;
mod probing;
mod requests;
mod rundir;
mod setup;
mod telling;
mod watching;
mod words;

pub use checking::{Setting, Variable, check};

use crate::config::LogFormat;
use crate::exit::{Exit, Failure};
use crate::os::lock;
use crate::os::memory::{self, Heaps};
use crate::os::output::{Rings, Shape, Writer};
use crate::os::privilege::Privilege;
use crate::os::signals::Signals;
use setup::Given;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// How long our reader may take for the last lines, at most and at least.
const FLUSH: Duration = Duration::from_secs(2);
const SHORTEST_FLUSH: Duration = Duration::from_millis(300);

/// What is said once at the start, for whoever configured this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The normal course of things.
    News(String),
    /// Something that was asked for will not be.
    Warning(String),
}

/// What `supafly run` is told.
#[derive(Clone)]
pub struct RunArgs {
    /// Directory of service files.
    pub services: PathBuf,
    /// Sockets and the like.
    pub run: PathBuf,
    /// The whole stop.
    pub stop_budget: Duration,
    /// What `${name}` stands for in service files.
    pub variables: BTreeMap<String, String>,
    /// Our own environment, from which services get what they name.
    pub environment: BTreeMap<String, String>,
    /// Form of the output.
    pub log_format: LogFormat,
    /// Filter for our own lines (`info`).
    pub log: String,
    /// Said once the log is open.
    pub notices: Vec<Notice>,
    /// The platform's name for this machine, when it has one: written into locks for others to read.
    pub machine: Option<String>,
}

impl std::fmt::Debug for RunArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment holds secrets.
        f.debug_struct("RunArgs")
            .field("services", &self.services)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// What must be there before anything is read: the event loop and the handlers of signals.
#[derive(Debug)]
pub struct Early {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

impl Early {
    /// Takes the signals; from now on none is lost.
    ///
    /// # Errors
    /// The system refuses (70).
    pub fn new() -> Result<Early, Failure> {
        let failed = |what: &str, e: &std::io::Error| Failure::gave_up(format!("cannot {what}: {e}"));
        memory::keep_little(Heaps::One);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed("start the event loop", &e))?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new().map_err(|e| failed("take signals", &e))?
        };
        Ok(Early { runtime, signals })
    }
}

/// Runs the services until a wanted stop or until one that must not fail gives up. Sets up logging itself.
///
/// # Errors
/// Nothing was started: the configuration is wrong (78), or another supervisor has the run directory (77).
pub fn run(mut args: RunArgs, early: Option<Early>) -> Result<Exit, Failure> {
    let Early { runtime, signals } = early.map_or_else(Early::new, Ok)?;
    // Of the command line and the settings nothing is needed again, and of the service files neither: how much memory we
    // ever had is what counts where it is scarce.
    memory::give_back();
    let plan = load::plan(&args)?;
    memory::give_back();
    let shape = match args.log_format {
        LogFormat::Json => Shape::Json,
        LogFormat::Text => Shape::Text,
        LogFormat::Auto if std::io::stdout().is_terminal() => Shape::Text,
        LogFormat::Auto => Shape::Json,
    };
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| Failure::gave_up(format!("cannot {what}: {e}"))
    };
    let rings = Rings::new();
    let writer =
        Writer::start(shape, std::io::stdout()).map_err(failed("start the log writer"))?.with_rings(&rings);
    crate::telemetry::init_run(&args.log, &writer);
    for notice in std::mem::take(&mut args.notices) {
        match notice {
            Notice::News(text) => tracing::info!("{text}"),
            Notice::Warning(text) => tracing::warn!("{text}"),
        }
    }
    let privilege = Privilege::detect();
    let holder = lock::holder(args.machine.as_deref(), jiff::Timestamp::now());
    let rundir = rundir::RunDir::prepare(&args.run, privilege, &holder)?;
    let budget = args.stop_budget;
    let way_out = writer.clone();
    let given = Given { args, plan, rundir, privilege, holder, writer: way_out, rings, signals };
    let (ended, stopping) = runtime.block_on(async {
        match setup::set_up(given) {
            Ok((driver, ears)) => driver.run(ears).await,
            Err(failure) => (Err(failure), None),
        }
    });
    // A slow reader may have what is left of the stop; a stalled one costs little.
    let left = stopping.map_or(FLUSH, |since| budget.saturating_sub(since.elapsed()));
    writer.flush(left.clamp(SHORTEST_FLUSH, FLUSH));
    runtime.shutdown_background();
    ended
}
