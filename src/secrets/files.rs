//! Files and directories of the `secrets` role: written whole, with owner and mode set before they have their names, and
//! what the operator gave by `NAME` or `NAME_FILE`.

use crate::exit::Failure;
use crate::os::shut::{By, shut};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User, chown};
use rand::RngCore;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Who a file or directory is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Owner {
    /// The user that we are.
    pub(super) fn us() -> Owner {
        Owner { uid: Uid::effective(), gid: Gid::effective() }
    }
}

pub(super) fn user(name: &str) -> Result<Owner, Failure> {
    match User::from_name(name) {
        Ok(Some(user)) => {
            // Postgres's group lets keeper read the data directory; the group of that name wins over the primary one.
            let gid = Group::from_name(name).ok().flatten().map_or(user.gid, |g| g.gid);
            Ok(Owner { uid: user.uid, gid })
        }
        Ok(None) => Err(Failure::config(format!(
            "user `{name}` does not exist: `useradd --system --no-create-home {name}` (the image and `make dev` have it)"
        ))),
        Err(e) => Err(Failure::config(format!("user `{name}` cannot be looked up: {e}"))),
    }
}

/// `NAME`, else the contents of the file that `NAME_FILE` names, without its final newline.
pub(super) fn given(env: &BTreeMap<String, String>, name: &str) -> Result<Option<String>, Failure> {
    let file_name = format!("{name}_FILE");
    match (env.get(name).filter(|v| !v.is_empty()), env.get(&file_name).filter(|v| !v.is_empty())) {
        (Some(_), Some(_)) => {
            Err(Failure::config(format!("{name} and {file_name} are both set: give one of them")))
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|e| Failure::config(format!("{file_name}: `{path}` cannot be read: {e}")))?;
            let value = text.strip_suffix('\n').unwrap_or(&text);
            if value.is_empty() {
                return Err(Failure::config(format!("{file_name}: `{path}` is empty")));
            }
            Ok(Some(value.to_owned()))
        }
        (None, None) => Ok(None),
    }
}

/// 32 letters and digits carry about 190 bits; `length` is in characters.
pub(super) fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut bytes = vec![0u8; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 63)])).collect()
}

pub(super) fn unusable(path: &Path, verb: &str, e: &io::Error) -> Failure {
    let what_to_do = match e.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EROFS) => "the file system is read-only: mount the volume writable",
        Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT) => {
            "the disk is full: make room or grow the volume"
        }
        Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
            "run as root, or set SUPAFLY_DATA and SUPAFLY_RUN to directories of this user"
        }
        _ => "check the volume (SUPAFLY_DATA) and SUPAFLY_RUN",
    };
    Failure::gave_up(format!("{}: cannot {verb}: {e}; {what_to_do}", path.display()))
}

pub(super) fn directory(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Failure> {
    // The volume itself may be somebody else's arrangement; only what is below it is ours to set.
    let below = path.file_name().is_some_and(|n| n == "supafly" || n == "secrets" || n == "journal");
    if below {
        no_link(path)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(|e| unusable(path, "make this directory", &e))?;
        }
        Err(e) => return Err(unusable(path, "make this directory", &e)),
    }
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))
            .map_err(|e| unusable(path, "give it to its user", &e.into()))?;
    }
    if below && owner.is_none() {
        ours(path)?;
    }
    let there = path.metadata().map_err(|e| unusable(path, "look at it", &e))?.uid();
    if owner.is_some() || (below && may_set(there, Uid::effective())) {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|e| unusable(path, "set its mode", &e))?;
    } else {
        // Our lock is there before us.
        shut(path, mode, By::Owner, &["supafly", "lost+found"])
            .map_err(|e| unusable(path, "look at it or set its mode", &e))?;
    }
    sync_parent(path)
}

/// Whoever had the volume before could lead us elsewhere, and root would follow.
fn no_link(path: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
        return Err(Failure::refused(format!(
            "{}: it is a link, and root does not follow it: put what it leads to there, or remove the link",
            path.display()
        )));
    }
    Ok(())
}

/// What root acts on is root's alone: a directory that is there already may be another user's, with all that is in it.
pub(super) fn ours(path: &Path) -> Result<(), Failure> {
    let us = Uid::effective();
    let meta = fs::symlink_metadata(path).map_err(|e| unusable(path, "look at it", &e))?;
    if !us.is_root() || meta.uid() == us.as_raw() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(us.as_raw()), Some(Gid::effective().as_raw()))
        .map_err(|e| unusable(path, "give it to root", &e))
}

/// Nor does root read through one: what it leads to would end up in a file for somebody else.
pub(super) fn no_links(path: &Path) -> Result<(), Failure> {
    let all = fs::read_dir(path).map_err(|e| unusable(path, "read this directory", &e))?;
    all.filter_map(Result::ok).try_for_each(|entry| no_link(&entry.path()))
}

