//! `supafly run`: one task on the main thread owns the [`Machine`](crate::state::Machine), consumes one stream of
//! events (signals, endings, notifications, requests, probes, time) and performs the actions that come out. It knows
//! processes, not programs: nothing here names Postgres or a store.
//!
//! Everything is spawned from the main thread, which never ends before the program does: the parent-death signal of a
//! child is tied to the thread that made it.

mod driver;
mod launch;
mod load;
mod perform;
mod probing;
mod requests;
mod rundir;

use crate::config::LogFormat;
use crate::exit::{Exit, Failure};
use crate::os::lock;
use crate::os::output::{Shape, Writer};
use crate::os::privilege::Privilege;
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
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
    let writer = Writer::start(shape, std::io::stdout()).map_err(failed("start the log writer"))?;
    crate::telemetry::init_run(&args.log, &writer);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the event loop"))?;
    let privilege = Privilege::detect();
    let holder = lock::holder(args.machine.as_deref(), jiff::Timestamp::now());
    let rundir = rundir::RunDir::prepare(&args.run, privilege, &holder)?;
    let ended = runtime.block_on(driver::drive(args, plan, rundir, privilege, holder, writer.clone()));
    // A reader that does not read has cost enough already.
    writer.flush(Duration::from_millis(300));
    runtime.shutdown_background();
    ended
}

/// Reads everything that `run` would, and says what it would do: order, split of the stop budget, what is absent.
///
/// # Errors
/// 78 with every problem at once.
pub fn check(args: &RunArgs) -> Result<Exit, Failure> {
    let plan = load::plan(args)?;
    let problems = load::missing_accounts(&plan, Privilege::detect());
    if !problems.is_empty() {
        return Err(Failure::config(crate::spec::problem::Problems(problems).to_string()));
    }
    let text = report(&plan, args);
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| Failure::gave_up(format!("cannot write: {e}")))?;
    Ok(Exit::Clean)
}

fn report(plan: &Plan, args: &RunArgs) -> String {
    use crate::spec::duration::show;
    let names = |list: &[crate::spec::ServiceName]| {
        list.iter().map(crate::spec::ServiceName::as_str).collect::<Vec<_>>().join(", ")
    };
    let absent = load::absent(plan, &args.environment);
    let mut text = format!("services in {}, in the order of their start:\n", args.services.display());
    for spec in plan.order().iter().filter_map(|name| plan.spec(name)) {
        let mut line = format!("  {}", spec.name);
        if !spec.requires.is_empty() {
            line += &format!(", requires {}", names(&spec.requires));
        }
        if !spec.after.is_empty() {
            line += &format!(", after {}", names(&spec.after));
        }
        if absent.contains(&spec.name) {
            let program = spec.exec.first().map_or("", String::as_str);
            line += &format!(": absent, its program `{program}` is not installed");
        }
        text += &line;
        text.push('\n');
    }
    let place = match &args.machine {
        Some(machine) => format!("assumed for machine {machine} of a platform"),
        None => "assumed without a platform".to_owned(),
    };
    text += &format!(
        "the whole stop: {} ({place}; whoever stops us must wait longer than that), killing begins after {}\n",
        show(plan.budget()),
        show(plan.last_call())
    );
    for split in plan.split() {
        let rungs: Vec<String> =
            split.rungs.iter().map(|(signal, d)| format!("{signal} {}", show(*d))).collect();
        text += &format!("  {}: {}, SIGKILL\n", split.name, rungs.join(", "));
    }
    text
}
