//! What makes the bytes of a WAL segment worth believing.
//!
//! Postgres checks a restored segment's size and, record by record, its content; but a segment that is whole and wrong
//! (zeros, a flipped bit, another cluster's, an old one) makes it *end recovery* there and promote, without an error
//! (measured). So everything Postgres would stumble over is checked before it sees the file, and is an error here:
//! size, the address on every page, the cluster's system identifier, timelines, and the checksum of every record.
//! Pure. The formats are Postgres's own (`src/include/access/xlog_internal.h`, `xlogrecord.h`), little-endian.

use super::records;
use crate::postgres::lsn::{Lsn, Segment, SegmentSize};

/// `XLOG_BLCKSZ`; every page of WAL. A build with another size is refused by the long header.
pub const PAGE: usize = 8192;
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;

pub(super) const FIRST_IS_CONTINUATION: u16 = 0x0001;
const LONG: u16 = 0x0002;
pub(super) const FIRST_OVERWRITES_CONTINUATION: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

/// Why bytes are not the segment they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a whole segment.
    #[error("it has {found} bytes, a segment has {expected}")]
    Size {
        /// Bytes.
        found: u64,
        /// Bytes.
        expected: u64,
    },
    /// A page does not begin with a header of this WAL.
    #[error("page at {at}: {what}")]
    Page {
        /// Where the page should be.
        at: Lsn,
        /// What is wrong with it.
        what: String,
    },
    /// Another database cluster wrote it.
    #[error("it was written by system {found}, this is system {expected}")]
    System {
        /// In the segment.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// A record is broken.
    #[error("record at {at}: {what}")]
    Record {
        /// Where the record begins.
        at: Lsn,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A page's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) magic: u16,
    pub(super) flags: u16,
    pub(super) timeline: u32,
    pub(super) address: u64,
    /// Bytes of a record begun before this page that are still to come.
    pub(super) remaining: u32,
    pub(super) length: usize,
}

/// The long header's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long {
    /// The cluster.
    pub system_identifier: u64,
    /// As the cluster was initialised.
    pub segment_size: u32,
    /// As Postgres was built.
    pub page_size: u32,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the header of a page.
pub(super) fn header(page: &[u8]) -> Option<Header> {
    let flags = u16_at(page, 2)?;
    Some(Header {
        magic: u16_at(page, 0)?,
        flags,
        timeline: u32_at(page, 4)?,
        address: u64_at(page, 8)?,
        remaining: u32_at(page, 16)?,
        length: if flags & LONG == 0 { SHORT_HEADER } else { LONG_HEADER },
    })
}

/// Reads the long header of a segment's first page.
#[must_use]
pub fn long_header(bytes: &[u8]) -> Option<Long> {
    let first = header(bytes)?;
    if first.flags & LONG == 0 || first.magic >> 8 != 0xD1 {
        return None;
    }
    Some(Long {
        system_identifier: u64_at(bytes, 24)?,
        segment_size: u32_at(bytes, 32)?,
        page_size: u32_at(bytes, 36)?,
    })
}

/// The timeline that the first page names.
#[must_use]
pub fn timeline(bytes: &[u8]) -> Option<u32> {
    header(bytes).map(|h| h.timeline)
}

/// Checks everything that can be checked of a whole segment: pages, cluster, timelines and every record in it.
///
/// # Errors
/// The first damage found, with its place.
pub fn check(bytes: &[u8], segment: Segment, size: SegmentSize, system: u64) -> Result<(), Damage> {
    check_pages(bytes, segment, size, system)?;
    records::walk(bytes, segment, size).map(|_| ())
}

/// Checks size, cluster and page headers only: what a segment must have to be taken into the archive at all.
///
/// # Errors
/// The first damage found, with its place.
pub fn check_pages(bytes: &[u8], segment: Segment, size: SegmentSize, system: u64) -> Result<(), Damage> {
    let (found, expected) = (bytes.len() as u64, size.bytes());
    if found != expected {
        return Err(Damage::Size { found, expected });
    }
    Pages::new(segment, size, system).take(bytes)
}

/// The same check of a segment that comes in pieces of whole pages; the caller has seen to its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    segment: Segment,
    size: SegmentSize,
    system: u64,
    magic: u16,
    timeline: u32,
    number: u64,
    ended: bool,
}

impl Pages {
    pub(super) fn new(segment: Segment, size: SegmentSize, system: u64) -> Pages {
        Pages { segment, size, system, magic: 0, timeline: 0, number: 0, ended: false }
    }

    /// Checks the next pages.
    ///
    /// # Errors
    /// The first damage found, with its place.
    pub(super) fn take(&mut self, pages: &[u8]) -> Result<(), Damage> {
        if self.number == 0 {
            check_first_page(pages, self.segment, self.size, self.system)?;
            self.magic = header(pages).map_or(0, |h| h.magic);
        }
        let start = self.segment.start(self.size).0;
        for page in pages.chunks(PAGE) {
            let (at, first) = (start + self.number * PAGE as u64, self.number == 0);
            self.number += 1;
            let wrong = |what: String| Err(Damage::Page { at: Lsn(at), what });
            // After a switch Postgres leaves the rest of the segment zero, headers included; nothing may follow.
            if !first && page.iter().all(|b| *b == 0) {
                self.ended = true;
                continue;
            }
            if self.ended {
                return wrong("it follows a page of zeros".to_owned());
            }
            let Some(h) = header(page) else { return wrong("it is cut off".to_owned()) };
            if h.magic != self.magic {
                let what =
                    format!("its magic number is {:04X}, the segment's is {:04X}", h.magic, self.magic);
                return wrong(what);
            }
            if h.flags & !ALL_FLAGS != 0 || (h.flags & LONG != 0) != first {
                return wrong(format!("its flags {:04X} cannot be", h.flags));
            }
            if h.address != at {
                return wrong(format!("it says that it belongs at {}", Lsn(h.address)));
            }
            // The first segment of a timeline begins with a copy of its parent's pages.
            if h.timeline < self.timeline || h.timeline > self.segment.timeline.0 || h.timeline == 0 {
                return wrong(format!("its timeline {} cannot be", h.timeline));
            }
            self.timeline = h.timeline;
        }
        Ok(())
    }
}

/// Checks only the first page and the cluster: all that holds for `.partial`, whose end may be anything.
///
/// # Errors
/// The first damage found, with its place.
pub fn check_first_page(
    bytes: &[u8],
    segment: Segment,
    size: SegmentSize,
    system: u64,
) -> Result<(), Damage> {
    let start = segment.start(size);
    let wrong = |what: String| Damage::Page { at: start, what };
    let long = long_header(bytes).ok_or_else(|| wrong("it has no long header of WAL".to_owned()))?;
    let first = header(bytes).ok_or_else(|| wrong("it is cut off".to_owned()))?;
    if first.address != start.0 {
        return Err(wrong(format!("it says that it belongs at {}", Lsn(first.address))));
    }
    if long.system_identifier != system {
        return Err(Damage::System { found: long.system_identifier, expected: system });
    }
    if u64::from(long.segment_size) != size.bytes() || long.page_size as usize != PAGE {
        let what = format!(
            "it says segments of {} and pages of {}, this cluster has {} and {PAGE}",
            long.segment_size,
            long.page_size,
            size.bytes()
        );
        return Err(wrong(what));
    }
    Ok(())
}
