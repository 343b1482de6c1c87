//! Takes a WAL file from an open descriptor: read, checked, printed and packed in one pass over small pieces.
//!
//! Each piece is checked and printed while it is in the processor's cache; the encoder then takes the whole, out of a buffer
//! that is used again for the next file ([`Buffers`]), because getting 16 MiB of new memory costs as much as reading them.
//! The print is what a later request for the same name is compared with. Reading leaves nothing behind, so neither does a
//! kill.

use super::codec;
use super::push::{self, PushError};
use super::segment::Pages;
use super::{AHEAD, names, push::damaged};
use crate::postgres::lsn::{SegmentSize, WalFile};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What is read at a time: whole pages, and small enough to stay in the cache of a core.
const PIECE: usize = 256 << 10;
/// A file that changed less than this long before it was read might change again under the same time stamp: kernels give
/// stamps by a clock that ticks every 1 to 10 ms.
const YOUNG: Duration = Duration::from_millis(100);
/// The same where stamps seem to have whole seconds only, as some file systems keep them.
const COARSE: Duration = Duration::from_secs(3);

/// Length and keyed hash of a content. Only ever compared with a content of the same name, in the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    length: u64,
    hash: u64,
}

/// The keys of [`Print`], which are a process's own.
#[derive(Clone, Copy, Debug)]
pub struct Keys([u64; LANES]);

const LANES: usize = 4;

impl Default for Keys {
    fn default() -> Keys {
        let random = RandomState::new();
        Keys([0u64, 1, 2, 3].map(|n| random.hash_one(n) | 1))
    }
}

/// A print in the making: four lanes, each a word at a time, by multiplication into 128 bits. It tells apart what happens
/// to files; it does not stand against somebody who knows the keys, and nobody is told them.
#[derive(Clone, Copy, Debug)]
struct Printing {
    keys: Keys,
    lanes: [u64; LANES],
    length: u64,
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Printing {
    fn new(keys: Keys) -> Printing {
        Printing { keys, lanes: keys.0.map(|k| k.rotate_left(32)), length: 0 }
    }

    /// Every piece but the last must be a multiple of 32 bytes.
    fn take(&mut self, piece: &[u8]) {
        let (blocks, rest) = piece.as_chunks::<{ 8 * LANES }>();
        for block in blocks {
            self.block(block);
        }
        if !rest.is_empty() {
            let mut block = [0; 8 * LANES];
            for (to, from) in block.iter_mut().zip(rest) {
                *to = *from;
            }
            self.block(&block);
        }
        self.length += piece.len() as u64;
    }

    fn block(&mut self, block: &[u8; 8 * LANES]) {
        let (words, _) = block.as_chunks::<8>();
        for ((lane, word), key) in self.lanes.iter_mut().zip(words).zip(self.keys.0) {
            // The sum keeps what a product with zero would lose.
            *lane = fold(*lane ^ u64::from_le_bytes(*word), key).wrapping_add(lane.rotate_left(23));
        }
    }

    fn finish(self) -> Print {
        let hash = self
            .lanes
            .iter()
            .zip(self.keys.0)
            .fold(self.length, |h, (l, k)| fold(h ^ l, k) ^ l.rotate_left(7));
        Print { length: self.length, hash }
    }
}

/// Which file it is and when it last changed, as the file system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(open: &File) -> io::Result<Stamp> {
        let meta = open.metadata()?;
        Ok(Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Pure: whether any later write would show in the stamp of a file that had this one at `now`.
    fn tells(self, now: SystemTime) -> bool {
        let last = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(last.0), u32::try_from(last.1)) else {
            return false;
        };
        let last = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let young = if nanoseconds == 0 { COARSE } else { YOUNG };
        now.duration_since(last).is_ok_and(|age| age > young)
    }
}

/// What was read: the content's print, and the stamp by which the same file is known again without reading it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    print: Print,
    /// `None`: the file was too young, or changed while it was read.
    stamp: Option<Stamp>,
}

impl Known {
    /// Whether an open file has the content that was read: the very file, not changed since, or else by its content.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is(&self, open: &File, limit: usize, keys: Keys) -> io::Result<bool> {
        if self.stamp.is_some() && self.stamp == Some(Stamp::of(open)?) {
            return Ok(true);
        }
        let (mut printing, mut left) = (Printing::new(keys), length(open, limit)?);
        let mut buffer = vec![0; PIECE.min(left)];
        while left > 0 {
            let Some(piece) = buffer.get_mut(..PIECE.min(left)) else { break };
            open.read_exact_at(piece, printing.length)?;
            printing.take(piece);
            left -= piece.len();
        }
        Ok(printing.finish() == self.print)
    }
}

