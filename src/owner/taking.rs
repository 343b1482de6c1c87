//! What must be so before another is taken over, who then stops for good: that this machine could restore what is archived, and
//! that there is something to restore. Looked at when everything else allows it.

use super::protocol::{Archived, Decision, Means};
use super::{Cluster, Epoch, Identity, Origin, cluster};
use crate::config::Settings;
use crate::store::{Store, StoreError};
use std::time::Duration;

/// How often what a restore needs is looked at before it is said to lack: a program may be slow once.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// What there is here for a restore.
pub(super) fn means(settings: &Settings) -> Means {
    let mut look = 1;
    loop {
        match crate::postgres::means(settings) {
            Ok(major) => return Means::Whole { major },
            Err(failure) if look == LOOKS => return Means::Lacking(failure.message),
            Err(_) => std::thread::sleep(PAUSE),
        }
        look += 1;
    }
}

/// Whom this would end for good.
pub(super) fn from(decision: &Decision, identity: Option<&Identity>) -> Option<Epoch> {
    let origin = match decision {
        Decision::Claim { origin, .. } => Some(*origin),
        Decision::Finish { .. } => identity.map(|identity| identity.origin),
        Decision::Local | Decision::Proceed { .. } | Decision::Refuse(_) | Decision::Wait(_) => None,
    };
    match origin? {
        Origin::Takeover { from } => Some(from),
        Origin::Fresh => None,
    }
}

/// What the archive up to this epoch holds. A look, no proof: whether it is whole, the restore finds out.
pub(super) async fn archived(store: &Store, from: Epoch) -> Result<Archived, StoreError> {
    let Some(Cluster { major, .. }) = cluster::newest(store, from).await? else {
        return Ok(Archived::Nothing);
    };
    for number in (1..=from.0).rev() {
        if crate::walg::backed_up(store, Epoch(number)).await? {
            return Ok(Archived::Cluster { major });
        }
    }
    Ok(Archived::NoBackup { major })
}
