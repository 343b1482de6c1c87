//! What must be known of the cluster before one byte of WAL is judged: its system identifier and segment size, and the
//! chain of epochs its history runs through. All of it is create-only in the store, so what was read once stays true.

use super::lock;
use crate::owner::lineage::{self, Link};
use crate::owner::{Epoch, Origin, cluster};
use crate::postgres::lsn::SegmentSize;
use crate::store::{Store, StoreError};
use std::sync::Mutex;

/// What WAL of this cluster looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The cluster's system identifier.
    pub system: u64,
    /// Its segment size.
    pub size: SegmentSize,
}

/// Why it is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// No epoch of the chain has a `cluster.json` yet.
    #[error("no cluster.json below {0} or its parents yet: `datadir` writes it before Postgres first starts")]
    NoCluster(String),
    /// We took over, and the lineage is not written. Without it nothing could be proved absent.
    #[error(
        "{0}/lineage.json is not there yet, but this epoch was taken over: `datadir` writes it before the restore"
    )]
    NoLineage(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lineage of our epoch.
#[derive(Debug)]
pub(super) struct Lineage {
    store: Store,
    epoch: Epoch,
    origin: Origin,
    chain: Mutex<Option<Vec<Link>>>,
    shape: Mutex<Option<Shape>>,
}

impl Lineage {
    /// Nothing is read yet.
    #[must_use]
    pub(super) fn new(store: Store, epoch: Epoch, origin: Origin) -> Lineage {
        Lineage { store, epoch, origin, chain: Mutex::default(), shape: Mutex::default() }
    }

    /// Every epoch that our history runs through, the newest first.
    ///
    /// # Errors
    /// It cannot be read, or is not complete.
    pub(super) async fn chain(&self) -> Result<Vec<Link>, Unknown> {
        if let Some(chain) = lock(&self.chain).clone() {
            return Ok(chain);
        }
        let chain = lineage::chain(&self.store, self.epoch).await?;
        match self.origin {
            Origin::Takeover { .. } if chain.len() < 2 => return Err(Unknown::NoLineage(self.epoch.dir())),
            Origin::Takeover { .. } | Origin::Fresh => {}
        }
        *lock(&self.chain) = Some(chain.clone());
        Ok(chain)
    }

    /// How many segments may be in memory in one direction.
    #[must_use]
    pub(super) fn window(&self) -> usize {
        crate::archive::window(lock(&self.shape).map_or(SegmentSize::DEFAULT, |s| s.size))
    }

    /// The cluster's shape, from the newest epoch of the chain that tells it.
    ///
    /// # Errors
    /// It cannot be read, or nobody has written it.
    pub(super) async fn shape(&self) -> Result<Shape, Unknown> {
        if let Some(shape) = *lock(&self.shape) {
            return Ok(shape);
        }
        for link in self.chain().await? {
            if let Some(found) = cluster::read(&self.store, link.epoch).await? {
                let shape = Shape { system: found.system_identifier, size: found.wal_segment_size };
                *lock(&self.shape) = Some(shape);
                return Ok(shape);
            }
        }
        Err(Unknown::NoCluster(self.epoch.dir()))
    }
}
