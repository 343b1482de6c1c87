//! `owner/<epoch>.json`: create-only, one an epoch; the highest is the owner.

use super::Epoch;
use crate::config::Mode;
use crate::store::{Kind, Store, StoreError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The directory of all owner objects.
const DIR: &str = "owner/";

/// What an owner object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The project that the prefix belongs to.
    pub project: String,
    /// Its epoch, as in its name.
    pub epoch: Epoch,
    /// Which claim made it.
    pub incarnation: Uuid,
    /// Which machine, for people.
    pub machine: String,
    /// What it does when it cannot confirm; a taker of a strict owner waits.
    pub mode: Mode,
    /// For how long one of its confirmations holds, in milliseconds: its taker waits twice that.
    #[serde(default)]
    pub ttl_ms: u64,
}

/// The object's key.
#[must_use]
pub(super) fn key(epoch: Epoch) -> String {
    format!("{DIR}{epoch}.json")
}

fn broken(key: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(Kind::Broken, "get", key, format!("not an owner object of ours: {why}"))
}

/// Reads an owner object.
///
/// # Errors
/// The store's, or `Broken` when the object makes no sense.
pub async fn read(store: &Store, epoch: Epoch) -> Result<Option<Record>, StoreError> {
    let key = key(epoch);
    let Some(body) = store.get_optional(&key).await? else { return Ok(None) };
    let record: Record = serde_json::from_slice(&body).map_err(|e| broken(&key, e))?;
    if record.epoch == epoch { Ok(Some(record)) } else { Err(broken(&key, "it names another epoch")) }
}

/// The present owner: the highest epoch that a complete listing shows.
///
/// # Errors
/// The store's; never a guess from a partial listing.
pub async fn highest(store: &Store) -> Result<Option<Record>, StoreError> {
    match newest(store).await? {
        None => Ok(None),
        Some(epoch) => listed(store, epoch).await.map(Some),
    }
}

/// The highest epoch that is listed.
pub(super) async fn newest(store: &Store) -> Result<Option<Epoch>, StoreError> {
    let entries = store.list(DIR).await?;
    let epoch = |key: &str| Epoch::parse(key.strip_prefix(DIR)?.strip_suffix(".json")?);
    Ok(entries.iter().filter_map(|e| epoch(&e.key)).max())
}

/// The record of an epoch that was listed.
pub(super) async fn listed(store: &Store, epoch: Epoch) -> Result<Record, StoreError> {
    let there = read(store, epoch).await?;
    there.ok_or_else(|| broken(&key(epoch), "it was listed and is not there"))
}
