//! Walks the records of a segment as Postgres would: over page boundaries, to a switch or to the end.
//!
//! Two questions need it: is every record whole (a wrong checksum makes Postgres end recovery without an error), and
//! how far must recovery come when this is the last segment there is. A record that began in the segment before, or
//! goes on in the next, cannot be checked from here; its bytes are covered by the checksum of the object's frame.

use super::crc32c::Crc32c;
use super::segment::{
    Damage, FIRST_IS_CONTINUATION, FIRST_OVERWRITES_CONTINUATION, Header, PAGE, header, u32_at,
};
use crate::postgres::lsn::{Lsn, Segment, SegmentSize};

const RECORD_HEADER: usize = 24;
const CRC_AT: usize = 20;
const XLOG_RESOURCE_MANAGER: u8 = 0;
const SWITCH: u8 = 0x40;

/// What a walk over a segment's records found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many whole records lie in it (also such as began before it).
    pub records: usize,
    /// Where the last whole record ends; a switch ends at the segment's end, as Postgres counts it. `None`: no record
    /// ends in it.
    pub end: Option<Lsn>,
}

/// Up to where recovery must come when this segment is the last there is: the end of its last whole record, as
/// `pg_last_wal_replay_lsn()` would say. 0/0 when no record ends in it (then it proves nothing).
#[must_use]
pub fn last_record_end(bytes: &[u8], segment: Segment, size: SegmentSize) -> Lsn {
    let (walk, _) = steps(bytes, segment, size);
    walk.end.unwrap_or_default()
}

/// Walks all records.
///
/// # Errors
/// The first record that is broken, or bytes after the last one that are not zero.
pub fn walk(bytes: &[u8], segment: Segment, size: SegmentSize) -> Result<Walk, Damage> {
    match steps(bytes, segment, size) {
        (walk, None) => Ok(walk),
        (_, Some(damage)) => Err(damage),
    }
}

/// Bytes of a record taken over page boundaries.
enum Taken {
    /// All of them; the cursor stands behind.
    Whole,
    /// The segment ended first.
    Cut,
    /// The page at the cursor abandons the record (the server crashed while writing it); a new one begins there.
    Abandoned,
    /// A page on the way does not continue the record.
    Broken(&'static str),
}

struct Cursor<'a> {
    bytes: &'a [u8],
    /// Where the segment begins.
    start: u64,
    at: usize,
}

impl Cursor<'_> {
    /// The header at the cursor; none when the page is left from an earlier use of the file.
    fn page(&self) -> Option<Header> {
        header(self.bytes.get(self.at..)?).filter(|h| h.address == self.start + self.at as u64)
    }

    fn page_is_zero(&self) -> bool {
        self.bytes.get(self.at..self.at + PAGE).unwrap_or_default().iter().all(|b| *b == 0)
    }

    /// Reads `length` bytes of a record of which `length` are still to come, handing out the pieces.
    fn take(&mut self, length: usize, piece: &mut dyn FnMut(&[u8])) -> Taken {
        let mut left = length;
        while left > 0 {
            if self.at >= self.bytes.len() {
                return Taken::Cut;
            }
            if self.at.is_multiple_of(PAGE) {
                let Some(page) = self.page() else { return Taken::Broken("it ends in the middle") };
                if page.flags & FIRST_OVERWRITES_CONTINUATION != 0 {
                    return Taken::Abandoned;
                }
                if page.flags & FIRST_IS_CONTINUATION == 0 || page.remaining as usize != left {
                    return Taken::Broken("the next page does not continue it");
                }
                self.at += page.length;
            }
            let here = left.min(PAGE - self.at % PAGE);
            piece(self.bytes.get(self.at..self.at + here).unwrap_or_default());
            self.at += here;
            left -= here;
        }
        Taken::Whole
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    fn rest_is_zero(&self) -> bool {
        self.bytes.get(self.at..).unwrap_or_default().iter().all(|b| *b == 0)
    }
}

fn steps(bytes: &[u8], segment: Segment, size: SegmentSize) -> (Walk, Option<Damage>) {
    let start = segment.start(size).0;
    let lsn = |at: usize| Lsn(start + at as u64);
    let mut cursor = Cursor { bytes, start, at: 0 };
    let mut walk = Walk { records: 0, end: None };
    let broken = |at: usize, what: &'static str| Some(Damage::Record { at: lsn(at), what });

    let Some(first) = cursor.page() else { return (walk, broken(0, "no page header")) };
    if first.flags & FIRST_IS_CONTINUATION != 0 {
        match cursor.take(first.remaining as usize, &mut |_| ()) {
            Taken::Whole => {
                cursor.align();
                walk = Walk { records: 1, end: Some(lsn(cursor.at)) };
            }
            Taken::Cut => return (walk, None),
            Taken::Abandoned => {}
            Taken::Broken(what) => return (walk, broken(0, what)),
        }
    }
    while cursor.at < bytes.len() {
        if cursor.at.is_multiple_of(PAGE) {
            if cursor.page_is_zero() {
                break;
            }
            let Some(page) = cursor.page() else { return (walk, broken(cursor.at, "no page header")) };
            if page.flags & FIRST_IS_CONTINUATION != 0 {
                return (walk, broken(cursor.at, "its page continues a record that does not exist"));
            }
            cursor.at += page.length;
        }
        let begin = cursor.at;
        let Some(length) = u32_at(bytes, begin).map(|l| l as usize) else { break };
        if length == 0 {
            break;
        }
        if length < RECORD_HEADER {
            return (walk, broken(begin, "its length cannot be"));
        }
        match record(&mut cursor, length) {
            Record::Whole => {
                cursor.align();
                walk = Walk { records: walk.records + 1, end: Some(lsn(cursor.at)) };
            }
            Record::Switch => {
                walk = Walk { records: walk.records + 1, end: Some(segment.end(size)) };
                cursor.align();
                break;
            }
            Record::Abandoned => {}
            Record::Cut => return (walk, None),
            Record::Broken(what) => return (walk, broken(begin, what)),
        }
    }
    if cursor.rest_is_zero() {
        (walk, None)
    } else {
        (walk, broken(cursor.at, "what follows the last record is not zero"))
    }
}

enum Record {
    Whole,
    Switch,
    Abandoned,
    Cut,
    Broken(&'static str),
}

fn record(cursor: &mut Cursor<'_>, length: usize) -> Record {
    let mut head = [0u8; RECORD_HEADER];
    let mut filled = 0;
    let mut crc = Crc32c::new();
    let taken = cursor.take(length, &mut |piece| {
        let (first, rest) = piece.split_at(piece.len().min(RECORD_HEADER - filled));
        if let Some(place) = head.get_mut(filled..filled + first.len()) {
            place.copy_from_slice(first);
        }
        filled += first.len();
        crc.update(rest);
    });
    match taken {
        Taken::Whole => {}
        Taken::Cut => return Record::Cut,
        Taken::Abandoned => return Record::Abandoned,
        Taken::Broken(what) => return Record::Broken(what),
    }
    crc.update(head.get(..CRC_AT).unwrap_or_default());
    if u32_at(&head, CRC_AT) != Some(crc.finish()) {
        return Record::Broken("its checksum is wrong");
    }
    let [.., info, manager, _, _, _, _, _, _] = head;
    if manager == XLOG_RESOURCE_MANAGER && info & 0xF0 == SWITCH { Record::Switch } else { Record::Whole }
}
