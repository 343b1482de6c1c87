//! Users' migrations: `*.sql` of a directory, in the order of their names, once each.
//!
//! A script is one transaction together with its line in the ledger, so it has happened or it has not. Where its first line
//! says `-- supafly: no-transaction`, or it begins and ends transactions itself, it is entered as begun before and as
//! finished after; cut off between them it is run again from its first line. The first bad one stops the later ones.

use super::ledger::{Due, Entry, due};
use super::scan::{self, Script};
use super::session::{Session, said};
use super::steps::{Manner, sha256};
use super::{ENTER, VERSION, entries, position, psql, row};
use crate::config::Settings;
use crate::control::client::Row;
use crate::exit::Failure;
use crate::failpoint;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio_postgres::SimpleQueryMessage;

/// Where images of Postgres have looked for them since ever.
const INITDB: &str = "/docker-entrypoint-initdb.d";

/// One file; its name in the ledger does not depend on where the directory is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    name: String,
    path: PathBuf,
}

/// The scripts of a directory by name, and what lies beside them that somebody may expect to be run.
fn listed(dir: &Path, prefix: &str) -> Result<(Vec<File>, Vec<String>), String> {
    let failed = |e: std::io::Error| {
        if e.kind() == ErrorKind::NotFound {
            return format!("{}: there is no such directory (SUPAFLY_MIGRATIONS)", dir.display());
        }
        format!("{}: cannot be read: {e}", dir.display())
    };
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() || name.starts_with('.') {
            continue;
        }
        if name.ends_with(".sql") {
            files.push(File { name: format!("{prefix}{name}"), path });
        } else if [".sh", ".sql.gz", ".sql.xz", ".sql.zst"].iter().any(|end| name.ends_with(end)) {
            others.push(name);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    others.sort();
    Ok((files, others))
}

/// Where they are looked for, each with what stands before its names in the ledger.
fn places<'a>(initdb: &'a Path, given: Option<&'a Path>) -> Vec<(&'a Path, &'static str)> {
    let mut places = Vec::new();
    if initdb.is_dir() {
        places.push((initdb, "initdb/"));
    }
    let same = |dir: &Path| matches!((dir.canonicalize(), initdb.canonicalize()), (Ok(dir), Ok(initdb)) if dir == initdb);
    if let Some(dir) = given.filter(|dir| !same(dir)) {
        places.push((dir, ""));
    }
    places
}

/// Runs what is due and says how it went, in one row of the status.
pub(super) async fn run(settings: &Settings, session: &Session) -> Result<Row, Failure> {
    let places = places(Path::new(INITDB), settings.migrations.as_deref());
    if places.is_empty() {
        return Ok(row("migrations", "ok", "none: no directory of them (SUPAFLY_MIGRATIONS)"));
    }
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for (dir, prefix) in places {
        match listed(dir, prefix) {
            Ok((more, beside)) => {
                files.extend(more);
                others.extend(beside);
            }
            Err(why) => {
                tracing::error!("migrations: {why}");
                return Ok(row("migrations", "failed", why));
            }
        }
    }
    if !others.is_empty() {
        tracing::warn!("migrations: only *.sql is run; skipped: {}", others.join(", "));
    }
    let done = entries(session, "migration").await?;
    let mut new = 0;
    for (at, file) in files.iter().enumerate() {
        let begun = Instant::now();
        match one(settings, session, file, &done).await {
            Ok(false) => {}
            Ok(true) => {
                new += 1;
                tracing::info!("migration {} done, in {} ms", file.name, begun.elapsed().as_millis());
            }
            Err(why) => {
                let left = files.len() - at - 1;
                let stopped =
                    if left == 0 { String::new() } else { format!("; {left} after it were not begun") };
                tracing::error!("migration {}: {why}{stopped}", file.name);
                let (first, more) = why.split_once('\n').unwrap_or((&why, ""));
                let detail = format!("{}: {first}{stopped}\n{more}", file.name);
                return Ok(row("migrations", "failed", detail.trim_end()));
            }
        }
    }
    let mut detail = format!("{} done", files.len());
    if new > 0 {
        detail = format!("{detail}, {new} of them now");
    }
    if !others.is_empty() {
        detail = format!("{detail}; skipped, because only *.sql is run: {}", others.join(", "));
    }
    Ok(row("migrations", "ok", detail))
}

