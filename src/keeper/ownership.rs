//! Whether we are still the owner. A confirmation is a successful read that no successor exists; nothing may be
//! acknowledged to Postgres without one made after the write it stands for. A loss is final.

use super::{boottime, lock};
use crate::owner::{self, Confirmation, Epoch};
use crate::store::{Store, StoreError};
use std::sync::Mutex;
use std::time::Duration;

/// What is known of our ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not confirmed since keeper began.
    Unconfirmed {
        /// Why, when it was tried.
        why: Option<String>,
    },
    /// Confirmed.
    Confirmed {
        /// When, on the clock that goes on while the machine sleeps.
        at: Duration,
        /// Why a later try failed, when one did.
        failing: Option<String>,
    },
    /// Another epoch owns the prefix.
    Lost {
        /// That one.
        by: Epoch,
    },
}

/// Why ownership is not confirmed now.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NotConfirmed {
    /// Final.
    #[error("ownership was lost to epoch {0}: nothing is archived by this machine any more")]
    Lost(Epoch),
    /// The store gave no answer.
    #[error("ownership cannot be confirmed: {0}")]
    Store(#[from] StoreError),
}

/// Our ownership of one epoch.
#[derive(Debug)]
pub(super) struct Ownership {
    store: Store,
    epoch: Epoch,
    standing: Mutex<Standing>,
}

impl Ownership {
    /// Not confirmed yet.
    #[must_use]
    pub(super) fn new(store: Store, epoch: Epoch) -> Ownership {
        Ownership { store, epoch, standing: Mutex::new(Standing::Unconfirmed { why: None }) }
    }

    /// What is known.
    #[must_use]
    pub(super) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// The epoch to which it was lost.
    #[must_use]
    pub(super) fn lost(&self) -> Option<Epoch> {
        match self.standing() {
            Standing::Lost { by } => Some(by),
            Standing::Unconfirmed { .. } | Standing::Confirmed { .. } => None,
        }
    }

    /// Asks the store, after whatever the caller has written.
    ///
    /// # Errors
    /// Lost, or no answer.
    pub(super) async fn confirm(&self) -> Result<(), NotConfirmed> {
        if let Some(by) = self.lost() {
            return Err(NotConfirmed::Lost(by));
        }
        let asked = boottime();
        let answer = owner::confirm(&self.store, self.epoch).await;
        let mut standing = lock(&self.standing);
        if let Standing::Lost { by } = &*standing {
            return Err(NotConfirmed::Lost(*by));
        }
        match answer {
            Ok(Confirmation::Owner) => {
                *standing = Standing::Confirmed { at: asked, failing: None };
                Ok(())
            }
            Ok(Confirmation::Lost { by }) => {
                tracing::error!(%by, own = %self.epoch, "ownership is lost: nothing is acknowledged any more");
                *standing = Standing::Lost { by };
                Err(NotConfirmed::Lost(by))
            }
            Err(e) => {
                let said = e.to_string();
                match &mut *standing {
                    Standing::Unconfirmed { why } => *why = Some(said),
                    Standing::Confirmed { failing, .. } => *failing = Some(said),
                    Standing::Lost { .. } => {}
                }
                Err(NotConfirmed::Store(e))
            }
        }
    }
}
