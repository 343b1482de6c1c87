//! The engine: found by path, told apart by its version, driven through one harness.

use super::environment::environment;
use super::harness::{self, Ended, Job, Outcome};
use super::sentinel::Contents;
use super::{Backup, names, tree, verify};
use crate::config::{Secret, Settings};
use crate::exit::Failure;
use crate::owner::Epoch;
use crate::store::credentials::Credentials;
use crate::store::{self, Store};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an engine may take to say its version.
const VERSION: Duration = Duration::from_secs(10);
/// What a tar may have beyond its entries: the end mark, filled up to a record.
const TAR_END: u64 = 10 << 10;
/// `global/pg_control` has this size in every version of Postgres.
const CONTROL_SIZE: u64 = 8 << 10;

/// Which program it is: they differ in arguments and habits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WAL-G itself.
    WalG,
    /// wal-rus, the compatible engine of the crate of that name.
    Walrus,
}

/// A backup engine on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Where.
    pub path: PathBuf,
    /// Which.
    pub kind: Kind,
    /// As it says.
    pub version: String,
}

/// Which backup is fetched where.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The epoch that holds it.
    pub epoch: Epoch,
    /// Its name; never LATEST, which goes by modification time.
    pub name: &'a str,
    /// An empty directory.
    pub destination: &'a Path,
    /// User and group that the engine runs as, when not ours; they must be able to write the directory.
    pub run_as: Option<(u32, u32)>,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.kind {
            Kind::WalG => "wal-g",
            Kind::Walrus => "wal-rus",
        };
        write!(f, "{name} {}", self.version)
    }
}

impl Engine {
    /// Where it is: `SUPAFLY_WALG`, else `wal-g`, else `walrus` on PATH; `None` where it is not.
    #[must_use]
    pub fn path(settings: &Settings) -> Option<PathBuf> {
        match &settings.walg {
            Some(path) => Some(path.clone()).filter(|path| path.exists()),
            None => which::which("wal-g").or_else(|_| which::which("walrus")).ok(),
        }
    }

    /// Finds the engine: `SUPAFLY_WALG`, else `wal-g`, else `walrus` on PATH. `None` when there is none (yet).
    ///
    /// # Errors
    /// 78 when there is a program that is not an engine we know.
    pub fn find(settings: &Settings) -> Result<Option<Engine>, Failure> {
        let Some(path) = Engine::path(settings) else { return Ok(None) };
        let path_variable = ("PATH".to_owned(), Secret::new("/usr/local/bin:/usr/bin:/bin"));
        let job = Job {
            arguments: vec!["--version".to_owned()],
            environment: vec![path_variable],
            run_as: None,
            deadline: VERSION,
        };
        let said = harness::run(&path, &job).map_err(|e| {
            Failure::config(format!(
                "SUPAFLY_WALG: {} cannot be run: {e}; every user must be able to reach and execute it",
                path.display()
            ))
        })?;
        match said.last_lines.iter().find_map(|line| recognise(line)) {
            Some((kind, version)) => Ok(Some(Engine { path, kind, version })),
            None => Err(Failure::config(format!(
                "SUPAFLY_WALG: {} is neither wal-g nor walrus; `--version` says `{}` within {}",
                path.display(),
                said.last_lines.first().map_or("", String::as_str).escape_debug(),
                crate::spec::duration::show(VERSION),
            ))),
        }
    }

    /// The engine that a restore cannot do without.
    ///
    /// # Errors
    /// 78 when there is none, and as of [`Engine::find`].
    pub fn needed(settings: &Settings) -> Result<Engine, Failure> {
        Engine::find(settings)?.ok_or_else(|| {
            Failure::config(
                "a restore needs the backup engine: install wal-g or set SUPAFLY_WALG to its path",
            )
        })
    }

