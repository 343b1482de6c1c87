//! A store in a directory, create-only like the others: an object is written under a temporary name, fsynced, hard-linked
//! to its own name (the link is what can exist only once) and then every directory above it is fsynced.
//!
//! Temporary names lie in `<dir>/.tmp/`, on the same file system but where no listing, ours or the engine's, looks. The
//! root directory itself is never created: when it is missing, its volume is not mounted, and writing into the mount
//! point would acknowledge WAL that nobody finds again. For the same reason the directory that was seen first must stay
//! the one that is there.

#[cfg(test)]
mod tests;

use super::{Backend, Entry, Kind, StoreError, keys};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Below the root, for temporary names.
const TEMPORARY: &str = ".tmp";
/// How long a disk may take before the caller hears of it (a hung network mount would hold it for ever).
const DEADLINE: Duration = Duration::from_secs(60);
/// A temporary name this old belongs to a writer that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A store in a directory.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Device and inode of the root when it was first seen.
    seen: OnceLock<(u64, u64)>,
}

/// Whom new files belong to, when we are root.
#[derive(Clone, Copy)]
struct Owner(Option<(u32, u32)>);

impl Directory {
    /// The store in `root`, which must exist by the time it is used.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Directory {
        Directory(Arc::new(Inner { root: root.into(), seen: OnceLock::new() }))
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        act: impl FnOnce(&Inner, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (inner, name) = (Arc::clone(&self.0), key.to_owned());
        let work = tokio::task::spawn_blocking(move || act(&inner, &name));
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(e)) => Err(StoreError::new(Kind::Broken, operation, key, format!("worker thread: {e}"))),
            Err(_) => {
                let message = format!("the disk has not answered for {} s", DEADLINE.as_secs());
                Err(StoreError::new(Kind::Transient, operation, key, message))
            }
        }
    }
}