/// Why a file was not packed.
#[derive(Debug, thiserror::Error)]
pub enum Unpacked {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not fit for the archive.
    #[error(transparent)]
    Unfit(#[from] PushError),
}

/// Reads, checks and packs a file.
///
/// # Errors
/// It cannot be read, or is not what its name says.
pub fn pack(
    open: &File,
    file: &WalFile,
    size: SegmentSize,
    system: u64,
    keys: Keys,
    buffer: &mut Vec<u8>,
) -> Result<(Known, Vec<u8>), Unpacked> {
    let (now, before) = (SystemTime::now(), Stamp::of(open)?);
    let length = length(open, names::largest(file, size))?;
    let wrong = |e: codec::CodecError| PushError::Codec { file: file.name(), what: e.to_string() };
    let mut printing = Printing::new(keys);
    let segment = names::segment(file, size).map_err(PushError::from)?;
    let pages = match (file, segment) {
        (WalFile::Segment(_), Some(segment)) if length as u64 == size.bytes() => Some(segment),
        (WalFile::Segment(_) | WalFile::Partial(_) | WalFile::History(_) | WalFile::Backup(_), _) => None,
    };
    let mut pages = pages.map(|segment| Pages::new(segment, size, system));
    buffer.resize(length, 0);
    let mut at = 0;
    for piece in buffer.chunks_mut(PIECE) {
        open.read_exact_at(piece, at)?;
        at += piece.len() as u64;
        if let Some(pages) = &mut pages {
            pages.take(piece).map_err(|damage| damaged(file, damage))?;
        }
        printing.take(piece);
    }
    if pages.is_none() {
        push::inspect(file, buffer, size, system)?;
    }
    let object = codec::pack(buffer).map_err(wrong)?;
    let same = Stamp::of(open)? == before && before.tells(now);
    Ok((Known { print: printing.finish(), stamp: same.then_some(before) }, object))
}

/// Memory that files are read into, kept from one to the next while there is something to do.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<(Vec<Vec<u8>>, Option<Instant>)>);

impl Buffers {
    /// Works with one of them.
    pub fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.kept().0.pop().unwrap_or_default();
        let done = work(&mut buffer);
        let mut kept = self.kept();
        if kept.0.len() < AHEAD {
            kept.0.push(buffer);
        }
        kept.1 = Some(Instant::now());
        done
    }

    /// Lets them go when none was used for so long; whether there was something to let go.
    pub fn forget_idle(&self, after: Duration) -> bool {
        let mut kept = self.kept();
        let idle = kept.1.is_some_and(|used| used.elapsed() >= after);
        if idle {
            *kept = (Vec::new(), None);
        }
        idle
    }

    fn kept(&self) -> MutexGuard<'_, (Vec<Vec<u8>>, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a file whole that was packed before.
///
/// # Errors
/// It cannot be read, has more than `limit` bytes, or is not any more what was packed.
pub fn whole(open: &File, limit: usize, known: Known, keys: Keys) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length(open, limit)?];
    open.read_exact_at(&mut bytes, 0)?;
    let mut printing = Printing::new(keys);
    printing.take(&bytes);
    if printing.finish() == known.print {
        return Ok(bytes);
    }
    Err(io::Error::other("it has changed since it was read"))
}