    /// Takes a full base backup of the running cluster into an epoch and returns its name. It counts only once
    /// [`verify`](super::verify()) says so. The caller sees to it that one runs at a time.
    ///
    /// # Errors
    /// When no new backup is in the bucket afterwards, whatever the engine's exit code; with its last lines.
    pub async fn push(
        &self,
        settings: &Settings,
        epoch: Epoch,
        pgdata: &Path,
        deadline: Duration,
        mut progress: impl FnMut(String),
    ) -> Result<String, Failure> {
        let store = store::open(settings)?;
        let before = names(&store, epoch).await.map_err(|e| Failure::gave_up(e.to_string()))?;
        leave_named_segments(settings, &before).await?;
        let mut arguments = vec!["backup-push".to_owned(), "--full".to_owned()];
        match self.kind {
            Kind::WalG => {}
            Kind::Walrus => arguments.push("--fast".to_owned()),
        }
        arguments.push(pgdata.display().to_string());
        let job = self.job(settings, epoch, arguments, deadline, None)?;
        let begun = std::time::Instant::now();
        let mut running = harness::start(&self.path, job);
        let outcome = loop {
            if let Some(outcome) = running.second().await {
                break outcome.map_err(|e| Failure::gave_up(format!("{}: {e}", self.path.display())))?;
            }
            // How much is stored by now is what an operator wants to see; a failed look is no failed backup.
            if let Ok(entries) = store.list(&super::directory(epoch)).await {
                let bytes: u64 = entries.iter().map(|e| e.size).sum();
                progress(format!("{} MB stored after {} s", bytes >> 20, begun.elapsed().as_secs()));
            }
        };
        let after = names(&store, epoch).await.map_err(|e| Failure::gave_up(e.to_string()))?;
        let mut new = after.into_iter().filter(|name| !before.contains(name));
        match new.next() {
            Some(name) => Ok(name),
            None => Err(self.failed("backup-push left no new backup in the bucket", deadline, &outcome)),
        }
    }

    /// Fetches a base backup, by name, into an empty directory, and looks that everything came and is on disk. With
    /// `run_as` (uid, gid) the engine runs as that user, who must be able to write the directory.
    ///
    /// # Errors
    /// When the backup is not whole in the bucket, or not whole on disk afterwards, whatever the engine's exit code.
    pub async fn fetch(
        &self,
        settings: &Settings,
        wanted: &Wanted<'_>,
        deadline: Duration,
        mut progress: impl FnMut(String),
    ) -> Result<(), Failure> {
        let Wanted { epoch, name, destination, run_as } = *wanted;
        let store = store::open(settings)?;
        let backup = find(&store, epoch, name).await?;
        let contents =
            verify::parts(&store, &backup, None).await.map_err(|e| Failure::gave_up(e.to_string()))?;
        let here = |e: io::Error| Failure::gave_up(format!("{}: {e}", destination.display()));
        if fs::read_dir(destination).map_err(here)?.next().is_some() {
            return Err(Failure::gave_up(format!("{}: must be empty before a fetch", destination.display())));
        }
        let arguments = vec!["backup-fetch".to_owned(), destination.display().to_string(), name.to_owned()];
        let job = self.job(settings, epoch, arguments, deadline, run_as)?;
        let total = backup.uncompressed_size;
        let mut running = harness::start(&self.path, job);
        let outcome = loop {
            if let Some(outcome) = running.second().await {
                break outcome.map_err(|e| Failure::gave_up(format!("{}: {e}", self.path.display())))?;
            }
            let bytes = tree::bytes(destination).unwrap_or_default();
            progress(format!("{} of {} MB", bytes >> 20, total >> 20));
        };
        match &outcome.ended {
            Ended::Itself(status) if status.success() => {}
            Ended::Itself(_) | Ended::Deadline | Ended::Abandoned => {
                return Err(self.failed("backup-fetch did not finish", deadline, &outcome));
            }
        }
        if let Err(why) = arrived(&backup, &contents, destination).map_err(here)? {
            return Err(self.failed(&format!("backup-fetch of {name} {why}"), deadline, &outcome));
        }
        // Neither engine makes the tree durable; a restore that a power cut can take back would be trusted at the next boot.
        tree::sync(destination).map_err(here)
    }

    fn job(
        &self,
        settings: &Settings,
        epoch: Epoch,
        arguments: Vec<String>,
        deadline: Duration,
        run_as: Option<(u32, u32)>,
    ) -> Result<Job, Failure> {
        let own = crate::facts::environment();
        super::no_crypto(&own)?;
        let credentials = Credentials::read(&settings.store_credentials(), &own)?;
        let environment = environment(settings, &credentials, epoch);
        Ok(Job { arguments, environment, run_as, deadline })
    }

