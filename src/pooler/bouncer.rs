//! Renders PgBouncer's configuration and becomes PgBouncer: same pid, its standard error is our service's log.

use super::render::{self, Facts, Mode, Sizes, Version};
use super::{from_here, secret, secrets};
use crate::config::{Settings, Source};
use crate::exit::{Exit, Failure};
use crate::foreign::{self, Listener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many files it holds open beside those of its clients and servers.
const FILES: u64 = 100;

pub(super) fn run(settings: &Settings, program: &Path, mode: Mode) -> Result<Exit, Failure> {
    let version = version(program)?;
    let listen = listen(settings, version, mode);
    let port = port(settings, mode);
    // PgBouncer itself only warns and goes on without the port.
    let port_variable = match mode {
        Mode::Transaction => "SUPAFLY_POOLER_PORT",
        Mode::Session => "SUPAFLY_POOLER_SESSION_PORT",
    };
    Listener { listen: &listen, listen_variable: "SUPAFLY_POOLER_LISTEN", port, port_variable }.free()?;
    let secrets = secrets(settings)?;
    let password = secret(settings, &secrets, "pgbouncer")?;
    let own = settings.pooler_dir();
    foreign::directory(&own)?;
    let conf = conf(settings, mode);
    let users = conf.with_extension("users");
    let mut sizes = render::sizes(crate::facts::memory(), mode);
    let (files, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        .map_err(|e| Failure::gave_up(format!("the limit of open files cannot be read: {e}")))?;
    let room = files.saturating_sub(FILES + 2 * sizes.database).max(10);
    if room < sizes.clients {
        tracing::warn!(files, "the limit of open files allows {room} clients instead of {}", sizes.clients);
        sizes.clients = room;
    }
    let facts = Facts {
        version,
        mode,
        listen,
        port,
        own,
        users: users.clone(),
        postgres: postgres(settings),
        pg_port: settings.pg_port,
        sizes,
    };
    for (what, text) in [
        ("SUPAFLY_RUN", facts.own.display().to_string()),
        ("SUPAFLY_PG_LISTEN", facts.postgres.clone()),
        ("SUPAFLY_POOLER_LISTEN", facts.listen.replace(", ", ",")),
        ("the password of the role pgbouncer", password.to_owned()),
    ] {
        if render::unfit(&text) {
            return Err(Failure::config(format!("{what}: has a blank or a quote in it, or nothing at all")));
        }
    }
    foreign::write(&users, &render::users(password))?;
    foreign::write(&conf, &render::ini(&facts))?;
    let Sizes { pool, database, clients } = facts.sizes;
    tracing::info!(
        version = %format_args!("{}.{}.{}", version.0, version.1, version.2),
        pool, database, clients, "PgBouncer takes {} mode on {}:{port}", mode.word(), facts.listen
    );
    let mut command = Command::new(program);
    command.arg(&conf).stdin(Stdio::null()).env_clear();
    command.envs(foreign::environment(&["HOME", "LANG"]));
    let failed = command.exec();
    Err(Failure::gave_up(format!("{}: cannot be run: {failed}", program.display())))
}

/// The rendered configuration.
pub(super) fn conf(settings: &Settings, mode: Mode) -> PathBuf {
    settings.pooler_dir().join(match mode {
        Mode::Transaction => "pgbouncer.ini",
        Mode::Session => "pgbouncer-session.ini",
    })
}

/// The port of a mode.
pub(super) fn port(settings: &Settings, mode: Mode) -> u16 {
    match mode {
        Mode::Transaction => settings.pooler_port,
        Mode::Session => settings.pooler_session_port,
    }
}

fn version(program: &Path) -> Result<Version, Failure> {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let out = asked.map_err(|e| {
        Failure::config(format!("{}: cannot be run: {e}; SUPAFLY_PGBOUNCER names it", program.display()))
    })?;
    let said = String::from_utf8_lossy(&out.stdout);
    Version::said(&said).ok_or_else(|| {
        let first = said.lines().next().unwrap_or_default();
        Failure::config(format!("{} --version says `{first}`: not a PgBouncer", program.display()))
    })
}

/// How it reaches Postgres: over TCP, because over the socket `postgres` and `supafly` must be the system's users of those
/// names, and whoever comes through the pooler is its user there.
fn postgres(settings: &Settings) -> String {
    if settings.pg_listen.split(',').all(|a| a.trim().is_empty()) {
        tracing::warn!(
            "SUPAFLY_PG_LISTEN is empty, so the pooler takes Postgres's socket, where the role postgres cannot log in by password"
        );
        return settings.pg_socket_dir().display().to_string();
    }
    from_here(&settings.pg_listen).to_owned()
}

/// Where it listens: as the settings say; but one through which anybody may log in as anybody stays on loopback, unless
/// its address was given by name.
fn listen(settings: &Settings, version: Version, mode: Mode) -> String {
    let given = settings.sources.get("pooler_listen").is_some_and(|s| *s != Source::Default);
    let Version(major, minor, patch) = version;
    if version.open_to_all() && mode == Mode::Transaction {
        tracing::warn!(
            "PgBouncer {major}.{minor}.{patch} may let anybody log in as anybody (CVE-2026-107350): install 1.26.1 or newer{}",
            if given {
                ""
            } else {
                "; until then it listens on 127.0.0.1 only, unless SUPAFLY_POOLER_LISTEN says else"
            }
        );
    }
    if version.open_to_all() && !given { "127.0.0.1".to_owned() } else { settings.pooler_listen.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_version_that_lets_everybody_in_stays_on_loopback_unless_told_otherwise() {
        let settings = |pairs: &[(&str, &str)]| {
            let env: BTreeMap<String, String> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Settings::read(None, &env).unwrap()
        };
        let (bad, good) = (Version(1, 18, 0), Version(1, 26, 1));
        assert_eq!(listen(&settings(&[]), bad, Mode::Transaction), "127.0.0.1");
        assert_eq!(listen(&settings(&[]), good, Mode::Transaction), "*");
        let told = settings(&[("SUPAFLY_POOLER_LISTEN", "0.0.0.0")]);
        assert_eq!(listen(&told, bad, Mode::Session), "0.0.0.0");
    }
}
