//! What a fetch left on disk: how much it is, and making it durable.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// How many wait for the disk at a time: a file system writes its journal once for all that wait for it, and a cluster has a
/// thousand files that would else each wait for a write of their own.
const AT_A_TIME: usize = 16;

/// Makes every file and every directory of a tree durable. Nothing of it counts before all of it is, so they may become so in
/// any order.
///
/// # Errors
/// The first that could not be looked at or made durable; the others may or may not be.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    collect(dir.to_path_buf(), &mut all)?;
    sync_all(&all)
}

fn sync_all(all: &[PathBuf]) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some(path) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let synced = File::open(path).and_then(|file| file.sync_all());
            synced.map_err(|e| {
                // The others need not go on.
                next.store(all.len(), Ordering::Relaxed);
                io::Error::new(e.kind(), format!("{}: {e}", path.display()))
            })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // Where a limit lets us have fewer threads, it takes longer.
        let helper = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..AT_A_TIME.min(all.len())).filter_map(helper).collect();
        let broken = || io::Error::other("a thread that made files durable broke off");
        // All of them are waited for, whatever one says.
        let ended = helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|_| Err(broken())));
        let ended: Vec<_> = std::iter::once(work()).chain(ended).collect();
        ended.into_iter().collect()
    })
}

/// The directory, and what is below it; neither links nor what is no file.
fn collect(dir: PathBuf, all: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(entry.path(), all)?;
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
    all.push(dir);
    Ok(())
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
    }

    #[test]
    fn all_of_a_tree_is_made_durable_and_what_fails_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("base/1")).unwrap();
        for n in 0..3 * AT_A_TIME {
            fs::write(dir.path().join(format!("base/1/{n}")), [7; 513]).unwrap();
        }
        // A link that leads nowhere is no file, and neither is a socket.
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let mut all = Vec::new();
        collect(dir.path().to_path_buf(), &mut all).unwrap();
        assert_eq!(all.len(), 3 * AT_A_TIME + 3);
        assert_eq!(all.last().map(PathBuf::as_path), Some(dir.path()), "the directory itself");
        sync(dir.path()).unwrap();
        assert_eq!(sync(&dir.path().join("not")).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Whichever of the threads meets it.
        for at in 0..all.len() {
            let mut one = all.clone();
            one[at] = dir.path().join("gone");
            let failed = sync_all(&one).unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::NotFound, "{at}");
            assert!(failed.to_string().contains("/gone: "), "{failed}");
        }
    }
}
