//! A connection to the database as its superuser, over the Unix socket; the kernel vouches for us.

use crate::config::Settings;
use crate::exit::Failure;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// How long Postgres may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it is asked again when it accepts none: after a crash it says READY a moment before it takes connections.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long leave is taken at the most.
const LEAVE: Duration = Duration::from_secs(1);
/// The one number that all runs of set-up on this cluster agree on: `supafly1` in ASCII.
const LOCK: i64 = 0x7375_7061_666c_7931;

pub(super) const USER: &str = "postgres";
pub(super) const DATABASE: &str = "postgres";

/// Nothing that somebody has set for this role or this database changes what our steps mean.
const NEUTRAL: &str = "set role none; set search_path = ''; set client_min_messages = warning; set lock_timeout = '30s'; \
     set statement_timeout = '120s'; set idle_in_transaction_session_timeout = 0; \
     set idle_session_timeout = 0; set quote_all_identifiers = off; \
     set default_transaction_read_only = off; set default_transaction_isolation = 'read committed'; \
     set session_replication_role = origin; set standard_conforming_strings = on; \
     set check_function_bodies = on; set default_tablespace = ''";

/// Each of our own steps comes with its line in the ledger, and a crash takes the newest transactions only: so nobody waits for
/// a disk after each, but once at the end ([`Session::durable`]).
const NOT_WAITED_FOR: &str = "set synchronous_commit = off";

/// A connection. Who reads from it ends by itself when this goes, and takes leave of the server.
pub(super) struct Session {
    pub(super) client: Client,
    reader: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Connects; `about` is said with what the server raises on it.
    async fn connect(settings: &Settings, about: String) -> Result<Session, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(settings.pg_socket_dir())
            .port(settings.pg_port)
            .user(USER)
            .dbname(DATABASE)
            .application_name("supafly setup")
            .connect_timeout(CONNECT);
        let (client, mut connection) = config.connect(NoTls).await?;
        let reader = tokio::spawn(async move {
            loop {
                match futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => match notice.severity() {
                        "WARNING" => tracing::warn!("{about}: {}", notice.message()),
                        other => tracing::info!("{about}: {other}: {}", notice.message()),
                    },
                    Some(Ok(_)) => {}
                    Some(Err(e)) => {
                        tracing::debug!(error = %said(&e), "the connection has ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        Ok(Session { client, reader })
    }

    /// Takes leave and waits until that is done. Without it the server would still be answering when our process ends,
    /// and would log a lost client.
    pub(super) async fn close(self) {
        drop(self.client);
        if tokio::time::timeout(LEAVE, self.reader).await.is_err() {
            tracing::debug!("the server does not take our leave");
        }
    }

    /// For our own steps.
    pub(super) async fn ours(settings: &Settings) -> Result<Session, Failure> {
        let begun = Instant::now();
        let session = loop {
            match Session::connect(settings, "set-up".to_owned()).await {
                Ok(session) => break session,
                // What the server itself refuses, it refuses again; unless it is only just starting.
                Err(e) if refused(&e) || begun.elapsed() > PATIENCE => {
                    return Err(Failure::gave_up(format!(
                        "no connection to Postgres at {}: {}",
                        settings.pg_socket_dir().display(),
                        said(&e)
                    )));
                }
                Err(e) => {
                    tracing::debug!(error = %said(&e), "Postgres takes no connection yet");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        let prepared = session.client.batch_execute(&format!("{NEUTRAL}; {NOT_WAITED_FOR}")).await;
        prepared.map_err(|e| sql("prepare the session", &e))?;
        Ok(session)
    }

    /// For a user's script: a session as theirs would be, of its own.
    pub(super) async fn theirs(settings: &Settings, name: &str) -> Result<Session, tokio_postgres::Error> {
        Session::connect(settings, format!("migration {name}")).await
    }

    /// Waits until everything that was committed here is on this disk. Postgres may crash and come back without set-up being
    /// run again, so before it is said to be done: also for a run before this one that did not come so far. Where nothing waits to
    /// be written, nothing is.
    pub(super) async fn durable(&self) -> Result<(), Failure> {
        // Three statements, and not one text of three, whose one transaction would end by the last setting. `local`: the disk of a
        // standby is none of set-up's business.
        for statement in [
            "set synchronous_commit = local",
            "do $$ begin \
             if pg_catalog.pg_current_wal_insert_lsn() > pg_catalog.pg_current_wal_flush_lsn() then \
             perform pg_catalog.pg_logical_emit_message(true, 'supafly', ''::text); end if; end $$",
            "reset synchronous_commit",
        ] {
            let done = self.client.batch_execute(statement).await;
            done.map_err(|e| sql("make durable what it has done", &e))?;
        }
        Ok(())
    }

    /// Takes the lock of set-up for as long as this session lives.
    pub(super) async fn lock(&self) -> Result<(), Failure> {
        let failed = |e: tokio_postgres::Error| sql("take the lock of set-up", &e);
        let row = self.client.query_one("select pg_catalog.pg_try_advisory_lock($1)", &[&LOCK]).await;
        if row.map_err(failed)?.get::<_, bool>(0) {
            return Ok(());
        }
        // Another set-up; or anybody who can log in, since such a lock asks for no privilege.
        let holder = "select pg_catalog.format('%s of role %s, process %s', a.application_name, a.usename, a.pid) \
                      from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid \
                      where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
                      and l.classid::bigint = $1::bigint >> 32 and l.objid::bigint = $1::bigint & 4294967295";
        let holder = self.client.query_opt(holder, &[&LOCK]).await.map_err(failed)?;
        let holder = holder.map_or_else(|| "somebody".to_owned(), |row| row.get::<_, String>(0));
        tracing::info!("waiting for the lock of set-up, which {holder} has");
        // It may be in the middle of a long migration.
        let wait = "set lock_timeout = 0; set statement_timeout = 0";
        self.client.batch_execute(wait).await.map_err(failed)?;
        self.client.execute("select pg_catalog.pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
        self.client.batch_execute(NEUTRAL).await.map_err(failed)
    }
}

fn refused(e: &tokio_postgres::Error) -> bool {
    e.code().is_some_and(|code| {
        *code != SqlState::CANNOT_CONNECT_NOW
            && *code != SqlState::TOO_MANY_CONNECTIONS
            && *code != SqlState::ADMIN_SHUTDOWN
    })
}

/// The server's own words where there are some: the crate's Display says only "db error".
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => {
            let more = |label: &str, text: Option<&str>| {
                text.map_or_else(String::new, |text| format!(" ({label}: {text})"))
            };
            let (detail, hint) = (more("detail", db.detail()), more("hint", db.hint()));
            format!("{} [{}]{detail}{hint}", db.message(), db.code().code())
        }
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// A failure of something that should have gone well.
pub(super) fn sql(what: &str, e: &tokio_postgres::Error) -> Failure {
    Failure::gave_up(format!("set-up cannot {what}: {}", said(e)))
}
