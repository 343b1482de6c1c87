//! What objects of the archive are called: WAL-G's names below each epoch's prefix. Pure.

use super::codec::Codec;
use crate::owner::Epoch;
use crate::postgres::lsn::{BadName, Lsn, Segment, SegmentSize, WalFile};

/// The directory of an epoch's WAL, with its slash.
#[must_use]
pub fn directory(epoch: Epoch) -> String {
    format!("{}/wal_005/", epoch.dir())
}

/// The key of a file's object.
#[must_use]
pub fn key(epoch: Epoch, file: &WalFile, codec: Codec) -> String {
    format!("{}{file}{codec}", directory(epoch))
}

/// Endings under which others store WAL. We read two of them; the rest must at least not be taken for absence.
const FOREIGN: [&str; 5] = [".lz4", ".lzma", ".gz", ".br", ".none"];

/// What an object's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A WAL file that we can read.
    Readable(WalFile, Codec),
    /// A WAL file packed in a way that we cannot read.
    Foreign(WalFile),
}

/// Reads the last part of an object's key; `None` when it is no WAL file.
#[must_use]
pub fn stored(key: &str) -> Option<Stored> {
    let name = key.rsplit('/').next()?;
    if let Some(stem) = name.strip_suffix(Codec::Zstd.suffix()) {
        return stem.parse().ok().map(|file| Stored::Readable(file, Codec::Zstd));
    }
    if let Some(stem) = FOREIGN.iter().find_map(|suffix| name.strip_suffix(suffix)) {
        return stem.parse().ok().map(Stored::Foreign);
    }
    name.parse().ok().map(|file| Stored::Readable(file, Codec::Bare))
}

/// The segment that a file is or belongs to; a history file belongs to none.
///
/// # Errors
/// When the name cannot occur with this segment size.
pub fn segment(file: &WalFile, size: SegmentSize) -> Result<Option<Segment>, BadName> {
    match file {
        WalFile::History(_) => Ok(None),
        WalFile::Segment(name) => Segment::parse(name, size).map(Some),
        WalFile::Backup(name) | WalFile::Partial(name) => {
            Segment::parse(name.get(..24).unwrap_or_default(), size).map(Some)
        }
    }
}

/// The largest content that a file of this kind can have.
#[must_use]
pub fn largest(file: &WalFile, size: SegmentSize) -> usize {
    match file {
        WalFile::Segment(_) | WalFile::Partial(_) => usize::try_from(size.bytes()).unwrap_or(usize::MAX),
        WalFile::History(_) | WalFile::Backup(_) => 1 << 20,
    }
}

/// One line of a timeline's history: up to where a former timeline is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The former timeline.
    pub timeline: u32,
    /// Where it was left.
    pub at: Lsn,
}

/// Reads a `.history` file, oldest first; lines of comment and empty ones are left out, as Postgres does.
///
/// # Errors
/// What is wrong, when it is none: such a file must not steer a recovery.
pub fn history(text: &[u8], own: u32) -> Result<Vec<Switch>, String> {
    let text = str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let mut switches: Vec<Switch> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let timeline = words.next().and_then(|w| w.parse::<u32>().ok());
        let at = words.next().and_then(|w| w.parse::<Lsn>().ok());
        let (Some(timeline), Some(at)) = (timeline, at) else {
            return Err(format!("line `{}` is no timeline and LSN", line.escape_debug()));
        };
        if timeline >= own || switches.last().is_some_and(|s| s.timeline >= timeline || s.at > at) {
            return Err(format!("line `{}` is out of order", line.escape_debug()));
        }
        switches.push(Switch { timeline, at });
    }
    if switches.is_empty() { Err("it names no former timeline".to_owned()) } else { Ok(switches) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_wal_g() {
        let file: WalFile = "000000010000000000000003".parse().unwrap();
        assert_eq!(key(Epoch(7), &file, Codec::Zstd), "e0000000007/wal_005/000000010000000000000003.zst");
        assert_eq!(
            stored(&key(Epoch(7), &file, Codec::Bare)),
            Some(Stored::Readable(file.clone(), Codec::Bare))
        );
        assert_eq!(
            stored(&key(Epoch(7), &file, Codec::Zstd)),
            Some(Stored::Readable(file.clone(), Codec::Zstd))
        );
        assert_eq!(stored("e0000000007/wal_005/000000010000000000000003.lz4"), Some(Stored::Foreign(file)));
        let partial = "000000010000000000000003.partial".parse().unwrap();
        assert_eq!(
            stored("x/000000010000000000000003.partial.zst"),
            Some(Stored::Readable(partial, Codec::Zstd))
        );
        assert_eq!(stored("e0000000007/wal_005/note.txt"), None);
    }

    #[test]
    fn a_history_is_read_as_postgres_writes_it_and_nothing_else_is() {
        let two = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01\n";
        assert_eq!(
            history(two.as_bytes(), 3),
            Ok(vec![
                Switch { timeline: 1, at: Lsn(0x300_0000) },
                Switch { timeline: 2, at: Lsn(0x500_0000) }
            ])
        );
        for (wrong, own) in
            [("", 2), ("1 x", 2), ("2\t0/3000000\tx", 2), ("1 0/5 x\n2 0/3 x", 3), ("\0\0\0", 2)]
        {
            assert!(history(wrong.as_bytes(), own).is_err(), "{wrong:?}");
        }
        assert!(history(&[0xFF, 0xFE], 2).is_err());
    }
}
