//! What is written down of an adoption: the journal of what is being moved, and the note which cluster is this volume's own.
//!
//! Both are durable before what they speak of, so a kill leaves a journal without a move or a note without a name, and never
//! the reverse.

use super::super::{Place, control, tree};
use crate::config::Settings;
use crate::exit::Failure;
use crate::owner::{Identity, durable};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What was begun.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) source: PathBuf,
    pub(super) system_identifier: u64,
    /// Of a cluster in the root of the volume: the names that are the cluster's. Else none: the directory itself moves.
    pub(super) entries: Option<Vec<String>>,
}

pub(super) fn journal_path(settings: &Settings) -> PathBuf {
    settings.own().join("journal").join("adopt.json")
}

pub(super) fn note_path(settings: &Settings) -> PathBuf {
    settings.own().join("journal").join("made")
}

pub(super) fn adopting(settings: &Settings) -> PathBuf {
    settings.data.join("pgdata.adopting")
}

pub(super) fn identity_path(settings: &Settings) -> PathBuf {
    settings.own().join("identity.json")
}

pub(super) fn unfinished(settings: &Settings) -> Result<Option<Journal>, Failure> {
    let path = journal_path(settings);
    match fs::read(&path) {
        Ok(text) => parse(&text).map(Some).map_err(|e| {
            Failure::gave_up(format!(
                "{}: not what `datadir` writes: {e}; remove it when pgdata is whole",
                path.display()
            ))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(tree::failed(&path, "read it", &e)),
    }
}

/// Reads a journal; what leads out of the volume's root is none of ours.
fn parse(text: &[u8]) -> Result<Journal, String> {
    let journal: Journal = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let named =
        |name: &String| Path::new(name).components().eq([std::path::Component::Normal(name.as_ref())]);
    match journal.entries.iter().flatten().find(|name| !named(name)) {
        Some(name) => Err(format!("`{}` is no name of a file", name.escape_debug())),
        None => Ok(journal),
    }
}

/// From then on what is moved is known; before, nothing was done.
pub(super) fn write(settings: &Settings, journal: &Journal) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(journal).unwrap_or_default();
    let at = journal_path(settings);
    durable::write(&at, &text, 0o644).map_err(|e| tree::failed(&at, "write this file", &e))
}

pub(super) fn forget(settings: &Settings) -> Result<(), Failure> {
    let path = journal_path(settings);
    tree::remove(&path)?;
    durable::sync_parent(&path).map_err(|e| tree::failed(&path, "make its removal durable", &e))
}

/// Notes that the cluster in `staging`, which is about to get its name, is ours.
pub(in crate::postgres) fn note_ours(place: &Place<'_>, staging: &Path) -> Result<(), Failure> {
    note(place.settings, control::read(place.bin, staging)?.system_identifier)
}

fn note(settings: &Settings, system_identifier: u64) -> Result<(), Failure> {
    let path = note_path(settings);
    durable::write(&path, format!("{system_identifier}\n").as_bytes(), 0o644)
        .map_err(|e| tree::failed(&path, "write this file", &e))
}

/// Whether a cluster is one that was made or adopted here.
pub(super) fn is_ours(settings: &Settings, system_identifier: u64) -> bool {
    let note = fs::read_to_string(note_path(settings)).unwrap_or_default();
    note.trim() == system_identifier.to_string()
}

/// A volume of a supafly that wrote no note yet: its identity knows the cluster. `claim` may forget that, when a store is set
/// for the first time, so it is noted before; and not before it is known that no link leads elsewhere. Killed in it, the
/// next boot does it.
///
/// # Errors
/// 70 when the note cannot be written.
pub(crate) fn remembered(settings: &Settings) -> Result<(), Failure> {
    if note_path(settings).exists() {
        return Ok(());
    }
    // What is wrong with an identity, those say who work with it.
    let identity = Identity::load(&identity_path(settings)).ok().flatten();
    identity.and_then(|identity| identity.system_identifier).map_or(Ok(()), |id| note(settings, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_moves_nothing_from_elsewhere() {
        let of = |name: &str| {
            let journal = Journal {
                source: "/data".into(),
                system_identifier: 7,
                entries: Some(vec!["base".to_owned(), name.to_owned()]),
            };
            parse(&serde_json::to_vec(&journal).unwrap())
        };
        assert_eq!(of("PG_VERSION").unwrap().entries.unwrap(), ["base", "PG_VERSION"]);
        for name in ["../etc", "/etc/shadow", "..", ".", "", "base/1", "base/"] {
            assert!(of(name).unwrap_err().contains("is no name of a file"), "{name}");
        }
    }
}
