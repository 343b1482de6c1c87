//! Whether we are still the owner. A confirmation is a successful read that no successor exists; nothing may be
//! acknowledged to Postgres without one made after the write it stands for. A loss is final.

use super::{boottime, lock};
use crate::owner::{self, Confirmation, Epoch};
use crate::store::{Store, StoreError};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// How long somebody waits for a read that is under way before he makes one of his own.
const SHARING: Duration = Duration::from_secs(1);

/// Our ownership of one epoch.
#[derive(Debug)]
pub(super) struct Ownership {
    store: Store,
    epoch: Epoch,
    standing: Mutex<Standing>,
    /// How many reads have begun.
    begun: AtomicU64,
    /// The number of the last read that has ended, and its answer. Locked while one is under way.
    last: tokio::sync::Mutex<(u64, Result<(), NotConfirmed>)>,
}

impl Ownership {
    /// Not confirmed yet.
    #[must_use]
    pub(super) fn new(store: Store, epoch: Epoch) -> Ownership {
        Ownership {
            store,
            epoch,
            standing: Mutex::new(Standing::Unconfirmed { why: None }),
            begun: AtomicU64::new(0),
            last: tokio::sync::Mutex::new((0, Ok(()))),
        }
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

    /// Asks the store, after whatever the caller has written. The answer is of a read that began after the call did; all
    /// who come while another read is under way share the next one, so that a confirmation covers many segments.
    ///
    /// # Errors
    /// Lost, or no answer.
    pub(super) async fn confirm(&self) -> Result<(), NotConfirmed> {
        // No read that has begun by now counts: it may have looked before the caller's write.
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        // One read may hang where the next would not, and a confirmation in time is what a strict owner lives by.
        let Ok(mut last) = tokio::time::timeout(SHARING, self.last.lock()).await else {
            return self.ask().await;
        };
        let (ended, answer) = &*last;
        if *ended >= wanted {
            return answer.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = self.ask().await;
        *last = (number, answer.clone());
        answer
    }

    async fn ask(&self) -> Result<(), NotConfirmed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{Fate, Memory};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    /// An owner of epoch 1, its store, and how many reads of the successor have begun; each waits for a permit.
    fn owner() -> (Memory, Arc<Ownership>, Arc<AtomicU64>) {
        let memory = Memory::default();
        let reads = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&reads);
        memory.faults(move |op, _| {
            if op == "get" {
                count.fetch_add(1, Ordering::SeqCst);
            }
            Fate::Pass
        });
        let store = Store::new(Arc::new(memory.clone()));
        (memory, Arc::new(Ownership::new(store, Epoch(1))), reads)
    }

    #[tokio::test]
    async fn all_who_wait_share_the_next_read_and_nobody_the_one_that_had_begun() {
        let (_, ownership, reads) = owner();
        // One read is under way: it holds the answer's lock and has its number.
        let under_way = ownership.last.lock().await;
        let number = ownership.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let gate = Arc::new(Semaphore::new(0));
        let waiting: Vec<_> = (0..9)
            .map(|_| {
                let (ownership, gate) = (Arc::clone(&ownership), Arc::clone(&gate));
                tokio::spawn(async move {
                    gate.add_permits(1);
                    ownership.confirm().await
                })
            })
            .collect();
        gate.acquire_many(9).await.unwrap().forget();
        let mut under_way = under_way;
        *under_way = (number, Ok(()));
        drop(under_way);
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
        assert_eq!(reads.load(Ordering::SeqCst), 1, "one for all nine, and not the one before");
        ownership.confirm().await.unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 2, "later comers ask anew");
    }

    #[tokio::test]
    async fn a_read_that_hangs_holds_up_nobody_else_for_long() {
        let (memory, ownership, reads) = owner();
        let _hangs = ownership.last.lock().await;
        ownership.begun.fetch_add(1, Ordering::SeqCst);
        let ask = || tokio::time::timeout(10 * SHARING, ownership.confirm());
        ask().await.expect("waits for a read that hangs").unwrap();
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        memory.plant("owner/0000000002.json", "{}");
        assert!(matches!(ask().await, Ok(Err(NotConfirmed::Lost(Epoch(2))))));
    }

    #[tokio::test]
    async fn a_successor_that_came_while_a_read_was_under_way_is_seen_by_whoever_called_after() {
        let (memory, ownership, _) = owner();
        let mut under_way = ownership.last.lock().await;
        let number = ownership.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let gate = Arc::new(Semaphore::new(0));
        let (late, open) = (Arc::clone(&ownership), Arc::clone(&gate));
        let late = tokio::spawn(async move {
            open.add_permits(1);
            late.confirm().await
        });
        gate.acquire().await.unwrap().forget();
        // The read under way saw nobody; then somebody took over.
        memory.plant("owner/0000000002.json", "{}");
        *under_way = (number, Ok(()));
        drop(under_way);
        assert!(matches!(late.await.unwrap(), Err(NotConfirmed::Lost(Epoch(2)))));
        assert_eq!(ownership.lost(), Some(Epoch(2)));
    }
}
