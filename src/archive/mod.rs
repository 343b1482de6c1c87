//! The WAL archive: what its objects are called, how they are packed, what makes a segment worth believing, and how
//! files get in and out of the store.
//!
//! WAL is ours and not the engine's because the engine cannot create an object atomically, does not check what it
//! fetches and ends with exit codes that cannot be trusted, while Postgres silently ends recovery on a file that is
//! "not there" or damaged. So: create-only objects, absence only when proved, every byte checked before Postgres sees
//! it. Names and compression are WAL-G's, so that stock `wal-g` restores any epoch without us.

use crate::postgres::lsn::SegmentSize;

/// How far an upload may run ahead of the oldest file that is not archived yet, that one included. Postgres is told in
/// order, so what lies behind a gap was never acknowledged; and because no gap is ever wider than this, a restore can
/// tell uploads that a power cut caught in flight from a lost object (`docs/adr/0005`).
pub const AHEAD: usize = 4;

/// How many segments may be in memory in one direction: 64 MiB worth, at least one, at most four.
#[must_use]
pub fn window(size: SegmentSize) -> usize {
    usize::try_from((64 << 20) / size.bytes()).unwrap_or(1).clamp(1, AHEAD)
}

pub mod client;
pub mod codec;
pub mod compare;
mod crc32c;
pub mod fetch;
pub mod names;
pub mod packing;
pub mod patience;
pub mod push;
pub mod records;
pub mod rollback;
pub mod segment;
#[cfg(test)]
pub(crate) mod testkit;
#[cfg(test)]
mod tests;

pub use records::last_record_end;
