//! Where Postgres's Unix socket is: in our own directory, and where `psql` and `pg_isready` look when nobody tells them.

use super::{Place, tree};
use crate::exit::Failure;
use nix::unistd::{AccessFlags, Uid};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Both directories; the second one when it is there and Postgres's user may write to it.
pub(super) fn directories(place: &Place<'_>) -> Vec<PathBuf> {
    let ours = place.settings.pg_socket_dir();
    let Some(further) = place.settings.pg_sockets.as_ref() else { return vec![ours] };
    match usable(further, place) {
        Ok(()) => vec![ours, further.clone()],
        Err(_) => vec![ours],
    }
}

/// Says when there is no second one, and what to do instead.
pub(super) fn say(place: &Place<'_>) {
    let Some(further) = place.settings.pg_sockets.as_ref() else { return };
    if let Err(why) = usable(further, place) {
        tracing::info!(
            "no second socket in {} ({why}): `psql -h {}` finds the server; SUPAFLY_PG_SOCKETS names another directory",
            further.display(),
            place.settings.pg_socket_dir().display()
        );
    }
}

fn usable(directory: &Path, place: &Place<'_>) -> Result<(), String> {
    let meta = std::fs::metadata(directory).map_err(|e| e.to_string())?;
    if !meta.is_dir() {
        return Err("it is not a directory".to_owned());
    }
    let may = if Uid::effective().is_root() {
        // Of a user whom we are not, the bits tell.
        let (uid, gid) = (place.postgres.uid.as_raw(), place.postgres.gid.as_raw());
        let bits = if meta.uid() == uid {
            meta.mode() >> 6
        } else if meta.gid() == gid {
            meta.mode() >> 3
        } else {
            meta.mode()
        };
        bits & 0o3 == 0o3 && nix::unistd::access(directory, AccessFlags::W_OK).is_ok()
    } else {
        nix::unistd::access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
    };
    if may { Ok(()) } else { Err(format!("user {} may not write to it", place.postgres.name)) }
}

/// Removes the lock of a socket that nobody holds any more. Postgres takes the pid of any live process of its user for the
/// holder, which in a container that was started again is chance.
pub(super) fn remove_stale_lock(place: &Place<'_>) -> Result<(), Failure> {
    let Some(directory) = place.settings.pg_sockets.as_ref() else { return Ok(()) };
    let lock = directory.join(format!(".s.PGSQL.{}.lock", place.settings.pg_port));
    let Ok(text) = std::fs::read_to_string(&lock) else { return Ok(()) };
    let ours = text.lines().nth(1).is_some_and(|dir| Path::new(dir) == place.settings.pgdata());
    let pid = text.lines().next().unwrap_or_default().trim().parse::<u32>().ok();
    let lives = pid.is_some_and(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "postgres")
    });
    // That of another cluster is its own; Postgres says so.
    if !ours || lives {
        return Ok(());
    }
    tracing::info!(file = %lock.display(), "removed the stale lock of a socket");
    tree::remove(&lock)
}
