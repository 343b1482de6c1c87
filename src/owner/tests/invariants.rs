//! What every history must keep; `mutants.rs` has wrong protocols whose histories do not.

use crate::owner::Epoch;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a history shows.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// This incarnation is durable on a volume.
    Durable(Uuid),
    /// The owner objects, after a step.
    Store(BTreeMap<Epoch, Uuid>),
    /// A machine is the confirmed owner.
    Settled { epoch: Epoch, incarnation: Uuid },
    /// `confirm` was asked with a store that answers.
    Confirmed { epoch: Epoch, lost: bool },
    /// A machine whose epoch has a successor booted.
    FormerBooted { refused: bool, unchanged: bool },
    /// Faults ended, everybody booted: so many are settled.
    Converged { settled: usize },
}

/// Checks a history.
pub(super) fn check(events: &[Event]) -> Result<(), String> {
    let mut durable = BTreeSet::new();
    let mut owners: BTreeMap<Epoch, Uuid> = BTreeMap::new();
    for event in events {
        match event {
            Event::Durable(incarnation) => {
                durable.insert(*incarnation);
            }
            Event::Store(now) => {
                if let Some((epoch, _)) = owners.iter().find(|(e, i)| now.get(e) != Some(i)) {
                    return Err(format!("the object of epoch {epoch} changed"));
                }
                if let Some((epoch, _)) = now.iter().find(|(_, i)| !durable.contains(i)) {
                    return Err(format!("epoch {epoch} was created before its identity was durable"));
                }
                if now.keys().enumerate().any(|(n, e)| usize::try_from(e.0) != Ok(n + 1)) {
                    return Err("the epochs have a gap".to_owned());
                }
                owners.clone_from(now);
            }
            Event::Settled { epoch, incarnation } => {
                if owners.get(epoch) != Some(incarnation) {
                    return Err(format!("epoch {epoch} is settled by one who does not own it"));
                }
            }
            Event::Confirmed { epoch, lost } => {
                if *lost != owners.contains_key(&epoch.next()) {
                    return Err(format!("confirm says lost={lost} of epoch {epoch}"));
                }
            }
            Event::FormerBooted { refused: true, unchanged: true } => {}
            Event::FormerBooted { refused: false, .. } => return Err("a former owner goes on".to_owned()),
            Event::FormerBooted { .. } => return Err("a refused machine changed something".to_owned()),
            Event::Converged { settled: 1 } => {}
            Event::Converged { settled } => return Err(format!("{settled} machines are settled")),
        }
    }
    Ok(())
}
