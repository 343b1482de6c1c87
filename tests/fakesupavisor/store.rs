//! Its tables in the real Postgres, passwords in them encrypted with the vault key.

use super::household::say;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// How long the real one's pool asks for a connection.
const ASK: Duration = Duration::from_secs(4);

pub(super) struct Store {
    config: tokio_postgres::Config,
    key: String,
}

/// A tenant as a client's login needs it.
pub(super) struct Tenant {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: the key cannot open it.
    pub(super) manager_password: Option<String>,
}

/// The database does not answer, or not as it should.
pub(super) struct Lost;

impl From<tokio_postgres::Error> for Lost {
    fn from(_: tokio_postgres::Error) -> Lost {
        Lost
    }
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Store {
    /// `ecto://user:password@host:port/database`
    pub(super) fn new(url: &str, key: String) -> Store {
        let rest = url.strip_prefix("ecto://").expect("ecto://");
        let (who, place) = rest.rsplit_once('@').expect("a user");
        let (user, password) = who.split_once(':').expect("a password");
        let (at, database) = place.split_once('/').expect("a database");
        let (host, port) = at.rsplit_once(':').expect("a port");
        let mut config = tokio_postgres::Config::new();
        config.host(host.trim_matches(['[', ']'])).port(port.parse().expect("a port"));
        config.user(user).password(unescaped(password)).dbname(database);
        Store { config, key }
    }

    pub(super) fn key_fits(&self) -> bool {
        self.key.len() == 32
    }

    async fn client(&self) -> Result<Client, Lost> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn within<T>(work: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
        let begun = tokio::time::Instant::now();
        let answer = tokio::time::timeout(ASK, work).await.unwrap_or(Err(Lost));
        if answer.is_err() {
            tokio::time::sleep_until(begun + ASK).await;
        }
        answer
    }

    /// Tries again for as long as it is let.
    pub(super) async fn migrate_in_the_end(&self) {
        while self.migrate().await.is_err() {
            say("error", "Postgrex.Protocol failed to connect");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn migrate(&self) -> Result<(), Lost> {
        let client = self.client().await?;
        let tables = "create schema if not exists _supavisor; \
            create table if not exists _supavisor.tenants (external_id text primary key, said text not null); \
            create table if not exists _supavisor.users (tenant_external_id text primary key \
              references _supavisor.tenants (external_id) on delete cascade, db_pass_encrypted bytea not null)";
        Ok(client.batch_execute(tables).await?)
    }

    /// That somebody answers: not that anything is there.
    pub(super) async fn answers(&self) -> bool {
        let ask = async { Ok::<_, Lost>(self.client().await?.simple_query("select 1").await?) };
        matches!(tokio::time::timeout(ASK, ask).await, Ok(Ok(_)))
    }

    /// What GET shows.
    pub(super) async fn get(&self, id: &str) -> Result<Option<Value>, Lost> {
        Self::within(async {
            let row = self.client().await?;
            let row =
                row.query_opt("select said from _supavisor.tenants where external_id = $1", &[&id]).await?;
            Ok(row.and_then(|row| serde_json::from_str(row.get(0)).ok()))
        })
        .await
    }

    pub(super) async fn put(&self, id: &str, tenant: &Value) -> Result<(), Lost> {
        if !self.key_fits() {
            return Err(Lost);
        }
        let password = tenant.pointer("/users/0/db_password").and_then(Value::as_str).ok_or(Lost)?;
        let mut said = tenant.clone();
        said["external_id"] = json!(id);
        if let Some(user) = said.pointer_mut("/users/0").and_then(Value::as_object_mut) {
            user.remove("db_password");
            user.insert("pool_checkout_timeout".to_owned(), json!(60_000));
        }
        Self::within(async {
            let mut client = self.client().await?;
            let transaction = client.transaction().await?;
            let tenants = "insert into _supavisor.tenants values ($1, $2) \
                           on conflict (external_id) do update set said = excluded.said";
            transaction.execute(tenants, &[&id, &said.to_string()]).await?;
            // What another key has written stays as it is, as with the real one: its row is loaded, not replaced.
            let users = "insert into _supavisor.users values ($1, $2) on conflict (tenant_external_id) do update \
                         set db_pass_encrypted = excluded.db_pass_encrypted where $3";
            let ours = match transaction.query_opt(SEALED, &[&id]).await? {
                Some(row) => self.opened(row.get(0)).is_some(),
                None => true,
            };
            transaction.execute(users, &[&id, &self.sealed(password), &ours]).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }

    pub(super) async fn delete(&self, id: &str) -> Result<bool, Lost> {
        Self::within(async {
            let gone = "delete from _supavisor.tenants where external_id = $1";
            Ok(self.client().await?.execute(gone, &[&id]).await? > 0)
        })
        .await
    }

    pub(super) async fn tenant(&self, id: &str) -> Result<Option<Tenant>, Lost> {
        let Some(said) = self.get(id).await? else { return Ok(None) };
        let sealed = self.client().await?.query_one(SEALED, &[&id]).await?;
        Ok(Some(Tenant {
            host: said["db_host"].as_str().unwrap_or_default().to_owned(),
            port: said["db_port"].as_u64().and_then(|p| p.try_into().ok()).unwrap_or(0),
            manager_password: self.opened(sealed.get(0)),
        }))
    }

    /// 16 bytes that depend on key and text, then the text under a stream that depends on both.
    fn sealed(&self, text: &str) -> Vec<u8> {
        let mark = self.stream(text.as_bytes(), 0).get(..16).map(<[u8]>::to_vec).unwrap_or_default();
        let hidden = self.hide(&mark, text.as_bytes());
        [mark, hidden].concat()
    }

    fn opened(&self, sealed: &[u8]) -> Option<String> {
        let (mark, hidden) = sealed.split_at_checked(16)?;
        let text = self.hide(mark, hidden);
        (self.stream(&text, 0).get(..16) == Some(mark)).then(|| String::from_utf8(text).ok())?
    }

    fn hide(&self, mark: &[u8], text: &[u8]) -> Vec<u8> {
        let block = |n: usize| self.stream(mark, u64::try_from(n).unwrap_or(0) + 1);
        let stream = (0..).flat_map(block);
        text.iter().zip(stream).map(|(byte, with)| byte ^ with).collect()
    }

    fn stream(&self, seed: &[u8], number: u64) -> Vec<u8> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(self.key.as_bytes()).expect("a key");
        mac.update(seed);
        mac.update(&number.to_be_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

const SEALED: &str = "select db_pass_encrypted from _supavisor.users where tenant_external_id = $1";
