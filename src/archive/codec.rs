//! Packs WAL files into objects and back.
//!
//! One zstd frame, with checksum and content size: readers in the field decode only the first frame, and a frame
//! without checksum lets a flipped bit through (both measured). Reading is bounded: an object must not be able to make
//! keeper grow without limit.

use std::fmt;
use std::io::Read;
use zstd::stream::raw::CParameter;
use zstd::zstd_safe;

/// Compression level: 3 is what WAL-G uses for zstd. With the three settings below a busy segment costs about half the time
/// of the level's own ones, because the table that is searched stays in a core's cache. Bulk loads and updates come out three
/// hundredths larger, pgbench's WAL five; what the engines store is larger still than the level's own (measured).
const LEVEL: i32 = 3;
const STRATEGY: CParameter = CParameter::Strategy(zstd_safe::Strategy::ZSTD_fast);
const MATCH: CParameter = CParameter::MinMatch(7);
const TABLE: CParameter = CParameter::HashLog(14);
/// Windows above 128 MiB are refused by other readers; so are they here.
const WINDOW_LOG: u32 = 27;

/// How an object is packed, told by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `.zst`: what we write.
    Zstd,
    /// No ending: as it is.
    Bare,
}

/// An object that cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a whole, sound zstd frame.
    #[error("it is not a sound zstd object: {0}")]
    Broken(String),
    /// More than may be.
    #[error("it unpacks to more than {0} bytes")]
    TooLarge(usize),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.suffix())
    }
}

impl Codec {
    /// What it adds to a name.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Codec::Zstd => ".zst",
            Codec::Bare => "",
        }
    }
}

/// Packs bytes into one zstd frame with checksum and content size.
///
/// # Errors
/// When memory for the encoder cannot be had.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    // At once, not as a stream: the encoder then searches the content where it lies, without a copy of its window.
    let make = || {
        let mut encoder = zstd::bulk::Compressor::new(LEVEL)?;
        encoder.set_parameter(STRATEGY)?;
        encoder.set_parameter(MATCH)?;
        encoder.set_parameter(TABLE)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true))?;
        encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
        let mut object = encoder.compress(bytes)?;
        object.shrink_to_fit();
        Ok(object)
    };
    make().map_err(broken)
}

fn broken(e: std::io::Error) -> CodecError {
    CodecError::Broken(e.to_string())
}

/// Unpacks an object of at most `limit` bytes of content. Several frames are read as one, as `wal-g` does.
///
/// # Errors
/// Damage, or more than `limit`.
pub fn unpack(codec: Codec, object: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut content = Vec::new();
    match codec {
        Codec::Bare => content.extend_from_slice(object.get(..=limit).unwrap_or(object)),
        Codec::Zstd => {
            if object.is_empty() {
                return Err(CodecError::Broken("it is empty".to_owned()));
            }
            let mut decoder = zstd::stream::read::Decoder::with_buffer(object).map_err(broken)?;
            decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
            // What a frame says of its size is not believed beyond the limit, and need not be true.
            let said = zstd_safe::get_frame_content_size(object).ok().flatten().unwrap_or_default();
            content.reserve(usize::try_from(said).unwrap_or(limit).min(limit).saturating_add(1));
            decoder.take(limit as u64 + 1).read_to_end(&mut content).map_err(broken)?;
        }
    }
    if content.len() > limit { Err(CodecError::TooLarge(limit)) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_unpacks_to_the_same(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let object = pack(&bytes).unwrap();
            prop_assert_eq!(unpack(Codec::Zstd, &object, bytes.len()), Ok(bytes.clone()));
            prop_assert_eq!(unpack(Codec::Bare, &bytes, bytes.len()), Ok(bytes));
        }

        #[test]
        fn no_flipped_bit_and_no_cut_gives_other_content(
            bytes in prop::collection::vec(any::<u8>(), 1..2000), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let object = pack(&bytes).unwrap();
            let at = at.index(object.len());
            let mut flipped = object.clone();
            flipped[at] ^= 1 << bit;
            // A bit that means nothing (an unused header bit) may be flipped; the content never changes.
            prop_assert!(unpack(Codec::Zstd, &flipped, 1 << 20).is_ok_and(|b| b == bytes)
                || unpack(Codec::Zstd, &flipped, 1 << 20).is_err());
            prop_assert!(unpack(Codec::Zstd, &object[..at], 1 << 20).is_err());
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_grows() {
        let object = pack(&vec![0; 64 << 20]).unwrap();
        assert!(object.len() < 64 << 10);
        assert_eq!(unpack(Codec::Zstd, &object, 16 << 20), Err(CodecError::TooLarge(16 << 20)));
        assert_eq!(unpack(Codec::Bare, &[0; 9], 8), Err(CodecError::TooLarge(8)));
    }

    #[test]
    fn the_frame_is_one_with_checksum_and_content_size() {
        let object = pack(&[7; 1000]).unwrap();
        assert_eq!(object[..4], [0x28, 0xB5, 0x2F, 0xFD]);
        let descriptor = object[4];
        assert_eq!(descriptor & 0b100, 0b100, "checksum flag");
        assert!(descriptor >> 6 != 0 || descriptor & 0b10_0000 != 0, "content size present");
    }
}
