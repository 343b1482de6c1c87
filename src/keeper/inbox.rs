//! WAL on its way in, while Postgres recovers: the file it asks for, and the next few segments before it asks.
//!
//! What was fetched ahead was checked like everything else. Absence is never remembered: it is proved anew for each
//! request, because on it Postgres ends its recovery.

use super::decide;
use super::lineage::{Lineage, Unknown};
use super::lock;
use crate::archive::fetch::{self, FetchError, Fetched};
use crate::archive::names;
use crate::archive::patience::{Failing, Retry, Tries};
use crate::postgres::lsn::{Segment, WalFile};
use crate::store::{Kind, Store};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long what prepares the next answer waits when the present one was there: a client needs about a millisecond of the
/// processor to give it to Postgres, which replays a segment in longer than all of this takes.
pub(super) const AFTER_THE_ANSWER: Duration = Duration::from_millis(3);

/// A file, or the proof that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file, checked.
    Bytes(Bytes),
    /// Proved.
    Absent,
}

/// A request that has been waiting for the store.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// For which file.
    pub name: String,
    /// Since when.
    pub since: Instant,
    /// What went wrong the last time.
    pub why: String,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<Segment, Arc<OnceCell<Bytes>>>,
    used: Option<Instant>,
    waiting: BTreeMap<String, Waiting>,
    /// A file of a client that is being filled with the next segment, before that is asked for.
    next: Option<Next>,
}

/// A file without a name, filled with a segment. It is the client's own: made by him where the file is wanted, and given
/// back to be named. Nobody but us has it open meanwhile, and when we end it is gone.
#[derive(Debug)]
struct Next {
    segment: Segment,
    kind: Kinship,
    /// What it is filled with, once that has come.
    slot: Arc<OnceCell<Bytes>>,
    filling: tokio::task::JoinHandle<Result<File, String>>,
}

/// What a file must have in common with the one that it takes the place of: a name can be given on its own file system
/// only, and it must be as readable for whoever wanted it (a person may have asked for a segment by hand, as root).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kinship {
    device: u64,
    owner: (u32, u32),
    mode: u32,
}

impl Kinship {
    fn of(open: &File) -> Option<Kinship> {
        let meta = open.metadata().ok()?;
        Some(Kinship { device: meta.dev(), owner: (meta.uid(), meta.gid()), mode: meta.mode() })
    }
}

/// WAL on its way in, along the lineage of one epoch.
#[derive(Debug)]
pub(super) struct Inbox {
    store: Store,
    lineage: Arc<Lineage>,
    state: Mutex<State>,
}

/// One look into the store.
#[derive(Debug)]
enum Miss {
    Absent,
    Failed { failing: Failing, why: String },
}

impl From<Unknown> for Miss {
    fn from(e: Unknown) -> Miss {
        let kind = match &e {
            Unknown::Store(e) => e.kind,
            Unknown::NoCluster(_) | Unknown::NoLineage(_) => Kind::Broken,
        };
        Miss::Failed { failing: Failing::Store(kind), why: e.to_string() }
    }
}

impl From<FetchError> for Miss {
    fn from(e: FetchError) -> Miss {
        Miss::Failed { failing: Failing::from(&e), why: e.to_string() }
    }
}

/// Removes a waiting request from the status when it ends, however it ends.
struct Listed<'a>(&'a Inbox, &'a str);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiting.remove(self.1);
    }
}

impl Inbox {
    /// Nothing fetched yet.
    #[must_use]
    pub(super) fn new(store: Store, lineage: Arc<Lineage>) -> Inbox {
        Inbox { store, lineage, state: Mutex::default() }
    }

