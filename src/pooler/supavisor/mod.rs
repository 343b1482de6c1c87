//! The resident before Supavisor: migrates, starts it, sets its one tenant, and drains it before it ends.
//!
//! Supavisor cuts every client within 20 ms of a TERM; only a call of its API drains, and somebody must be there to make
//! it when the supervisor says stop. So this role does not become Supavisor but stays its parent: a main thread for
//! signals and a thread for the tenant. It never sends INT, which freezes or kills the BEAM at once. Supavisor's output
//! goes straight to the supervisor, which reads it to the end, as it must: unread, a TERM never finishes.
//!
//! A kill of this resident leaves Supavisor without a parent for as long as the supervisor needs to kill the rest of the
//! run, which it does before it starts another.

mod api;
mod ending;
mod environment;
mod tenant;
mod vault;

pub(crate) use environment::{DATABASE, ROLE};

use super::{from_here, render, secret, secrets};
use crate::config::{Secret, Settings};
use crate::control::client::{self, Report, Row};
use crate::exit::{Exit, Failure};
use api::Api;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Migrating takes half a second; with the database out of reach it gives up by itself after ten.
const MIGRATE: Duration = Duration::from_secs(60);
/// Open files that it may have: its tables of descriptors grow with the limit, which may be a thousand million.
const FILES: u64 = 65_536;

/// The name of the one tenant: the project's, in letters that may stand behind the dot of `user.tenant`.
pub(super) fn tenant_id(settings: &Settings) -> String {
    settings.project.replace('.', "-")
}

pub(super) fn run(settings: &Settings, program: &Path) -> Result<Exit, Failure> {
    let secrets = secrets(settings)?;
    let of = |name| secret(settings, &secrets, name);
    let pg_host = from_here(&settings.pg_listen);
    let facts = environment::Facts {
        pg_host,
        pg_port: settings.pg_port,
        own: settings.supavisor_ports,
        transaction: settings.pooler_port,
        session: settings.pooler_session_port,
        db_password: of(ROLE)?,
        secret_key_base: of("secret_key_base")?,
        vault_enc_key: of("vault_enc_key")?,
        api_jwt_secret: of("api_jwt_secret")?,
        metrics_jwt_secret: of("metrics_jwt_secret")?,
    };
    if facts.vault_enc_key.len() != 32 {
        return Err(Failure::config(format!(
            "{}: `vault_enc_key` must have 32 characters: with any other length Supavisor starts and cuts every client",
            settings.pooler_secrets().display()
        )));
    }
    let program = std::fs::canonicalize(program)
        .map_err(|e| Failure::config(format!("{}: {e}; SUPAFLY_SUPAVISOR names it", program.display())))?;
    let release = Release { program, environment: environment::environment(&facts) };
    limit_files();
    // Before the first child, so that none of its ends is missed. The last two are for PgBouncer, which must be told when
    // Postgres goes and comes; Supavisor notices by itself.
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])
        .map_err(|e| Failure::gave_up(format!("signals cannot be received: {e}")))?;

    let mut migrating = release.start("migrate")?;
    match wait(&mut migrating, &mut signals, Instant::now() + MIGRATE)? {
        Waited::Ended(status) if status.success() => {}
        Waited::Ended(status) => {
            return Err(release.failed(
                "`migrate` failed",
                &format!(
                    "{status}; is the database {DATABASE} there, and may {ROLE} log in over TCP at {pg_host}:{}?",
                    settings.pg_port
                ),
            ));
        }
        Waited::Told => return Ok(Exit::Clean),
        Waited::Late => {
            return Err(release.failed("`migrate` hangs", &format!("{} s", MIGRATE.as_secs())));
        }
    }
    let id = tenant_id(settings);
    let password = of("pgbouncer")?;
    let access = vault::Access { host: pg_host, port: settings.pg_port, password: facts.db_password };
    let fingerprint = vault::fingerprint(&Secret::new(facts.vault_enc_key), &Secret::new(password));
    if vault::settle(&access, &id, &fingerprint)? {
        tracing::warn!(
            tenant = %id,
            "the tenant was written with another vault key or password, and nobody could have logged in: it is made anew"
        );
    }
    let mut server = release.start("server")?;
    let pid_of_server = Pid::from_raw(i32::try_from(server.id()).unwrap_or(i32::MAX));
    let api = Api { port: facts.own.api, secret: Secret::new(facts.api_jwt_secret) };
    let sizes = render::sizes(crate::facts::memory(), render::Mode::Transaction);
    // One more connection a pool, and one for the question after passwords.
    let pool = sizes.pool.saturating_sub(2).max(4);
    let wanted = tenant::Wanted {
        id: id.clone(),
        tenant: environment::tenant(pg_host, settings.pg_port, pool, sizes.clients),
        password: Secret::new(password),
    };
    // It ends when the tenant is settled, or with the process.
    std::thread::spawn({
        let (api, run) = (api.clone(), settings.run.clone());
        move || {
            let became = tenant::settle(&api, &wanted);
            report(&run, &wanted.id, &became);
        }
    });
    ending::attend(&mut server, &mut signals, || ending::drain(&api, &id, pid_of_server))
}

/// For the status: as whom one logs in.
fn report(run: &Path, id: &str, became: &str) {
    let row = Row {
        name: "tenant".to_owned(),
        state: if became.starts_with("not ") { "differs" } else { "ok" }.to_owned(),
        detail: format!("log in as ROLE.{id}; {became}"),
    };
    match client::report(run, &Report { rows: vec![row], ..Report::default() }) {
        Ok(()) => {}
        Err(client::ClientError::Absent(_)) => tracing::debug!("no supervisor to report to"),
        Err(e) => tracing::warn!("the status does not show the tenant: {e}"),
    }
}

/// For our children. Failing leaves the limit as it was.
fn limit_files() {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft > FILES => {
            if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, FILES, hard) {
                tracing::warn!("the limit of open files stays at {soft}: {e}");
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!("the limit of open files cannot be read: {e}"),
    }
}

/// Its directory of programs, and what each of them is given.
struct Release {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Release {
    fn failed(&self, what: &str, e: &dyn std::fmt::Display) -> Failure {
        Failure::gave_up(format!("{}: {what}: {e}", self.program.with_file_name("").display()))
    }

    /// Starts `bin/<name>`: nothing of our environment but PATH, HOME and the mark of its descent, nothing to read, and a
    /// group of its own, so that what a terminal sends to ours reaches us alone.
    fn start(&self, name: &str) -> Result<Child, Failure> {
        let mut command = Command::new(self.program.with_file_name(name));
        command.stdin(Stdio::null()).current_dir("/").env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(crate::foreign::environment(&["HOME"]));
        command.process_group(0);
        command.spawn().map_err(|e| self.failed(&format!("`{name}` cannot be run"), &e))
    }
}

enum Waited {
    Ended(ExitStatus),
    Told,
    Late,
}

/// Waits for a short-lived child; told to stop, it is told to end too.
fn wait(child: &mut Child, signals: &mut Signals, end: Instant) -> Result<Waited, Failure> {
    let lost = |e| Failure::gave_up(format!("a child is lost: {e}"));
    loop {
        if let Some(status) = child.try_wait().map_err(lost)? {
            return Ok(Waited::Ended(status));
        }
        let told = signals.pending().any(|s| matches!(s, SIGINT | SIGQUIT | SIGTERM));
        if told || Instant::now() > end {
            // By force: the BEAM takes its time to end in order, and a migration is there whole or not at all.
            child.kill().map_err(lost)?;
            child.wait().map_err(lost)?;
            return Ok(if told { Waited::Told } else { Waited::Late });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
