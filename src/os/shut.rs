//! Directories that the image leaves open, because it does not know as whom it will be run.
//!
//! Once that is known, nobody else is to put anything there before us. What holds things of others is no directory of a new
//! container but perhaps the system's `/tmp`, and is left as it is. Killed in it, the next boot finds the one mode or the other.

use nix::unistd::Uid;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The mode of such a directory.
pub const OPEN: u32 = 0o1777;

/// Who shuts a directory that is his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Root alone: for any other user it stays open.
    Root,
    /// Whoever we are.
    Owner,
}

/// Gives a directory of ours that is open, and holds nothing but `own`, the mode `to`. Any other is left as it is.
///
/// # Errors
/// It cannot be looked at, or its mode cannot be set.
pub fn shut(path: &Path, to: u32, by: By, own: &[&str]) -> io::Result<()> {
    let there = fs::metadata(path)?;
    if !is_to_shut(Uid::effective(), by, there.uid(), there.mode()) {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !own.iter().any(|own| name == *own) {
            return Ok(());
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(to))
}

fn is_to_shut(us: Uid, by: By, owner: u32, mode: u32) -> bool {
    let may = match by {
        By::Root => us.is_root(),
        By::Owner => true,
    };
    may && owner == us.as_raw() && mode & 0o7777 == OPEN
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUT: u32 = 0o711;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn an_open_directory_of_ours_is_shut_when_it_holds_nothing_but_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let shut = |own: &[&str]| {
            set(dir.path(), OPEN);
            shut(dir.path(), SHUT, By::Owner, own).unwrap();
            mode(dir.path())
        };
        assert_eq!(shut(&[]), SHUT);
        fs::create_dir(dir.path().join("supafly")).unwrap();
        assert_eq!(shut(&["supafly", "lost+found"]), SHUT);
        assert_eq!(shut(&[]), OPEN, "it is ours only where that is said");
        fs::write(dir.path().join("somebody's"), "").unwrap();
        assert_eq!(shut(&["supafly", "lost+found"]), OPEN);
    }

    #[test]
    fn a_mode_that_an_operator_has_set_stays() {
        let dir = tempfile::tempdir().unwrap();
        for arranged in [0o2770, 0o777, 0o755, 0o700] {
            set(dir.path(), arranged);
            shut(dir.path(), SHUT, By::Owner, &[]).unwrap();
            assert_eq!(mode(dir.path()), arranged);
        }
    }

    #[test]
    fn who_is_not_root_shuts_his_own_alone_and_nothing_that_only_root_may() {
        let (root, user) = (Uid::from_raw(0), Uid::from_raw(1000));
        assert!(is_to_shut(root, By::Root, 0, 0o40_000 | OPEN));
        assert!(is_to_shut(root, By::Owner, 0, OPEN));
        assert!(is_to_shut(user, By::Owner, 1000, OPEN));
        assert!(!is_to_shut(user, By::Root, 1000, OPEN));
        for by in [By::Root, By::Owner] {
            assert!(!is_to_shut(user, by, 0, OPEN), "{by:?}: it is root's");
            assert!(!is_to_shut(root, by, 1000, OPEN), "{by:?}: it is a user's");
        }
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), OPEN);
        shut(dir.path(), SHUT, By::Root, &[]).unwrap();
        assert_eq!(mode(dir.path()), if Uid::effective().is_root() { SHUT } else { OPEN });
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(shut(&dir.path().join("none"), SHUT, By::Owner, &[]).is_err());
    }
}
