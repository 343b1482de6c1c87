//! `e<epoch>/cluster.json`: which cluster an epoch holds. Create-only, written before Postgres first starts.

use super::Epoch;
use crate::postgres::lsn::SegmentSize;
use crate::store::{Created, Kind, Store, StoreError};
use serde::{Deserialize, Serialize};

/// What an epoch's objects belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Postgres's own identifier of the cluster; stays the same over restores.
    pub system_identifier: u64,
    /// Postgres's major version.
    pub major: u32,
    /// Size of a WAL segment in bytes.
    pub wal_segment_size: SegmentSize,
    /// Whether data pages have checksums.
    pub checksums: bool,
    /// The engine that writes this epoch's base backups; one an epoch.
    pub engine: String,
}

fn key(epoch: Epoch) -> String {
    format!("{}/cluster.json", epoch.dir())
}

/// Reads what an epoch says of its cluster; `None` when it never opened one.
///
/// # Errors
/// The store's, or `Broken` when the object makes no sense.
pub async fn read(store: &Store, epoch: Epoch) -> Result<Option<Cluster>, StoreError> {
    let key = key(epoch);
    let Some(body) = store.get_optional(&key).await? else { return Ok(None) };
    let parsed = serde_json::from_slice(&body);
    parsed
        .map(Some)
        .map_err(|e| StoreError::new(Kind::Broken, "get", &key, format!("not a cluster object: {e}")))
}

/// What the highest epoch says that is not above this one and ever opened a cluster.
///
/// # Errors
/// As of [`read`].
pub async fn newest(store: &Store, from: Epoch) -> Result<Option<Cluster>, StoreError> {
    for number in (1..=from.0).rev() {
        if let Some(cluster) = read(store, Epoch(number)).await? {
            return Ok(Some(cluster));
        }
    }
    Ok(None)
}

/// Writes it, once. The same content is success.
///
/// # Errors
/// `Conflict` when another cluster is recorded there.
pub async fn write(store: &Store, epoch: Epoch, cluster: &Cluster) -> Result<(), StoreError> {
    let key = key(epoch);
    let body = serde_json::to_vec(cluster)
        .map_err(|e| StoreError::new(Kind::Broken, "create", &key, e.to_string()))?;
    match store.create_or_compare(&key, body).await? {
        Created::New | Created::Same => Ok(()),
        Created::Different => match read(store, epoch).await? {
            // A release that writes more fields, or a change of engine's version, is not another cluster.
            Some(there)
                if there.system_identifier == cluster.system_identifier && there.major == cluster.major =>
            {
                Ok(())
            }
            Some(there) => Err(StoreError::new(
                Kind::Conflict,
                "create",
                &key,
                format!("it belongs to cluster {} of Postgres {}", there.system_identifier, there.major),
            )),
            None => Err(StoreError::new(Kind::Transient, "create", &key, "it conflicted and is not there")),
        },
    }
}
