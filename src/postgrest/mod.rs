//! The `postgrest` role: renders PostgREST's configuration and *becomes* PostgREST, so that every signal of the
//! supervisor is PostgREST's own.
//!
//! Before that it asks the database ([`database`]) what would keep PostgREST waiting without a word: a schema that is
//! not there, a password that does not fit. What can be mended without us (70) and what cannot (78) is said with the
//! name of its setting; the supervisor tries again.

mod database;
pub mod render;

use crate::config::{Secret, Settings};
use crate::exit::{Exit, Failure};
use crate::foreign::{self, Listener};
use crate::{facts, secrets};
use base64::Engine;
use render::{Facts, Version};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where PostgREST is: as the settings say, else in PATH; where it is not, the name that lacks.
#[must_use]
pub fn program(settings: &Settings) -> PathBuf {
    let named = || which::which("postgrest").unwrap_or_else(|_| "postgrest".into());
    settings.postgrest.clone().unwrap_or_else(named)
}

/// Whether it is there to be run.
#[must_use]
pub fn installed(settings: &Settings) -> bool {
    which::which(program(settings)).is_ok()
}

/// Runs the role: returns only when PostgREST could not be started.
///
/// # Errors
/// 78 when a setting cannot be used, 70 for what may go well another time: a taken port, a schema that is not there yet.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    let program = program(settings);
    let rest = &settings.rest;
    let secrets = secrets::postgrest(settings)?;
    // Both are waited for; whoever waits for us need not wait for one after the other. What a person must mend does not wait
    // for the database.
    let asked = {
        let (settings, password) = (settings.clone(), secrets.authenticator.clone());
        std::thread::spawn(move || database::ask(&settings, &password))
    };
    let version = version(&program)?;
    fits(settings, version)?;
    let listener = |listen, port, port_variable| Listener {
        listen,
        listen_variable: "SUPAFLY_POSTGREST_LISTEN",
        port,
        port_variable,
    };
    listener(&rest.listen, rest.port, "SUPAFLY_POSTGREST_PORT").free()?;
    let admin = if version.has_admin_host() { "127.0.0.1" } else { &rest.listen };
    listener(admin, rest.admin_port, "SUPAFLY_POSTGREST_ADMIN_PORT").free()?;
    let found = asked
        .join()
        .unwrap_or_else(|_| Err(Failure::gave_up("the question to the database broke off".to_owned())))?;
    let pool = rest.pool.unwrap_or_else(|| render::pool(found.max_connections));
    if let Some(left) = render::shortage(found.max_connections, found.reserved, pool) {
        tracing::warn!(
            "of Postgres's {} connections, PostgREST's {pool} (SUPAFLY_POSTGREST_POOL) and the pooler's leave {left}: \
             lower it, or raise max_connections",
            found.max_connections
        );
    }
    let conf = render::conf(&Facts {
        version,
        listen: &rest.listen,
        port: rest.port,
        admin_port: rest.admin_port,
        schemas: &rest.schemas,
        search_path: &rest.search_path,
        max_rows: rest.max_rows,
        pool,
        uri: render::uri(&settings.pg_socket_dir(), settings.pg_port, &secrets.authenticator),
        jwt_secret: Secret::new(
            base64::engine::general_purpose::STANDARD.encode(secrets.jwt_secret.reveal()),
        ),
        jwt_expiry: secrets.jwt_expiry,
    });
    let own = settings.rest_dir();
    foreign::directory(&own)?;
    let path = own.join("postgrest.conf");
    foreign::write(&path, &conf)?;
    tracing::info!(
        version = %format_args!("{}.{}.{}", version.0, version.1, version.2),
        pool, "becoming PostgREST, for {}:{}", rest.listen, rest.port
    );
    let mut command = Command::new(&program);
    command.arg(&path).stdin(Stdio::null()).env_clear();
    command.env("GHCRTS", render::runtime_limits(facts::memory(), facts::processors()));
    command.envs(foreign::environment(&["LANG", "TZ"]));
    let failed = command.exec();
    Err(Failure::gave_up(format!("{}: cannot be run: {failed}", program.display())))
}

