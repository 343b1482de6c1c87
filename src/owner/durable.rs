//! Files that matter: written beside, synced, renamed, and the directory synced. A kill at any moment leaves the old
//! file or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces `path` by `bytes` with this mode.
///
/// # Errors
/// What the system says; `path` is then as it was.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_after(path, bytes, mode, File::sync_all)?;
    sync_parent(path)
}

/// The same for what is always written before it is read: a reader, and whoever comes after a kill of ours, finds the old
/// file or the new one. What a power cut leaves of it nobody reads, so nobody waits for a disk.
///
/// # Errors
/// What the system says; `path` is then as it was.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_after(path, bytes, mode, |_| Ok(()))
}

fn replace_after(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    before_the_name: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    before_the_name(&file)?;
    fs::rename(&temporary, path)
}

/// Makes the names in the parent directory durable.
///
/// # Errors
/// What the system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_no_temporary_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        fs::write(dir.path().join("identity.json.new"), "half of someth").unwrap();
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two, of a volume", 0o600).unwrap();
        replace(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}
