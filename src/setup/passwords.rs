//! Passwords of our roles: from a file that only Postgres's user reads into the database, as verifiers.
//!
//! A password is never in a statement, and a verifier is in none that is logged: everything that logs statements is off
//! for that one transaction. What already fits is left alone, so nothing is written where nothing has changed.

use super::scram;
use super::session::{Session, USER, sql};
use crate::config::{Secret, Settings};
use crate::exit::Failure;
use crate::failpoint;
use crate::secrets::KNOWN_PASSWORDS;
use rand::RngCore;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// Who can be given one. `postgres` has its own from the day of the cluster.
const ROLES: &[&str] = &[
    "authenticator",
    "pgbouncer",
    "supabase_admin",
    "supabase_auth_admin",
    "supabase_read_only_user",
    "supabase_replication_admin",
    "supabase_storage_admin",
    "supavisor_admin",
];

/// Whatever writes statements somewhere, off until the end of the transaction.
const QUIET: &str = "set local log_statement = 'none'; set local log_min_error_statement = 'panic'; \
     set local log_min_duration_statement = -1; set local log_min_duration_sample = -1; \
     set local log_duration = off; set local log_transaction_sample_rate = 0; \
     set local debug_print_parse = off; set local debug_print_rewritten = off; set local debug_print_plan = off; \
     set local log_parameter_max_length = 0; set local log_parameter_max_length_on_error = 0; \
     set local track_activities = off; set local pgaudit.log = 'none'; set local pgaudit.role = ''; \
     set local auto_explain.log_min_duration = -1; set local pg_stat_statements.track = 'none'; \
     set local pg_stat_statements.track_utility = off";

/// What the file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// To be set, by role.
    pub(super) roles: BTreeMap<String, Secret>,
    /// What this machine believes the superuser's to be. It is the cluster's and its owner's affair, so it is compared only.
    pub(super) superuser: Option<Secret>,
}

/// What is given; no file is `None`.
pub(super) fn read(settings: &Settings) -> Result<Option<Given>, Failure> {
    let path = settings.own().join("secrets").join("setup.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::config(format!("{}: cannot be read: {e}", path.display()))),
    };
    // The parser's own message may quote what it found.
    let all: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| {
        Failure::config(format!(
            "{}: not a JSON object of texts; remove it, and `supafly secrets` makes it anew",
            path.display()
        ))
    })?;
    let mut given = Given::default();
    for (name, value) in all {
        if name == USER {
            given.superuser = Some(Secret::new(value));
        } else if !ROLES.contains(&name.as_str()) {
            tracing::warn!("{}: `{name}` is no role that is given a password here", path.display());
        } else if value.is_empty() {
            return Err(Failure::config(format!("{}: the password of `{name}` is empty", path.display())));
        } else {
            given.roles.insert(name, Secret::new(value));
        }
    }
    Ok(Some(given))
}

/// Gives each role its password, in one transaction; says how many were changed.
pub(super) async fn apply(
    session: &mut Session,
    passwords: &BTreeMap<String, Secret>,
) -> Result<usize, Failure> {
    // Postgres's messages name roles and settings, and quote no literal of these statements.
    let failed = |e: tokio_postgres::Error| sql("set the passwords of roles", &e);
    let transaction = session.client.transaction().await.map_err(failed)?;
    transaction.batch_execute(QUIET).await.map_err(failed)?;
    let mut given = 0;
    for (role, password) in passwords {
        let stored = "select rolpassword from pg_catalog.pg_authid where rolname = $1";
        let stored: Option<String> = transaction.query_one(stored, &[role]).await.map_err(failed)?.get(0);
        if stored.is_some_and(|stored| scram::fits(&stored, password.reveal())) {
            continue;
        }
        let mut salt = [0u8; 16];
        rand::rng().fill_bytes(&mut salt);
        // Both are of an alphabet without quotes: one of `ROLES`, and base64.
        let verifier = scram::verifier(password.reveal(), salt);
        let statement = format!("alter role {role} password '{verifier}'");
        transaction.batch_execute(&statement).await.map_err(failed)?;
        given += 1;
    }
    failpoint::hit("setup.in-passwords");
    transaction.commit().await.map_err(failed)?;
    failpoint::hit("setup.after-passwords");
    Ok(given)
}

/// How the superuser's password is to what this machine believes it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Superuser {
    /// As believed, or nothing is believed.
    Fits,
    /// Another one.
    Differs,
    /// Another one, which is published with development set-ups. What is believed was judged by `secrets`; this one was
    /// not, because it came with the cluster.
    Known,
}

/// Compares.
pub(super) async fn superuser(session: &Session, believed: Option<&Secret>) -> Result<Superuser, Failure> {
    let question = "select rolpassword from pg_catalog.pg_authid where rolname = $1";
    let row = session.client.query_one(question, &[&USER]).await;
    let stored: Option<String> = row.map_err(|e| sql("look at passwords", &e))?.get(0);
    let fits = |password: &str| stored.as_deref().is_some_and(|stored| scram::fits(stored, password));
    Ok(match believed {
        Some(believed) if fits(believed.reveal()) => Superuser::Fits,
        Some(_) | None if KNOWN_PASSWORDS.iter().any(|known| fits(known)) => Superuser::Known,
        Some(_) => Superuser::Differs,
        None => Superuser::Fits,
    })
}

/// Those that services log in as, and that have no password.
pub(super) async fn without(session: &Session) -> Result<Vec<String>, Failure> {
    let question = "select rolname::text from pg_catalog.pg_authid where rolname = any ($1) and rolpassword is null \
                    order by rolname";
    let asked = ["authenticator", "pgbouncer", "supabase_admin"].as_slice();
    let rows = session.client.query(question, &[&asked]).await.map_err(|e| sql("look at passwords", &e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_by_role_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let env = [("SUPAFLY_DATA".to_owned(), dir.path().display().to_string())];
        let settings = Settings::read(None, &env.into()).unwrap();
        std::fs::create_dir_all(settings.own().join("secrets")).unwrap();
        assert!(read(&settings).unwrap().is_none());
        let path = settings.own().join("secrets/setup.json");
        std::fs::write(&path, r#"{"authenticator": "hunter2", "nobody": "s", "postgres": "hunter3"}"#)
            .unwrap();
        let read_back = read(&settings).unwrap().unwrap();
        assert_eq!(read_back.roles.keys().collect::<Vec<_>>(), ["authenticator"]);
        assert!(read_back.superuser.is_some() && !format!("{read_back:?}").contains("hunter"));
        for wrong in [r#"{"authenticator": "hunter2""#, r#"{"authenticator": {"a": "hunter2"}}"#] {
            std::fs::write(&path, wrong).unwrap();
            let e = read(&settings).unwrap_err();
            assert!(e.exit == crate::exit::Exit::Config && !e.message.contains("hunter2"), "{e}");
        }
    }
}
