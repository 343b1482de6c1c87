//! What a key may look like. One rule for every backend, so that a key that works in a bucket works in a directory too
//! and none can ever name something outside the store.

use super::{Kind, StoreError};

/// Refuses a key that no object of ours can have: empty, absolute, hidden or dotted parts, control characters.
pub(super) fn check(operation: &'static str, key: &str) -> Result<(), StoreError> {
    if key.split('/').all(part_fits) {
        Ok(())
    } else {
        Err(StoreError::new(
            Kind::Broken,
            operation,
            key,
            "not a key: a part is empty, begins with '.' or is not plain",
        ))
    }
}

/// The same for a prefix of a listing, which is empty or ends in '/'.
pub(super) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let fits = prefix.is_empty() || prefix.strip_suffix('/').is_some_and(|dir| dir.split('/').all(part_fits));
    if fits {
        Ok(())
    } else {
        Err(StoreError::new(Kind::Broken, "list", prefix, "not a prefix: it must be empty or end in '/'"))
    }
}

fn part_fits(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && !part.contains(['\\', '\0'])
        && !part.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_inside_the_store() {
        for bad in
            ["", "/", "/etc/passwd", "a//b", "a/../b", "..", "a/.", ".tmp/x", "a/.b", "a/", "a\0b", "a\nb"]
        {
            assert!(check("get", bad).is_err(), "{bad:?}");
        }
        for good in ["owner/0000000001.json", "e0000000001/wal_005/000000010000000000000001.zst", "a"] {
            assert!(check("get", good).is_ok(), "{good:?}");
        }
        for bad in ["a", "/", "../", "a//"] {
            assert!(check_prefix(bad).is_err(), "{bad:?}");
        }
        assert!(check_prefix("").is_ok() && check_prefix("owner/").is_ok());
    }
}
