//! The `setup` role: what a Supabase-style database has beyond a bare one, and users' migrations.
//!
//! Numbered steps (`image/sql/`), each in a transaction with its line in the ledger, so a kill at any point leaves whole
//! steps and the next run goes on. Some are declarations that every run compares and brings about (roles, grants,
//! passwords), the others are done once. One run at a time has the advisory lock. Then come the users' own scripts: a bad
//! one is shown and stops the later ones, and nothing else (`docs/adr/0013`).

mod database;
mod ledger;
mod migrations;
mod passwords;
mod psql;
mod scan;
mod scram;
mod session;
mod shared_memory;
mod steps;

use crate::config::Settings;
use crate::control::client::{self, Report, Row};
use crate::exit::{Exit, Failure};
use crate::failpoint;
use ledger::{Due, Entry, due};
use passwords::Superuser;
use session::{Session, sql};
use std::collections::BTreeMap;
use std::time::Instant;
use steps::{Manner, STEPS, Step, sha256};

/// What projects count on; looked for in the database afterwards, and said where it is missing.
const EXTENSIONS: &[&str] = &["pgcrypto", "uuid-ossp", "pg_stat_statements"];
/// What others call, and the step that makes it once.
const FUNCTIONS: &[(&str, &str)] = &[
    ("0005-auth-functions", "auth.jwt()"),
    ("0005-auth-functions", "auth.role()"),
    ("0005-auth-functions", "auth.uid()"),
    ("0007-api-reload", "extensions.pgrst_ddl_watch()"),
    ("0007-api-reload", "extensions.pgrst_drop_watch()"),
    ("0008-graphql-access", "graphql_public.graphql(text, text, jsonb, jsonb)"),
    ("0010-pooler-lookup", "pgbouncer.get_auth(text)"),
];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the role.
///
/// # Errors
/// 78 when a step was changed after it was done or the file of passwords cannot be read; 70 when a step fails.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::gave_up(format!("runtime: {e}")))?;
    let mut rows = Vec::new();
    let done = runtime.block_on(whole(settings, &mut rows));
    if let Err(failure) = &done {
        rows.insert(0, row("set-up", "failed", failure.message.clone()));
    }
    // PID 1 keeps this until it starts us again.
    match client::report(&settings.run, &Report { rows, ..Report::default() }) {
        Ok(()) => {}
        Err(client::ClientError::Absent(_)) => tracing::debug!("no supervisor to report to"),
        Err(e) => tracing::warn!("the status does not show this: {e}"),
    }
    done.map(|()| Exit::Clean)
}

fn row(name: &str, state: &str, detail: impl Into<String>) -> Row {
    Row { name: name.to_owned(), state: state.to_owned(), detail: detail.into() }
}

async fn whole(settings: &Settings, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut session = Session::ours(settings).await?;
    let done = set_up(settings, &mut session, begun, rows).await;
    session.close().await;
    done
}

async fn set_up(
    settings: &Settings,
    session: &mut Session,
    begun: Instant,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let recovering = session.client.query_one("select pg_catalog.pg_is_in_recovery()", &[]).await;
    if recovering.map_err(|e| sql("ask whether it recovers", &e))?.get(0) {
        tracing::warn!("Postgres is in recovery and takes no writes: nothing is set up");
        rows.push(row(
            "set-up",
            "recovery",
            "Postgres takes no writes; run `supafly start setup` afterwards",
        ));
        return Ok(());
    }
    session.lock().await?;
    let exposed = if settings.auto_expose { "on" } else { "off" };
    let told = "select pg_catalog.set_config('supafly.auto_expose', $1, false)";
    session.client.execute(told, &[&exposed]).await.map_err(|e| sql("pass a setting", &e))?;

    let mut done = ledger_there(session).await?;
    for (at, step) in STEPS.iter().enumerate() {
        run_step(session, step, done.get(step.name)).await?;
        if at == 0 {
            done = entries(session, "step").await?;
        }
    }
    rows.extend(give_passwords(settings, session).await?);
    database::settle(settings, session).await?;
    rows.extend(missing_extensions(session).await?);
    rows.extend(missing_functions(session).await?);
    rows.extend(shared_memory::look(session).await?);
    graphql(session).await?;
    session.durable().await?;
    tracing::info!("the database is set up, in {} ms", begun.elapsed().as_millis());
    rows.push(migrations::run(settings, session).await?);
    Ok(())
}