    /// Gets a file, waiting for the store as long as `patience` allows.
    ///
    /// # Errors
    /// The reason, when it could neither be had nor be proved absent.
    pub(super) async fn get(self: &Arc<Self>, file: &WalFile, patience: Duration) -> Result<Found, String> {
        let (begun, name) = (Instant::now(), file.name());
        let mut tries = Tries::default();
        let _listed = Listed(self, &name);
        loop {
            let (failing, why) = match self.once(file).await {
                Ok(bytes) => return Ok(Found::Bytes(bytes)),
                Err(Miss::Absent) => return Ok(Found::Absent),
                Err(Miss::Failed { failing, why }) => (failing, why),
            };
            match tries.failed(failing, begun.elapsed(), patience) {
                Retry::GiveUp => return Err(format!("{why} (tried {} times)", tries.total())),
                Retry::After(pause) => {
                    if tries.total() == 1 {
                        tracing::warn!(%file, why, "a WAL file cannot be fetched yet");
                    }
                    let waiting = Waiting { name: name.clone(), since: begun, why };
                    lock(&self.state).waiting.insert(name.clone(), waiting);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn once(self: &Arc<Self>, file: &WalFile) -> Result<Bytes, Miss> {
        let shape = self.lineage.shape().await?;
        let segment = match file {
            WalFile::Segment(_) => names::segment(file, shape.size).map_err(FetchError::from)?,
            WalFile::History(_) | WalFile::Backup(_) | WalFile::Partial(_) => None,
        };
        let Some(segment) = segment else { return self.look(file).await };
        let slot = Arc::clone(lock(&self.state).slots.entry(segment).or_default());
        // What is there is answered at once, and what follows waits until whoever asked has gone on.
        let pause = if slot.initialized() { AFTER_THE_ANSWER } else { Duration::ZERO };
        let got = slot.get_or_try_init(|| self.look(file)).await.cloned();
        let ahead = decide::prefetch(segment, shape.size);
        let start: Vec<(Segment, Arc<OnceCell<Bytes>>)> = {
            let mut state = lock(&self.state);
            state.used = Some(Instant::now());
            state.slots.remove(&segment);
            if got.is_ok() {
                state.slots.retain(|s, _| ahead.contains(s));
                let missing =
                    ahead.iter().filter(|s| !state.slots.contains_key(s)).copied().collect::<Vec<_>>();
                missing.into_iter().map(|s| (s, Arc::clone(state.slots.entry(s).or_default()))).collect()
            } else {
                Vec::new()
            }
        };
        for (segment, slot) in start {
            let (inbox, file) = (Arc::clone(self), WalFile::Segment(segment.name(shape.size)));
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if slot.get_or_try_init(|| inbox.look(&file)).await.is_err() {
                    // Not there, or not now: whoever asks for it looks for himself.
                    let mut state = lock(&inbox.state);
                    if state.slots.get(&segment).is_some_and(|s| Arc::ptr_eq(s, &slot)) {
                        state.slots.remove(&segment);
                    }
                }
            });
        }
        got
    }

    async fn look(&self, file: &WalFile) -> Result<Bytes, Miss> {
        let shape = self.lineage.shape().await?;
        let chain = self.lineage.chain().await?;
        match fetch::fetch(&self.store, &chain, file, shape.size, shape.system).await? {
            Fetched::Bytes(bytes) => Ok(Bytes::from(bytes)),
            Fetched::Absent => Err(Miss::Absent),
        }
    }

    /// The file that was filled with this one, if it can take the place of `instead`. What is in it was checked when it was
    /// fetched ahead, as everything that is fetched.
    pub(super) async fn filled(&self, file: &WalFile, instead: &File) -> Option<File> {
        let segment = self.segment(file).await?;
        let kind = Kinship::of(instead)?;
        let next = lock(&self.state).next.take()?;
        // Whoever asks has waited for the content already: a filling that has none yet is not waited for.
        if next.segment != segment || next.kind != kind || !next.slot.initialized() {
            next.filling.abort();
            return None;
        }
        match next.filling.await {
            Ok(Ok(filled)) => Some(filled),
            Ok(Err(why)) => {
                tracing::debug!(%file, why, "a spare file was not filled");
                None
            }
            Err(_) => None,
        }
    }

    /// Fills a spare file with the segment after this one, as soon as that has come.
    pub(super) fn fill_next(self: &Arc<Self>, file: &WalFile, blank: File) {
        let (inbox, file) = (Arc::clone(self), file.clone());
        tokio::spawn(async move {
            let Ok(shape) = inbox.lineage.shape().await else { return };
            let Some(segment) = inbox.segment(&file).await.map(Segment::next) else { return };
            let (inner, next) = (Arc::clone(&inbox), WalFile::Segment(segment.name(shape.size)));
            let Some(kind) = Kinship::of(&blank) else { return };
            let Some(slot) = lock(&inbox.state).slots.get(&segment).map(Arc::clone) else { return };
            let content = Arc::clone(&slot);
            let filling = tokio::spawn(async move {
                // Whoever fetches it ahead is at it: this waits for him, or tries once more when he has failed.
                let look = || inner.look(&next);
                let bytes = content.get_or_try_init(look).await.cloned().map_err(|e| format!("{e:?}"))?;
                let file = blank.try_clone().map_err(|e| e.to_string())?;
                super::server::write(file, bytes).await.map(|()| blank)
            });
            lock(&inbox.state).next = Some(Next { segment, kind, slot, filling });
        });
    }

    async fn segment(&self, file: &WalFile) -> Option<Segment> {
        let shape = self.lineage.shape().await.ok()?;
        match file {
            WalFile::Segment(_) => names::segment(file, shape.size).ok().flatten(),
            WalFile::History(_) | WalFile::Backup(_) | WalFile::Partial(_) => None,
        }
    }

    /// Lets go of what was fetched ahead and is not asked for; whether there was something to let go.
    pub(super) fn forget_idle(&self, after: Duration) -> bool {
        let mut state = lock(&self.state);
        let idle = state.used.is_some_and(|used| used.elapsed() >= after);
        if idle {
            state.slots.clear();
            state.next = None;
            state.used = None;
        }
        idle
    }

    /// How many segments are in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        lock(&self.state).slots.values().filter(|slot| slot.initialized()).count()
    }

    /// The request that has waited longest.
    #[must_use]
    pub(super) fn waiting(&self) -> Option<Waiting> {
        lock(&self.state).waiting.values().min_by_key(|w| w.since).cloned()
    }
}
