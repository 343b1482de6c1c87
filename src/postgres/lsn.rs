//! Positions in the write-ahead log and the names of its files.
//!
//! Pure. The rules are Postgres's own (`src/include/access/xlog_internal.h`): a segment's name is the timeline, then
//! the segment number split at 4 GiB; a history file is `<8 hex>.history`. Names come from Postgres, from buckets
//! and from operators, so parsing is strict: upper-case hexadecimal of the exact length, nothing else.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A byte position in the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// A timeline; 1 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

/// The size of a segment in bytes; a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

/// One WAL segment: its timeline and its number (position divided by segment size).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// The timeline that wrote it.
    pub timeline: Timeline,
    /// Its number from the beginning of the WAL.
    pub number: u64,
}

/// A file that Postgres hands to `archive_command` or asks of `restore_command`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WalFile {
    /// `000000010000000000000003`; the raw name, because the number depends on the segment size.
    Segment(String),
    /// `00000002.history`
    History(Timeline),
    /// `000000010000000000000003.00000028.backup`
    Backup(String),
    /// `000000010000000000000003.partial`: the last segment of an abandoned timeline.
    Partial(String),
}

/// Why a text is not an LSN, a segment size or a WAL file name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct BadName {
    /// What was given.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
}

fn bad(text: &str, what: &'static str) -> BadName {
    BadName { text: text.to_owned(), what }
}

fn hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Lsn, BadName> {
        let wrong = || bad(text, "an LSN like 0/3000028");
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let half = |s: &str| {
            if s.is_empty() || s.len() > 8 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            u64::from_str_radix(s, 16).map_err(|_| wrong())
        };
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl SegmentSize {
    /// Postgres's default, 16 MiB.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the middle eight digits of a name: 4 GiB worth.
    const fn per_id(self) -> u64 {
        0x1_0000_0000 / self.0
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = BadName;
    fn try_from(bytes: u64) -> Result<SegmentSize, BadName> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(SegmentSize(bytes))
        } else {
            Err(bad(&bytes.to_string(), "a WAL segment size (a power of two from 1 MiB to 1 GiB)"))
        }
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.0
    }
}

impl Segment {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn containing(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Segment {
        Segment { timeline, number: lsn.0 / size.0 }
    }

    /// The segment's file name.
    #[must_use]
    pub fn name(self, size: SegmentSize) -> String {
        let per = size.per_id();
        format!("{:08X}{:08X}{:08X}", self.timeline.0, self.number / per, self.number % per)
    }

    /// Parses a 24-digit name.
    ///
    /// # Errors
    /// When it is not 24 upper-case hexadecimal digits, or its last part cannot occur with this segment size.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Segment, BadName> {
        let wrong = || bad(name, "a WAL segment name (24 hexadecimal digits)");
        if !hex(name, 24) {
            return Err(wrong());
        }
        let part = |range: std::ops::Range<usize>| {
            name.get(range).and_then(|s| u64::from_str_radix(s, 16).ok()).ok_or_else(wrong)
        };
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        if low >= size.per_id() || timeline == 0 {
            return Err(bad(name, "a WAL segment name of this segment size"));
        }
        let timeline = u32::try_from(timeline).map_err(|_| wrong())?;
        Ok(Segment { timeline: Timeline(timeline), number: high * size.per_id() + low })
    }

    /// Where it begins.
    #[must_use]
    pub const fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number * size.0)
    }

    /// Where it ends (the start of the next).
    #[must_use]
    pub const fn end(self, size: SegmentSize) -> Lsn {
        Lsn((self.number + 1) * size.0)
    }

    /// The next one on the same timeline.
    #[must_use]
    pub const fn next(self) -> Segment {
        Segment { timeline: self.timeline, number: self.number + 1 }
    }
}

impl WalFile {
    /// The name as Postgres writes it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            WalFile::Segment(name) | WalFile::Backup(name) | WalFile::Partial(name) => name.clone(),
            WalFile::History(timeline) => format!("{:08X}.history", timeline.0),
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl FromStr for WalFile {
    type Err = BadName;
    fn from_str(name: &str) -> Result<WalFile, BadName> {
        if hex(name, 24) {
            return Ok(WalFile::Segment(name.to_owned()));
        }
        if let Some(stem) = name.strip_suffix(".history")
            && hex(stem, 8)
            && let Ok(timeline) = u32::from_str_radix(stem, 16)
        {
            return Ok(WalFile::History(Timeline(timeline)));
        }
        if let Some(stem) = name.strip_suffix(".partial")
            && hex(stem, 24)
        {
            return Ok(WalFile::Partial(name.to_owned()));
        }
        if let Some((segment, offset)) = name.strip_suffix(".backup").and_then(|s| s.split_once('.'))
            && hex(segment, 24)
            && hex(offset, 8)
        {
            return Ok(WalFile::Backup(name.to_owned()));
        }
        Err(bad(name, "a WAL file name (segment, .history, .backup or .partial)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_segment_survives_its_name(timeline in 1u32.., number in 0u64..1 << 40, shift in 20u32..=30) {
            let size = SegmentSize::try_from(1u64 << shift).unwrap();
            let number = number % (u64::from(u32::MAX) * size.per_id());
            let segment = Segment { timeline: Timeline(timeline), number };
            prop_assert_eq!(Segment::parse(&segment.name(size), size), Ok(segment));
        }

        #[test]
        fn an_lsn_survives_its_text(lsn in any::<u64>()) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<WalFile>();
            let _ = text.parse::<Lsn>();
            let _ = Segment::parse(&text, SegmentSize::DEFAULT);
        }
    }

    #[test]
    fn names_are_those_of_postgres() {
        let size = SegmentSize::DEFAULT;
        let s = Segment::containing(Timeline(1), "1/3000028".parse().unwrap(), size);
        assert_eq!(s.name(size), "000000010000000100000003");
        assert_eq!(s.start(size).to_string(), "1/3000000");
        assert_eq!(s.next().start(size), s.end(size));
        assert_eq!("00000002.history".parse(), Ok(WalFile::History(Timeline(2))));
        assert!("000000010000000000000003.00000028.backup".parse::<WalFile>().is_ok());
        assert!(matches!("000000010000000000000003.partial".parse(), Ok(WalFile::Partial(_))));
        for wrong in
            ["", "../etc/passwd", "00000001000000000000000g", "0000000100000000000001FF0", "RECOVERYXLOG"]
        {
            assert!(wrong.parse::<WalFile>().is_err(), "{wrong}");
        }
        assert!(Segment::parse("000000010000000000000100", size).is_err());
    }
}
