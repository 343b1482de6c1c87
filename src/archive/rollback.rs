//! Whether a data directory is older than what its own epoch archived: a volume snapshot or a copy put back. Pure.
//!
//! Such a volume has the identity of the owner and is confirmed as the owner. It would serve old data, and write WAL
//! under names that its own epoch has archived with other content. What Postgres guarantees tells it apart from every
//! honest owner, however it died (`docs/adr/0007`):
//!
//! - WAL is synced before its segment becomes `.ready`, so nothing is archived that is not durable on the volume;
//! - a segment is removed or recycled only when it lies wholly before the redo position that the control file already
//!   names, so every segment from there on is still in `pg_wal` under its own name, the archived ones unchanged;
//! - the timeline of the control file is never older than a history that this data directory archived: a restore gives
//!   the directory its name only after the new timeline is in the control file.
//!
//! Hence: an archived timeline newer than the control file's, or an archived segment at or behind the redo position that
//! is not in `pg_wal` as it is in the archive, means that the archive has seen more than this directory. Segments before
//! redo prove nothing and are not asked for. An archive without segments has nothing to say.
//!
//! The comparison writes nothing: a kill anywhere in it leaves everything as it was, and the next boot compares again.

use super::AHEAD;
use super::names::{self, Stored};
use super::segment;
use crate::postgres::control::Control;
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline, WalFile};
use std::collections::BTreeSet;
use std::fmt;

/// What the control file says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cluster.
    pub system: u64,
    /// Its segment size.
    pub size: SegmentSize,
    /// The newest timeline that it knows of itself.
    pub timeline: Timeline,
    /// Where the next recovery would begin.
    pub redo: Lsn,
}

impl From<&Control> for Position {
    fn from(control: &Control) -> Position {
        Position {
            system: control.system_identifier,
            size: control.wal_segment_size,
            // As Postgres itself chooses where a recovery leads to.
            timeline: control.timeline.max(control.recovery_timeline),
            redo: control.redo,
        }
    }
}

/// What an epoch's archive lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Whole segments.
    pub segments: BTreeSet<Segment>,
    /// Timelines with a history file.
    pub histories: BTreeSet<Timeline>,
}

impl Archived {
    /// From the keys of a listing. Segments in a packing that we cannot read are there all the same.
    #[must_use]
    pub fn listed<'a>(keys: impl IntoIterator<Item = &'a str>, size: SegmentSize) -> Archived {
        let mut archived = Archived::default();
        for key in keys {
            match names::stored(key) {
                Some(
                    Stored::Readable(WalFile::Segment(name), _) | Stored::Foreign(WalFile::Segment(name)),
                ) => {
                    archived.segments.extend(Segment::parse(&name, size).ok());
                }
                Some(
                    Stored::Readable(WalFile::History(timeline), _)
                    | Stored::Foreign(WalFile::History(timeline)),
                ) => {
                    archived.histories.insert(timeline);
                }
                // A `.partial` is the end of a timeline that was left; a `.backup` is a note.
                Some(Stored::Readable(..) | Stored::Foreign(_)) | None => {}
            }
        }
        archived
    }
}

/// What `pg_wal` has under a segment's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing.
    Absent,
    /// Something else, such as a file that waits to be used again; in words.
    Other(String),
    /// A segment whose first page belongs there.
    Written,
}

/// What proves that the archive has seen more than the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolledBack {
    /// The archive has a newer timeline.
    Timeline {
        /// In the archive.
        archived: Timeline,
        /// Of the data directory.
        own: Timeline,
    },
    /// A segment that must be in `pg_wal` is not.
    Segment {
        /// Its name.
        name: String,
        /// From which segment on each must be there.
        redo: String,
        /// What is there.
        found: Local,
    },
    /// A segment is in `pg_wal` with other content: it was not finished, or finished differently.
    Content {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RolledBack::Timeline { archived, own } => {
                write!(f, "the archive has timeline {archived}, this data directory is on timeline {own}")
            }
            RolledBack::Segment { name, redo, found } => {
                write!(
                    f,
                    "the archive has WAL segment {name}, and pg_wal, which must hold every segment from {redo} on, "
                )?;
                match found {
                    Local::Absent => f.write_str("does not"),
                    Local::Other(what) => write!(f, "has another file of that name ({what})"),
                    Local::Written => f.write_str("does"),
                }
            }
            RolledBack::Content { name } => {
                write!(f, "WAL segment {name} is in the archive with other content than in pg_wal")
            }
        }
    }
}

/// The archived segments that must be in `pg_wal`, in order.
///
/// # Errors
/// The archive has a newer timeline.
pub fn owed(position: &Position, archived: &Archived) -> Result<Vec<Segment>, RolledBack> {
    let timelines = archived.segments.iter().map(|s| s.timeline).chain(archived.histories.iter().copied());
    if let Some(newest) = timelines.max().filter(|newest| *newest > position.timeline) {
        return Err(RolledBack::Timeline { archived: newest, own: position.timeline });
    }
    let first = Segment::containing(position.timeline, position.redo, position.size);
    Ok(archived.segments.range(first..).copied().collect())
}

/// Whether all of them are there, by their first pages.
///
/// # Errors
/// The last one that is not: behind it the data directory certainly has nothing.
pub fn all_there(
    position: &Position,
    owed: &[Segment],
    mut local: impl FnMut(Segment) -> Local,
) -> Result<(), RolledBack> {
    for segment in owed.iter().rev() {
        match local(*segment) {
            Local::Written => {}
            found @ (Local::Absent | Local::Other(_)) => {
                let redo = Segment::containing(position.timeline, position.redo, position.size);
                let (name, redo) = (segment.name(position.size), redo.name(position.size));
                return Err(RolledBack::Segment { name, redo, found });
            }
        }
    }
    Ok(())
}

/// Those whose content must be compared, the last first: it is the one that an old copy has begun and not finished. What
/// is archived and still `ready`, wherever redo is, is compared too: of two copies that both went on, the archive has the
/// other's. Copies differ in everything behind the point where they parted, so the newest few tell; an honest owner has
/// about as many, because uploads run ahead, and only after a drain without Postgres more.
#[must_use]
pub fn to_compare(owed: &[Segment], archived: &Archived, ready: &BTreeSet<Segment>) -> Vec<Segment> {
    let both = archived.segments.iter().rev().filter(|s| ready.contains(s));
    let mut chosen: BTreeSet<Segment> = both.take(AHEAD).copied().collect();
    chosen.extend(owed.last());
    chosen.into_iter().rev().collect()
}

/// What the beginning of a file says of it; `length` is the whole file's.
#[must_use]
pub fn first_page(bytes: &[u8], length: u64, segment: Segment, position: &Position) -> Local {
    if length != position.size.bytes() {
        return Local::Other(format!("of {length} bytes"));
    }
    if bytes.iter().all(|b| *b == 0) {
        return Local::Other("not written yet".to_owned());
    }
    match segment::check_first_page(bytes, segment, position.size, position.system) {
        Err(damage) => Local::Other(damage.to_string()),
        // The first segment of a timeline begins with a copy of its parent's pages.
        Ok(()) => match segment::timeline(bytes) {
            Some(timeline) if (1..=segment.timeline.0).contains(&timeline) => Local::Written,
            timeline => Local::Other(format!("of timeline {}", timeline.unwrap_or_default())),
        },
    }
}

#[cfg(test)]
mod tests;
