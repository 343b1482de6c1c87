//! Base backups: one at once in every new epoch, others when asked; one at a time, and none counts before it is proved.
//!
//! The engine's exit status is not believed (it says 0 for backups that cannot be restored). A backup counts when the
//! bucket has its sentinel, every part, the right system identifier, and all WAL from its start to its finish.

use super::decide::{self, Life, Protection, Seen};
use super::lineage::Lineage;
use super::lock;
use super::protocol::{Answer, Listed};
use super::resident::Keeper;
use crate::config::Settings;
use crate::exit::Failure;
use crate::failpoint;
use crate::os;
use crate::owner::Epoch;
use crate::store::Store;
use crate::walg::{self, Backup, Unfit};
use futures::future::BoxFuture;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A base backup may take this long; then the engine is killed and it is tried again.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// How long the WAL of a backup may take to reach the store before the backup is called failed.
const WAL_PATIENCE: Duration = Duration::from_secs(600);

/// Takes one line of what the engine is at.
pub(super) type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// What takes a backup; the real one is the WAL-G engine.
pub(super) trait Engine: Send + Sync + fmt::Debug {
    /// For the status: `wal-g 3.0.9`.
    fn label(&self) -> String;
    /// Takes a backup and says its name.
    fn push(&self, epoch: Epoch, progress: Progress) -> BoxFuture<'_, Result<String, Failure>>;
}

/// Finds the engine, anew for every backup: it may be built while we already run.
pub(super) type Find = Box<dyn Fn() -> Result<Option<Arc<dyn Engine>>, Failure> + Send + Sync>;

/// A backup under way or behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// None in this life.
    Idle,
    /// One is being taken.
    Running {
        /// What it is at.
        at: String,
    },
    /// The last one is verified.
    Done {
        /// Its name.
        name: String,
    },
    /// The last one failed.
    Failed {
        /// Why.
        why: String,
    },
}

impl Run {
    pub(super) fn answer(&self) -> Answer {
        match self {
            Run::Idle => Answer::Progress { text: "beginning".to_owned() },
            Run::Running { at } => Answer::Progress { text: at.clone() },
            Run::Done { name } => Answer::Done { what: name.clone() },
            Run::Failed { why } => Answer::Failed { because: why.clone() },
        }
    }
}

