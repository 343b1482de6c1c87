//! Base backups: written and read by a WAL-G engine, believed only after we have looked ourselves.
//!
//! The engine is a child process that nobody trusts: it gets a deadline and SIGKILL, its exit code is a hint, and what
//! counts is the bucket (`facts/walg.md`: a fetch with a lost part exits 0, a push under a broken archive too). Listing
//! and verification read the engine's sentinels directly, so they need no engine at all.

mod engine;
mod environment;
mod harness;
mod output;
pub mod sentinel;
mod tree;
pub mod verify;

pub use engine::{Engine, Kind, Wanted};
pub use environment::no_crypto;
pub(crate) use tree::sync as sync_tree;
pub use verify::{Unfit, verify};

use crate::owner::Epoch;
use crate::postgres::lsn::{Lsn, Timeline};
use crate::store::{Kind as ErrorKind, Store, StoreError};

/// What ends the name of a backup's commit mark.
const SENTINEL: &str = "_backup_stop_sentinel.json";

/// A base backup with its commit mark in the bucket. Not verified by being listed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// The epoch below which it lies.
    pub epoch: Epoch,
    /// The engine's name for it, `base_<timeline><segment>`.
    pub name: String,
    /// The timeline on which it was taken.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start: Lsn,
    /// Where the cluster becomes consistent.
    pub finish: Lsn,
    /// The cluster's identifier.
    pub system_identifier: u64,
    /// Postgres's version number, such as 150018.
    pub pg_version: u32,
    /// Bytes stored, as the engine counted.
    pub compressed_size: u64,
    /// Bytes of the data directory.
    pub uncompressed_size: u64,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub finished: String,
}

/// The key prefix of an epoch's base backups.
fn directory(epoch: Epoch) -> String {
    format!("{}/basebackups_005/", epoch.dir())
}

/// Whether an epoch has the commit mark of any base backup. Nothing is read, so this proves nothing of it.
///
/// # Errors
/// The store's.
pub async fn backed_up(store: &Store, epoch: Epoch) -> Result<bool, StoreError> {
    let directory = directory(epoch);
    let name = |key: &str| Some(key.strip_prefix(&directory)?.strip_suffix(SENTINEL)?.to_owned());
    Ok(store.list(&directory).await?.iter().any(|e| name(&e.key).is_some_and(|name| !name.contains('/'))))
}

/// The base backups of an epoch, oldest first by position. A sentinel that cannot be read is an error, not an absence.
///
/// # Errors
/// The store's, or `Broken` when a sentinel makes no sense.
pub async fn list(store: &Store, epoch: Epoch) -> Result<Vec<Backup>, StoreError> {
    let directory = directory(epoch);
    let mut backups = Vec::new();
    for entry in store.list(&directory).await? {
        let Some(name) = entry.key.strip_prefix(&directory).and_then(|k| k.strip_suffix(SENTINEL)) else {
            continue;
        };
        if name.contains('/') {
            continue;
        }
        let body = store.get(&entry.key).await?;
        let backup = sentinel::parse(epoch, name, &body).map_err(|e| {
            StoreError::new(ErrorKind::Broken, "get", &entry.key, format!("not a sentinel: {e}"))
        })?;
        backups.push(backup);
    }
    backups.sort_by(|a, b| (a.start, a.timeline, &a.name).cmp(&(b.start, b.timeline, &b.name)));
    Ok(backups)
}

/// The names of an epoch's base backups.
async fn names(store: &Store, epoch: Epoch) -> Result<Vec<String>, StoreError> {
    let directory = directory(epoch);
    let entries = store.list(&directory).await?;
    let name = |key: &str| key.strip_prefix(&directory)?.strip_suffix(SENTINEL).map(str::to_owned);
    Ok(entries.iter().filter_map(|e| name(&e.key)).filter(|n| !n.contains('/')).collect())
}
