//! The run directory and what a former life left in it: one supervisor a directory (a lock says so), and a file that
//! names this life's instance and block of groups, so that the next one finds and ends what is left of us when we are
//! killed.

use crate::exit::Failure;
use crate::os::descent::{self, MARKER};
use crate::os::lock::{Lock, LockError};
use crate::os::privilege::Privilege;
use crate::os::procfs;
use crate::os::shut::{By, shut};
use crate::os::tags::{self, Tags};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each file in it has its own mode.
const CLOSED: u32 = 0o711;

/// This life, as written down for the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Life {
    instance: String,
    tags: Option<Tags>,
}

/// The directory, locked and ready.
#[derive(Debug)]
pub(super) struct RunDir {
    /// Where it is.
    pub path: PathBuf,
    /// How we tell whose child a process is.
    pub descent: descent::Descent,
    _lock: Lock,
}

impl RunDir {
    /// Makes the directory where it is missing, locks it, ends what a former life left running.
    pub(super) fn prepare(path: &Path, privilege: Privilege, holder: &str) -> Result<RunDir, Failure> {
        let place = path.display();
        let made = std::fs::DirBuilder::new().recursive(true).mode(CLOSED).create(path);
        made.map_err(|e| {
            Failure::config(format!(
                "{place}: cannot make the run directory: {e}; set SUPAFLY_RUN to a place that can be written"
            ))
        })?;
        shut(path, CLOSED, By::Root, &[]).map_err(|e| {
            Failure::config(format!("{place}: cannot set the mode of the run directory: {e}"))
        })?;
        let lock = Lock::take(&path.join("run.lock"), holder).map_err(|e| match e {
            LockError::Busy { holder, .. } => Failure::refused(format!(
                "{place}: another supervisor uses this run directory: {holder}; stop it, or set SUPAFLY_RUN to another place"
            )),
            LockError::Io { .. } => Failure::config(e.to_string()),
        })?;
        let file = path.join("life.json");
        let former = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Life>(&bytes).ok());
        if let Some(former) = former {
            sweep(&former);
        }
        let instance = uuid::Uuid::new_v4();
        let (seed, ..) = instance.as_fields();
        let tags = match privilege {
            Privilege::Full => tags::choose_tags(seed),
            Privilege::None => None,
        };
        let life = Life { instance: instance.simple().to_string(), tags };
        let text = serde_json::to_vec(&life).unwrap_or_default();
        let early = path.join("life.json.new");
        std::fs::write(&early, text)
            .and_then(|()| std::fs::rename(&early, &file))
            .map_err(|e| Failure::config(format!("{}: cannot be written: {e}", file.display())))?;
        let us = nix::unistd::getpid().as_raw();
        let descent = descent::Descent { tags, instance: life.instance, us };
        Ok(RunDir { path: path.to_path_buf(), descent, _lock: lock })
    }

    /// Where services notify.
    pub(super) fn notify_socket(&self) -> PathBuf {
        self.path.join("notify.sock")
    }

    /// Where everybody asks.
    pub(super) fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// At an orderly end nothing is left: neither processes nor sockets.
    pub(super) fn clear(&self) {
        for file in [self.notify_socket(), self.control_socket(), self.path.join("life.json")] {
            // Left behind they do no harm: the next life replaces them.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Ends the processes of a former life. Runs before anything else of ours, so it may wait.
fn sweep(former: &Life) {
    let prefix = format!("{}.", former.instance);
    let us = nix::unistd::getpid().as_raw();
    let scan = || {
        if !procfs::is_ours() {
            return Ok(Vec::new());
        }
        let mut table = procfs::table()?;
        table.retain(|p| {
            let tagged = former.tags.is_some_and(|tags| p.groups.iter().any(|g| tags.contains(*g)));
            let marked = || procfs::variable(p.who.pid, MARKER).is_some_and(|v| v.starts_with(&prefix));
            p.who.pid != us && !p.is_dead() && (tagged || marked())
        });
        Ok(table)
    };
    // We may ourselves be a service of a supervisor, but never of our own former life.
    for _ in 0..500 {
        let signalled = descent::signal_all(Signal::SIGKILL, scan);
        if signalled == 0 {
            return;
        }
        tracing::warn!(processes = signalled, "ended what a former life of this supervisor left running");
        std::thread::sleep(Duration::from_millis(10));
    }
    tracing::error!("processes of a former life of this supervisor cannot be ended");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_images_open_directory_is_shut_by_root_before_anything_of_ours_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = crate::os::shut::OPEN;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(open)).unwrap();
        let _run = RunDir::prepare(dir.path(), Privilege::None, "a test").unwrap();
        let mode = dir.path().metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if nix::unistd::Uid::effective().is_root() { CLOSED } else { open });
        assert!(dir.path().join("run.lock").exists() && dir.path().join("life.json").exists());
    }
}