    fn failed(&self, what: &str, deadline: Duration, outcome: &Outcome) -> Failure {
        let how = match &outcome.ended {
            Ended::Itself(status) => status.to_string(),
            Ended::Deadline => format!("killed at its deadline of {}", crate::spec::duration::show(deadline)),
            Ended::Abandoned => "given up".to_owned(),
        };
        let said =
            outcome.last_lines.iter().rev().take(5).rev().map(|l| format!("\n  | {l}")).collect::<String>();
        Failure::gave_up(format!("{self}: {what} ({how}){said}"))
    }
}

/// Whether what a backup holds is on disk: each file by name, and in all no fewer bytes than the engine packed. WAL-G
/// counts the files' bytes, wal-rus the tar's; a tree's size as a tar is an upper bound of either that a lost page exceeds.
fn arrived(backup: &Backup, contents: &Contents, destination: &Path) -> io::Result<Result<(), String>> {
    for file in &contents.files {
        if !destination.join(file).try_exists()? {
            return Ok(Err(format!("left out {file}")));
        }
    }
    match fs::metadata(destination.join("global/pg_control")) {
        Ok(control) if control.len() == CONTROL_SIZE => {}
        Ok(control) => return Ok(Err(format!("left global/pg_control with {} bytes", control.len()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("left out global/pg_control".to_owned()));
        }
        Err(e) => return Err(e),
    }
    // The parts that the metadata names, the control file's, and one to be on the safe side.
    let tars = u64::try_from(contents.parts.len()).unwrap_or(u64::MAX).saturating_add(2);
    let most = tree::as_tar(destination)?.saturating_add(tars.saturating_mul(TAR_END));
    if most < backup.uncompressed_size {
        let packed = backup.uncompressed_size;
        return Ok(Err(format!("left files short: {most} bytes at most are there, {packed} were packed")));
    }
    Ok(Ok(()))
}

fn recognise(version: &str) -> Option<(Kind, String)> {
    let line = version.lines().next()?;
    if let Some(rest) = line.strip_prefix("walrus ") {
        return Some((Kind::Walrus, rest.trim().to_owned()));
    }
    let rest = line.strip_prefix("wal-g version ")?;
    let version = rest.split_whitespace().next()?.trim_start_matches('v');
    Some((Kind::WalG, version.to_owned()))
}

async fn find(store: &Store, epoch: Epoch, name: &str) -> Result<Backup, Failure> {
    let backups = super::list(store, epoch).await.map_err(|e| Failure::gave_up(e.to_string()))?;
    backups.into_iter().find(|b| b.name == name).ok_or_else(|| {
        Failure::gave_up(format!(
            "epoch {epoch} has no backup `{name}`: `supafly backup list` shows what there is"
        ))
    })
}

/// The engine names a backup after the segment in which it begins and overwrites one of the same name, so we move on to
/// a new segment first when the present one has named a backup.
async fn leave_named_segments(settings: &Settings, existing: &[String]) -> Result<(), Failure> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(settings.pg_socket_dir()).port(settings.pg_port).user("supafly").dbname("postgres");
    config.connect_timeout(Duration::from_secs(5));
    let failed = |e: tokio_postgres::Error| Failure::gave_up(format!("before a backup: Postgres: {e}"));
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(failed)?;
    let ask = async {
        let sql = "select pg_walfile_name(pg_current_wal_insert_lsn())";
        let row = client.query_one(sql, &[]).await.map_err(failed)?;
        let name = format!("base_{}", row.get::<_, String>(0));
        if existing.iter().any(|e| e.starts_with(&name)) {
            client.query_one("select pg_switch_wal()::text", &[]).await.map_err(failed)?;
        }
        Ok(())
    };
    tokio::select! {
        asked = ask => asked,
        _ = connection => Err(Failure::gave_up("before a backup: Postgres closed the connection")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_apart_by_what_they_say() {
        assert_eq!(recognise("walrus 0.4.1\n"), Some((Kind::Walrus, "0.4.1".into())));
        let said = "wal-g version v3.0.9\tabcdef\t2026.08.20_10:00:00\tPostgreSQL\n";
        assert_eq!(recognise(said), Some((Kind::WalG, "3.0.9".into())));
        assert_eq!(recognise("bash 5"), None);
        assert_eq!(recognise(""), None);
    }
}
