//! Which backup, which WAL, and where recovery must end. Pure.
//!
//! Postgres cannot tell the end of an archive from a hole in it: at the first segment that is absent it promotes. So we
//! walk what the store lists as Postgres will (newest timeline first), before anything is fetched, and refuse when
//! something lies behind the first gap. Afterwards the recovered end is compared with the end found here.

use crate::archive::AHEAD;
use crate::owner::Epoch;
use crate::owner::lineage::Link;
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A base backup that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The epoch that holds it.
    pub epoch: Epoch,
    /// Its name.
    pub name: String,
    /// The timeline on which it was taken.
    pub timeline: Timeline,
    /// Where replay begins.
    pub start: Lsn,
    /// Where it is consistent.
    pub finish: Lsn,
}

/// The WAL that a prefix lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wal {
    /// Whole segments, by epoch.
    pub segments: BTreeMap<Epoch, BTreeSet<Segment>>,
    /// Each timeline's history: the timelines before it and where each was left, oldest first.
    pub histories: BTreeMap<Timeline, Vec<(Timeline, Lsn)>>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// From this backup.
    pub base: Base,
    /// Along the way to this timeline.
    pub timeline: Timeline,
    /// The last segment that will be replayed, and whose it is.
    pub last: Segment,
    /// See `last`.
    pub last_epoch: Epoch,
    /// Where it ends: no history goes on behind it.
    pub end: Lsn,
    /// A segment behind a gap that is no wider than uploads run ahead: it was in flight when the former owner died,
    /// and Postgres was never told that it is archived.
    pub in_flight: Option<Segment>,
}

/// Why a restore would lose something, or cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No epoch of the chain has a backup that is whole.
    NoBackup,
    /// The newest timeline does not descend from the backup's.
    Unrelated {
        /// The backup.
        backup: String,
        /// The timeline.
        timeline: Timeline,
    },
    /// A segment that the backup needs to be consistent is not there.
    Inconsistent {
        /// The backup.
        backup: String,
        /// The segment's name.
        missing: String,
    },
    /// There are segments of a timeline whose history file is absent.
    HistoryMissing {
        /// The timeline.
        timeline: Timeline,
        /// One of its segments.
        segment: String,
    },
    /// There is WAL behind a gap that is wider than uploads run ahead.
    Hole {
        /// The first segment that is absent.
        missing: String,
        /// The first that is there again.
        behind: String,
        /// How far a restore could come.
        reachable: Lsn,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoBackup => f.write_str(
                "no epoch of this history has a whole base backup, so there is nothing to restore from; if this prefix \
                 never held data worth keeping, use an empty SUPAFLY_STORE",
            ),
            Refusal::Unrelated { backup, timeline } => write!(
                f,
                "timeline {timeline} in the archive does not descend from backup {backup}; remove nothing, and ask \
                 which history is wanted"
            ),
            Refusal::Inconsistent { backup, missing } => write!(
                f,
                "backup {backup} needs WAL segment {missing}, which is not in the archive; put it back from another copy"
            ),
            Refusal::HistoryMissing { timeline, segment } => write!(
                f,
                "WAL segment {segment} is in the archive, but {:08X}.history is not: Postgres would not find timeline \
                 {timeline} and lose it; put the history file back from another copy of the bucket",
                timeline.0
            ),
            Refusal::Hole { missing, behind, reachable } => write!(
                f,
                "WAL segment {missing} is not in the archive, but {behind} behind it is: a restore would end at \
                 {reachable} and lose the rest; put the segment back from another copy of the bucket"
            ),
        }
    }
}

/// The backups that belong to the chain, the one to take first.
#[must_use]
pub fn candidates(chain: &[Link], backups: &[Base]) -> Vec<Base> {
    let mut fitting: Vec<Base> = Vec::new();
    for link in chain {
        let mut of: Vec<_> = backups
            .iter()
            .filter(|b| b.epoch == link.epoch && link.counts_timeline(b.timeline))
            .filter(|b| link.until.is_none_or(|until| b.finish <= until))
            .cloned()
            .collect();
        of.sort_by(|a, b| (b.timeline, b.start, &b.name).cmp(&(a.timeline, a.start, &a.name)));
        fitting.extend(of);
    }
    fitting
}

/// Plans the restore from a base to the end of what the chain holds.
///
/// # Errors
/// What is missing.
pub fn plan(chain: &[Link], base: &Base, wal: &Wal, size: SegmentSize) -> Result<RestorePlan, Refusal> {
    let timeline = newest(base.timeline, wal);
    let mut way: Vec<(Timeline, u64)> = vec![(base.timeline, 0)];
    if timeline != base.timeline {
        let history = wal.histories.get(&timeline).map_or(&[][..], Vec::as_slice);
        let related = history.iter().any(|(t, left)| *t == base.timeline && base.finish <= *left);
        if !related {
            return Err(Refusal::Unrelated { backup: base.name.clone(), timeline });
        }
        // Each timeline begins in the segment in which the one before it was left.
        let mut begin = 0;
        way.clear();
        for (before, left) in history {
            way.push((*before, begin));
            begin = left.0 / size.bytes();
        }
        way.push((timeline, begin));
    }
    way.reverse();
    let present = |number: u64| {
        way.iter().filter(|(_, begin)| *begin <= number).find_map(|(timeline, _)| {
            let segment = Segment { timeline: *timeline, number };
            let counts = |l: &&Link| {
                l.counts(segment.timeline, segment.start(size))
                    && wal.segments.get(&l.epoch).is_some_and(|s| s.contains(&segment))
            };
            chain.iter().find(counts).map(|l| (segment, l.epoch))
        })
    };
    let name = |number: u64| {
        let timeline = way.iter().find(|(_, begin)| *begin <= number).map_or(base.timeline, |(t, _)| *t);
        Segment { timeline, number }.name(size)
    };
    let first = base.start.0 / size.bytes();
    let needed = base.finish.0.saturating_sub(1).max(base.start.0) / size.bytes();
    let mut last = None;
    let mut number = first;
    while let Some(found) = present(number) {
        last = Some(found);
        number += 1;
    }
    let inconsistent = || Refusal::Inconsistent { backup: base.name.clone(), missing: name(number) };
    let (last, last_epoch) = last.filter(|_| number > needed).ok_or_else(inconsistent)?;
    let highest = wal.segments.values().flatten().map(|s| s.number).max().unwrap_or(0);
    let behind: Vec<Segment> = (number + 1..=highest).filter_map(|n| present(n).map(|(s, _)| s)).collect();
    let widest = behind.last().map_or(0, |s| s.number - number);
    if let Some(first) = behind.first().filter(|_| widest >= AHEAD as u64) {
        return Err(Refusal::Hole {
            missing: name(number),
            behind: first.name(size),
            reachable: last.end(size),
        });
    }
    let lost = chain.iter().find_map(|link| {
        let segments = wal.segments.get(&link.epoch)?;
        segments.iter().find(|s| s.timeline > timeline && link.counts(s.timeline, s.start(size)))
    });
    if let Some(lost) = lost {
        return Err(Refusal::HistoryMissing { timeline: lost.timeline, segment: lost.name(size) });
    }
    let in_flight = behind.first().copied();
    Ok(RestorePlan { base: base.clone(), timeline, last, last_epoch, end: last.end(size), in_flight })
}

/// As Postgres finds it: the histories after the base's without a gap.
fn newest(base: Timeline, wal: &Wal) -> Timeline {
    let mut at = base;
    while wal.histories.contains_key(&Timeline(at.0.saturating_add(1))) {
        at = Timeline(at.0 + 1);
    }
    at
}