/// The base backups of one epoch.
pub(super) struct Backups {
    store: Store,
    epoch: Epoch,
    lineage: Arc<Lineage>,
    find: Find,
    run: watch::Sender<Run>,
    protection: Mutex<Protection>,
    label: Mutex<Option<String>>,
    looked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Backups {
    pub(super) fn new(store: Store, epoch: Epoch, lineage: Arc<Lineage>, find: Find) -> Backups {
        Backups {
            store,
            epoch,
            lineage,
            find,
            run: watch::Sender::new(Run::Idle),
            protection: Mutex::new(Protection::Unknown),
            label: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    pub(super) fn protection(&self) -> Protection {
        lock(&self.protection).clone()
    }

    /// The engine's name and version, once it has been found.
    pub(super) fn label(&self) -> Option<String> {
        lock(&self.label).clone()
    }

    /// Does what is due: finds out whether the epoch has a verified backup, and takes one when it has none.
    pub(super) fn tick(&self, keeper: &Arc<Keeper>, seen: &Seen, life: Life, lost: bool) {
        let protection = self.protection();
        if protection == Protection::Unknown {
            let due = {
                let mut looked = lock(&self.looked);
                let due = looked.is_none_or(|at| at.elapsed() >= Duration::from_secs(10));
                if due {
                    *looked = Some(Instant::now());
                }
                due
            };
            if due && life == Life::Serving {
                let keeper = Arc::clone(keeper);
                tokio::spawn(async move {
                    if let Ok(archive) = keeper.archive() {
                        archive.backups.find_out(&keeper).await;
                    }
                });
            }
        }
        if decide::backup_due(&protection, seen, life, lost, keeper.now()) {
            drop(self.start(keeper));
        }
    }

    /// Looks into the bucket for a verified backup of our own epoch.
    pub(super) async fn find_out(&self, keeper: &Keeper) {
        match self.newest_verified().await {
            Ok(found) => {
                let mut protection = lock(&self.protection);
                if *protection == Protection::Unknown {
                    *protection = match found {
                        Ok((name, aged)) => Protection::Verified { name, since: keeper.now(), aged },
                        Err(why) => Protection::None { why, failures: 0, next: keeper.now() },
                    };
                }
            }
            Err(e) => tracing::warn!(error = e, "it cannot be found out whether there is a base backup"),
        }
    }

    /// The newest verified backup and its age, else why there is none.
    async fn newest_verified(&self) -> Result<Result<(String, Duration), String>, String> {
        let backups = walg::list(&self.store, self.epoch).await.map_err(|e| e.to_string())?;
        let mut why = "this epoch has no base backup yet".to_owned();
        for backup in backups.iter().rev() {
            match self.unfit(backup).await? {
                None => return Ok(Ok((backup.name.clone(), age(&backup.finished, jiff::Timestamp::now())))),
                Some(unfit) => why = format!("{} cannot be used: {unfit}", backup.name),
            }
        }
        Ok(Err(why))
    }

    /// Why a backup cannot be used; the error is that it could not be found out.
    async fn unfit(&self, backup: &Backup) -> Result<Option<String>, String> {
        let shape = self.lineage.shape().await.map_err(|e| e.to_string())?;
        match walg::verify(&self.store, backup, Some(shape.system), shape.size).await {
            Ok(()) => Ok(None),
            // Not to have been let look says nothing about the backup: it must not count as missing.
            Err(Unfit::Store(e)) => Err(e.to_string()),
            Err(
                unfit @ (Unfit::PartMissing { .. }
                | Unfit::Smaller { .. }
                | Unfit::Foreign { .. }
                | Unfit::WalMissing { .. }
                | Unfit::Metadata { .. }),
            ) => Ok(Some(unfit.to_string())),
        }
    }

    /// Starts a backup, or joins the one under way. What is received first is its present state.
    pub(super) fn start(&self, keeper: &Arc<Keeper>) -> watch::Receiver<Run> {
        let began = self.run.send_if_modified(|run| match run {
            Run::Running { .. } => false,
            Run::Idle | Run::Done { .. } | Run::Failed { .. } => {
                *run = Run::Running { at: "starting the engine".to_owned() };
                true
            }
        });
        let receiver = self.run.subscribe();
        if began {
            let keeper = Arc::clone(keeper);
            let (before, failures) = match self.protection() {
                Protection::None { failures, .. } => (None, failures),
                Protection::Verified { name, since, aged } => (Some((name, since, aged)), 0),
                Protection::Unknown | Protection::Running { .. } => (None, 0),
            };
            *lock(&self.protection) =
                Protection::Running { at: "starting the engine".to_owned(), protected: before.is_some() };
            tokio::spawn(async move {
                let Ok(archive) = keeper.archive() else { return };
                let backups = &archive.backups;
                let outcome = backups.take(&keeper).await;
                let now = keeper.now();
                let (run, protection) = match outcome {
                    Ok(name) => {
                        tracing::info!(name, "a base backup is verified");
                        (
                            Run::Done { name: name.clone() },
                            Protection::Verified { name, since: now, aged: Duration::ZERO },
                        )
                    }
                    Err(why) => {
                        tracing::error!(why, "the base backup failed");
                        let failures = failures + 1;
                        let next = now + decide::backup_pause(failures);
                        let protection = match before {
                            Some((name, since, aged)) => Protection::Verified { name, since, aged },
                            None => Protection::None { why: why.clone(), failures, next },
                        };
                        (Run::Failed { why }, protection)
                    }
                };
                *lock(&backups.protection) = protection;
                backups.run.send_replace(run);
                // The next one is a day away.
                os::memory::give_back_soon();
            });
        }
        receiver
    }

    async fn take(&self, keeper: &Arc<Keeper>) -> Result<String, String> {
        let found = (self.find)().map_err(|e| e.to_string())?;
        let engine = found.ok_or_else(|| {
            "no backup engine is installed: set SUPAFLY_WALG, or put wal-g or walrus into PATH".to_owned()
        })?;
        *lock(&self.label) = Some(engine.label());
        // A base backup of an old copy of the volume would be the newest that a restore finds.
        if let Ok(archive) = keeper.archive() {
            archive.adoption.newest().await.map_err(|e| e.to_string())?;
        }
        failpoint::hit("keeper.backup-started");
        let watched = Arc::clone(keeper);
        let progress: Progress = Arc::new(move |text| {
            if let Ok(archive) = watched.archive() {
                archive.backups.at(text);
            }
        });
        let name = engine.push(self.epoch, progress).await.map_err(|e| e.to_string())?;
        failpoint::hit("keeper.backup-pushed");
        let begun = Instant::now();
        // Its last segment is on its way: mostly it is there within moments.
        let mut pause = Duration::from_millis(20);
        loop {
            let why = match self.proved(&name).await {
                Ok(()) => return Ok(name),
                Err(why) => why,
            };
            if begun.elapsed() >= WAL_PATIENCE {
                return Err(format!("{name} is in the bucket, but not proved: {why}"));
            }
            self.at(&format!("waiting until it is proved: {why}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn at(&self, text: &str) {
        self.run.send_replace(Run::Running { at: text.to_owned() });
        if let Protection::Running { at, .. } = &mut *lock(&self.protection) {
            text.clone_into(at);
        }
    }

    async fn proved(&self, name: &str) -> Result<(), String> {
        let backups = walg::list(&self.store, self.epoch).await.map_err(|e| e.to_string())?;
        let backup = backups.iter().find(|b| b.name == name).ok_or("the bucket does not list it")?;
        match self.unfit(backup).await? {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }

    /// Every backup of our epoch and its lineage, oldest first, each with the verdict.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, String> {
        let mut chain = self.lineage.chain().await.map_err(|e| e.to_string())?;
        chain.reverse();
        let mut listed = Vec::new();
        for link in chain {
            for backup in walg::list(&self.store, link.epoch).await.map_err(|e| e.to_string())? {
                let unfit = self.unfit(&backup).await?;
                listed.push(Listed {
                    epoch: backup.epoch.0,
                    timeline: backup.timeline.0,
                    start: backup.start.to_string(),
                    finish: backup.finish.to_string(),
                    compressed_size: backup.compressed_size,
                    uncompressed_size: backup.uncompressed_size,
                    finished: backup.finished.to_string(),
                    name: backup.name,
                    unfit,
                });
            }
        }
        Ok(listed)
    }
}

/// Pure: how long ago that was, as this machine's clock says; for people and alarms, nothing is decided by it.
fn age(finished: &str, now: jiff::Timestamp) -> Duration {
    let then = finished.parse::<jiff::Timestamp>().ok();
    then.and_then(|then| Duration::try_from(now.duration_since(then)).ok()).unwrap_or_default()
}

/// The engine that the settings name, or that is in PATH.
pub(super) fn finder(settings: &Settings) -> Find {
    let settings = settings.clone();
    Box::new(move || {
        let engine = walg::Engine::find(&settings)?;
        Ok(engine.map(|engine| Arc::new(Real { engine, settings: settings.clone() }) as Arc<dyn Engine>))
    })
}

#[derive(Debug)]
struct Real {
    engine: walg::Engine,
    settings: Settings,
}

impl Engine for Real {
    fn label(&self) -> String {
        self.engine.to_string()
    }

    fn push(&self, epoch: Epoch, progress: Progress) -> BoxFuture<'_, Result<String, Failure>> {
        Box::pin(async move {
            let pgdata = self.settings.pgdata();
            let pgdata: &Path = &pgdata;
            self.engine
                .push(&self.settings, epoch, pgdata, DEADLINE, move |text: String| progress(&text))
                .await
        })
    }
}
