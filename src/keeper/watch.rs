//! The watch on Postgres: does it answer, and does it take writes? `select` over its Unix socket, every two seconds.
//!
//! This is the fact that readiness stands on: a process that exists, or a READY=1 in the middle of a recovery, proves
//! nothing. A connection that fails is a fact too, not an error of ours. One connection is kept, because a new one costs
//! Postgres a process; but every 15 s a new one takes its place, because one that stands does not show that others can be
//! made (`decide::closed`).

use super::decide::{self, Attempt, Seen};
use crate::config::Settings;
use crate::control::client::Row;
use crate::postgres::lsn::Lsn;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long Postgres may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
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
    pub(super) renew: Duration,
}

struct Kept {
    client: Client,
    /// When Postgres last took a new connection.
    proved: Instant,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Watch {
        let directory = settings.pg_socket_dir();
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&directory)
            .port(settings.pg_port)
            .user("supafly")
            .dbname("postgres")
            .application_name("supafly keeper")
            .connect_timeout(PATIENCE);
        let socket = directory.join(format!(".s.PGSQL.{}", settings.pg_port));
        Watch { config, socket, kept: None, renew: decide::RENEW }
    }

    /// How pg_graphql is, as the function that `setup` makes says; nothing where set-up has not been.
    pub(super) async fn graphql(&mut self) -> Option<Row> {
        let client = self.kept.as_ref().map(|kept| &kept.client).filter(|c| !c.is_closed())?;
        let row = |state: &str, detail: &str| Row {
            name: "graphql".to_owned(),
            state: state.to_owned(),
            detail: detail.lines().next().unwrap_or_default().to_owned(),
        };
        let asked = async {
            // Asking what is not there would be an error in Postgres's log at every turn.
            let there = client.simple_query(THERE).await?;
            let there =
                there.iter().any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
            if there { client.simple_query(GRAPHQL).await } else { Ok(Vec::new()) }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(messages)) => messages.iter().find_map(|message| {
                let SimpleQueryMessage::Row(said) = message else { return None };
                Some(row(said.get(0)?, said.get(1)?))
            }),
            Ok(Err(e)) => {
                tracing::debug!(error = %said(&e), "pg_graphql cannot be asked");
                None
            }
            Err(_) => {
                // The answer would come before the one to the next question.
                self.kept = None;
                Some(row("broken", &format!("no answer in {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// Asks once.
    pub(super) async fn look(&mut self) -> Seen {
        if !self.socket.exists() {
            self.kept = None;
            return Seen::Down;
        }
        let seen = match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(e)) => Seen::Silent(said(&e)),
            Err(_) => Seen::Silent(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        match &self.kept {
            Some(_) if matches!(seen, Seen::Silent(_)) => self.kept = None,
            Some(kept) if kept.proved.elapsed() >= self.renew => {
                let attempt = self.another().await;
                return decide::closed(&attempt).unwrap_or(seen);
            }
            Some(_) | None => {}
        }
        seen
    }

    async fn ask(&mut self) -> Result<Seen, tokio_postgres::Error> {
        let kept = match self.kept.take().filter(|kept| !kept.client.is_closed()) {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let rows = kept.client.simple_query(QUESTION).await?;
        self.kept = Some(kept);
        Ok(rows.iter().find_map(read).unwrap_or_else(|| Seen::Silent("it gave no row".to_owned())))
    }

    async fn connect(&self) -> Result<Kept, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %said(&e), "the connection of the watch has ended");
            }
        });
        Ok(Kept { client, proved: Instant::now() })
    }

    /// A new connection in the place of the one that answers. Where none can be made that one stays, as the witness that
    /// the others still answer.
    async fn another(&mut self) -> Attempt {
        let attempt = match tokio::time::timeout(PATIENCE, self.connect()).await {
            Ok(Ok(new)) => {
                self.kept = Some(new);
                Attempt::Made
            }
            Ok(Err(e)) => match e.as_db_error() {
                Some(db) => Attempt::Refused { code: db.code().code().to_owned(), said: said(&e) },
                None => Attempt::Failed(said(&e)),
            },
            Err(_) => Attempt::Failed(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        if let (Some(kept), None) = (&mut self.kept, decide::closed(&attempt)) {
            kept.proved = Instant::now();
        }
        attempt
    }
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
