//! `wal-push` and `wal-fetch`: what Postgres starts for every file. They know nothing but keeper's socket.
//!
//! Their exit status is the most dangerous interface there is: Postgres takes every status from 1 to 125 of
//! `restore_command` for "not in the archive", ends recovery and promotes. So 1 is said only when keeper has *proved*
//! absence, everything else is 255 (`FATAL`, tried again). For `archive_command` the danger is the other way round: a
//! status above 125 ends the archiver, so every failure is 1. No runtime, no credentials, no thread.

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::keeper::protocol::{Answer, Call, Verb};
use crate::postgres::lsn::WalFile;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long `wal-push` waits for keeper's socket.
const SOCKET_WAIT: Duration = Duration::from_secs(10);
/// How long `wal-push` waits for an answer; Postgres asks again, and keeper goes on uploading meanwhile.
const PUSH_WAIT: Duration = Duration::from_secs(120);
/// How long `wal-fetch` waits in all.
const FETCH_WAIT: Duration = Duration::from_secs(30 * 60);
/// What keeper gets less than we wait ourselves (but at most a quarter), so that its answer arrives.
const MARGIN: Duration = Duration::from_secs(5);

/// Archives a file: [`Exit::Clean`] when it is durable in the store and we are still the owner.
///
/// # Errors
/// [`Exit::No`] with the reason; Postgres keeps the file and asks again.
pub fn wal_push(settings: &Settings, path: &Path) -> Result<Exit, Failure> {
    push_within(settings, path, SOCKET_WAIT)
}