/// Whether there was something to do.
async fn one(
    settings: &Settings,
    session: &Session,
    file: &File,
    done: &BTreeMap<String, Entry>,
) -> Result<bool, String> {
    let bytes = std::fs::read(&file.path).map_err(|e| format!("cannot be read: {e}"))?;
    let sum = sha256(&bytes);
    match due(done.get(&file.name), &sum) {
        Due::Run => {}
        Due::Done => return Ok(false),
        Due::Again => tracing::warn!("migration {} was cut off: again from its first line", file.name),
        Due::Changed(how) => return Err(how),
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        format!("line {}: not UTF-8", e.as_bytes().iter().take(good).filter(|b| **b == b'\n').count() + 1)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let manner = Manner::of(text)
        .map_err(|word| format!("line 1: `{word}` is no way to run it: no-transaction is"))?;
    if manner.every_run {
        return Err("line 1: a migration is run once; every-run is for supafly's own steps".to_owned());
    }
    held(session).await?;
    let script = scan::scan(text);
    let whole = !manner.no_transaction && !script.transactions;
    match (whole, script.psql) {
        (true, true) => {
            failpoint::hit("setup.migration-begun");
            psql::run(settings, &file.path, Some(&mark(&sum)), &entered(file, &sum))?;
        }
        (true, false) => in_one(settings, file, text, &sum).await?,
        (false, by_psql) => {
            enter(session, file, &sum, false).await?;
            failpoint::hit("setup.migration-begun");
            if by_psql {
                psql::run(settings, &file.path, None, &closed())?;
            } else {
                each(settings, file, text, &script).await?;
            }
            failpoint::hit("setup.migration-ran");
            // Ours, because theirs may be anybody by now, and in another database.
            enter(session, file, &sum, true).await?;
        }
    }
    failpoint::hit("setup.migration-done");
    Ok(true)
}

async fn enter(session: &Session, file: &File, sum: &str, finished: bool) -> Result<(), String> {
    let entered = session.client.execute(ENTER, &[&"migration", &file.name, &sum, &VERSION, &finished]).await;
    entered.map(drop).map_err(|e| format!("cannot be entered in the ledger: {}", said(&e)))
}

/// A migration before may have ended every session that it saw.
async fn held(session: &Session) -> Result<(), String> {
    session.client.simple_query("").await.map(drop).map_err(|e| {
        format!("the session that holds the lock of set-up has ended, so it was not begun: {}", said(&e))
    })
}

/// What is known of a transaction only as long as it lasts: a script that ends it in its middle, in a way that the scan did
/// not see, cannot have this at its end.
fn mark(sum: &str) -> String {
    format!("select pg_catalog.set_config('{MARK}', '{sum}', true)")
}
const MARK: &str = "supafly.migration";
const ENDED: &str = "it has ended the transaction that it was given, or connected anew: what it did before is done or lost; \
     let its first line be `-- supafly: no-transaction`";
const OPEN: &str = "it begins a transaction and does not end it: nothing since then is kept";

/// For `psql`: the mark is looked for, and the entry made, as whom we came.
fn entered(file: &File, sum: &str) -> String {
    let name = file.name.replace('\\', "\\\\").replace('\'', "''");
    format!(
        "set session authorization default; \
         do $$ begin if pg_catalog.current_setting('{MARK}', true) is distinct from '{sum}' then \
         raise exception '{ENDED}'; end if; end $$; \
         insert into supafly.ledger (kind, name, sha256, version, finished) \
         values ('migration', E'{name}', '{sum}', '{VERSION}', pg_catalog.clock_timestamp()) \
         on conflict (kind, name) do update set sha256 = excluded.sha256, version = excluded.version, \
         began = pg_catalog.clock_timestamp(), finished = excluded.finished"
    )
}

/// For `psql`, in whatever database it is by then: is a transaction left open?
fn closed() -> String {
    format!(
        "do $$ begin if pg_catalog.now() <> pg_catalog.statement_timestamp() then raise exception '{OPEN}'; end if; end $$"
    )
}

/// In one transaction with its entry.
async fn in_one(settings: &Settings, file: &File, text: &str, sum: &str) -> Result<(), String> {
    let mut theirs = Session::theirs(settings, &file.name).await.map_err(|e| shown(text, 0, &e))?;
    let done = entered_in(&mut theirs, file, text, sum).await;
    theirs.close().await;
    done
}

async fn entered_in(theirs: &mut Session, file: &File, text: &str, sum: &str) -> Result<(), String> {
    let failed = |e: tokio_postgres::Error| shown(text, 0, &e);
    let transaction = theirs.client.transaction().await.map_err(failed)?;
    transaction.batch_execute(&mark(sum)).await.map_err(failed)?;
    failpoint::hit("setup.migration-begun");
    transaction.batch_execute(text).await.map_err(failed)?;
    failpoint::hit("setup.migration-ran");
    // The script may have become somebody else.
    transaction.batch_execute("set session authorization default").await.map_err(failed)?;
    let marked = "select pg_catalog.current_setting($1, true) is not distinct from $2";
    if !transaction.query_one(marked, &[&MARK, &sum]).await.map_err(failed)?.get::<_, bool>(0) {
        return Err(ENDED.to_owned());
    }
    transaction.execute(ENTER, &[&"migration", &file.name, &sum, &VERSION, &true]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// Statement by statement, as `psql` does.
async fn each(settings: &Settings, file: &File, text: &str, script: &Script<'_>) -> Result<(), String> {
    let theirs = Session::theirs(settings, &file.name).await.map_err(|e| said(&e))?;
    let done = each_in(&theirs, text, script).await;
    theirs.close().await;
    done
}

async fn each_in(theirs: &Session, text: &str, script: &Script<'_>) -> Result<(), String> {
    for (at, statement) in script.statements.iter().enumerate() {
        theirs.client.batch_execute(statement.text).await.map_err(|e| {
            let before =
                if at == 0 { String::new() } else { format!("\n{at} statements before it are done") };
            format!("{}{before}", shown(text, statement.at, &e))
        })?;
    }
    // By the simple protocol: in the extended one a statement is younger than the transaction that it makes by itself.
    let open =
        theirs.client.simple_query("select pg_catalog.now() <> pg_catalog.statement_timestamp()").await;
    match open {
        Ok(said) if said.iter().any(|m| matches!(m, SimpleQueryMessage::Row(r) if r.get(0) == Some("f"))) => {
            Ok(())
        }
        Ok(_) => Err(OPEN.to_owned()),
        Err(e) => Err(format!("it leaves its session in a state that is of no use: {}", said(&e))),
    }
}

/// Where and what.
fn shown(text: &str, from: usize, e: &tokio_postgres::Error) -> String {
    // Where the server names no place, the statement's own beginning is the best there is.
    let place = position(text, from, e).or_else(|| (from > 0).then(|| scan::place(text, from)));
    let place = place.map_or_else(String::new, |(line, column)| format!("line {line}, column {column}: "));
    let hint = if e.code() == Some(&tokio_postgres::error::SqlState::ACTIVE_SQL_TRANSACTION) {
        "; let its first line be `-- supafly: no-transaction`"
    } else {
        ""
    };
    format!("{place}{}{hint}", said(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_named_twice_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let (initdb, link) = (dir.path().join("initdb.d"), dir.path().join("link"));
        assert_eq!(places(&initdb, Some(&link)), [(link.as_path(), "")], "what is missing is said later");
        std::fs::create_dir(&initdb).unwrap();
        std::os::unix::fs::symlink(&initdb, &link).unwrap();
        assert_eq!(places(&initdb, Some(&link)), [(initdb.as_path(), "initdb/")]);
        assert_eq!(places(&initdb, Some(dir.path())), [(initdb.as_path(), "initdb/"), (dir.path(), "")]);
    }

    #[test]
    fn scripts_are_taken_by_name_and_what_else_could_be_meant_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["20_b.sql", "10_a.sql", "x.sh", "y.sql.gz", "README.md", ".hidden.sql"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("z.sql")).unwrap();
        let (files, others) = listed(dir.path(), "initdb/").unwrap();
        let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["initdb/10_a.sql", "initdb/20_b.sql"]);
        assert_eq!(others, ["x.sh", "y.sql.gz"]);
        let e = listed(Path::new("/nowhere"), "").unwrap_err();
        assert!(e.contains("/nowhere: there is no such directory"), "{e}");
    }
}
