//! How often and how long the archive is asked again after a read has failed. Pure.
//!
//! An unreachable store is waited for until the reader's patience ends; a refusal or damage is tried a few times,
//! because proxies lie and bytes flip on the way, and then said. Each kind has its own count: an outage before must not
//! use up the few tries that a flipped bit gets. Reading writes nothing, so a kill between two tries leaves nothing.

use super::fetch::FetchError;
use crate::store::{Kind, StoreError};
use std::time::Duration;

/// What to do after a read has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Ask the store again after this long.
    After(Duration),
    /// Say that it failed (never that it is absent).
    GiveUp,
}

/// How a read failed, as far as it matters for asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// The store did.
    Store(Kind),
    /// What it gave is damaged.
    Damage,
}

impl From<&StoreError> for Failing {
    fn from(e: &StoreError) -> Failing {
        Failing::Store(e.kind)
    }
}

impl From<&FetchError> for Failing {
    fn from(e: &FetchError) -> Failing {
        match e {
            FetchError::Store(e) => Failing::Store(e.kind),
            FetchError::Contradiction { .. } => Failing::Store(Kind::Transient),
            FetchError::Name(_) | FetchError::NoChain => Failing::Store(Kind::Broken),
            FetchError::Damaged { .. } | FetchError::Unreadable { .. } => Failing::Damage,
        }
    }
}

/// Whether a read that has failed `attempts` times in this way is tried again.
#[must_use]
pub fn retry(failing: Failing, attempts: u32, waited: Duration, patience: Duration) -> Retry {
    let pause = Duration::from_millis(250) * 2u32.saturating_pow(attempts.min(6));
    let pause = pause.min(Duration::from_secs(10));
    let last = match failing {
        Failing::Store(Kind::Transient) => u32::MAX,
        Failing::Store(Kind::Denied | Kind::Broken | Kind::Absent | Kind::Conflict) => 6,
        Failing::Damage => 3,
    };
    if attempts >= last || waited + pause >= patience { Retry::GiveUp } else { Retry::After(pause) }
}

/// The tries of one read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    transient: u32,
    refused: u32,
    damaged: u32,
}

impl Tries {
    /// Counts a failure and says what to do.
    pub fn failed(&mut self, failing: Failing, waited: Duration, patience: Duration) -> Retry {
        let of_kind = match failing {
            Failing::Store(Kind::Transient) => &mut self.transient,
            Failing::Store(Kind::Denied | Kind::Broken | Kind::Absent | Kind::Conflict) => &mut self.refused,
            Failing::Damage => &mut self.damaged,
        };
        *of_kind = of_kind.saturating_add(1);
        retry(failing, *of_kind, waited, patience)
    }

    /// How often it was tried in all.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.transient.saturating_add(self.refused).saturating_add(self.damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failing() -> impl Strategy<Value = Failing> {
        let kinds = vec![Kind::Absent, Kind::Conflict, Kind::Denied, Kind::Transient, Kind::Broken];
        prop_oneof![prop::sample::select(kinds).prop_map(Failing::Store), Just(Failing::Damage)]
    }

    proptest! {
        #[test]
        fn nothing_is_tried_beyond_its_patience(
            failing in failing(), attempts in 0u32..100, waited in 0u64..4_000_000, patience in 0u64..2_000_000,
        ) {
            let (waited, patience) = (Duration::from_millis(waited), Duration::from_millis(patience));
            match retry(failing, attempts, waited, patience) {
                Retry::After(pause) => prop_assert!(waited + pause < patience && pause <= Duration::from_secs(10)),
                Retry::GiveUp => {}
            }
        }

        #[test]
        fn what_does_not_pass_by_itself_is_said_after_a_few_tries_whatever_came_between(
            failures in prop::collection::vec(failing(), 0..40),
        ) {
            let mut tries = Tries::default();
            let (mut refused, mut damaged) = (0, 0);
            for failing in failures {
                let answer = tries.failed(failing, Duration::ZERO, Duration::from_secs(1800));
                match failing {
                    Failing::Store(Kind::Transient) => prop_assert!(matches!(answer, Retry::After(_))),
                    Failing::Store(_) => {
                        refused += 1;
                        prop_assert_eq!(answer == Retry::GiveUp, refused >= 6);
                    }
                    Failing::Damage => {
                        damaged += 1;
                        prop_assert_eq!(answer == Retry::GiveUp, damaged >= 3);
                    }
                }
            }
        }
    }
}
