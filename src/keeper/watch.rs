//! The watch on Postgres: does it answer, and does it take writes? `select` over its Unix socket, every two seconds.
//!
//! This is the fact that readiness stands on: a process that exists, or a READY=1 in the middle of a recovery, proves
//! nothing. A connection that fails is a fact too, not an error of ours. One connection is kept, because a new one costs
//! Postgres a process; but every 15 s a new one takes its place, because one that stands does not show that others can be
//! made (`decide::closed`). When none is kept and all are taken, that is an answer of a server that serves.

use super::decide::{self, Attempt, Seen};
use crate::config::Settings;
use crate::control::client::Row;
use crate::postgres::lsn::Lsn;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long Postgres may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one look may take, with all that it waits for. With the pause before it, it must stay well below the
/// `reports_health` of `services/keeper.toml`: what is not reported in time counts as unready, too.
pub(super) const TURN: Duration = Duration::from_secs(5);
const QUESTION: &str =
    "select pg_is_in_recovery(), case when pg_is_in_recovery() then null else pg_current_wal_lsn()::text end";

/// Before set-up has granted it, the schema's name alone would be an error.
const THERE: &str = "select exists (select from pg_catalog.pg_proc p \
     join pg_catalog.pg_namespace n on n.oid = p.pronamespace \
     where n.nspname = 'supafly' and p.proname = 'graphql_health' \
     and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute'))";
const GRAPHQL: &str = "select state, detail from supafly.graphql_health()";

/// A connection that is kept, made anew when it breaks, and replaced before it stands for too much.
pub(super) struct Watch {
    config: tokio_postgres::Config,
    socket: std::path::PathBuf,
    kept: Option<Kept>,
    /// The last verdict, while nothing has spoken against it.
    last: Option<Seen>,
    /// How many renewals in a row had no answer.
    failed: u32,
    pub(super) renew: Duration,
}

struct Kept {
    client: Client,
    /// When Postgres last took a new connection.
    proved: Instant,
    /// It owes an answer.
    late: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Watch {
        let socket = settings.pg_socket_dir().join(format!(".s.PGSQL.{}", settings.pg_port));
        Watch { config: config(settings), socket, kept: None, last: None, failed: 0, renew: decide::RENEW }
    }

    /// Asks once, and no longer than [`TURN`].
    pub(super) async fn look(&mut self) -> Seen {
        let now = Instant::now();
        if !self.socket.exists() {
            (self.kept, self.last, self.failed) = (None, None, 0);
            return Seen::Down;
        }
        let mut seen = self.ask(now + PATIENCE).await;
        if !matches!(seen, Seen::Silent(_))
            && self.kept.as_ref().is_some_and(|kept| kept.proved.elapsed() >= self.renew)
        {
            let attempt = self.another((Instant::now() + PATIENCE).min(now + TURN)).await;
            self.failed = if matches!(attempt, Attempt::Failed(_)) { self.failed + 1 } else { 0 };
            seen = decide::closed(&attempt, self.failed).unwrap_or(seen);
        }
        match &seen {
            Seen::Writing { .. } | Seen::Recovering => self.last = Some(seen.clone()),
            Seen::Silent(_) | Seen::Down => self.last = None,
            Seen::Full => {}
        }
        seen
    }

    /// The verdict of the connection that is kept, or of a new one. One that did not answer stays until its successor is
    /// made: while all connections are taken it is the only witness.
    async fn ask(&mut self, by: Instant) -> Seen {
        if self.kept.as_ref().is_some_and(|kept| kept.client.is_closed()) {
            self.kept = None;
        }
        if self.kept.as_ref().is_some_and(|kept| !kept.late)
            && let Some(seen) = self.question(by).await
        {
            return seen;
        }
        match tokio::time::timeout_at(by, connect(&self.config)).await {
            Ok(Ok(client)) => self.kept = Some(Kept { client, proved: Instant::now(), late: false }),
            Ok(Err(e)) if !full(&e) => return Seen::Silent(said(&e)),
            // Whoever says that all are taken has forked to say so, and takes connections: while it starts or stops it says
            // that instead.
            Ok(Err(_)) if self.kept.is_none() => return self.last.clone().unwrap_or(Seen::Full),
            Ok(Err(_)) => {}
            Err(_) => return late(),
        }
        let seen = self.question(by).await;
        seen.unwrap_or_else(|| Seen::Silent("the connection ended without an answer".to_owned()))
    }

