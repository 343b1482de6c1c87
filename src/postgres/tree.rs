//! Directory trees as wholes: made durable, handed over, thrown away. A data directory is staged, and only a durable one
//! gets its name.

use super::account::Account;
use crate::exit::{Exit, Failure};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a failed step on the volume means, in words that say what to do.
pub(crate) fn failed(path: &Path, verb: &str, e: &io::Error) -> Failure {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let hint = if full {
        "the disk is full: make room or grow the volume"
    } else {
        "check the volume (SUPAFLY_DATA)"
    };
    Failure::gave_up(format!("{}: cannot {verb}: {e}; {hint}", path.display()))
}

fn walk(path: &Path, act: &mut impl FnMut(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), act)?;
        }
    }
    act(path, &meta)
}

/// Makes every file and directory of it durable.
pub(crate) fn sync(path: &Path) -> Result<(), Failure> {
    crate::walg::sync_tree(path).map_err(|e| failed(path, "make it durable", &e))
}

/// Gives every file and directory to a user; links themselves, not what they point to.
pub(crate) fn hand_over(path: &Path, to: &Account) -> Result<(), Failure> {
    let (uid, gid) = (Some(to.uid.as_raw()), Some(to.gid.as_raw()));
    walk(path, &mut |p, meta| {
        std::os::unix::fs::lchown(p, uid, gid)?;
        // The engine makes its files private; keeper reads the tree by its group, as `initdb --allow-group-access` has it.
        match meta.is_symlink() {
            true => Ok(()),
            false => {
                fs::set_permissions(p, fs::Permissions::from_mode(if meta.is_dir() { 0o750 } else { 0o640 }))
            }
        }
    })
    .map_err(|e| failed(path, "hand it over", &e))
}

/// Removes it when it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    removed.map_err(|e| failed(path, "remove it", &e))
}

/// Makes an empty directory that is one user's.
pub(crate) fn make(path: &Path, mode: u32, owner: &Account) -> Result<(), Failure> {
    let made = || -> io::Result<()> {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        std::os::unix::fs::chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
    };
    made().map_err(|e| failed(path, "make this directory", &e))
}

/// Gives a durable tree its final name, durably. Only an empty directory may be in the way.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<(), Failure> {
    let done = fs::rename(from, to).and_then(|()| crate::owner::durable::sync_parent(to));
    done.map_err(|e| failed(to, &format!("rename {} to it", from.display()), &e))
}

/// How large the file system is that holds `path`.
pub(crate) fn size(path: &Path) -> Result<u64, Failure> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|e| failed(path, "ask for its size", &e.into()))?;
    Ok(stat.blocks().saturating_mul(stat.fragment_size()))
}

/// How many bytes are free below `path`, for users other than root.
pub(crate) fn free(path: &Path) -> Result<u64, Failure> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|e| failed(path, "ask for free room", &e.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// How many bytes are free below `path`; refuses (73) when that is less than `needed`.
pub(crate) fn room(path: &Path, needed: u64, what: &str) -> Result<u64, Failure> {
    let free = free(path)?;
    if free >= needed {
        return Ok(free);
    }
    Err(Failure::new(
        Exit::NoRoom,
        format!(
            "{}: the disk is full: {what} needs {} MB, {} MB are free; make room or grow the volume",
            path.display(),
            needed >> 20,
            free >> 20
        ),
    ))
}
