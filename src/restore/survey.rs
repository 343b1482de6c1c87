//! What the store holds for a restore: the chain of epochs, their backups and their WAL, read and turned into the
//! planner's terms. A store that does not answer is waited for; "I could not look" is never taken for "nothing there".

use super::plan::{self, Base, RestorePlan, Wal};
use crate::archive::fetch::{self, Fetched};
use crate::archive::patience::{Failing, Retry, Tries};
use crate::archive::{last_record_end, names};
use crate::control::client::notify;
use crate::exit::Failure;
use crate::owner::lineage::{self, Lineage, Link};
use crate::owner::{Cluster, Epoch, cluster};
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline, WalFile};
use crate::store::{Kind, Store};
use crate::walg;
use std::fmt;
use std::time::{Duration, Instant};

/// What a restore goes by.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// What our history's epochs say of their cluster.
    pub(super) cluster: Cluster,
    /// Our lineage, when an earlier try wrote it.
    pub(super) lineage: Option<Lineage>,
    /// The epoch that we go on from; `None`: ourselves.
    pub(super) parent: Option<Epoch>,
    /// The plan.
    pub(super) plan: RestorePlan,
    /// Bytes of the data directory when the backup was taken.
    pub(super) uncompressed: u64,
    /// Where recovery must come to at least.
    pub(super) expected: Lsn,
}