    /// What the kept connection says; none when it has ended, and it is kept no longer.
    async fn question(&mut self, by: Instant) -> Option<Seen> {
        let kept = self.kept.as_mut()?;
        match tokio::time::timeout_at(by, kept.client.simple_query(QUESTION)).await {
            Ok(Ok(rows)) => {
                kept.late = false;
                let seen = rows.iter().find_map(read);
                Some(seen.unwrap_or_else(|| Seen::Silent("it gave no row".to_owned())))
            }
            Ok(Err(e)) if ended(&e) => {
                self.kept = None;
                None
            }
            Ok(Err(e)) => Some(Seen::Silent(said(&e))),
            Err(_) => {
                kept.late = true;
                Some(late())
            }
        }
    }

    /// A new connection in the place of the one that answers. Where none can be made that one stays, as the witness that
    /// the others still answer.
    async fn another(&mut self, by: Instant) -> Attempt {
        let begun = Instant::now();
        let attempt = match tokio::time::timeout_at(by, connect(&self.config)).await {
            Ok(Ok(client)) => {
                self.kept = Some(Kept { client, proved: Instant::now(), late: false });
                Attempt::Made
            }
            Ok(Err(e)) => match e.as_db_error() {
                Some(db) => Attempt::Refused { code: db.code().code().to_owned(), said: said(&e) },
                None => Attempt::Failed(said(&e)),
            },
            Err(_) => Attempt::Failed(format!("no answer in {} s", begun.elapsed().as_secs())),
        };
        if let (Some(kept), Attempt::Made | Attempt::Refused { .. }) = (&mut self.kept, &attempt)
            && decide::closed(&attempt, 0).is_none()
        {
            kept.proved = Instant::now();
        }
        attempt
    }
}

/// How pg_graphql is, as the function that `setup` makes says; no row where set-up has not been, and nothing where it could not
/// be asked. Over a connection of its own: what hangs there must not cost the watch its witness. Postgres ends a question that
/// takes too long by itself, so that none piles up.
pub(super) async fn graphql(settings: &Settings) -> Option<Option<Row>> {
    let row = |state: &str, detail: &str| Row {
        name: "graphql".to_owned(),
        state: state.to_owned(),
        detail: detail.lines().next().unwrap_or_default().to_owned(),
    };
    let mut config = config(settings);
    config.options(format!("-c statement_timeout={}", PATIENCE.as_millis()));
    let client = match tokio::time::timeout(PATIENCE, connect(&config)).await {
        Ok(Ok(client)) => client,
        Ok(Err(e)) => {
            tracing::debug!(error = %said(&e), "pg_graphql cannot be asked");
            return None;
        }
        Err(_) => return None,
    };
    let asked = async {
        // Asking what is not there would be an error in Postgres's log at every turn.
        let there = client.simple_query(THERE).await?;
        let there =
            there.iter().any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
        if there { client.simple_query(GRAPHQL).await } else { Ok(Vec::new()) }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(messages)) => Some(messages.iter().find_map(|message| {
            let SimpleQueryMessage::Row(said) = message else { return None };
            Some(row(said.get(0)?, said.get(1)?))
        })),
        Ok(Err(e)) if e.code() != Some(&SqlState::QUERY_CANCELED) => {
            tracing::debug!(error = %said(&e), "pg_graphql cannot be asked");
            Some(None)
        }
        Ok(Err(_)) | Err(_) => Some(Some(row("broken", &format!("no answer in {} s", PATIENCE.as_secs())))),
    }
}

fn config(settings: &Settings) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(settings.pg_socket_dir())
        .port(settings.pg_port)
        .user("supafly")
        .dbname("postgres")
        .application_name("supafly keeper")
        .connect_timeout(PATIENCE);
    config
}

async fn connect(config: &tokio_postgres::Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %said(&e), "a connection of the watch has ended");
        }
    });
    Ok(client)
}

fn late() -> Seen {
    Seen::Silent(format!("no answer in {} s", PATIENCE.as_secs()))
}

/// All connections are taken.
fn full(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// The connection has ended: by itself, or by somebody's word (`pg_terminate_backend`, `idle_session_timeout`).
fn ended(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error
            .as_db_error()
            .is_none_or(|db| matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)))
}

fn read(message: &SimpleQueryMessage) -> Option<Seen> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    match row.get(0)? {
        "t" => Some(Seen::Recovering),
        "f" => Some(match row.get(1).and_then(|lsn| lsn.parse::<Lsn>().ok()) {
            Some(lsn) => Seen::Writing { lsn },
            None => Seen::Silent("it told no WAL position".to_owned()),
        }),
        other => Some(Seen::Silent(format!("it answered `{}`", other.escape_debug()))),
    }
}

/// The server's own words where there are some: the crate's Display says only "db error".
fn said(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