fn length(open: &File, limit: usize) -> io::Result<usize> {
    let length = usize::try_from(open.metadata()?.len()).unwrap_or(usize::MAX);
    if length <= limit {
        return Ok(length);
    }
    Err(io::Error::other(format!("it has {length} bytes, more than the {limit} that it may have")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::codec::{Codec, unpack};
    use crate::archive::testkit::real;
    use proptest::prelude::*;
    use std::io::Write;

    fn print(keys: Keys, bytes: &[u8]) -> Print {
        let mut printing = Printing::new(keys);
        printing.take(bytes);
        printing.finish()
    }

    fn old(file: &File) {
        // What was written a second ago; the change time stays, so only the modification is old.
        file.set_modified(SystemTime::now() - Duration::from_secs(5)).unwrap();
    }

    proptest! {
        #[test]
        fn no_flipped_bit_no_cut_and_no_swap_leaves_a_print_as_it_was(
            bytes in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0u8..8,
            zeros in 0usize..3,
        ) {
            let keys = Keys::default();
            // Long runs of zeros are what the end of a segment is.
            let bytes = [vec![0; zeros * 32], bytes, vec![0; zeros * 32]].concat();
            let whole = print(keys, &bytes);
            prop_assert_eq!(whole, print(keys, &bytes));
            let at = at.index(bytes.len());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            prop_assert_ne!(whole, print(keys, &flipped));
            prop_assert_ne!(whole, print(keys, &bytes[..at]));
            if bytes.len() >= 64 && bytes[..32] != bytes[32..64] {
                let swapped = [&bytes[32..64], &bytes[..32], &bytes[64..]].concat();
                prop_assert_ne!(whole, print(keys, &swapped));
            }
        }

        #[test]
        fn a_stamp_tells_only_when_it_is_older_than_the_clock_that_gives_stamps_is_coarse(age in 0u64..1_000) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let since = (now - Duration::from_millis(age)).duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let time = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
            let stamp = |modified, changed| Stamp { device: 1, inode: 1, length: 1, modified, changed };
            prop_assert_eq!(stamp(time, (0, 0)).tells(now), age > 100);
            prop_assert_eq!(stamp((0, 0), time).tells(now), age > 100);
            // A stamp of the future, after a clock was put back, tells nothing.
            prop_assert!(!stamp((time.0 + 2_000, 0), time).tells(now));
        }
    }

    #[test]
    fn where_stamps_have_whole_seconds_only_a_file_is_young_for_longer() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let stamp = |ago: i64, nanoseconds| {
            let time = (1_800_000_000 - ago, nanoseconds);
            Stamp { device: 1, inode: 1, length: 1, modified: time, changed: time }
        };
        // FAT counts in two seconds, small inodes of ext4 in one.
        assert!(!stamp(1, 0).tells(now) && !stamp(2, 0).tells(now));
        assert!(stamp(4, 0).tells(now) && stamp(1, 1).tells(now));
    }

    #[test]
    fn a_segment_in_pieces_is_packed_and_judged_as_a_whole_one() {
        let real = real();
        let (keys, segment) = (Keys::default(), &real.segments[0]);
        let name = WalFile::Segment(real.name(0));
        let taken = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            pack(&file, &name, real.size, real.system, keys, &mut Vec::new())
                .map(|(known, object)| (known.print, object))
        };
        let (known, object) = taken(&segment.bytes).unwrap();
        assert_eq!(known, print(keys, &segment.bytes));
        assert_eq!(unpack(Codec::Zstd, &object, segment.bytes.len()), Ok(segment.bytes.clone()));
        for at in [0, 8, 8192 + 8, PIECE + 8, segment.bytes.len() - 8192 + 1] {
            let mut wrong = segment.bytes.clone();
            wrong[at] ^= 0x40;
            let whole = push::inspect(&name, &wrong, real.size, real.system).map_err(|e| e.to_string());
            assert_eq!(taken(&wrong).map(|_| ()).map_err(|e| e.to_string()), whole, "{at}");
        }
        assert!(taken(&segment.bytes[..PIECE]).is_err() && taken(&[]).is_err());
    }

    #[test]
    fn a_file_is_known_again_by_its_stamp_or_by_its_content_and_never_after_a_change() {
        let real = real();
        let (keys, limit) = (Keys::default(), usize::try_from(real.size.bytes()).unwrap());
        let name = WalFile::Segment(real.name(0));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&real.segments[0].bytes).unwrap();
        let (young, _) = pack(&file, &name, real.size, real.system, keys, &mut vec![7; 100]).unwrap();
        assert_eq!(young.stamp, None, "it was written a moment ago");
        assert!(young.is(&file, limit, keys).unwrap());
        let mut known = young;
        while known.stamp.is_none() {
            known = pack(&file, &name, real.size, real.system, keys, &mut vec![7; 100]).unwrap().0;
        }
        assert!(known.is(&file, limit, keys).unwrap());
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&real.segments[0].bytes).unwrap();
        assert!(known.is(&other, limit, keys).unwrap(), "another file with the same content");
        file.write_all_at(b"x", 100_000).unwrap();
        old(&file);
        assert!(
            !known.is(&file, limit, keys).unwrap(),
            "one byte is another, whatever the modification time says"
        );
        other.set_len(100).unwrap();
        assert!(!known.is(&other, limit, keys).unwrap());
    }
}
