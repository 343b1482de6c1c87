//! WAL on its way out: what Postgres hands over, and what is ready behind it.
//!
//! Postgres asks for one file at a time and waits; so while it waits, the next ready files are uploaded too, and when
//! their turn comes the answer is a comparison of checksums. A file counts as settled only after its object is durable
//! *and* a later read has found no successor of our epoch. What fails is simply asked for again: create-only writes
//! make that safe. Nothing is stored before the data directory was compared with the archive (`adoption.rs`).

use super::adoption::Adoption;
use super::decide;
use super::lineage::Lineage;
use super::lock;
use super::ownership::{NotConfirmed, Ownership};
use crate::archive::names;
use crate::archive::packing::{self, Buffers, Keys, Known, Unpacked};
use crate::archive::push::{self, PushError, Pushed, on_a_thread};
use crate::owner::Epoch;
use crate::postgres::lsn::{Lsn, WalFile};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Why a file is not archived, as it is answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Ask again.
    #[error("{0}")]
    Again(String),
    /// A person must look; the status says so.
    #[error("{0}")]
    Alarm(String),
}

/// The last file archived in this life.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// Its name.
    pub name: String,
    /// When.
    pub at: Instant,
    /// Where it ends, for segments.
    pub end: Option<Lsn>,
}

/// `None`: not archived, as far as we know. The lock is held while an upload is under way.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<WalFile, Slot>,
    settled: BTreeSet<WalFile>,
    running: BTreeSet<WalFile>,
    alarms: BTreeMap<WalFile, String>,
    last: Option<Last>,
    failing: Option<Failing>,
}

#[derive(Clone, Debug)]
struct Failing {
    why: String,
    times: u32,
    not_before: Instant,
}

/// WAL on its way out, of one epoch.
#[derive(Debug)]
pub(super) struct Outbox {
    store: Store,
    epoch: Epoch,
    ownership: Arc<Ownership>,
    lineage: Arc<Lineage>,
    adoption: Arc<Adoption>,
    keys: Keys,
    buffers: Arc<Buffers>,
    state: Mutex<State>,
}

/// How many settled names are remembered beyond those that are still ready.
const REMEMBERED: usize = 64;

impl Outbox {
    /// Nothing archived yet.
    #[must_use]
    pub(super) fn new(
        store: Store,
        epoch: Epoch,
        ownership: Arc<Ownership>,
        lineage: Arc<Lineage>,
        adoption: Arc<Adoption>,
    ) -> Outbox {
        let (keys, buffers, state) = (Keys::default(), Arc::default(), Mutex::default());
        Outbox { store, epoch, ownership, lineage, adoption, keys, buffers, state }
    }

