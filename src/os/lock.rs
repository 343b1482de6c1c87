//! Locks that outlive us. `flock` belongs to the open file description, and the children that name the lock inherit
//! the descriptor: so the volume stays locked as long as one Postgres backend lives, across PID and IPC namespaces,
//! even when PID 1 is killed. It is therefore never unlocked, only closed. The file's text names the holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A lock that we hold.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why we do not hold it.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else does.
    #[error("{} is locked by {holder}", .path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// What the file says of its holder.
        holder: String,
    },
    /// It could not be tried.
    #[error("cannot {verb} the lock {}: {source}; the volume (SUPAFLY_DATA) must be mounted and writable", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says who has it. `holder` is written into it for others to read.
    ///
    /// # Errors
    /// Busy, or the file cannot be made.
    pub fn take(path: &Path, holder: &str) -> Result<Lock, LockError> {
        let failed = |verb| move |source| LockError::Io { verb, path: path.to_path_buf(), source };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            // Root empties it, and whoever had the volume before could have led us elsewhere.
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(1_024).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "a process that has not written its name".to_owned(),
                    text => text.to_owned(),
                };
                return Err(LockError::Busy { path: path.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed("take")(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed("write"))?;
        file.write_all(format!("{holder}\n").as_bytes()).map_err(failed("write"))?;
        Ok(Lock { file })
    }

    /// The descriptor that children inherit.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// How we name ourselves in a lock: machine, pid, since.
#[must_use]
pub fn holder(machine: Option<&str>, now: jiff::Timestamp) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
    let machine = machine.unwrap_or(&host);
    format!(
        "machine {machine}, pid {}, since {}",
        std::process::id(),
        now.round(jiff::Unit::Second).unwrap_or(now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it_and_gets_it_when_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/lock");
        let first = Lock::take(&path, "machine a, pid 1").unwrap();
        let error = Lock::take(&path, "machine b").unwrap_err();
        assert!(error.to_string().ends_with("is locked by machine a, pid 1"), "{error}");
        drop(first);
        Lock::take(&path, "b").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("lock"), dir.path().join("passwd"));
        std::fs::write(&elsewhere, "root\n").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(Lock::take(&path, "x"), Err(LockError::Io { .. })));
        assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "root\n");
    }
}
