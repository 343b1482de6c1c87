//! What a start needs free on a file system (`room`), and sizes as people write them: `512KiB`, `32MiB`, `2GiB`.

use super::parse::absolute;
use super::policy::codes;
use super::reader::{File, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What must be free for a start: a service that failed without it waits for it instead of using up its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// On the file system that holds this, or the nearest directory above it that exists.
    pub path: PathBuf,
    /// So many bytes.
    pub bytes: u64,
    /// A file that says how many when it is more.
    pub more: Option<PathBuf>,
    /// Exit codes by which the service says itself that it found no room.
    pub codes: BTreeSet<u8>,
}

const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];

/// Parses `512KiB`, `32MiB` or `2GiB`; `None` for anything else, zero included.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (number, shift) =
        UNITS.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|n| (n, *shift)))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let bytes = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0).then_some(bytes)
}

/// How many bytes, for people: in MB, of which small numbers have one digit more.
#[must_use]
pub fn show(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    if tenths.is_multiple_of(10) || tenths >= 100 {
        format!("{} MB", bytes >> 20)
    } else {
        format!("{}.{} MB", tenths / 10, tenths % 10)
    }
}

pub(super) fn room(f: &File<'_>, v: Value<'_>) -> Option<Room> {
    let table = f.table(v, "{ path = \"${data}\", bytes = \"32MiB\" }")?;
    let path = table.get("path").and_then(|v| absolute(f, v));
    let bytes = table.get("bytes").and_then(|v| {
        let parsed = v.get_ref().as_str().and_then(parse);
        if parsed.is_none() {
            f.problem(v.span(), "not a size; write 512KiB, 32MiB or 2GiB");
        }
        parsed
    });
    let more = table.get("more").and_then(|v| absolute(f, v));
    let codes = table.get("codes").map(|v| codes(f, v)).unwrap_or_default();
    for key in ["path", "bytes"] {
        if table.get(key).is_none() {
            f.problem(v.span(), format!("`{key}` is missing"));
        }
    }
    table.finish();
    Some(Room { path: path?, bytes: bytes?, more, codes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("512KiB", 512 << 10), ("32MiB", 32 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for wrong in ["", "32", "MiB", "0MiB", "-1MiB", "1.5GiB", "32 MiB", "32MB", "99999999999999GiB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_short_and_never_rounded_up() {
        let mb = 1 << 20;
        for (bytes, text) in [
            (0, "0 MB"),
            (mb * 3 / 10, "0.2 MB"),
            (mb / 3, "0.3 MB"),
            (mb - 1, "0.9 MB"),
            (9 * mb + mb / 2, "9.5 MB"),
            (32 * mb, "32 MB"),
            (33 * mb - 1, "32 MB"),
            (5120 * mb, "5120 MB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}
