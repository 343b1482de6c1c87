//! Who may write below a prefix: epochs, the identity of this volume, and what each epoch records of itself.
//!
//! `owner/<epoch>.json` is created once and never changed; the highest is the owner. A machine that takes over creates
//! the next one and from then on writes only below its own epoch's prefix, so that a former owner that does not know
//! yet can spoil nothing. No clock of another machine is ever compared, and no object is ever overwritten: the protocol
//! needs nothing of a store but create-only writes and reads that see them.

mod claim;
pub mod cluster;
pub mod durable;
mod identity;
pub mod lineage;
pub mod protocol;
mod record;
mod taking;
#[cfg(test)]
mod tests;

pub use claim::claim_role;
pub use cluster::Cluster;
pub use identity::{Identity, Origin};
pub use lineage::Lineage;
pub use record::{Record, highest, read};

use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An ownership, counted from 1. Ten digits, zero padded, so that a listing is in numeric order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The first ownership of a prefix.
    pub const FIRST: Epoch = Epoch(1);

    /// The directory of everything that this epoch writes: `e0000000007`.
    #[must_use]
    pub fn dir(self) -> String {
        format!("e{self}")
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }

    /// Parses ten digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Epoch> {
        (text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
            .filter(|n| *n > 0)
            .map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// Whether an epoch is still the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// There was no successor when the store answered.
    Owner,
    /// There is.
    Lost {
        /// The successor.
        by: Epoch,
    },
}

/// Reads whether the successor of `epoch` is absent. Only a read that succeeded confirms.
///
/// # Errors
/// When the store gave no answer that proves either.
pub async fn confirm(store: &Store, epoch: Epoch) -> Result<Confirmation, StoreError> {
    let next = epoch.next();
    match store.get_optional(&record::key(next)).await? {
        None => Ok(Confirmation::Owner),
        Some(_) => Ok(Confirmation::Lost { by: next }),
    }
}
