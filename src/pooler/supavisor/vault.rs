//! Whether what Supavisor keeps in its database was written with the keys that we have.
//!
//! The vault key lives on the volume, the tenant's row in the database, and either can be restored without the other
//! (the database from the archive, on a new machine). With another key Supavisor says that it is well, answers GET and PUT
//! as ever, and lets every client hang. So the fingerprint of the keys lies beside the rows: where it is another, our row
//! is deleted before Supavisor starts, and made anew through its API. The fingerprint is set in the transaction that
//! deletes, so a kill at any moment leaves no row that was written with other keys than it says.

use super::environment::{DATABASE, ROLE};
use crate::config::Secret;
use crate::exit::Failure;
use hmac::{Hmac, KeyInit, Mac};
use std::time::Duration;

/// Postgres has just let the migration in.
const LIMIT: Duration = Duration::from_secs(8);

/// Everything that is asked with.
pub(super) struct Access<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// Of Supavisor's role.
    pub(super) password: &'a str,
}

/// What differs when one of the keys does, and tells nothing of either: the vault key is random.
pub(super) fn fingerprint(vault_key: &Secret, password: &Secret) -> String {
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(vault_key.reveal().as_bytes()) else {
        return String::new();
    };
    mac.update(b"the row of the tenant, written with this password: ");
    mac.update(password.reveal().as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Deletes the tenant's row when it was written with other keys; says whether it did.
///
/// # Errors
/// 70 when the database cannot be asked.
pub(super) fn settle(access: &Access<'_>, tenant: &str, fingerprint: &str) -> Result<bool, Failure> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::gave_up(format!("the database {DATABASE} cannot be asked about Supavisor's keys: {e}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed(&e))?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(LIMIT, ask(access, tenant, fingerprint))
            .await
            .map_err(|_| "no answer".to_owned())
    });
    answer.and_then(|answer| answer.map_err(|e| said(&e))).map_err(|e| failed(&e))
}

fn said(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
    }
}

async fn ask(access: &Access<'_>, tenant: &str, ours: &str) -> Result<bool, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(access.host).port(access.port).user(ROLE).password(access.password).dbname(DATABASE);
    config.application_name("supafly pooler");
    let (mut client, connection) = config.connect(tokio_postgres::NoTls).await?;
    // It ends with the client.
    tokio::spawn(connection);
    let exists = "select pg_catalog.to_regclass('supafly.keys') is not null";
    if client.query_one(exists, &[]).await?.get(0) {
        let there = client.query_opt("select fingerprint from supafly.keys", &[]).await?;
        if there.is_some_and(|row| row.get::<_, String>(0) == ours) {
            return Ok(false);
        }
    }
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "create schema if not exists supafly; \
             create table if not exists supafly.keys \
             (only_one boolean primary key default true check (only_one), fingerprint text not null)",
        )
        .await?;
    let deleted =
        transaction.execute("delete from _supavisor.tenants where external_id = $1", &[&tenant]).await?;
    let enter = "insert into supafly.keys (fingerprint) values ($1) \
                 on conflict (only_one) do update set fingerprint = excluded.fingerprint";
    transaction.execute(enter, &[&ours]).await?;
    transaction.commit().await?;
    Ok(deleted > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_or_another_password_is_another_fingerprint_and_shows_neither() {
        let of = |key: &str, password: &str| fingerprint(&Secret::new(key), &Secret::new(password));
        let first = of("key", "password");
        assert_eq!(first, of("key", "password"));
        assert_ne!(first, of("other", "password"));
        assert_ne!(first, of("key", "other"));
        assert!(first.len() == 32 && first.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
