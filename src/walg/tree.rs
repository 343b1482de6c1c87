//! What a fetch left on disk: how much it is, and making it durable.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// A header of a tar, and what each entry is filled up to.
const BLOCK: u64 = 512;

/// Bytes of all files of a tree.
pub(super) fn bytes(dir: &Path) -> io::Result<u64> {
    sum(dir, &|length| length)
}

/// What a tree takes in a tar, without the end mark: a header for each entry, its bytes filled up to a block.
pub(super) fn as_tar(dir: &Path) -> io::Result<u64> {
    sum(dir, &|length| length.div_ceil(BLOCK).saturating_add(1).saturating_mul(BLOCK))
}

/// Directories count as empty files.
fn sum(dir: &Path, size: &dyn Fn(u64) -> u64) -> io::Result<u64> {
    let mut total = size(0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        total += if kind.is_dir() {
            sum(&entry.path(), size)?
        } else if kind.is_file() {
            size(entry.metadata()?.len())
        } else {
            size(0)
        };
    }
    Ok(total)
}

/// Every file and every directory of a tree, the directories after what is in them.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_a_header_an_entry_and_whole_blocks() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("base")).unwrap();
        fs::write(dir.path().join("base/1"), [7; 513]).unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert_eq!(bytes(dir.path()).unwrap(), 513);
        // Itself, base, base/1 with two blocks, empty, link.
        assert_eq!(as_tar(dir.path()).unwrap(), 7 * 512);
        sync(dir.path()).unwrap();
    }
}
