//! Whether a backup in the bucket is whole, without downloading it.
//!
//! The rules are those measured in `facts/walg.md` 7.3: every part that the metadata names is listed (wal-rus leaves the
//! suffix out), the control file's part is there, the stored sizes add up to no less than the engine counted, the
//! system identifier is the cluster's, and every WAL segment from start to finish is archived in the same epoch.

use super::sentinel::{self, Contents};
use super::{Backup, directory};
use crate::archive::names::{self, Stored};
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, WalFile};
use crate::store::{Entry, Kind, Store, StoreError};
use std::collections::BTreeSet;

/// Why a backup is not to be relied on.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A part is not in the bucket.
    #[error("backup {name}: part {part} is not in the bucket")]
    PartMissing {
        /// The backup.
        name: String,
        /// The part.
        part: String,
    },
    /// Less is stored than the engine wrote.
    #[error("backup {name}: {stored} bytes are stored, the engine wrote {written}")]
    Smaller {
        /// The backup.
        name: String,
        /// What the listing adds up to.
        stored: u64,
        /// What the sentinel says.
        written: u64,
    },
    /// It is of another cluster.
    #[error("backup {name} is of cluster {found}, not of {expected}")]
    Foreign {
        /// The backup.
        name: String,
        /// Its cluster.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// WAL that it needs is not archived (yet).
    #[error("backup {name} needs WAL segment {segment}, which is not archived")]
    WalMissing {
        /// The backup.
        name: String,
        /// The first missing segment.
        segment: String,
    },
    /// What is written about it cannot be read, does not fit together, or names it as something that we do not use.
    #[error("backup {name}: its metadata makes no sense: {why}")]
    Metadata {
        /// The backup.
        name: String,
        /// In words.
        why: String,
    },
    /// The store did not let us look.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks whether a backup is whole.
///
/// # Errors
/// Why it is not, or why we could not look.
pub async fn verify(
    store: &Store,
    backup: &Backup,
    system_identifier: Option<u64>,
    size: SegmentSize,
) -> Result<(), Unfit> {
    named(backup, size)?;
    parts(store, backup, system_identifier).await?;
    let wal = store.list(&names::directory(backup.epoch)).await?;
    archived(backup, &wal, size)
}

/// Looks whether a backup's own objects are whole, and gives what a restore must bring.
///
/// # Errors
/// Why they are not, or why we could not look.
pub(super) async fn parts(
    store: &Store,
    backup: &Backup,
    system_identifier: Option<u64>,
) -> Result<Contents, Unfit> {
    let of = format!("{}{}/", directory(backup.epoch), backup.name);
    let listed = store.list(&of).await?;
    let contents = match store.get(&format!("{of}files_metadata.json")).await {
        Ok(body) => {
            let why = |why| format!("files_metadata.json: {why}");
            sentinel::contents(&body)
                .map_err(|e| Unfit::Metadata { name: backup.name.clone(), why: why(e) })?
        }
        // The engine may be told to leave it out; then sizes must do.
        Err(e) if e.kind == Kind::Absent => Contents::default(),
        Err(e) => return Err(e.into()),
    };
    whole(backup, &contents, &listed, system_identifier)?;
    Ok(contents)
}

/// The pure part: a backup against its listing.
fn whole(backup: &Backup, contents: &Contents, listed: &[Entry], expected: Option<u64>) -> Result<(), Unfit> {
    let name = || backup.name.clone();
    if let Some(expected) = expected.filter(|e| *e != backup.system_identifier) {
        return Err(Unfit::Foreign { name: name(), found: backup.system_identifier, expected });
    }
    let tars: Vec<(&str, u64)> =
        listed.iter().filter_map(|e| Some((e.key.rsplit_once("/tar_partitions/")?.1, e.size))).collect();
    let there = |part: &str| {
        let stem = part.split_once(".tar").map_or(part, |(stem, _)| stem);
        tars.iter().any(|(tar, size)| *size > 0 && tar.split_once(".tar").is_some_and(|(s, _)| s == stem))
    };
    let control = "pg_control.tar".to_owned();
    if let Some(part) = contents.parts.iter().chain(std::iter::once(&control)).find(|p| !there(p)) {
        return Err(Unfit::PartMissing { name: name(), part: part.clone() });
    }
    let stored = tars.iter().map(|(_, size)| size).sum();
    if stored < backup.compressed_size {
        return Err(Unfit::Smaller { name: name(), stored, written: backup.compressed_size });
    }
    Ok(())
}

/// The pure part: a backup against its own name, which a copied or mixed-up sentinel does not fit.
fn named(backup: &Backup, size: SegmentSize) -> Result<(), Unfit> {
    let unfit = |why: String| Err(Unfit::Metadata { name: backup.name.clone(), why });
    if backup.name.contains("_D_") {
        return unfit(
            "it is a delta, whose chain is not followed here; only full backups are used".to_owned(),
        );
    }
    let segment = Segment::containing(backup.timeline, backup.start, size).name(size);
    if backup.name.strip_prefix("base_") == Some(segment.as_str()) {
        return Ok(());
    }
    unfit(format!("it begins at {}, which is in segment {segment}", backup.start))
}

/// The pure part: a backup against the WAL of its epoch. Only whole segments that can be read back count: each backup
/// leaves a `.backup` file named after its first segment, which says nothing of the segment itself.
fn archived(backup: &Backup, wal: &[Entry], size: SegmentSize) -> Result<(), Unfit> {
    let segment_name = |entry: &Entry| match names::stored(&entry.key) {
        Some(Stored::Readable(WalFile::Segment(name), _)) if entry.size > 0 => Some(name),
        Some(Stored::Readable(
            WalFile::Segment(_) | WalFile::History(_) | WalFile::Backup(_) | WalFile::Partial(_),
            _,
        ))
        | Some(Stored::Foreign(_))
        | None => None,
    };
    let there: BTreeSet<String> = wal.iter().filter_map(segment_name).collect();
    let mut segment = Segment::containing(backup.timeline, backup.start, size);
    // A backup that ends exactly at a boundary needs nothing of the next segment.
    let last = Segment::containing(backup.timeline, Lsn(backup.finish.0.saturating_sub(1)), size);
    while segment <= last {
        let name = segment.name(size);
        if !there.contains(name.as_str()) {
            return Err(Unfit::WalMissing { name: backup.name.clone(), segment: name });
        }
        segment = segment.next();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Epoch;
    use crate::postgres::lsn::Timeline;
    use proptest::prelude::*;

    fn backup(compressed: u64) -> Backup {
        Backup {
            epoch: Epoch(1),
            name: "base_000000010000000000000003".into(),
            timeline: Timeline(1),
            start: Lsn(0x300_0028),
            finish: Lsn(0x500_0100),
            system_identifier: 7,
            pg_version: 150_018,
            compressed_size: compressed,
            uncompressed_size: 0,
            started: String::new(),
            finished: String::new(),
        }
    }

    fn entries(names: &[(String, u64)]) -> Vec<Entry> {
        names
            .iter()
            .map(|(n, size)| Entry { key: format!("e/basebackups_005/b/tar_partitions/{n}"), size: *size })
            .collect()
    }

    fn wal(numbers: impl Iterator<Item = u64>) -> Vec<Entry> {
        let size = SegmentSize::DEFAULT;
        let key = |number| Segment { timeline: Timeline(1), number }.name(size);
        numbers.map(|n| Entry { key: format!("e0000000001/wal_005/{}.zst", key(n)), size: 9 }).collect()
    }

    #[test]
    fn wal_from_start_to_finish_must_be_there() {
        assert!(archived(&backup(0), &wal(3..=5), SegmentSize::DEFAULT).is_ok());
        let e = archived(&backup(0), &wal([3, 5].into_iter()), SegmentSize::DEFAULT).unwrap_err();
        assert!(e.to_string().contains("000000010000000000000004"), "{e}");
    }

    #[test]
    fn what_is_named_after_a_segment_is_not_the_segment() {
        let key = |name: &str| format!("e0000000001/wal_005/000000010000000000000003{name}");
        let others =
            [".00000028.backup.zst", ".00000028.backup", ".partial.zst", ".zst.tmp", ".lz4", "_delta.zst"];
        for other in others {
            let mut listed = wal(4..=5);
            listed.push(Entry { key: key(other), size: 9 });
            let e = archived(&backup(0), &listed, SegmentSize::DEFAULT).unwrap_err();
            assert!(e.to_string().contains("000000010000000000000003"), "{other}: {e}");
        }
        let mut empty = wal(4..=5);
        empty.push(Entry { key: key(".zst"), size: 0 });
        assert!(archived(&backup(0), &empty, SegmentSize::DEFAULT).is_err());
    }

    #[test]
    fn a_sentinel_that_does_not_fit_its_name_and_a_delta_are_refused() {
        let size = SegmentSize::DEFAULT;
        assert!(named(&backup(0), size).is_ok());
        let moved = Backup { start: Lsn(0x400_0028), ..backup(0) };
        let e = named(&moved, size).unwrap_err().to_string();
        assert!(e.contains("0/4000028") && e.contains("000000010000000000000004"), "{e}");
        let name = "base_000000010000000000000003_D_000000010000000000000001".to_owned();
        let e = named(&Backup { name, ..backup(0) }, size).unwrap_err();
        assert!(e.to_string().contains("delta"), "{e}");
    }

    #[test]
    fn a_foreign_cluster_is_named() {
        let e =
            whole(&backup(0), &Contents::default(), &entries(&[("pg_control.tar.zst".into(), 1)]), Some(8));
        assert!(e.unwrap_err().to_string().contains("cluster 7, not of 8"));
    }

    proptest! {
        #[test]
        fn no_lost_or_shrunk_part_passes(
            sizes in prop::collection::vec(1u64..1000, 1..6),
            suffix in any::<bool>(),
            victim in any::<prop::sample::Index>(),
            lose in any::<bool>(),
        ) {
            let mut names: Vec<(String, u64)> =
                sizes.iter().enumerate().map(|(i, s)| (format!("part_{:03}.tar.zst", i + 1), *s)).collect();
            names.push(("pg_control.tar.zst".into(), 5));
            let total = names.iter().map(|(_, s)| s).sum();
            let parts = names[..sizes.len()].iter()
                .map(|(n, _)| if suffix { n.clone() } else { n.trim_end_matches(".zst").to_owned() }).collect();
            let contents = Contents { parts, ..Contents::default() };
            prop_assert!(whole(&backup(total), &contents, &entries(&names), Some(7)).is_ok());
            let at = victim.index(names.len());
            if lose {
                names.remove(at);
            } else {
                names[at].1 -= 1;
            }
            prop_assert!(whole(&backup(total), &contents, &entries(&names), Some(7)).is_err());
        }
    }
}
