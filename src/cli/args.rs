//! What can be typed, and the help for it.

use crate::access::{Format, Shown};
use crate::control::commands::Patience;
use crate::pooler::render::Mode;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
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
  supafly keys               connection strings and API keys
  supafly logs -f postgres   what a service says
  supafly restart postgrest  one service down and up again
  supafly health --ready     exit 0 when clients can be served; else 1, and why
  supafly check              read all configuration, say all that is wrong
  supafly backup now         take a base backup and verify it

Exit codes: 0 done, 1 no, 64 usage, 70 gave up, 73 no room on the volume (said
by a role), 75 forced stop, 76 stopped but WAL not all archived, 77 refused
(owned by another, foreign data), 78 configuration."
)]
pub(super) struct Cli {
    /// Settings [default: /etc/supafly/supafly.toml, if there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the services and supervise them until told to stop
    #[command(after_help = "Examples:
  supafly run
  SUPAFLY_STORE=s3://bucket/prefix supafly run
  supafly run --services ./services
  supafly run -- -c work_mem=8MB     with server settings of Postgres
  supafly run -- bash                a program in our place: what follows `--`
                                     is what follows the image's name")]
    Run(RunArgs),
    /// What runs, since when, and what is protected
    #[command(after_help = "Examples:
  supafly status
  supafly status --watch
  supafly status --json | jq '.services[].state'
  supafly status -o env >> .env     DB_URL, ANON_KEY and their like: SECRETS
  supafly status -o env --override-name DB_URL=DATABASE_URL")]
    Status(StatusArgs),
    /// How to come in: connection strings and API keys, SECRETS INCLUDED
    #[command(after_help = "Examples:
  supafly keys
  supafly keys --host my-app.fly.dev
  supafly keys --json | jq -r .SERVICE_ROLE_KEY

The secrets were made at the first boot, or given (POSTGRES_PASSWORD,
JWT_SECRET, …), and lie on the volume, for root alone. A machine that takes
over on a new volume makes new ones, unless they are given to it.")]
    Keys {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        shown: Renamed,
    },
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
    /// Our own version, and what is installed beside it
    #[command(after_help = "Examples:
  supafly version
  supafly version --all      each part, asked, beside what is pinned
  supafly version --all --json | jq '.parts[].path'")]
    Version {
        /// And of every part beside us, each asked
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
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
    /// Role: PgBouncer or Supavisor, as the settings choose
    #[command(hide = true)]
    Pooler(PoolerArgs),
    /// Role: shut the ports that Supavisor opens for itself
    #[command(hide = true)]
    PoolerPorts,
    /// Role: does one get through the pooler; exit 0 or 1 with the reason
    #[command(hide = true)]
    PoolerReady {
        #[command(flatten)]
        mode: PoolerArgs,
        /// Ask the pooler only, not Postgres behind it
        #[arg(long)]
        alive: bool,
    },
    /// Role: PostgREST, as the settings say
    #[command(hide = true)]
    Postgrest,
    /// Role: health routes, status, metrics and page over HTTP
    #[command(hide = true)]
    Web,
}

#[derive(Debug, Args)]
pub(super) struct Services {
    /// Directory of service files [default: setting `services`]
    #[arg(long, value_name = "DIR")]
    pub(super) services: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) services: Services,
    /// As after the image's name: server settings, or a program
    #[arg(last = true, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    pub(super) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// One JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("of_values").args(["host", "renamed"]).multiple(true).requires("format")))]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) output: Output,
    /// How to come in instead, SECRETS INCLUDED
    #[arg(long = "output", short = 'o', value_name = "FORMAT", conflicts_with_all = ["json", "watch"])]
    pub(super) format: Option<Values>,
    #[command(flatten)]
    pub(super) shown: Renamed,
    /// Go on: on a terminal in place, elsewhere at each change
    #[arg(long, short)]
    pub(super) watch: bool,
}

/// Formats of `-o`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Values {
    /// `NAME="value"`
    Env,
    /// One object
    Json,
}

impl From<Values> for Format {
    fn from(values: Values) -> Format {
        match values {
            Values::Env => Format::Env,
            Values::Json => Format::Json,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Renamed {
    /// Whom clients are to ask for, in place of this machine's own address
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Show a value by another name: DB_URL=DATABASE_URL (also: db.url=…)
    #[arg(long = "override-name", value_name = "NAME=OTHER", value_parser = pair)]
    renamed: Vec<(String, String)>,
}

impl From<Renamed> for Shown {
    fn from(Renamed { host, renamed }: Renamed) -> Shown {
        Shown { host, renamed }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("write NAME=OTHER")?;
    Ok((old.to_owned(), new.to_owned()))
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) services: Services,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Of this service only; `supafly` is the supervisor itself
    pub(super) service: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    pub(super) follow: bool,
    /// At most so many of the lines that are kept
    #[arg(long, short = 'n', value_name = "N")]
    pub(super) lines: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Its name
    pub(super) service: String,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct PoolerArgs {
    /// The port for session mode
    #[arg(long)]
    session: bool,
}

impl PoolerArgs {
    pub(super) const fn mode(&self) -> Mode {
        if self.session { Mode::Session } else { Mode::Transaction }
    }
}

#[derive(Debug, Args)]
pub(super) struct Several {
    /// Its name
    pub(super) service: String,
    /// And those who come after it: first to go, last to come
    #[arg(long)]
    pub(super) with_dependents: bool,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// How long to wait for the outcome
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(super) wait: Duration,
    /// Do not wait: that it was accepted is enough
    #[arg(long, conflicts_with = "wait")]
    pub(super) no_wait: bool,
}

impl Waiting {
    pub(super) const fn patience(&self) -> Patience {
        if self.no_wait { Patience::None } else { Patience::For(self.wait) }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::spec::duration::parse(text).ok_or_else(|| "write 500ms, 10s or 2m".to_owned())
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Health {
    /// Is the supervisor itself alive?
    #[arg(long)]
    pub(super) live: bool,
    /// Can clients be served? (the default)
    #[arg(long)]
    pub(super) ready: bool,
    /// Is this one service ready, or done?
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Backup {
    /// Take a base backup now, verify it, and say its name
    #[command(after_help = "Example:\n  supafly backup now")]
    Now(Output),
    /// The base backups of this cluster, oldest first
    #[command(after_help = "Example:\n  supafly backup list --json")]
    List(Output),
}
