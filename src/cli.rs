//! The command line: what can be typed, and which module answers it.

use crate::config::Settings;
use crate::control::commands::{self, LogArgs, Patience, Shown, Watch, Which, Wish};
use crate::exit::{Exit, Failure};
use crate::supervisor::Setting;
use crate::{archive, facts, keeper, owner, postgres, secrets, setup, supervisor, telemetry, walg, web};
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// One binary that turns one machine into a complete Supabase-style Postgres.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 80,
    after_help = "Examples:
  supafly run                start everything, as PID 1 or under another init
  supafly status             what runs, since when, and what is protected
  supafly logs -f postgres   what a service says
  supafly restart postgrest  one service down and up again
  supafly health --ready     exit 0 when clients can be served; else 1, and why
  supafly check              read all configuration, say all that is wrong
  supafly backup now         take a base backup and verify it

Exit codes: 0 done, 1 no, 64 usage, 70 gave up, 75 forced stop, 76 stopped but
WAL not all archived, 77 refused (owned by another, foreign data),
78 configuration."
)]
struct Cli {
    /// Settings [default: /etc/supafly/supafly.toml, if there]
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
  supafly status --watch
  supafly status --json | jq '.services[].state'")]
    Status(StatusArgs),
    /// What services have said lately
    #[command(after_help = "Examples:
  supafly logs                   the recent lines of all services
  supafly logs -f postgres       go on with what Postgres says
  supafly logs -n 20 supafly     the supervisor's own last 20 lines
  supafly logs --json | jq .message")]
    Logs(Logs),
    /// Start a service that is down, held or has failed
    #[command(after_help = "Examples:
  supafly start claim            try again what is held
  supafly start --no-wait pooler")]
    Start(One),
    /// Stop a service (everything: send SIGTERM to `supafly run`)
    #[command(after_help = "Examples:
  supafly stop postgrest
  supafly stop --with-dependents postgres")]
    Stop(Several),
    /// Stop a service and start it again; who comes after it goes on
    #[command(after_help = "Examples:
  supafly restart postgrest
  supafly restart --with-dependents postgres   and all that come after it")]
    Restart(Several),
    /// Let everything stand still, proved, until `thaw` (also: SIGUSR1)
    #[command(after_help = "Examples:
  supafly freeze
  supafly freeze --wait 30s      try again while an archive command is under way")]
    Freeze {
        /// How long to try again while work is under way
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Let everything go on (also: SIGUSR2)
    #[command(after_help = "Example:\n  supafly thaw")]
    Thaw,
    /// Is it alive, is it ready: exit 0 or 1, with the reason
    #[command(after_help = "Examples:
  supafly health --ready    for HEALTHCHECK: can clients be served?
  supafly health --live     is the supervisor itself alive?
  supafly health --service postgrest")]
    Health(Health),
    /// Read all configuration and say everything that is wrong, at once
    #[command(after_help = "Examples:
  supafly check
  supafly check --services ./services
  supafly check --json | jq .stop")]
    Check(CheckArgs),
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
    /// Role: roles, grants, helpers and extensions in the database; users' migrations
    #[command(hide = true)]
    Setup,
    /// Role: health routes, status, metrics and page over HTTP
    #[command(hide = true)]
    Web,
}

#[derive(Debug, Args)]
struct Services {
    /// Directory of service files [default: setting `services`]
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
struct StatusArgs {
    #[command(flatten)]
    output: Output,
    /// Go on: on a terminal in place, elsewhere at each change
    #[arg(long, short)]
    watch: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    services: Services,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Logs {
    /// Of this service only; `supafly` is the supervisor itself
    service: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// At most so many of the lines that are kept
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct One {
    /// Its name
    service: String,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
struct Several {
    /// Its name
    service: String,
    /// And those who come after it: first to go, last to come
    #[arg(long)]
    with_dependents: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
struct Waiting {
    /// How long to wait for the outcome
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
    /// Do not wait: that it was accepted is enough
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

impl Waiting {
    const fn patience(&self) -> Patience {
        if self.no_wait { Patience::None } else { Patience::For(self.wait) }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::spec::duration::parse(text).ok_or_else(|| "write 500ms, 10s or 2m".to_owned())
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
    /// Is this one service ready, or done?
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
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
    // Before anything else: as PID 1 a TERM that comes before its handler is lost.
    let early = if matches!(cli.command, Command::Run(_)) { Some(supervisor::Early::new()?) } else { None };
    let settings = facts::settings(cli.config.as_deref())?;
    let config = cli.config.as_deref();
    match cli.command {
        Command::Run(services) => supervisor::run(run_args(&settings, services, config)?, early),
        Command::Check(args) => check(&settings, args, config),
        Command::Status(StatusArgs { output, watch }) => {
            let shown = if output.json { Shown::Json } else { Shown::Table };
            commands::status(&settings.run, shown, if watch { Watch::On } else { Watch::Once })
        }
        Command::Logs(Logs { service, follow, lines, json }) => {
            commands::logs(&settings.run, &LogArgs { service, follow, lines, json })
        }
        Command::Start(One { service, waiting }) => {
            commands::wish(&settings.run, &Wish::Start(service), waiting.patience())
        }
        Command::Stop(Several { service, with_dependents, waiting }) => {
            commands::wish(&settings.run, &Wish::Stop(service, with_dependents), waiting.patience())
        }
        Command::Restart(Several { service, with_dependents, waiting }) => {
            commands::wish(&settings.run, &Wish::Restart(service, with_dependents), waiting.patience())
        }
        Command::Freeze { wait } => {
            commands::wish(&settings.run, &Wish::Freeze, wait.map_or(Patience::None, Patience::For))
        }
        Command::Thaw => commands::wish(&settings.run, &Wish::Thaw, Patience::None),
        Command::Health(Health { live, ready: _, service }) => {
            let which = match (live, service) {
                (_, Some(name)) => Which::Service(name),
                (true, None) => Which::Live,
                (false, None) => Which::Ready,
            };
            commands::health(&settings.run, &which)
        }
        Command::Backup(Backup::Now(output)) => keeper::client::backup_now(&settings, output.json),
        Command::Backup(Backup::List(output)) => keeper::client::backup_list(&settings, output.json),
        Command::WalPush { path } => archive::client::wal_push(&settings, &path),
        Command::WalFetch { name, destination } => archive::client::wal_fetch(&settings, &name, &destination),
        Command::Secrets => role(&settings, secrets::run),
        Command::Claim => role(&settings, owner::claim_role),
        Command::Keeper => role(&settings, keeper::run),
        Command::Datadir => role(&settings, postgres::datadir_role),
        Command::Setup => role(&settings, setup::run),
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
    let own = own_executable()?;
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

/// Our own file. Without /proc nobody says where it is, and how we were called has to do.
fn own_executable() -> Result<PathBuf, Failure> {
    let called = || {
        let name = std::env::args_os().next()?;
        which::which(name).ok()
    };
    match std::env::current_exe() {
        Ok(own) => Ok(own),
        Err(e) => called().ok_or_else(|| {
            Failure::gave_up(format!("cannot find our own executable: {e}; call it by its whole path"))
        }),
    }
}

fn check(settings: &Settings, args: CheckArgs, config: Option<&Path>) -> Result<Exit, Failure> {
    let crypto = walg::crypto_variables(&facts::environment());
    if !crypto.is_empty() {
        return Err(Failure::config(format!(
            "{}: the backup engine's client-side encryption is not supported, because the WAL that we write would not \
             match; use the store's own (S3_SSE)",
            crypto.join(", ")
        )));
    }
    let shown: Vec<Setting> = settings
        .shown()
        .map(|(key, value)| Setting {
            key,
            value,
            source: settings.sources.get(key).map(ToString::to_string).unwrap_or_default(),
        })
        .collect();
    let form = if args.output.json { Shown::Json } else { Shown::Table };
    supervisor::check(&run_args(settings, args.services, config)?, shown, form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn fits(command: &mut clap::Command) {
        let name = command.get_name().to_owned();
        // Its subcommands are names without their texts.
        if name == "help" {
            return;
        }
        for help in [command.render_help(), command.render_long_help()] {
            let help = help.to_string();
            let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{name}: {wide:#?}");
            let asked = command.is_hide_set() || matches!(name.as_str(), "backup" | "wal-push" | "wal-fetch");
            assert!(asked || help.contains("Example"), "{name} has no example");
        }
        command.get_subcommands_mut().for_each(fits);
    }

    #[test]
    fn every_help_fits_80_columns_and_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        fits(&mut cli);
    }
}