impl Inner {
    /// The root is there and is the one that it was; tells whom new files belong to.
    fn root(&self, operation: &'static str, key: &str) -> Result<Owner, StoreError> {
        let root = self.root.display();
        let broken = |message: String| StoreError::new(Kind::Broken, operation, key, message);
        let meta = match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => meta,
            Ok(_) => return Err(broken(format!("{root} is not a directory"))),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(broken(format!(
                    "the directory {root} does not exist. Is its volume mounted? It is never created: make it, or correct SUPAFLY_STORE"
                )));
            }
            Err(e) => return Err(failed(operation, key, &self.root, &e)),
        };
        let now = (meta.dev(), meta.ino());
        if *self.seen.get_or_init(|| now) != now {
            return Err(broken(format!(
                "{root} is another directory than before: was its volume unmounted?"
            )));
        }
        let we_are_root = nix::unistd::geteuid().is_root();
        Ok(Owner(we_are_root.then(|| (meta.uid(), meta.gid()))))
    }

    fn create(&self, key: &str, body: &[u8]) -> Result<(), StoreError> {
        let owner = self.root("create", key)?;
        let path = self.root.join(key);
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |e: io::Error| failed("create", key, &path, &e)
        };
        let parent = path.parent().unwrap_or(&self.root).to_path_buf();
        self.directories(&parent, owner).map_err(at(&parent))?;
        let temporary = self.root.join(TEMPORARY);
        make_directory(&temporary, owner).map_err(at(&temporary))?;
        let name = temporary.join(uuid::Uuid::new_v4().to_string());
        let written = write_new(&name, body, owner).and_then(|()| {
            crate::failpoint::hit("store.file-before-link");
            fs::hard_link(&name, &path)
        });
        crate::failpoint::hit("store.file-after-link");
        let removed = fs::remove_file(&name);
        match written {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                // Whoever made it may have been killed before its directory was on disk; we vouch for it from here on.
                self.sync(&parent).map_err(at(&parent))?;
                return Err(StoreError::new(Kind::Conflict, "create", key, "the file exists"));
            }
            Err(e) => return Err(failed("create", key, &path, &e)),
        }
        removed.map_err(at(&name))?;
        self.sync(&parent).map_err(at(&parent))
    }

    /// Makes what is missing of `dir` below the root.
    fn directories(&self, dir: &Path, owner: Owner) -> io::Result<()> {
        let below = dir.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let mut at = self.root.clone();
        for part in below {
            at.push(part);
            make_directory(&at, owner)?;
        }
        Ok(())
    }

    /// Makes `dir` and every directory above it, the root included, durable.
    fn sync(&self, dir: &Path) -> io::Result<()> {
        for at in dir.ancestors() {
            File::open(at)?.sync_all()?;
            if at == self.root {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.root("get", key)?;
        let path = self.root.join(key);
        let read = File::open(&path).and_then(|mut file| {
            let mut body = Vec::new();
            file.read_to_end(&mut body)?;
            Ok(body)
        });
        match read {
            Ok(body) => Ok(body.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // Only with the root still in place does this say something about the object.
                self.root("get", key)?;
                Err(StoreError::new(Kind::Absent, "get", key, format!("{} does not exist", path.display())))
            }
            Err(e) => Err(failed("get", key, &path, &e)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.root("list", prefix)?;
        let mut found = Vec::new();
        let mut open = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(dir) = open.pop() {
            let path = self.root.join(&dir);
            let at = |e: io::Error| failed("list", prefix, &path, &e);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(at(e)),
            };
            for entry in entries {
                let entry = entry.map_err(at)?;
                let name = entry.file_name().into_string().map_err(|name| {
                    let message = format!("{}: name is not UTF-8: {}", path.display(), name.display());
                    StoreError::new(Kind::Broken, "list", prefix, message)
                })?;
                // Not objects: our temporary names, and what a file system keeps at its own root.
                if name.starts_with('.') || (dir.is_empty() && name == "lost+found") {
                    continue;
                }
                let key = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    Err(e) => return Err(at(e)),
                };
                if meta.is_dir() {
                    open.push(key);
                } else if meta.is_file() {
                    found.push(Entry { key, size: meta.len() });
                }
            }
        }
        self.root("list", prefix)?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.root("delete", key)?;
        let path = self.root.join(key);
        match fs::remove_file(&path) {
            Ok(()) => {
                let parent = path.parent().unwrap_or(&self.root);
                File::open(parent).and_then(|d| d.sync_all()).map_err(|e| failed("delete", key, parent, &e))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => self.root("delete", key).map(|_| ()),
            Err(e) => Err(failed("delete", key, &path, &e)),
        }
    }

    /// Removes temporary names that killed writers left behind.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(TEMPORARY))? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > ABANDONED {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Removes what writers that were killed left in `root`. Best effort: what cannot be removed costs room, nothing else.
pub(super) fn sweep(root: &Path) {
    let inner = Inner { root: root.to_path_buf(), seen: OnceLock::new() };
    if let Err(e) = inner.sweep()
        && e.kind() != ErrorKind::NotFound
    {
        tracing::debug!(error = %e, "abandoned temporary files could not be removed");
    }
}

fn make_directory(path: &Path, owner: Owner) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => owner.give(path),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

fn write_new(path: &Path, body: &[u8], owner: Owner) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(body)?;
    owner.give(path)?;
    file.sync_all()
}

impl Owner {
    fn give(self, path: &Path) -> io::Result<()> {
        match self.0 {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

fn failed(operation: &'static str, key: &str, path: &Path, e: &io::Error) -> StoreError {
    StoreError::new(kind(e), operation, key, format!("{}: {e}", path.display()))
}

/// What an error of the file system means. A full disk is not the object's fault and may pass.
fn kind(e: &io::Error) -> Kind {
    let passes = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::Interrupted,
        ErrorKind::WouldBlock,
        ErrorKind::TimedOut,
        ErrorKind::StaleNetworkFileHandle,
    ];
    if passes.contains(&e.kind()) {
        Kind::Transient
    } else if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&e.kind()) {
        Kind::Denied
    } else {
        Kind::Broken
    }
}

impl Backend for Directory {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            keys::check("create", key)?;
            self.on_a_thread("create", key, move |inner, key| inner.create(key, &body)).await
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        Box::pin(async move {
            keys::check("get", key)?;
            self.on_a_thread("get", key, Inner::get).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            keys::check_prefix(prefix)?;
            self.on_a_thread("list", prefix, Inner::list).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            keys::check("delete", key)?;
            self.on_a_thread("delete", key, Inner::delete).await
        })
    }

    fn url(&self) -> String {
        format!("file://{}", self.0.root.display())
    }
}