/// Asks until there is an answer: as long as the store is away, a few times when it refuses or what it gives is damaged
/// (as keeper does, `archive/patience.rs`). Each wait is said.
pub(crate) async fn patient<T, E: fmt::Display>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Failure>
where
    for<'e> Failing: From<&'e E>,
{
    let begun = Instant::now();
    let mut tries = Tries::default();
    loop {
        let e = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        let failing = Failing::from(&e);
        let waited = begun.elapsed();
        match tries.failed(failing, waited, Duration::MAX) {
            Retry::GiveUp => {
                let text = format!("{what}: {e} (tried {} times)", tries.total());
                return Err(Failure::gave_up(text));
            }
            Retry::After(pause) => {
                let doing = match failing {
                    Failing::Store(Kind::Transient) => "waits for the store",
                    Failing::Store(_) | Failing::Damage => "asks the store again",
                };
                let status = format!("{doing}, {} s ({what}: {e})", waited.as_secs());
                tracing::warn!("{status}");
                let _ = notify(&format!("STATUS={status}"));
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Looks at everything and plans.
pub(super) async fn survey(store: &Store, own: Epoch) -> Result<Survey, Failure> {
    let lineage = patient("our lineage", async || lineage::read(store, own).await).await?;
    let parent = match &lineage {
        Some(lineage) => Some(lineage.parent),
        None => parent(store, own).await?,
    };
    let holder = parent.unwrap_or(own);
    let cluster = patient("cluster.json", async || cluster::read(store, holder).await).await?;
    let cluster = cluster.ok_or_else(|| {
        Failure::refused(format!(
            "{}: no epoch up to {own} ever opened a cluster, so there is nothing to restore; use an empty SUPAFLY_STORE",
            store.url()
        ))
    })?;
    let mut chain = vec![Link::whole(own)];
    match (&lineage, parent) {
        (Some(_), _) => chain = patient("the lineage", async || lineage::chain(store, own).await).await?,
        (None, Some(parent)) => {
            chain.extend(patient("the lineage", async || lineage::chain(store, parent).await).await?);
        }
        (None, None) => {}
    }
    let size = cluster.wal_segment_size;
    let id = cluster.system_identifier;
    let wal = listing(store, &chain, size, id).await?;
    let mut backups = Vec::new();
    for link in &chain {
        let what = format!("the backups of epoch {}", link.epoch);
        backups.extend(patient(&what, async || walg::list(store, link.epoch).await).await?);
    }
    let bases: Vec<Base> = backups.iter().map(base).collect();
    for candidate in plan::candidates(&chain, &bases) {
        let found = backups.iter().find(|b| b.epoch == candidate.epoch && b.name == candidate.name);
        let Some(backup) = found else { continue };
        if let Err(unfit) = verified(store, backup, id, size).await? {
            tracing::warn!(epoch = %backup.epoch, "an older backup is taken, this one is not whole: {unfit}");
            continue;
        }
        let plan = plan::plan(&chain, &candidate, &wal, size)
            .map_err(|refusal| Failure::refused(format!("restore from {}: {refusal}", store.url())))?;
        let expected = end(store, &chain, &plan, size, id).await?.max(candidate.finish);
        return Ok(Survey {
            cluster,
            lineage,
            parent,
            plan,
            uncompressed: backup.uncompressed_size,
            expected,
        });
    }
    Err(Failure::refused(format!("restore from {}: {}", store.url(), plan::Refusal::NoBackup)))
}

fn base(backup: &walg::Backup) -> Base {
    Base {
        epoch: backup.epoch,
        name: backup.name.clone(),
        timeline: backup.timeline,
        start: backup.start,
        finish: backup.finish,
    }
}

/// Whether a backup is whole; a store that fails meanwhile is not a backup that is not.
async fn verified(
    store: &Store,
    backup: &walg::Backup,
    id: u64,
    size: SegmentSize,
) -> Result<Result<(), walg::Unfit>, Failure> {
    patient("a backup's parts", async || match walg::verify(store, backup, Some(id), size).await {
        Err(walg::Unfit::Store(e)) => Err(e),
        answer => Ok(answer),
    })
    .await
}

/// The highest epoch below ours that opened a cluster.
async fn parent(store: &Store, own: Epoch) -> Result<Option<Epoch>, Failure> {
    for number in (1..own.0).rev() {
        let epoch = Epoch(number);
        let there = patient("an older epoch", async || cluster::read(store, epoch).await).await?;
        if there.is_some() {
            return Ok(Some(epoch));
        }
    }
    Ok(None)
}

async fn listing(store: &Store, chain: &[Link], size: SegmentSize, id: u64) -> Result<Wal, Failure> {
    let mut wal = Wal::default();
    for link in chain {
        let what = format!("the WAL of epoch {}", link.epoch);
        let directory = names::directory(link.epoch);
        for entry in patient(&what, async || store.list(&directory).await).await? {
            let Some(names::Stored::Readable(file, _)) = names::stored(&entry.key) else { continue };
            match &file {
                WalFile::Segment(name) => {
                    let segment = Segment::parse(name, size)
                        .map_err(|e| Failure::gave_up(format!("restore: {}: {e}", entry.key)))?;
                    wal.segments.entry(link.epoch).or_default().insert(segment);
                }
                WalFile::History(timeline) => {
                    let Some(text) = whole(store, chain, &file, size, id).await? else { continue };
                    let switches = names::history(&text, timeline.0)
                        .map_err(|e| Failure::gave_up(format!("restore: {}: {e}", entry.key)))?;
                    let before = switches.iter().map(|s| (Timeline(s.timeline), s.at)).collect();
                    wal.histories.insert(*timeline, before);
                }
                WalFile::Backup(_) | WalFile::Partial(_) => {}
            }
        }
    }
    Ok(wal)
}

async fn whole(
    store: &Store,
    chain: &[Link],
    file: &WalFile,
    size: SegmentSize,
    id: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    let what = format!("restore: {file}");
    match patient(&what, async || fetch::fetch(store, chain, file, size, id).await).await? {
        Fetched::Bytes(bytes) => Ok(Some(bytes)),
        Fetched::Absent => Ok(None),
    }
}

/// Where the last record of the last segment ends; when none ends in it (one long record), of the one before it.
async fn end(
    store: &Store,
    chain: &[Link],
    plan: &RestorePlan,
    size: SegmentSize,
    id: u64,
) -> Result<Lsn, Failure> {
    let first = plan.base.start.0 / size.bytes();
    for number in (first..=plan.last.number).rev() {
        let segment = Segment { timeline: plan.last.timeline, number };
        let file = WalFile::Segment(segment.name(size));
        let Some(bytes) = whole(store, chain, &file, size, id).await? else {
            if segment == plan.last {
                let text = format!("{file} is listed in epoch {} and cannot be read", plan.last_epoch);
                return Err(Failure::gave_up(format!("restore: {text}")));
            }
            break;
        };
        let end = last_record_end(&bytes, segment, size);
        if end > Lsn(0) {
            return Ok(end);
        }
    }
    Ok(plan.base.finish)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::codec::{self, Codec};
    use crate::archive::testkit::real;
    use crate::exit::Exit;
    use crate::store::memory::{Fate, Memory};
    use std::sync::Arc;

    /// The first real segment, and a store that answers `fate` to the first so many reads of WAL.
    async fn read(fate: Fate, times: u32, damaged: u32) -> (Result<Option<Vec<u8>>, Failure>, u32) {
        let memory = Memory::default();
        let store = Store::new(Arc::new(memory.clone()));
        let file = WalFile::Segment(real().name(0));
        let key = names::key(Epoch(1), &file, Codec::Zstd);
        let whole = codec::pack(&real().segments[0].bytes).unwrap();
        let (planted, at) = (memory.clone(), key.clone());
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = Arc::clone(&asked);
        memory.faults(move |op, _| {
            if op != "get" {
                return Fate::Pass;
            }
            let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            planted.plant(&at, if n < damaged { b"flipped".to_vec() } else { whole.clone() });
            if n < times { fate } else { Fate::Pass }
        });
        let chain = [Link::whole(Epoch(1))];
        let got = super::whole(&store, &chain, &file, real().size, real().system).await;
        (got, asked.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_refused_or_damaged_read_is_tried_again_a_few_times_and_then_said() {
        // Side by side: what is waited between two tries is real time.
        let (denied, away, flipped, broken) = tokio::join!(
            read(Fate::Fail(Kind::Denied), 2, 0),
            read(Fate::Fail(Kind::Transient), 2, 0),
            read(Fate::Pass, 0, 2),
            read(Fate::Pass, 0, 99),
        );
        for (got, asked) in [denied, away, flipped] {
            assert_eq!(got.unwrap(), Some(real().segments[0].bytes.clone()));
            assert_eq!(asked, 3);
        }
        let (got, asked) = broken;
        let e = got.unwrap_err();
        assert_eq!((e.exit, asked), (Exit::GaveUp, 3));
        assert!(e.message.contains("tried 3 times") && e.message.contains(".zst"), "{e}");
    }
}
