//! What the store holds for a restore: the chain of epochs, their backups and their WAL, read and turned into the
//! planner's terms. A store that does not answer is waited for; "I could not look" is never taken for "nothing there".

use super::plan::{self, Base, RestorePlan, Wal};
use crate::archive::fetch::{self, Fetched};
use crate::archive::{last_record_end, names};
use crate::control::client::notify;
use crate::exit::Failure;
use crate::owner::lineage::{self, Lineage, Link};
use crate::owner::{Cluster, Epoch, cluster};
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline, WalFile};
use crate::store::{Kind, Store, StoreError};
use crate::walg;
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

fn failure(what: &str, e: &StoreError) -> Failure {
    Failure::gave_up(format!("{what}: {e}"))
}

/// Asks until the store answers; what will not get better by waiting is returned.
pub(crate) async fn patient<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(500);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(e) if e.kind == Kind::Transient => {
                let status = format!("waits for the store, {} s ({what}: {e})", begun.elapsed().as_secs());
                tracing::warn!("{status}");
                let _ = notify(&format!("STATUS={status}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(15));
            }
            Err(e) => return Err(failure(what, &e)),
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
    let what = format!("{file}");
    let fetched = patient(&what, async || match fetch::fetch(store, chain, file, size, id).await {
        Err(fetch::FetchError::Store(e)) => Err(e),
        answer => Ok(answer),
    })
    .await?;
    match fetched {
        Ok(Fetched::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(Fetched::Absent) => Ok(None),
        Err(e) => Err(Failure::gave_up(format!("restore: {file}: {e}"))),
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
