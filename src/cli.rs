//! The command line.

use crate::control::commands::{self, Which};
use crate::exit::{Exit, Failure};
use crate::{facts, supervisor};
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// One binary that turns one machine into a complete Supabase-style Postgres.
#[derive(Debug, Parser)]
#[command(name = "supafly", version, arg_required_else_help = true)]
struct Cli {
    /// The settings file, instead of SUPAFLY_CONFIG or /etc/supafly/supafly.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the services, as PID 1 or not.
    Run(Services),
    /// Check settings and service files; print what would be done.
    Check(Services),
    /// Show how the services are.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// 0 or 1, with the reason.
    Health(Health),
}

#[derive(Debug, clap::Args)]
struct Services {
    /// Directory of service files.
    #[arg(long, value_name = "DIR")]
    services: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Health {
    /// The supervisor lives.
    #[arg(long)]
    live: bool,
    /// Clients can be served.
    #[arg(long)]
    ready: bool,
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed stdout is nobody's loss.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Clean.into() };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let settings = facts::settings(cli.config.as_deref())?;
    let args = |services: Services| supervisor::RunArgs {
        services: services.services.unwrap_or_else(|| settings.services.clone()),
        run: settings.run.clone(),
        stop_budget: settings.stop_budget,
        variables: BTreeMap::new(),
        environment: facts::environment(),
        log_format: settings.log_format,
        log: settings.log.clone(),
    };
    match cli.verb {
        Verb::Run(services) => supervisor::run(args(services)),
        Verb::Check(services) => supervisor::check(&args(services)),
        Verb::Status { json } => commands::status(&settings.run, json),
        Verb::Health(health) => {
            let which = if health.ready { Which::Ready } else { Which::Live };
            commands::health(&settings.run, which)
        }
    }
}
