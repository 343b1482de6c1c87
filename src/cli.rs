//! The command line: what can be typed, and which module answers it.

mod args;
mod entry;
mod opening;

use crate::access::{self, Format};
use crate::config::{ServerSettings, Settings, fates};
use crate::control::commands::{self, Change, Everything, LogArgs, Patience, Shown, Watch, Which};
use crate::exit::{Exit, Failure};
use crate::pooler::probe::Asked;
use crate::supervisor::{Setting, Variable};
use crate::{
    archive, facts, keeper, os, owner, pooler, postgres, postgrest, secrets, setup, supervisor, telemetry,
    versions, web,
};
use args::{Backup, CheckArgs, Cli, Command, Health, Logs, One, Services, Several, StatusArgs};
use clap::Parser;
use entry::Entry;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// When a role that is still there has started.
const STARTED: Duration = Duration::from_secs(5);

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
    let entry = if let Command::Run(run) = &cli.command {
        match entry::read(&run.arguments)? {
            Entry::Execute(words) => return Err(entry::execute(&words)),
            Entry::Ask(question) => return Err(entry::ask(cli.config.as_deref(), &question)),
            Entry::Run { settings, named_postgres } => (settings, named_postgres),
        }
    } else {
        (ServerSettings::default(), false)
    };
    // Before anything else: as PID 1 a TERM that comes before its handler is lost.
    let early = if matches!(cli.command, Command::Run(_)) { Some(supervisor::Early::new()?) } else { None };
    let config = cli.config.as_deref();
    let settings = facts::settings(config)?;
    match cli.command {
        Command::Run(run) => supervisor::run(begin(settings, run.services, config, entry)?, early),
        Command::Check(args) => check(&settings, args, config),
        Command::Status(StatusArgs { format: Some(format), shown, .. }) => {
            access::of_running(&settings, format.into(), &shown.into())
        }
        Command::Status(StatusArgs { output, watch, .. }) => {
            let shown = if output.json { Shown::Json } else { Shown::Table };
            commands::status(&settings.run, shown, if watch { Watch::On } else { Watch::Once })
        }
        Command::Logs(Logs { service, follow, lines, json }) => {
            commands::logs(&settings.run, &LogArgs { service, follow, lines, json })
        }
        Command::Start(One { service, waiting }) => {
            commands::one(&settings.run, Change::Start, &service, false, waiting.patience())
        }
        Command::Stop(Several { service, with_dependents, waiting }) => {
            commands::one(&settings.run, Change::Stop, &service, with_dependents, waiting.patience())
        }
        Command::Restart(Several { service, with_dependents, waiting }) => {
            commands::one(&settings.run, Change::Restart, &service, with_dependents, waiting.patience())
        }
        Command::Freeze { wait } => {
            let patience = wait.map_or(Patience::None, Patience::For);
            commands::everything(&settings.run, Everything::Freeze, patience)
        }
        Command::Thaw => commands::everything(&settings.run, Everything::Thaw, Patience::None),
        Command::Health(Health { live, ready: _, service }) => {
            let which = match (live, service) {
                (_, Some(name)) => Which::Service(name),
                (true, None) => Which::Live,
                (false, None) => Which::Ready,
            };
            commands::health(&settings.run, &which)
        }
        Command::Version { all, output } => {
            let form = if output.json { versions::Form::Json } else { versions::Form::Table };
            if all { versions::all(&settings, form) } else { versions::own(form) }
        }
        Command::Backup(Backup::Now(output)) => keeper::client::backup_now(&settings, output.json),
        Command::Backup(Backup::List(output)) => keeper::client::backup_list(&settings, output.json),
        Command::WalPush { path } => archive::client::wal_push(&settings, &path),
        Command::WalFetch { name, destination } => archive::client::wal_fetch(&settings, &name, &destination),
        Command::Secrets => role(&settings, |settings| {
            let exit = secrets::run(settings)?;
            access::publish(settings)?;
            Ok(exit)
        }),
        Command::Keys { output, shown } => {
            access::keys(&settings, if output.json { Format::Json } else { Format::People }, &shown.into())
        }
        Command::Claim => role(&settings, owner::claim_role),
        Command::Keeper => role(&settings, keeper::run),
        Command::Datadir => role(&settings, postgres::datadir_role),
        Command::Setup => role(&settings, setup::run),
        Command::Pooler(args) => role(&settings, |settings| pooler::run(settings, args.mode())),
        Command::PoolerPorts => role(&settings, pooler::ports::run),
        Command::PoolerReady { mode, alive } => {
            pooler::probe::run(&settings, mode.mode(), if alive { Asked::Alive } else { Asked::Ready })
        }
        Command::Postgrest => role(&settings, postgrest::run),
        Command::Web => role(&settings, web::run),
    }
}

