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
mod telling;
mod watching;

pub use checking::{Setting, check};

use crate::config::LogFormat;
use crate::exit::{Exit, Failure};
use crate::os::lock;
use crate::os::output::{Rings, Shape, Writer};
use crate::os::privilege::Privilege;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

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

/// Runs the services until a wanted stop or until one that must not fail gives up. Sets up logging itself.
///
/// # Errors
/// Nothing was started: the configuration is wrong (78), or another supervisor has the run directory (77).
pub fn run(args: RunArgs) -> Result<Exit, Failure> {
    let plan = load::plan(&args)?;
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the event loop"))?;
    let privilege = Privilege::detect();
    let holder = lock::holder(args.machine.as_deref(), jiff::Timestamp::now());
    let rundir = rundir::RunDir::prepare(&args.run, privilege, &holder)?;
    let ended =
        runtime.block_on(driver::drive(args, plan, rundir, privilege, holder, (writer.clone(), rings)));
    // A reader that does not read has cost enough already.
    writer.flush(Duration::from_millis(300));
    runtime.shutdown_background();
    ended
}