/// The ledger before the step that makes it.
async fn ledger_there(session: &Session) -> Result<BTreeMap<String, Entry>, Failure> {
    let there =
        session.client.query_one("select pg_catalog.to_regclass('supafly.ledger') is not null", &[]).await;
    match there.map_err(|e| sql("look for its ledger", &e))?.get(0) {
        true => entries(session, "step").await,
        false => Ok(BTreeMap::new()),
    }
}

/// The ledger, by name.
async fn entries(session: &Session, kind: &str) -> Result<BTreeMap<String, Entry>, Failure> {
    let question = "select name, sha256, version, \
                    pg_catalog.to_char(began at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC', \
                    finished is not null from supafly.ledger where kind = $1";
    let rows = session.client.query(question, &[&kind]).await.map_err(|e| sql("read its ledger", &e))?;
    let entry = |row: &tokio_postgres::Row| Entry {
        sha256: row.get(1),
        version: row.get(2),
        began: row.get(3),
        finished: row.get(4),
    };
    Ok(rows.iter().map(|row| (row.get(0), entry(row))).collect())
}

/// Enters a file, over what was entered of it before.
const ENTER: &str = "insert into supafly.ledger (kind, name, sha256, version, finished) \
     values ($1, $2, $3, $4, case when $5 then pg_catalog.clock_timestamp() end) \
     on conflict (kind, name) do update set sha256 = excluded.sha256, version = excluded.version, \
     began = pg_catalog.clock_timestamp(), finished = excluded.finished";

async fn run_step(session: &mut Session, step: &Step, entry: Option<&Entry>) -> Result<(), Failure> {
    let name = step.name;
    let manner = Manner::of(step.sql)
        .map_err(|word| Failure::config(format!("set-up step {name}: `{word}` is no way to run it")))?;
    let sum = sha256(step.sql.as_bytes());
    let entered = match (due(entry, &sum), manner.every_run) {
        (Due::Run | Due::Again, _) | (Due::Changed(_), true) => false,
        (Due::Done, false) => return Ok(()),
        (Due::Done, true) => true,
        (Due::Changed(how), false) => {
            return Err(Failure::config(format!("set-up step {name} was changed after it was done: {how}")));
        }
    };
    let begun = Instant::now();
    let failed = |from: usize, e: &tokio_postgres::Error| {
        let at = position(step.sql, from, e).map_or_else(String::new, |(line, _)| format!(", line {line}"));
        Failure::gave_up(format!("set-up step {name}{at}: {}", session::said(e)))
    };
    if manner.no_transaction {
        // It is written so that it can be run again: a kill before it is entered does just that.
        for statement in scan::scan(step.sql).statements {
            let ran = session.client.batch_execute(statement.text).await;
            ran.map_err(|e| failed(statement.at, &e))?;
        }
    }
    let transaction = session.client.transaction().await.map_err(|e| failed(0, &e))?;
    if !manner.no_transaction {
        transaction.batch_execute(step.sql).await.map_err(|e| failed(0, &e))?;
    }
    // Nothing is written where nothing has changed: a machine that boots again adds no WAL.
    if !entered {
        let enter = transaction.execute(ENTER, &[&"step", &name, &sum, &VERSION, &true]).await;
        enter.map_err(|e| failed(0, &e))?;
    }
    failpoint::hit(&format!("setup.in-{name}"));
    transaction.commit().await.map_err(|e| failed(0, &e))?;
    failpoint::hit(&format!("setup.after-{name}"));
    if !entered {
        tracing::info!("step {name} done, in {} ms", begun.elapsed().as_millis());
    }
    Ok(())
}