fn version(program: &Path) -> Result<Version, Failure> {
    let mut ask = Command::new(program);
    ask.arg("--version").stdin(Stdio::null()).env_clear();
    let out = ask.output().map_err(|e| {
        let whose = if e.kind() == std::io::ErrorKind::PermissionDenied {
            "; this service's user must be able to reach and run it"
        } else {
            ""
        };
        Failure::gave_up(format!("SUPAFLY_POSTGREST: {}: cannot be run: {e}{whose}", program.display()))
    })?;
    let said = String::from_utf8_lossy(&out.stdout);
    Version::said(&said).ok_or_else(|| {
        let first: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
        Failure::config(format!(
            "SUPAFLY_POSTGREST: {} --version says `{}`: not a PostgREST",
            program.display(),
            first.escape_debug()
        ))
    })
}

/// Whether this version can do what the settings ask for.
fn fits(settings: &Settings, version: Version) -> Result<(), Failure> {
    let rest = &settings.rest;
    let Version(major, minor, patch) = version;
    if !version.is_known() {
        return Err(Failure::config(format!(
            "PostgREST {major}.{minor}.{patch} is too old: version 12 or newer is needed (SUPAFLY_POSTGREST names it)"
        )));
    }
    if rest.port == rest.admin_port {
        return Err(Failure::config(format!(
            "SUPAFLY_POSTGREST_PORT and SUPAFLY_POSTGREST_ADMIN_PORT are both {}: set one of them to another port",
            rest.port
        )));
    }
    let loopback = rest.listen.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
    let everywhere = matches!(rest.listen.as_str(), "*" | "0.0.0.0" | "::");
    if !version.has_admin_host() && !loopback {
        // Its health could not be asked for over loopback.
        if !everywhere {
            return Err(Failure::config(format!(
                "PostgREST {major}.{minor}.{patch} has its admin port where its API is: with \
                 SUPAFLY_POSTGREST_LISTEN={} version 13 or newer is needed, else give 127.0.0.1 or `*`",
                rest.listen
            )));
        }
        tracing::warn!(
            "PostgREST {major}.{minor}.{patch} opens its admin port {} to everybody as well: publish only {}, or \
             install version 13 or newer",
            rest.admin_port,
            rest.port
        );
    }
    if version.tells_secrets() {
        tracing::warn!(
            "PostgREST {major}.{minor}.{patch} tells its secrets to whoever reaches its admin port: install 12.2.12 or \
             newer"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| (format!("SUPAFLY_POSTGREST{k}"), (*v).to_owned())).collect();
        Settings::read(None, &env).unwrap()
    }

    #[test]
    fn an_old_version_may_not_take_its_admin_port_where_nobody_asks_for_it() {
        let (old, new) = (Version(12, 0, 2), Version(14, 17, 0));
        for (listen, old_fits) in [("127.0.0.1", true), ("::1", true), ("*", true), ("10.0.0.7", false)] {
            let settings = settings(&[("_LISTEN", listen)]);
            assert_eq!(fits(&settings, old).is_ok(), old_fits, "{listen}");
            fits(&settings, new).unwrap();
        }
        let why = fits(&settings(&[]), Version(11, 2, 0)).unwrap_err().to_string();
        assert!(why.contains("11.2.0 is too old"), "{why}");
        let why = fits(&settings(&[("_PORT", "3001")]), new).unwrap_err().to_string();
        assert!(
            why.contains("SUPAFLY_POSTGREST_PORT and SUPAFLY_POSTGREST_ADMIN_PORT are both 3001"),
            "{why}"
        );
    }

    #[test]
    fn a_program_that_is_given_is_taken_and_never_looked_for() {
        assert_eq!(program(&settings(&[("", "/opt/postgrest")])), PathBuf::from("/opt/postgrest"));
    }
}
