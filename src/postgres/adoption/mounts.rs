//! What is mounted within a cluster: it would not come along, or would keep the cluster from being moved. A bind mount has
//! the device of what it shows, so the table of mounts is read, and the devices are compared where it is not there.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first mount point at or below one of `parts`.
pub(super) fn first(parts: &[PathBuf]) -> Option<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    points(&table).into_iter().find(|point| parts.iter().any(|part| point.starts_with(part)))
}

/// The first of `parts` that is not on the device of `whole`; one that cannot be looked at is said elsewhere.
pub(super) fn on_another_device(whole: &Path, parts: &[PathBuf]) -> Option<PathBuf> {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|m| m.dev());
    let here = device(whole)?;
    parts.iter().find(|part| device(part).is_some_and(|there| there != here)).cloned()
}

/// The fifth field of each line; blanks and the like are written as `\040`.
fn points(table: &[u8]) -> Vec<PathBuf> {
    let field = |line: &[u8]| line.split(|b| *b == b' ').nth(4).map(plain);
    table.split(|b| *b == b'\n').filter_map(field).collect()
}

fn plain(escaped: &[u8]) -> PathBuf {
    let (mut path, mut rest) = (Vec::new(), escaped);
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *byte == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(meant) => {
                path.push(meant);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_whatever_is_in_their_names() {
        let table = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      36 22 8:1 /x /data/a\\040b/pg_wal rw - ext4 /dev/sda1 rw\n\
                      37 22 0:5 / /odd\\134\\9 rw - tmpfs none rw\n\n";
        let all = points(table);
        assert_eq!(all, [Path::new("/"), Path::new("/data/a b/pg_wal"), Path::new("/odd\\\\9")]);
    }
}
