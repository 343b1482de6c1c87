//! The comparison of a data directory with its own epoch's archive, carried out: `rollback.rs` says what it proves.
//!
//! It may be made while Postgres runs. The archive is listed first and the control file read after it, so everything that
//! was listed from redo on must still be there; when a checkpoint moves redo meanwhile, a finding counts for nothing and
//! all of it is looked at again. Nothing is written: a kill anywhere leaves what was there.

use super::fetch::{self, FetchError, Fetched};
use super::patience::{Failing, Retry, Tries};
use super::push::on_a_thread;
use super::rollback::{self, Archived, Local, Position, RolledBack};
use super::{names, segment, window};
use crate::owner::Epoch;
use crate::owner::lineage::Link;
use crate::postgres::lsn::{Segment, WalFile};
use crate::store::{Store, StoreError};
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

/// Why nothing can be said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CannotTell {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store gave, again and again.
    #[error(transparent)]
    Archive(FetchError),
    /// The data directory; in words.
    #[error("{0}")]
    Volume(String),
}

/// How often redo may move under a look before it is left for later.
const LOOKS: u32 = 5;
/// A flipped bit on the way gets its few tries; an outage is the caller's to wait for.
const PATIENCE: Duration = Duration::from_secs(5);
const PIECE: usize = 1 << 20;

/// Compares `pgdata`, whose control file `position` reads, with what `epoch` has archived.
///
/// # Errors
/// Nothing can be said.
pub async fn compare<P>(
    store: &Store,
    epoch: Epoch,
    pgdata: &Path,
    position: P,
) -> Result<Result<(), RolledBack>, CannotTell>
where
    P: Fn() -> Result<Position, String> + Clone + Send + 'static,
{
    let listed = store.list(&names::directory(epoch)).await?;
    let read = async || {
        let position = position.clone();
        on_a_thread(position).await.and_then(|read| read).map_err(CannotTell::Volume)
    };
    let mut before = read().await?;
    for _ in 0..LOOKS {
        let archived = Archived::listed(listed.iter().map(|e| e.key.as_str()), before.size);
        let verdict = look(store, epoch, pgdata, &before, &archived).await?;
        let after = read().await?;
        if verdict.is_ok() || after == before {
            return Ok(verdict);
        }
        before = after;
    }
    Err(CannotTell::Volume("checkpoints follow each other faster than pg_wal can be looked at".to_owned()))
}

async fn look(
    store: &Store,
    epoch: Epoch,
    pgdata: &Path,
    position: &Position,
    archived: &Archived,
) -> Result<Result<(), RolledBack>, CannotTell> {
    let owed = match rollback::owed(position, archived) {
        Ok(owed) => owed,
        Err(newer) => return Ok(Err(newer)),
    };
    let (pg_wal, at, must) = (pgdata.join("pg_wal"), *position, owed.clone());
    let found = on_a_thread(move || {
        let mut unreadable = None;
        let there = rollback::all_there(&at, &must, |segment| {
            let path = pg_wal.join(segment.name(at.size));
            local(&path, segment, &at).unwrap_or_else(|e| {
                unreadable = Some(format!("{}: cannot be read: {e}", path.display()));
                Local::Absent
            })
        });
        let ready = ready(&pg_wal, &at);
        (there, unreadable, ready.map_err(|e| format!("{}: cannot be read: {e}", pg_wal.display())))
    });
    let (there, unreadable, ready) = found.await.map_err(CannotTell::Volume)?;
    if let Some(why) = unreadable {
        return Err(CannotTell::Volume(why));
    }
    if there.is_err() {
        return Ok(there);
    }
    let ready = ready.map_err(CannotTell::Volume)?;
    // A few at once, no more than fit into memory: a boot waits for it. The first in their order that differs is said.
    let compared = futures::stream::iter(rollback::to_compare(&owed, archived, &ready))
        .map(|segment| async move { (segment, same(store, epoch, pgdata, position, segment).await) })
        .buffered(window(position.size));
    tokio::pin!(compared);
    while let Some((segment, same)) = compared.next().await {
        if !same? {
            return Ok(Err(RolledBack::Content { name: segment.name(position.size) }));
        }
    }
    Ok(Ok(()))
}

/// What is at `path`, by its first page.
fn local(path: &Path, segment: Segment, position: &Position) -> io::Result<Local> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Local::Absent),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    let mut page = Vec::with_capacity(segment::PAGE);
    file.take(segment::PAGE as u64).read_to_end(&mut page)?;
    Ok(rollback::first_page(&page, length, segment, position))
}

/// The segments that are marked as ready to be archived.
fn ready(pg_wal: &Path, position: &Position) -> io::Result<BTreeSet<Segment>> {
    let mut found = BTreeSet::new();
    let entries = match std::fs::read_dir(pg_wal.join("archive_status")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|n| n.strip_suffix(".ready"));
        found.extend(stem.and_then(|stem| Segment::parse(stem, position.size).ok()));
    }
    Ok(found)
}

/// Whether a segment has the same content on both sides. An object that is damaged says nothing against the volume: it
/// is passed over, loudly, because an owner must not be kept down by a broken object that it could replace by a backup.
async fn same(
    store: &Store,
    epoch: Epoch,
    pgdata: &Path,
    position: &Position,
    segment: Segment,
) -> Result<bool, CannotTell> {
    let file = WalFile::Segment(segment.name(position.size));
    let (begun, mut tries) = (Instant::now(), Tries::default());
    let archived = loop {
        let e = match fetch::fetch(store, &[Link::whole(epoch)], &file, position.size, position.system).await
        {
            Ok(Fetched::Bytes(bytes)) => break bytes,
            // It was listed a moment ago, and nobody deletes here: the store contradicts itself.
            Ok(Fetched::Absent) => {
                let key = names::key(epoch, &file, super::codec::Codec::Zstd);
                FetchError::Contradiction { key }
            }
            Err(e) => e,
        };
        let failing = Failing::from(&e);
        match (tries.failed(failing, begun.elapsed(), PATIENCE), failing, e) {
            (Retry::After(pause), ..) => tokio::time::sleep(pause).await,
            (Retry::GiveUp, Failing::Damage, e) => {
                tracing::error!(error = %e, "an archived segment is damaged and cannot be compared with pg_wal: take a new base backup");
                return Ok(true);
            }
            (Retry::GiveUp, Failing::Store(_), FetchError::Store(e)) => return Err(e.into()),
            (Retry::GiveUp, Failing::Store(_), e) => return Err(CannotTell::Archive(e)),
        }
    };
    let path = pgdata.join("pg_wal").join(file.name());
    let read = on_a_thread(move || match holds(&path, &archived) {
        Ok(same) => Ok(same),
        // Ready before redo, and gone meanwhile: Postgres has heard that it is archived.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(format!("{}: cannot be read: {e}", path.display())),
    });
    read.await.and_then(|same| same).map_err(CannotTell::Volume)
}

/// Whether a file has exactly these bytes; read piece by piece, because a segment may be large.
fn holds(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let mut piece = vec![0; PIECE];
    for expected in bytes.chunks(PIECE) {
        let Some(read) = piece.get_mut(..expected.len()) else { return Ok(false) };
        file.read_exact(read)?;
        if read != expected {
            return Ok(false);
        }
    }
    Ok(true)
}