    /// Archives an open file. Ok: durable, and confirmed after that.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn archive(&self, file: &WalFile, open: File) -> Result<(), Refused> {
        // While Postgres itself asks for a file, nobody runs ahead with it.
        let first = lock(&self.state).running.insert(file.clone());
        let _asked = first.then(|| Running(&self.state, file));
        let done = self.settle(file, open).await;
        let mut state = lock(&self.state);
        match &done {
            Ok(()) => {
                state.alarms.remove(file);
                state.failing = None;
            }
            Err(Refused::Alarm(why)) => {
                // Another file of this name may have been settled in this life: this one is not.
                state.settled.remove(file);
                if state.alarms.insert(file.clone(), why.clone()).is_none() {
                    tracing::error!(%file, why, "a WAL file cannot be archived");
                }
            }
            Err(Refused::Again(why)) => {
                let times = state.failing.as_ref().map_or(1, |f| f.times.saturating_add(1));
                if times == 1 {
                    tracing::warn!(%file, why, "a WAL file is not archived yet");
                }
                let pause = Duration::from_secs(u64::from(times).min(30));
                state.failing = Some(Failing { why: why.clone(), times, not_before: Instant::now() + pause });
            }
        }
        done
    }

    async fn settle(&self, file: &WalFile, open: File) -> Result<(), Refused> {
        if let Some(by) = self.ownership.lost() {
            return Err(Refused::Alarm(NotConfirmed::Lost(by).to_string()));
        }
        self.adoption.newest().await?;
        let shape = self.lineage.shape().await.map_err(|e| Refused::Again(e.to_string()))?;
        let slot = Arc::clone(lock(&self.state).slots.entry(file.clone()).or_default());
        let mut known = slot.lock().await;
        let (limit, keys, named) = (names::largest(file, shape.size), self.keys, file.clone());
        let (before, open) = (*known, Arc::new(open));
        let (again, buffers) = (Arc::clone(&open), Arc::clone(&self.buffers));
        let taken = on_a_thread(move || match before {
            Some(known) if known.is(&again, limit, keys)? => Ok(None),
            Some(_) | None => buffers
                .with(|buffer| packing::pack(&again, &named, shape.size, shape.system, keys, buffer))
                .map(Some),
        });
        let taken = taken.await.map_err(Refused::Again)?.map_err(|e| match e {
            Unpacked::Io(e) => Refused::Again(format!("{file} cannot be read: {e}")),
            Unpacked::Unfit(e) => refused(&e),
        })?;
        let (taken, object) = match taken {
            Some(packed) => packed,
            None => match self.ownership.lost() {
                None => return Ok(()),
                Some(by) => return Err(Refused::Alarm(NotConfirmed::Lost(by).to_string())),
            },
        };
        let content = move || packing::whole(&open, limit, taken, keys);
        let pushed =
            push::push(&self.store, self.epoch, file, object, content).await.map_err(|e| refused(&e))?;
        self.ownership.confirm().await.map_err(|e| match e {
            NotConfirmed::Lost(_) => Refused::Alarm(e.to_string()),
            NotConfirmed::Store(_) => Refused::Again(e.to_string()),
        })?;
        *known = Some(taken);
        tracing::debug!(%file, new = pushed == Pushed::New, "archived");
        let end = match file {
            WalFile::Segment(_) => names::segment(file, shape.size).ok().flatten().map(|s| s.end(shape.size)),
            WalFile::History(_) | WalFile::Backup(_) | WalFile::Partial(_) => None,
        };
        let mut state = lock(&self.state);
        state.settled.insert(file.clone());
        let end = end.max(state.last.as_ref().and_then(|l| l.end));
        state.last = Some(Last { name: file.name(), at: Instant::now(), end });
        Ok(())
    }

    /// Starts uploads of the next ready files of a `pg_wal` directory, as many as there is room for, but for the one
    /// that Postgres has just asked for.
    pub(super) fn run_ahead(self: &Arc<Self>, pg_wal: &Path, asked: Option<&WalFile>) {
        if self.ownership.lost().is_some() {
            return;
        }
        let Ok(ready) = ready(pg_wal) else { return };
        let chosen = {
            let mut state = lock(&self.state);
            if state.failing.as_ref().is_some_and(|f| Instant::now() < f.not_before) {
                return;
            }
            state.forget(&ready);
            let busy: BTreeSet<WalFile> = state.running.iter().chain(asked).cloned().collect();
            let alarms = state.alarms.keys().cloned().collect();
            let room = self.lineage.window().saturating_sub(state.running.len());
            let chosen = decide::ahead(&ready, &state.settled, &alarms, &busy, room);
            state.running.extend(chosen.iter().cloned());
            chosen
        };
        for file in chosen {
            let (outbox, pg_wal) = (Arc::clone(self), pg_wal.to_path_buf());
            tokio::spawn(async move {
                let done = match File::open(pg_wal.join(file.name())) {
                    Ok(open) => outbox.archive(&file, open).await.is_ok(),
                    Err(_) => false,
                };
                lock(&outbox.state).running.remove(&file);
                if done {
                    outbox.run_ahead(&pg_wal, None);
                }
            });
        }
    }

    /// Lets go of the memory that was read into; whether there was some.
    pub(super) fn forget_idle(&self, after: Duration) -> bool {
        self.buffers.forget_idle(after)
    }

    /// Which of these are not known to be archived.
    #[must_use]
    pub(super) fn unsettled(&self, files: &[WalFile]) -> Vec<WalFile> {
        let state = lock(&self.state);
        files.iter().filter(|f| !state.settled.contains(*f)).cloned().collect()
    }

    /// The last file archived in this life.
    #[must_use]
    pub(super) fn last(&self) -> Option<Last> {
        lock(&self.state).last.clone()
    }

    /// What a person must look at, else what the store is refusing at the moment.
    #[must_use]
    pub(super) fn trouble(&self) -> Option<Refused> {
        let state = lock(&self.state);
        let alarm = state.alarms.values().next().map(|why| Refused::Alarm(why.clone()));
        alarm.or_else(|| state.failing.as_ref().map(|f| Refused::Again(f.why.clone())))
    }
}

/// A file that is under way, until this is dropped: also when whoever waits for it is dropped.
struct Running<'a>(&'a Mutex<State>, &'a WalFile);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(self.0).running.remove(self.1);
    }
}

impl State {
    /// Forgets what Postgres no longer asks for, but for a few.
    fn forget(&mut self, ready: &[WalFile]) {
        let many = self.settled.len().saturating_sub(REMEMBERED);
        let old: Vec<WalFile> =
            self.settled.iter().filter(|f| !ready.contains(f)).take(many).cloned().collect();
        for file in old {
            self.settled.remove(&file);
            self.slots.remove(&file);
        }
    }
}

fn refused(error: &PushError) -> Refused {
    match error {
        PushError::Different { .. } | PushError::Damaged { .. } | PushError::Name(_) => {
            Refused::Alarm(error.to_string())
        }
        PushError::Codec { .. } | PushError::Store(_) => Refused::Again(error.to_string()),
    }
}

/// The files of a `pg_wal` directory that Postgres has marked as ready to be archived.
///
/// # Errors
/// The directory cannot be read (a missing one has none).
pub(super) fn ready(pg_wal: &Path) -> io::Result<Vec<WalFile>> {
    let entries = match std::fs::read_dir(pg_wal.join("archive_status")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(file) =
            name.to_str().and_then(|n| n.strip_suffix(".ready")).and_then(|n| n.parse::<WalFile>().ok())
        {
            files.push(file);
        }
    }
    Ok(files)
}

/// The directory of an open file, when it looks like a `pg_wal`.
#[must_use]
pub(super) fn directory_of(open: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).ok()?;
    let directory = path.parent()?;
    directory.join("archive_status").is_dir().then(|| directory.to_path_buf())
}
