//! `e<epoch>/lineage.json`: where an epoch that took over got its data from, and up to where its parent's WAL counts.

use super::Epoch;
use crate::postgres::lsn::Lsn;
use crate::store::{Created, Kind, Store, StoreError};
use serde::{Deserialize, Serialize};

/// Where an epoch branched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The epoch whose WAL goes on below the branch.
    pub parent: Epoch,
    /// The epoch that holds the base backup of the restore.
    pub backup_epoch: Epoch,
    /// Its name.
    pub backup: String,
    /// Where the parent's WAL ended when this epoch had become the owner. What came later was never acknowledged.
    pub branch: Lsn,
}

/// One epoch of a chain, and up to where its WAL counts; `None` = to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The epoch.
    pub epoch: Epoch,
    /// WAL of this epoch from here on is of nobody's history.
    pub until: Option<Lsn>,
}

fn key(epoch: Epoch) -> String {
    format!("{}/lineage.json", epoch.dir())
}

/// Reads where an epoch branched off; `None` for one that began a cluster, or has not restored yet.
///
/// # Errors
/// The store's, or `Broken` when the object makes no sense.
pub async fn read(store: &Store, epoch: Epoch) -> Result<Option<Lineage>, StoreError> {
    let key = key(epoch);
    let Some(body) = store.get_optional(&key).await? else { return Ok(None) };
    let parsed: Result<Lineage, _> = serde_json::from_slice(&body);
    let broken =
        |why: String| StoreError::new(Kind::Broken, "get", &key, format!("not a lineage object: {why}"));
    let lineage = parsed.map_err(|e| broken(e.to_string()))?;
    if lineage.parent < epoch {
        Ok(Some(lineage))
    } else {
        Err(broken(format!("its parent is {}", lineage.parent)))
    }
}

/// Writes it, once; what is there already wins and is returned.
///
/// # Errors
/// The store's.
pub async fn write(store: &Store, epoch: Epoch, lineage: &Lineage) -> Result<Lineage, StoreError> {
    let key = key(epoch);
    let body = serde_json::to_vec(lineage)
        .map_err(|e| StoreError::new(Kind::Broken, "create", &key, e.to_string()))?;
    match store.create_or_compare(&key, body).await? {
        Created::New | Created::Same => Ok(lineage.clone()),
        Created::Different => read(store, epoch).await?.ok_or_else(|| {
            StoreError::new(Kind::Transient, "create", &key, "it conflicted and is not there")
        }),
    }
}

/// The epochs whose WAL makes up this epoch's history, newest first: itself to its end, its parent up to the branch,
/// and so on. A branch further down bounds every epoch beneath it.
///
/// # Errors
/// The store's.
pub async fn chain(store: &Store, epoch: Epoch) -> Result<Vec<Link>, StoreError> {
    let mut links = vec![Link { epoch, until: None }];
    let mut at = epoch;
    let mut bound = Lsn(u64::MAX);
    while let Some(lineage) = read(store, at).await? {
        bound = bound.min(lineage.branch);
        links.push(Link { epoch: lineage.parent, until: Some(bound) });
        at = lineage.parent;
    }
    Ok(links)
}