/// Where in a file an error is, when the server says where in the text that it was sent; `from` is where that began.
fn position(text: &str, from: usize, e: &tokio_postgres::Error) -> Option<(usize, usize)> {
    let tokio_postgres::error::ErrorPosition::Original(characters) = e.as_db_error()?.position()? else {
        return None;
    };
    let sent = text.get(from..)?;
    let nth = usize::try_from(*characters).ok()?.saturating_sub(1);
    let byte = sent.char_indices().nth(nth).map_or(sent.len(), |(byte, _)| byte);
    Some(scan::place(text, from + byte))
}

async fn give_passwords(settings: &Settings, session: &mut Session) -> Result<Option<Row>, Failure> {
    let mut believed = None;
    match passwords::read(settings)? {
        Some(given) => {
            let set = passwords::apply(session, &given.roles).await?;
            if set > 0 {
                tracing::info!("{set} of {} passwords of roles were set", given.roles.len());
            }
            believed = given.superuser;
        }
        None => tracing::warn!(
            "{}: not there: no role is given a password",
            settings.own().join("secrets/setup.json").display()
        ),
    }
    let without = passwords::without(session).await?;
    let (state, said) = match passwords::superuser(session, believed.as_ref()).await? {
        Superuser::Known => (
            "failed",
            "the database role postgres has a password that everybody knows: set another by \
             `alter role postgres password …`, and give it as POSTGRES_PASSWORD"
                .to_owned(),
        ),
        Superuser::Fits | Superuser::Differs if !without.is_empty() => {
            ("absent", format!("without one, so nobody can log in as them: {}", without.join(", ")))
        }
        // A password is its owner's to change: no fault of the machine.
        Superuser::Differs => (
            "ok",
            "the database role postgres has another password than `supafly keys` shows: set that one by \
             `alter role postgres password …`, or give the right one as POSTGRES_PASSWORD"
                .to_owned(),
        ),
        Superuser::Fits => return Ok(None),
    };
    tracing::warn!("passwords: {said}");
    Ok(Some(row("passwords", state, said)))
}

async fn missing_extensions(session: &Session) -> Result<Option<Row>, Failure> {
    let question = "select w.name from pg_catalog.unnest($1::text[]) as w (name) \
                    where not exists (select from pg_catalog.pg_extension e where e.extname = w.name) order by 1";
    let rows =
        session.client.query(question, &[&EXTENSIONS]).await.map_err(|e| sql("look at extensions", &e))?;
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let said =
        format!("not in the database (not installed here, or dropped by hand): {}", missing.join(", "));
    tracing::warn!("extensions: {said}");
    Ok(Some(row("extensions", "absent", said)))
}

/// What was done once is not done again, but that it is gone is said: the pooler or the API may need it.
async fn missing_functions(session: &Session) -> Result<Option<Row>, Failure> {
    let question = "select m.function || ' (of ' || m.step || ')' \
                    from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as m (step, function) \
                    where pg_catalog.to_regprocedure(m.function) is null order by m.step, m.function";
    let (steps, functions): (Vec<&str>, Vec<&str>) = FUNCTIONS.iter().copied().unzip();
    let rows = session.client.query(question, &[&steps, &functions]).await;
    let missing: Vec<String> =
        rows.map_err(|e| sql("look at functions", &e))?.iter().map(|row| row.get(0)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let said = format!(
        "dropped by hand: {}; delete the line of that step from supafly.ledger and run `supafly restart setup` to have \
         it again",
        missing.join(", ")
    );
    tracing::warn!("functions: {said}");
    Ok(Some(row("functions", "absent", said)))
}

/// Says how pg_graphql is. Its row in the status is keeper's, which goes on asking.
async fn graphql(session: &Session) -> Result<(), Failure> {
    let asked = session.client.query_one("select state, detail from supafly.graphql_health()", &[]).await;
    let row = asked.map_err(|e| sql("ask pg_graphql", &e))?;
    let (state, detail): (String, String) = (row.get(0), row.get(1));
    match state.as_str() {
        "broken" => tracing::error!("graphql is broken: {detail}"),
        _ => tracing::info!("graphql is {state}: {detail}"),
    }
    Ok(())
}