pub(crate) fn push_within(settings: &Settings, path: &Path, wait: Duration) -> Result<Exit, Failure> {
    let no = |why: String| Failure::new(Exit::No, format!("wal-push {}: {why}", path.display()));
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let file: WalFile = name.parse().map_err(|e| no(format!("{e}")))?;
    let open = File::open(path).map_err(|e| no(format!("cannot be opened: {e}")))?;
    let socket = settings.keeper_socket();
    let begun = Instant::now();
    let mut call = loop {
        let verb = Verb::WalPush { name: file.name() };
        match Call::start(&socket, verb, &[open.as_fd()], SOCKET_WAIT) {
            Ok(call) => break call,
            Err(e) if begun.elapsed() >= wait => {
                return Err(no(format!("keeper does not answer at {}: {e}", socket.display())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    match call.answer(PUSH_WAIT) {
        Ok(Answer::Done { .. }) => Ok(Exit::Clean),
        Ok(Answer::Again { because } | Answer::Failed { because }) => Err(no(because)),
        // Above 125 the archiver ends instead of asking twice three more times, a second apart (`pgarch.c`), so that
        // Postgres's stop does not hang on a dead store (`docs/adr/0004`).
        Ok(Answer::Leave { because }) => {
            Err(Failure::new(Exit::Fatal, format!("wal-push {}: {because}", path.display())))
        }
        Ok(
            answer @ (Answer::Exchanged | Answer::Absent | Answer::Progress { .. } | Answer::Backups { .. }),
        ) => Err(no(format!("keeper gave an answer that makes no sense here: {answer:?}"))),
        Err(e) => Err(no(format!("no answer from keeper: {e}"))),
    }
}

/// Restores a file: [`Exit::Clean`] when it is there whole, [`Exit::No`] when keeper proved that the archive has none.
///
/// # Errors
/// [`Exit::Fatal`] for everything else. No partial file is left.
pub fn wal_fetch(settings: &Settings, name: &str, destination: &Path) -> Result<Exit, Failure> {
    fetch_within(settings, name, destination, FETCH_WAIT)
}

pub(crate) fn fetch_within(
    settings: &Settings,
    name: &str,
    destination: &Path,
    patience: Duration,
) -> Result<Exit, Failure> {
    let fatal = |why: String| Failure::new(Exit::Fatal, format!("wal-fetch {name}: {why}"));
    // Postgres asks for nothing else; a name that is none can prove nothing.
    let file: WalFile = name.parse().map_err(|e| fatal(format!("{e}")))?;
    let begun = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let why = match attempt(settings, &file, destination, left) {
            Ok(Answer::Done { .. } | Answer::Exchanged) => return Ok(Exit::Clean),
            Ok(answer) => {
                remove(destination).map_err(&fatal)?;
                match answer {
                    Answer::Absent => return Ok(Exit::No),
                    Answer::Failed { because } => return Err(fatal(because)),
                    Answer::Again { because } | Answer::Leave { because } => because,
                    Answer::Done { .. }
                    | Answer::Exchanged
                    | Answer::Progress { .. }
                    | Answer::Backups { .. } => {
                        return Err(fatal("keeper gave an answer that makes no sense here".to_owned()));
                    }
                }
            }
            Err(e) => {
                remove(destination).map_err(&fatal)?;
                format!("no answer from keeper at {}: {e}", settings.keeper_socket().display())
            }
        };
        if begun.elapsed() + pause >= patience {
            return Err(fatal(format!("gave up after {} s: {why}", begun.elapsed().as_secs())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn attempt(
    settings: &Settings,
    file: &WalFile,
    destination: &Path,
    left: Duration,
) -> std::io::Result<Answer> {
    let patience_ms =
        u64::try_from(left.saturating_sub(MARGIN.min(left / 4)).as_millis()).unwrap_or(u64::MAX);
    let unnamed = unnamed(destination);
    let verb = Verb::WalFetch { name: file.name(), patience_ms, exchange: unnamed.is_some() };
    let start = |files: &[BorrowedFd<'_>]| Call::start(&settings.keeper_socket(), verb, files, SOCKET_WAIT);
    let Some((place, spare)) = unnamed else {
        return start(&[named(destination)?.as_fd()])?.answer(left);
    };
    let mut call = start(&[spare.as_fd(), place.as_fd()])?;
    let answer = call.answer(left)?;
    let filled = match answer {
        Answer::Done { .. } => place,
        Answer::Exchanged => {
            let lost = || std::io::Error::other("the file that came with the answer was lost on its way");
            call.file().map(File::from).ok_or_else(lost)?
        }
        Answer::Absent
        | Answer::Again { .. }
        | Answer::Leave { .. }
        | Answer::Failed { .. }
        | Answer::Progress { .. }
        | Answer::Backups { .. } => return Ok(answer),
    };
    name(&filled, destination)?;
    Ok(answer)
}

/// The file of this name, empty.
fn named(destination: &Path) -> std::io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o640).open(destination)
}

/// Two files without a name on the file system of `destination`: one for the file that is asked for, one that keeper may
/// fill with the next. Writing 16 MiB takes longer than all the rest, and Postgres would wait for it. A kill, ours or
/// keeper's, leaves nothing: what has no name is gone with whoever has it open. `None`: there are no such files here, for
/// whatever reason (file systems say it in different ways), or the destination is something that must not be replaced, such
/// as a link or a device.
fn unnamed(destination: &Path) -> Option<(File, File)> {
    if destination.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        return None;
    }
    let directory = match destination.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let open = || {
        let mut options = File::options();
        options.read(true).write(true).mode(0o640).custom_flags(nix::libc::O_TMPFILE).open(directory)
    };
    open().and_then(|place| Ok((place, open()?))).ok()
}

/// Gives a file its name, in place of whatever has it. Where that cannot be (no `/proc`, a rule that forbids it), what is in
/// it is copied: slower, and Postgres gets its file.
fn name(mut file: &File, destination: &Path) -> std::io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(AT_FDCWD, own.as_str(), AT_FDCWD, destination, AtFlags::AT_SYMLINK_FOLLOW);
    let linked = match link() {
        Err(Errno::EEXIST) => {
            std::fs::remove_file(destination)?;
            link()
        }
        linked => linked,
    };
    if linked.is_err() {
        file.rewind()?;
        std::io::copy(&mut file, &mut named(destination)?)?;
    }
    Ok(())
}

fn remove(destination: &Path) -> Result<(), String> {
    match std::fs::remove_file(destination) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("{}: a partial file cannot be removed: {e}", destination.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_cannot_be_given_a_name_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("RECOVERYXLOG");
        std::fs::write(&destination, "what a killed recovery left, and more").unwrap();
        // Nobody can give this one a name: it is removed, and no name is left to link.
        let gone = directory.path().join("gone");
        let mut file = File::options().read(true).write(true).create_new(true).open(&gone).unwrap();
        std::fs::remove_file(gone).unwrap();
        file.write_all(b"a segment").unwrap();
        name(&file, &destination).unwrap();
        assert_eq!(std::fs::read(&destination).unwrap(), b"a segment");
        assert!(name(&file, &directory.path().join("nowhere/RECOVERYXLOG")).is_err());
    }
}
