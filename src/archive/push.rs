//! Puts one WAL file into the archive: once, never over anything.
//!
//! Equal content is success, whatever its packing: our own write whose reply was lost, a restart that asks again, an
//! object made by another version of zstd. Different content under the same name means that two histories write to one
//! place; it is never resolved by overwriting, only by a person.

use super::codec::{self, Codec};
use super::names;
use super::segment::{self, Damage};
use crate::failpoint;
use crate::owner::Epoch;
use crate::postgres::lsn::{BadName, SegmentSize, WalFile};
use crate::store::{Created, Store, StoreError};
use std::io;

/// How a file is in the archive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// We put it there.
    New,
    /// It was there with the same content.
    Same,
}

/// Why a file is not in the archive.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PushError {
    /// The archive has other content under this name. Postgres keeps its file; a person must look.
    #[error(
        "{key} is in the archive with different content; nothing was overwritten. Two histories write below one epoch, \
         or the object is damaged: compare it with pg_wal before anything else"
    )]
    Different {
        /// The object.
        key: String,
    },
    /// The file itself is not what its name says.
    #[error("{file} is not fit for the archive: {damage}")]
    Damaged {
        /// Its name.
        file: String,
        /// What is wrong.
        damage: Damage,
    },
    /// The name cannot be.
    #[error(transparent)]
    Name(#[from] BadName),
    /// It cannot be packed, or what is stored cannot be unpacked to compare.
    #[error("{file}: {what}")]
    Codec {
        /// Its name.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a file is what its name says, as far as its pages tell.
///
/// # Errors
/// Its damage.
pub fn inspect(file: &WalFile, bytes: &[u8], size: SegmentSize, system: u64) -> Result<(), PushError> {
    match (file, names::segment(file, size)?) {
        (WalFile::Segment(_), Some(s)) => {
            segment::check_pages(bytes, s, size, system).map_err(|d| damaged(file, d))
        }
        (WalFile::Partial(_), Some(s)) => {
            segment::check_first_page(bytes, s, size, system).map_err(|d| damaged(file, d))
        }
        (WalFile::History(timeline), _) => names::history(bytes, timeline.0)
            .map(|_| ())
            .map_err(|what| PushError::Codec { file: file.name(), what }),
        (WalFile::Backup(_) | WalFile::Segment(_) | WalFile::Partial(_), _) => Ok(()),
    }
}

pub(super) fn damaged(file: &WalFile, damage: Damage) -> PushError {
    PushError::Damaged { file: file.name(), damage }
}

/// Puts a file into an epoch's archive, as the object that it was [packed](super::packing::pack) into. Returns only when
/// it is durable there. `content` reads the file once more, which is needed only when something is there already.
///
/// # Errors
/// Why it is not there; after a failure of the store it may be there all the same, and asking again finds out.
pub async fn push(
    store: &Store,
    epoch: Epoch,
    file: &WalFile,
    object: Vec<u8>,
    content: impl Fn() -> io::Result<Vec<u8>> + Clone + Send + 'static,
) -> Result<Pushed, PushError> {
    let wrong = |what: String| PushError::Codec { file: file.name(), what };
    let unread = |e: io::Error| wrong(format!("it cannot be read again: {e}"));
    // Files that an engine may have stored bare must not get a twin with other content.
    if !matches!(file, WalFile::Segment(_)) {
        let bare = names::key(epoch, file, Codec::Bare);
        if let Some(there) = store.get_optional(&bare).await? {
            let ours = on_a_thread(content).await.map_err(wrong)?.map_err(unread)?;
            return if there == ours { Ok(Pushed::Same) } else { Err(PushError::Different { key: bare }) };
        }
    }
    let key = names::key(epoch, file, Codec::Zstd);
    failpoint::hit("keeper.before-create");
    let created = store.create_or_compare(&key, object).await?;
    failpoint::hit("keeper.after-create");
    match created {
        Created::New => Ok(Pushed::New),
        Created::Same => Ok(Pushed::Same),
        Created::Different => {
            let there = store.get(&key).await?;
            let same = on_a_thread(move || {
                let ours = content()?;
                io::Result::Ok(codec::unpack(Codec::Zstd, &there, ours.len()).is_ok_and(|t| t == ours))
            });
            if same.await.map_err(wrong)?.map_err(unread)? {
                Ok(Pushed::Same)
            } else {
                Err(PushError::Different { key })
            }
        }
    }
}

/// Does work for the processor beside the loop that answers requests.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| format!("a worker thread failed: {e}"))
}
