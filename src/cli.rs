//! The command line: what can be typed, and which module answers it.

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::{archive, control, facts, keeper, owner, postgres, secrets, supervisor, telemetry, walg, web};
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One binary that turns one machine into a complete Supabase-style Postgres.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 80,
    after_help = "Examples:
  supafly run                    start everything (PID 1 of an image, or a child of another init)
  supafly status                 what runs, since when, and what is protected
  supafly health --ready         exit 0 when clients can be served, else 1 and the reason
  supafly check                  read all configuration and say everything that is wrong
  supafly backup now             take a base backup and verify it

Exit codes: 0 done, 1 no, 64 usage, 70 gave up, 75 forced stop, 76 stopped but WAL not all
archived, 77 refused (owned by another, foreign data), 78 configuration."
)]
struct Cli {
    /// The settings file [default: /etc/supafly/supafly.toml when it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the services and supervise them until told to stop
    #[command(after_help = "Examples:
  supafly run
  SUPAFLY_STORE=s3://bucket/prefix supafly run
  supafly run --services ./services")]
    Run(Services),
    /// What runs, since when, and what is protected
    #[command(after_help = "Examples:
  supafly status
  supafly status --json | jq '.services[].state'")]
    Status(Output),
    /// Is it alive, is it ready: exit 0 or 1, with the reason
    #[command(after_help = "Examples:
  supafly health --ready    for HEALTHCHECK: can clients be served?
  supafly health --live     is the supervisor itself alive?")]
    Health(Health),
    /// Read settings and service files and say everything that is wrong, at once
    #[command(after_help = "Examples:
  supafly check
  supafly check --services ./services")]
    Check(Services),
    /// Base backups
    #[command(subcommand)]
    Backup(Backup),
    /// Hand one WAL file to keeper (Postgres's archive_command)
    WalPush {
        /// The file, `%p`
        path: PathBuf,
    },
    /// Fetch one WAL file through keeper (Postgres's restore_command)
    WalFetch {
        /// The name, `%f`
        name: String,
        /// Where to, `%p`
        destination: PathBuf,
    },
    /// Role: make directories and secrets
    #[command(hide = true)]
    Secrets,
    /// Role: claim or confirm the epoch
    #[command(hide = true)]
    Claim,
    /// Role: own the epoch, ship and fetch WAL, drive the backup engine
    #[command(hide = true)]
    Keeper,
    /// Role: adopt, initialise or restore the data directory
    #[command(hide = true)]
    Datadir,
    /// Role: health routes, status, metrics and page over HTTP
    #[command(hide = true)]
    Web,
}

#[derive(Debug, Args)]
struct Services {
    /// Directory of service files [default: the setting `services`]
    #[arg(long, value_name = "DIR")]
    services: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Output {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Health {
    /// Is the supervisor itself alive?
    #[arg(long)]
    live: bool,
    /// Can clients be served? (the default)
    #[arg(long)]
    ready: bool,
}

#[derive(Debug, Subcommand)]
enum Backup {
    /// Take a base backup now, verify it, and say its name
    #[command(after_help = "Example:\n  supafly backup now")]
    Now(Output),
    /// The base backups of this cluster, oldest first
    #[command(after_help = "Example:\n  supafly backup list --json")]
    List(Output),
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // A failed write to a closed stdout or stderr has nobody left to be told.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage } else { Exit::Clean }.into();
        }
    };
    let fetching = matches!(cli.command, Command::WalFetch { .. });
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "supafly: {failure}");
            // Postgres reads any status up to 125 of its restore_command as "not in the archive".
            if fetching { Exit::Fatal } else { failure.exit }.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let settings = facts::settings(cli.config.as_deref())?;
    let config = cli.config.as_deref();
    match cli.command {
        Command::Run(services) => supervisor::run(run_args(&settings, services, config)?),
        Command::Check(services) => check(&settings, services, config),
        Command::Status(output) => control::commands::status(&settings.run, output.json),
        Command::Health(Health { live, ready: _ }) => {
            let which = if live { control::commands::Which::Live } else { control::commands::Which::Ready };
            control::commands::health(&settings.run, which)
        }
        Command::Backup(Backup::Now(output)) => keeper::client::backup_now(&settings, output.json),
        Command::Backup(Backup::List(output)) => keeper::client::backup_list(&settings, output.json),
        Command::WalPush { path } => archive::client::wal_push(&settings, &path),
        Command::WalFetch { name, destination } => archive::client::wal_fetch(&settings, &name, &destination),
        Command::Secrets => role(&settings, secrets::run),
        Command::Claim => role(&settings, owner::claim_role),
        Command::Keeper => role(&settings, keeper::run),
        Command::Datadir => role(&settings, postgres::datadir_role),
        Command::Web => role(&settings, web::run),
    }
}

fn role(settings: &Settings, run: impl FnOnce(&Settings) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    telemetry::init_role(&settings.log);
    run(settings)
}

/// What `run` and `check` work on. Service files may name every setting, `${self}` and the directory of Postgres's programs.
fn run_args(
    settings: &Settings,
    services: Services,
    config: Option<&Path>,
) -> Result<supervisor::RunArgs, Failure> {
    let mut variables: BTreeMap<String, String> =
        settings.shown().map(|(key, value)| (key.to_owned(), value)).collect();
    let own = std::env::current_exe()
        .map_err(|e| Failure::gave_up(format!("cannot find our own executable: {e}")))?;
    variables.insert("self".to_owned(), own.display().to_string());
    // Where there is no Postgres, the service that needs it says so; a supervisor of other services need not care.
    let pg_bin =
        postgres::bin::find(settings).map(|bin| bin.directory).ok().or_else(|| settings.pg_bin.clone());
    variables.insert(
        "pg_bin".to_owned(),
        pg_bin.unwrap_or_else(|| "/usr/lib/postgresql/bin".into()).display().to_string(),
    );
    // The roles read their settings themselves: they must read the same file.
    let mut environment = facts::environment();
    if let Some(file) = config {
        let file = std::path::absolute(file).map_err(|e| Failure::config(format!("--config: {e}")))?;
        environment.insert("SUPAFLY_CONFIG".to_owned(), file.display().to_string());
    }
    Ok(supervisor::RunArgs {
        services: services.services.unwrap_or_else(|| settings.services.clone()),
        run: settings.run.clone(),
        stop_budget: settings.stop_budget,
        variables,
        environment,
        log_format: settings.log_format,
        log: settings.log.clone(),
        machine: settings.machine.clone(),
    })
}

fn check(settings: &Settings, services: Services, config: Option<&Path>) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{:<16} {:<34} SOURCE", "SETTING", "VALUE");
    for (key, value) in settings.shown() {
        let source = settings.sources.get(key).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "{key:<16} {value:<34} {source}");
    }
    let _ = writeln!(out);
    drop(out);
    let crypto = walg::crypto_variables(&facts::environment());
    if !crypto.is_empty() {
        return Err(Failure::config(format!(
            "{}: the backup engine's client-side encryption is not supported, because the WAL that we write would not \
             match; use the store's own (S3_SSE)",
            crypto.join(", ")
        )));
    }
    supervisor::check(&run_args(settings, services, config)?)
}
