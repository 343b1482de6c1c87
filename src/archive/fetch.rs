//! Gets one WAL file out of the archive, along the lineage of epochs.
//!
//! Postgres takes "absent" for the end of the archive: it promotes, and what lay behind is lost. So absence is a proof:
//! every candidate key of every epoch of the chain answered "no such key", *and* a complete listing of each of those
//! epochs, made afterwards, does not show the file in any packing. Whatever else happens is an error.
//!
//! A file of a parent epoch counts only when it begins below the LSN at which the child branched off: what a former
//! owner wrote later belongs to a history that is not ours. The same holds for `.history` files by their last switch, and
//! for every file of a timeline later than the one along which the child was restored.

use super::codec::{self, Codec, CodecError};
use super::names::{self, Stored};
use super::push::on_a_thread;
use super::segment::{self, Damage};
use crate::owner::lineage::Link;
use crate::postgres::lsn::{BadName, Lsn, Segment, SegmentSize, WalFile};
use crate::store::{Store, StoreError};

/// What the archive has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file, checked.
    Bytes(Vec<u8>),
    /// Proved: no epoch of the chain has it.
    Absent,
}

/// Why there is no answer. None of it is absence.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The name cannot be.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The object is a damaged segment, or another's.
    #[error("{key} must not be given to Postgres: {damage}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong.
        damage: Damage,
    },
    /// The object cannot be unpacked or read.
    #[error("{key} must not be given to Postgres: {what}")]
    Unreadable {
        /// The object.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// "No such key" and a listing that shows it.
    #[error("{key}: the store lists it and says that it does not exist; it will be asked again")]
    Contradiction {
        /// The object.
        key: String,
    },
    /// There is no chain, so nothing could be proved absent.
    #[error("no epoch to look in")]
    NoChain,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The links of a chain in which a file may lie, each with the lowest branch point and timeline on the way to it.
fn eligible(chain: &[Link], file: &WalFile, segment: Option<Segment>, size: SegmentSize) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    let mut above: Option<Link> = None;
    for link in chain {
        let bounded = above.map_or(*link, |above| link.within(above));
        above = Some(bounded);
        let counts = match (file, segment) {
            (_, Some(segment)) => bounded.counts(segment.timeline, segment.start(size)),
            // Where a timeline began, its history says itself.
            (WalFile::History(timeline), None) => bounded.counts_timeline(*timeline),
            (WalFile::Segment(_) | WalFile::Backup(_) | WalFile::Partial(_), None) => true,
        };
        if counts {
            links.push(bounded);
        }
    }
    links
}

/// Looks for a file along the chain, newest epoch first.
///
/// # Errors
/// Anything but a checked file and proved absence.
pub async fn fetch(
    store: &Store,
    chain: &[Link],
    file: &WalFile,
    size: SegmentSize,
    system: u64,
) -> Result<Fetched, FetchError> {
    if chain.is_empty() {
        return Err(FetchError::NoChain);
    }
    let segment = names::segment(file, size)?;
    let links = eligible(chain, file, segment, size);
    // A listing of the own epoch proves at least that the bucket answers, also when no link may hold the file.
    let mut dead: Vec<String> = Vec::new();
    for bounded in &links {
        for codec in [Codec::Zstd, Codec::Bare] {
            let key = names::key(bounded.epoch, file, codec);
            let Some(object) = store.get_optional(&key).await? else { continue };
            let (limit, named) = (names::largest(file, size), key.clone());
            let content = on_a_thread(move || codec::unpack(codec, &object, limit))
                .await
                .map_err(|what| FetchError::Unreadable { key: named, what })?
                .map_err(|e| match e {
                    CodecError::Broken(_) | CodecError::TooLarge(_) => {
                        FetchError::Unreadable { key: key.clone(), what: e.to_string() }
                    }
                })?;
            match checked(&key, file, content, size, system, bounded.until).await? {
                Some(content) => return Ok(Fetched::Bytes(content)),
                None => dead.push(key),
            }
        }
    }
    for link in chain {
        for entry in store.list(&names::directory(link.epoch)).await? {
            let may_count = links.iter().any(|l| l.epoch == link.epoch) && !dead.contains(&entry.key);
            match names::stored(&entry.key) {
                Some(Stored::Readable(there, _)) if may_count && there == *file => {
                    return Err(FetchError::Contradiction { key: entry.key });
                }
                Some(Stored::Foreign(there)) if may_count && there == *file => {
                    let what =
                        "it is packed in a way that cannot be read here; store it again as .zst".to_owned();
                    return Err(FetchError::Unreadable { key: entry.key, what });
                }
                Some(Stored::Readable(..) | Stored::Foreign(_)) | None => {}
            }
        }
    }
    Ok(Fetched::Absent)
}

/// The content if it is sound and ours; `None` for a history that began after we had branched off.
async fn checked(
    key: &str,
    file: &WalFile,
    content: Vec<u8>,
    size: SegmentSize,
    system: u64,
    until: Option<Lsn>,
) -> Result<Option<Vec<u8>>, FetchError> {
    let damaged = |damage| FetchError::Damaged { key: key.to_owned(), damage };
    let unreadable = |what| FetchError::Unreadable { key: key.to_owned(), what };
    match (file, names::segment(file, size)?) {
        (WalFile::Segment(_), Some(s)) => {
            let (content, sound) = on_a_thread(move || {
                let sound = segment::check(&content, s, size, system);
                (content, sound)
            })
            .await
            .map_err(unreadable)?;
            sound.map_err(damaged)?;
            Ok(Some(content))
        }
        (WalFile::Partial(_), Some(s)) => {
            segment::check_first_page(&content, s, size, system).map_err(damaged)?;
            Ok(Some(content))
        }
        (WalFile::History(timeline), _) => {
            let switches = names::history(&content, timeline.0).map_err(unreadable)?;
            let born = switches.last().map(|s| s.at);
            let ours = match (born, until) {
                (Some(born), Some(until)) => born < until,
                (None, _) | (_, None) => true,
            };
            Ok(ours.then_some(content))
        }
        (WalFile::Backup(_) | WalFile::Segment(_) | WalFile::Partial(_), _) => Ok(Some(content)),
    }
}
