//! What this volume says of itself: `<data>/supafly/identity.json`.

use super::{Epoch, durable};
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;

/// How this volume came to its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A new cluster, or one that was there before the store.
    Fresh,
    /// It took over a prefix that had an owner; its data comes from the archive.
    Takeover {
        /// The former owner.
        from: Epoch,
    },
}

/// The identity of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The project.
    pub project: String,
    /// The epoch that this volume owns, or `None` when it has no store.
    pub epoch: Option<Epoch>,
    /// Made for this claim alone: what tells our object from another's.
    pub incarnation: Uuid,
    /// How it came to the epoch.
    pub origin: Origin,
    /// The cluster's system identifier, once it is known.
    #[serde(default)]
    pub system_identifier: Option<u64>,
    /// The store, for messages when it changes.
    #[serde(default)]
    pub store: String,
}

impl Identity {
    /// Reads the volume's identity; `None` when it has none.
    ///
    /// # Errors
    /// 77 when there is a file that is not one of ours: it is not touched.
    pub fn load(path: &Path) -> Result<Option<Identity>, Failure> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::gave_up(format!("{}: cannot be read: {e}", path.display()))),
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            Failure::refused(format!(
                "{}: not an identity of ours ({e}); it says which epoch this volume owns and is never guessed: restore it, \
                 or empty the volume and take over (SUPAFLY_TAKEOVER)",
                path.display()
            ))
        })
    }

    /// Writes it durably: when this returns, a power cut cannot take it back.
    ///
    /// # Errors
    /// 70 when the volume cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Failure::gave_up(format!("identity: {e}")))?;
        durable::write(path, &text, 0o644).map_err(|e| {
            Failure::gave_up(format!("{}: cannot be written: {e}; check the volume", path.display()))
        })
    }
}
