//! A new cluster, staged: made beside its place, made durable, and only then given its name.
//!
//! A kill at any moment leaves a staging directory that the next boot throws away, or a whole cluster with our roles.

use super::account::Account;
use super::bin::Bin;
use super::lsn::SegmentSize;
use super::private::{Private, Quiet};
use super::{Place, adoption, tree};
use crate::exit::Failure;
use crate::failpoint;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// An empty cluster and its first WAL, with something to spare.
const NEEDED: u64 = 96 << 20;
const START: Duration = Duration::from_secs(60);
/// Its start, a few statements, and the checkpoint at its end, which may be the first that waits for a slow disk.
const SINGLE: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(60);

/// Makes the cluster.
///
/// # Errors
/// 70 when a step fails; what is half made is not at `pgdata`.
pub(super) fn make(place: &Place<'_>) -> Result<(), Failure> {
    let Place { settings, bin, postgres, .. } = place;
    let staging = place.staging();
    let pgdata = settings.pgdata();
    tree::remove(&staging)?;
    let segment = settings.pg_initdb_args.wal_segment_size().unwrap_or(SegmentSize::DEFAULT.bytes());
    place.room(NEEDED + segment, "a new cluster")?;
    tree::make(&staging, 0o750, postgres)?;
    initdb(place, bin, postgres, &staging)?;
    failpoint::hit("datadir.after-initdb");
    first_roles(place, &staging)?;
    failpoint::hit("datadir.after-roles");
    tree::sync(&staging)?;
    failpoint::hit("datadir.after-fsync");
    adoption::note_ours(place, &staging)?;
    tree::publish(&staging, &pgdata)?;
    failpoint::hit("datadir.after-rename");
    tracing::info!(pgdata = %pgdata.display(), "made a new cluster of Postgres {}", bin.major);
    Ok(())
}

fn initdb(place: &Place<'_>, bin: &Bin, postgres: &Account, staging: &Path) -> Result<(), Failure> {
    let settings = place.settings;
    let password = PasswordFile::make(place)?;
    let mut command = postgres.command(&bin.program("initdb"), settings, "KILL");
    command
        .args(["-U", "postgres", "--data-checksums", "--encoding=UTF8", "--allow-group-access", "--no-sync"])
        .args(["--auth=scram-sha-256", "--no-instructions"])
        .args((!settings.pg_initdb_args.say_locale()).then(|| format!("--locale={}", settings.pg_locale)))
        .args(settings.pg_initdb_args.all())
        .arg(format!("--pwfile={}", password.0.display()))
        .arg("-D")
        .arg(staging)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output =
        command.output().map_err(|e| Failure::gave_up(format!("setpriv (for initdb) cannot be run: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    if said.contains("No space left on device") {
        let text = "the disk is full: make room or grow the volume";
        return Err(Failure::gave_up(format!("initdb in {}: {text}\n{said}", staging.display())));
    }
    let hint = if said.contains("locale") { "; SUPAFLY_PG_LOCALE must be one of `locale -a`" } else { "" };
    let hint = if settings.pg_initdb_args.all().is_empty() {
        hint.to_owned()
    } else {
        format!("{hint}; POSTGRES_INITDB_ARGS says {}", settings.pg_initdb_args)
    };
    Err(Failure::gave_up(format!("initdb in {} failed ({}){hint}\n{said}", staging.display(), output.status)))
}

/// The superuser's password, for initdb's eyes: a file of the user that runs it, gone with this value.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn make(place: &Place<'_>) -> Result<PasswordFile, Failure> {
        let password = crate::secrets::made_password(place.settings)?;
        let path = place.settings.run.join("initdb-password");
        tree::remove(&path)?;
        let written = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path)?;
            file.write_all(password.reveal().as_bytes())?;
            let (uid, gid) = (place.postgres.uid.as_raw(), place.postgres.gid.as_raw());
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))
        };
        let made = PasswordFile(path.clone());
        written().map_err(|e| tree::failed(&path, "write this file", &e))?;
        Ok(made)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives a new cluster the roles that keeper and the engine need, by a postmaster for one user: nobody has to wait until one
/// for clients is up and down again.
fn first_roles(place: &Place<'_>, staging: &Path) -> Result<(), Failure> {
    let facts = place.facts(super::conf::Archive::Off, &super::control::read(place.bin, staging)?);
    let quiet = Quiet { settings: place.settings, bin: place.bin, account: place.postgres };
    quiet.single(staging, &facts, &place.users(), &grants(place.bin.major), SINGLE)
}

/// Gives a cluster that is at rest the roles that keeper and the engine need; and the first column of what is asked of it
/// besides.
pub(super) fn roles(
    place: &Place<'_>,
    staging: &Path,
    questions: &[&str],
) -> Result<Vec<Vec<String>>, Failure> {
    let control = super::control::read(place.bin, staging)?;
    let facts = place.facts(super::conf::Archive::Off, &control);
    let mut private =
        Private::start(place.settings, place.bin, place.postgres, staging, &facts, &place.users())?;
    private.wait_ready(START, |_, _| {})?;
    let sql = grants(place.bin.major);
    let answers = place.runtime.block_on(async {
        let failed =
            |e: tokio_postgres::Error| private.failure(&format!("refused the role supafly: {}", said(&e)));
        let (client, connection) =
            private.connection().connect(tokio_postgres::NoTls).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let done = async {
            client.batch_execute(&sql).await.map_err(failed)?;
            let mut answers = Vec::new();
            for question in questions {
                let asked = client.query(*question, &[]).await.map_err(|e| {
                    private.failure(&format!("does not say what it brings along: {}", said(&e)))
                })?;
                answers.push(asked.iter().map(|row| row.get(0)).collect::<Vec<String>>());
            }
            Ok::<_, Failure>(answers)
        };
        let done = done.await;
        drop(client);
        let _ = driver.await;
        done
    })?;
    private.stop(STOP)?;
    Ok(answers)
}

/// A database error with its cause.
pub(crate) fn said(e: &tokio_postgres::Error) -> String {
    e.as_db_error().map_or_else(|| e.to_string(), |db| db.message().to_owned())
}

/// What keeper and the engine need and no more; each statement on a line of its own.
fn grants(major: u32) -> String {
    let backup = if major >= 15 {
        "pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean)"
    } else {
        "pg_start_backup(text, boolean, boolean), pg_catalog.pg_stop_backup(boolean, boolean)"
    };
    format!(
        "begin;\n\
         do $$ begin if pg_catalog.to_regrole('supafly') is null then create role supafly; end if; end $$;\n\
         alter role supafly login;\n\
         grant pg_monitor, pg_read_all_settings to supafly;\n\
         grant execute on function pg_catalog.{backup}, pg_catalog.pg_switch_wal(), \
         pg_catalog.pg_create_restore_point(text) to supafly;\n\
         commit;"
    )
}