/// Makes all that lies in it ours, and none of it a link.
pub(super) fn all_ours(path: &Path) -> Result<(), Failure> {
    for entry in
        fs::read_dir(path).map_err(|e| unusable(path, "read this directory", &e))?.filter_map(Result::ok)
    {
        no_link(&entry.path())?;
        ours(&entry.path())?;
    }
    Ok(())
}

/// Whether a mode can be ours to set. In the image the run directory is root's, and open to whoever it is run as.
fn may_set(owner: u32, us: Uid) -> bool {
    us.is_root() || us.as_raw() == owner
}

fn sync_parent(path: &Path) -> Result<(), Failure> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| unusable(parent, "sync this directory", &e))
}

pub(super) fn write(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        let settle = || -> io::Result<()> {
            chown(path, Some(owner.uid), Some(owner.gid))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        return settle().map_err(|e| unusable(path, "set its owner and mode", &e));
    }
    let temporary = path.with_extension("new");
    let attempt = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        nix::unistd::fchown(&file, Some(owner.uid), Some(owner.gid))?;
        file.write_all(bytes)?;
        nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|e| unusable(path, "write this file", &e))?;
    sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::os::shut::OPEN;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_secret_comes_from_the_variable_or_from_its_file_but_not_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        fs::write(&path, "from the file\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(given(&env(&[("P", "x")]), "P").unwrap().as_deref(), Some("x"));
        assert_eq!(given(&env(&[("P_FILE", file)]), "P").unwrap().as_deref(), Some("from the file"));
        assert_eq!(given(&env(&[]), "P").unwrap(), None);
        let both = given(&env(&[("P", "hunter2"), ("P_FILE", file)]), "P").unwrap_err().to_string();
        assert!(both.contains("both set") && !both.contains("hunter2"), "{both}");
        let missing = given(&env(&[("P_FILE", "/nowhere/pw")]), "P").unwrap_err();
        assert_eq!(missing.exit, Exit::Config);
    }

    #[test]
    fn a_directory_of_roots_is_left_as_it_is_by_everybody_else() {
        assert!(
            may_set(0, Uid::from_raw(0)) && may_set(1000, Uid::from_raw(0)) && may_set(7, Uid::from_raw(7))
        );
        assert!(!may_set(0, Uid::from_raw(1000)));
    }

    #[test]
    fn a_new_volume_is_closed_to_others_and_a_place_that_is_used_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        let open = || fs::set_permissions(dir.path(), Permissions::from_mode(OPEN)).unwrap();
        open();
        fs::create_dir(dir.path().join("supafly")).unwrap();
        directory(dir.path(), 0o755, None).unwrap();
        assert_eq!(mode(dir.path()), 0o755);
        open();
        fs::write(dir.path().join("somebody's"), "").unwrap();
        directory(dir.path(), 0o755, None).unwrap();
        assert_eq!(mode(dir.path()), OPEN);
        // An operator's own arrangement.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o2770)).unwrap();
        directory(dir.path(), 0o755, None).unwrap();
        assert_eq!(mode(dir.path()), 0o2770);
    }

    #[test]
    fn root_follows_no_link_and_takes_what_somebody_else_left() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, elsewhere) = (dir.path().join("journal"), dir.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &journal).unwrap();
        let refused = directory(&journal, 0o755, None).unwrap_err();
        assert!(refused.exit == Exit::Refused && refused.message.contains("it is a link"), "{refused}");
        fs::remove_file(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        let file = journal.join("made");
        fs::write(&file, "7\n").unwrap();
        if Uid::effective().is_root() {
            for path in [&journal, &file] {
                std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
            }
        }
        directory(&journal, 0o755, None).unwrap();
        all_ours(&journal).unwrap();
        for path in [&journal, &file] {
            assert_eq!(path.metadata().unwrap().uid(), Uid::effective().as_raw());
        }
        std::os::unix::fs::symlink(&elsewhere, journal.join("adopt.json")).unwrap();
        assert!(all_ours(&journal).unwrap_err().message.contains("it is a link"));
        assert!(no_links(&journal).unwrap_err().message.contains("journal/adopt.json: it is a link"));
        assert!(no_links(&elsewhere).is_ok());
    }

    #[test]
    fn a_file_is_replaced_whole_and_readable_by_its_consumer_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let us = Owner::us();
        fs::write(path.with_extension("new"), "left by a kill").unwrap();
        write(&path, b"one", 0o400, us).unwrap();
        write(&path, b"two", 0o400, us).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_random_texts_differ() {
        assert_ne!(random_text(24), random_text(24));
        assert_eq!(random_text(24).len(), 24);
    }
}