fn role(settings: &Settings, run: impl FnOnce(&Settings) -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    telemetry::init_role(&settings.log);
    os::memory::keep_little(os::memory::Heaps::Two);
    // Those that stay need little of what their start needed; those that end sooner never get there.
    os::memory::give_back_after(STARTED);
    run(settings).map_err(Failure::or_no_room)
}

/// What `run` works on: with the server settings of the command line, and what is said of it all.
fn begin(
    mut settings: Settings,
    services: Services,
    config: Option<&Path>,
    (given, named_postgres): (ServerSettings, bool),
) -> Result<supervisor::RunArgs, Failure> {
    settings.pg_settings = settings.pg_settings.with(given);
    if let Some(directory) = &services.services {
        settings.services.clone_from(directory);
    }
    let environment = facts::environment();
    opening::refuse(&settings, &environment)?;
    let mut args = run_args(&settings, services, config)?;
    // The role that renders the configuration reads its settings itself.
    if settings.pg_settings.iter().next().is_some() {
        args.environment.insert("SUPAFLY_PG_SETTINGS".to_owned(), settings.pg_settings.to_text());
    }
    args.notices = opening::notices(&settings, &environment, named_postgres);
    Ok(args)
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
    let pg_bin = postgres::bin::directory(settings);
    variables.insert(
        "pg_bin".to_owned(),
        pg_bin.unwrap_or_else(|| "/usr/lib/postgresql/bin".into()).display().to_string(),
    );
    variables.insert("postgrest".to_owned(), postgrest::program(settings).display().to_string());
    variables.extend(pooler::choice::variables(settings));
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
        notices: Vec::new(),
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
    let environment = facts::environment();
    opening::refuse(settings, &environment)?;
    if let Some(why) = settings.contradiction() {
        return Err(Failure::config(why));
    }
    let variables = fates(settings, &environment)
        .into_iter()
        .map(|(name, fate)| Variable { name, fate: fate.word(), why: fate.why().to_owned() })
        .collect();
    let shown: Vec<Setting> = settings
        .shown()
        .map(|(key, value)| Setting {
            key,
            value,
            source: settings.sources.get(key).map(ToString::to_string).unwrap_or_default(),
        })
        .collect();
    let form = if args.output.json { Shown::Json } else { Shown::Table };
    supervisor::check(&run_args(settings, args.services, config)?, shown, variables, form)
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
    fn what_is_of_the_values_is_refused_where_the_status_is_shown() {
        let refused = |args: &[&str]| Cli::try_parse_from(args).err().map(|e| e.to_string());
        for further in [["--host", "db.example"], ["--override-name", "DB_URL=DATABASE_URL"]] {
            let said = refused(&["supafly", "status", further[0], further[1]]).unwrap_or_default();
            assert!(said.contains("--output <FORMAT>"), "{said}");
            assert_eq!(refused(&["supafly", "status", "-o", "env", further[0], further[1]]), None);
            assert_eq!(refused(&["supafly", "keys", further[0], further[1]]), None);
        }
    }

    #[test]
    fn every_help_fits_80_columns_and_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        fits(&mut cli);
    }
}
