//! The socket `<run>/keeper/keeper.sock`: takes requests of `wal-push`, `wal-fetch` and the command line, one a connection.
//!
//! It is 0660 in the group of Postgres: who may ask is decided by the file system. What may be asked is narrow: files
//! come and go by open descriptors, so nobody gains a right to a file that he did not have.

use super::bounded::bounded;
use super::decide::Life;
use super::inbox::{AFTER_THE_ANSWER, Found};
use super::outbox::{self, Refused};
use super::protocol::{self, Answer, LONGEST_REQUEST, Verb};
use super::resident::{Archive, Keeper};
use crate::archive::push::on_a_thread;
use crate::exit::Failure;
use crate::failpoint;
use crate::os::passing;
use crate::postgres::lsn::WalFile;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// How long `wal-push` waits for the store before Postgres is told to ask again; the upload goes on.
const PUSH_PATIENCE: Duration = Duration::from_secs(60);
/// What is known to be archived is answered even when a stop has used up its share: no store is asked for it.
const REMEMBERED_PATIENCE: Duration = Duration::from_secs(1);
/// A client that says nothing is let go.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 64;

/// Makes the socket.
///
/// # Errors
/// It cannot be made.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let wrong =
        |what: &str, e: io::Error| Failure::gave_up(format!("keeper: {}: {what}: {e}", path.display()));
    crate::os::remove_socket(path).map_err(|e| wrong("the socket of an earlier run cannot be removed", e))?;
    let listener = UnixListener::bind(path).map_err(|e| wrong("cannot listen", e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(|e| wrong("cannot set its mode", e))?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name("postgres")
        && let Err(e) = chown(path, None, Some(group.gid.as_raw()))
    {
        // Not root and not a member: everything runs as one user, whose socket it is.
        tracing::debug!(error = %e, "keeper's socket stays in our own group");
    }
    Ok(listener)
}

/// Serves until it is dropped.
pub(super) async fn serve(keeper: Arc<Keeper>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let keeper = Arc::clone(&keeper);
                tokio::spawn(async move {
                    if let Err(e) = connection(&keeper, stream).await {
                        tracing::debug!(error = %e, "a connection to keeper has broken");
                    }
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection to keeper cannot be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn connection(keeper: &Arc<Keeper>, mut stream: UnixStream) -> io::Result<()> {
    let received = tokio::time::timeout(REQUEST_PATIENCE, request(&stream)).await;
    let (line, files) = received.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut files = files.into_iter().rev().map(File::from);
    let (file, spare) = (files.next(), files.next());
    match (protocol::parse(&line), file) {
        (Ok(Verb::WalPush { name }), Some(file)) => {
            let answer = push(keeper, &name, file).await;
            if matches!(answer, Answer::Done { .. }) {
                failpoint::hit("keeper.before-ack");
            }
            stream.write_all(&protocol::reply(answer)?).await
        }
        (Ok(Verb::WalFetch { name, patience_ms, exchange }), Some(file)) => {
            let patience = Duration::from_millis(patience_ms);
            let spare = spare.filter(|_| exchange);
            let (answer, filled) = tokio::select! {
                answer = fetch(keeper, &name, file, spare, patience) => answer,
                () = hung_up(&stream) => return Ok(()),
            };
            let reply = protocol::reply(answer)?;
            let Some(filled) = filled else { return stream.write_all(&reply).await };
            let filled = [filled.as_fd()];
            let sent =
                stream.async_io(Interest::WRITABLE, || passing::send(&stream, &reply, &filled)).await?;
            stream.write_all(reply.get(sent..).unwrap_or_default()).await
        }
        (Ok(Verb::WalPush { .. } | Verb::WalFetch { .. }), None) => {
            let because = "the request came without its open file".to_owned();
            stream.write_all(&protocol::reply(Answer::Failed { because })?).await
        }
        (Ok(Verb::BackupNow), _) => backup(keeper, &mut stream).await,
        (Ok(Verb::BackupList), _) => {
            let answer = match keeper.archive() {
                Ok(archive) => match archive.backups.list().await {
                    Ok(backups) => Answer::Backups { backups },
                    Err(because) => Answer::Failed { because },
                },
                Err(because) => Answer::Failed { because },
            };
            stream.write_all(&protocol::reply(answer)?).await
        }
        (Err(because), _) => stream.write_all(&protocol::reply(Answer::Failed { because })?).await,
    }
}

/// Reads one line and the files that came with it.
async fn request(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    loop {
        let mut buffer = [0; LONGEST_REQUEST];
        let (length, got) =
            stream.async_io(Interest::READABLE, || passing::receive(stream, &mut buffer)).await?;
        if !got.is_empty() {
            files = got;
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = line.iter().position(|b| *b == b'\n') {
            line.truncate(end);
            return Ok((line, files));
        }
        if line.len() > LONGEST_REQUEST {
            return Err(io::Error::other("a request without end"));
        }
    }
}

/// Ends when the client is gone.
async fn hung_up(stream: &UnixStream) {
    let mut buffer = [0; 16];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn push(keeper: &Arc<Keeper>, name: &str, open: File) -> Answer {
    let file: WalFile = match name.parse() {
        Ok(file) => file,
        Err(e) => return Answer::Failed { because: format!("{e}") },
    };
    let archive = match keeper.archive() {
        Ok(archive) => Arc::clone(archive),
        Err(because) => return Answer::Failed { because },
    };
    if let Some(pg_wal) = outbox::directory_of(&open) {
        keeper.alive(&pg_wal);
        archive.outbox.run_ahead(&pg_wal, Some(&file));
    }
    let remembered = archive.outbox.unsettled(std::slice::from_ref(&file)).is_empty();
    // A task of its own: when the time for an answer is up, the upload still goes on.
    let task = tokio::spawn(async move { archive.outbox.archive(&file, open).await });
    let done = if remembered {
        tokio::time::timeout(REMEMBERED_PATIENCE, task).await.ok()
    } else {
        bounded(&keeper.life, PUSH_PATIENCE, task).await
    };
    let because = match done {
        Some(Ok(Ok(()))) => return Answer::Done { what: String::new() },
        Some(Ok(Err(Refused::Alarm(because)))) => return Answer::Failed { because },
        Some(Ok(Err(Refused::Again(because)))) => because,
        Some(Err(e)) => format!("the upload broke off: {e}"),
        None => "the store has not answered in time; the upload goes on".to_owned(),
    };
    match *keeper.life.borrow() {
        Life::Serving => Answer::Again { because },
        Life::Stopping { .. } | Life::Draining => Answer::Leave { because },
    }
}

/// The answer, and another file for the one that came, when that one was filled before.
async fn fetch(
    keeper: &Arc<Keeper>,
    name: &str,
    open: File,
    spare: Option<File>,
    patience: Duration,
) -> (Answer, Option<File>) {
    let file: WalFile = match name.parse() {
        Ok(file) => file,
        Err(e) => return (Answer::Failed { because: format!("{e}") }, None),
    };
    let archive: &Arc<Archive> = match keeper.archive() {
        Ok(archive) => archive,
        Err(because) => return (Answer::Failed { because }, None),
    };
    let bytes = match bounded(&keeper.life, patience, archive.inbox.get(&file, patience)).await {
        Some(Ok(Found::Bytes(bytes))) => bytes,
        Some(Ok(Found::Absent)) => return (Answer::Absent, None),
        Some(Err(because)) => return (Answer::Failed { because }, None),
        None => {
            let because = "keeper is stopping, or the time was up".to_owned();
            return (Answer::Failed { because }, None);
        }
    };
    // Only who takes a file in exchange sends a spare, and only for him one is filled ahead.
    let filled = if spare.is_some() { archive.inbox.filled(&file, &open).await } else { None };
    if let Some(filled) = filled {
        // Giving 16 MiB back to the system takes a millisecond, and so does much of what prepares the next answer: whoever
        // waits for this one comes first.
        let inbox = Arc::clone(&archive.inbox);
        tokio::spawn(async move {
            tokio::time::sleep(AFTER_THE_ANSWER).await;
            drop(tokio::task::spawn_blocking(move || drop(bytes)));
            inbox.fill_next(&file, open);
        });
        return (Answer::Exchanged, Some(filled));
    }
    match write(open, bytes).await {
        Ok(()) => {
            if let Some(spare) = spare {
                archive.inbox.fill_next(&file, spare);
            }
            (Answer::Done { what: String::new() }, None)
        }
        Err(because) => (Answer::Failed { because }, None),
    }
}

/// Writes a file whole.
pub(super) async fn write(open: File, bytes: Bytes) -> Result<(), String> {
    let written = on_a_thread(move || {
        open.set_len(0)?;
        open.write_all_at(&bytes, 0)
    });
    written.await?.map_err(|e| format!("the file cannot be written: {e}"))
}

async fn backup(keeper: &Arc<Keeper>, stream: &mut UnixStream) -> io::Result<()> {
    let archive = match keeper.archive() {
        Ok(archive) => archive,
        Err(because) => return stream.write_all(&protocol::reply(Answer::Failed { because })?).await,
    };
    let mut run = archive.backups.start(keeper);
    loop {
        let answer = run.borrow_and_update().answer();
        let last = !matches!(answer, Answer::Progress { .. });
        stream.write_all(&protocol::reply(answer)?).await?;
        if last {
            return Ok(());
        }
        tokio::select! {
            changed = run.changed() => if changed.is_err() { return Ok(()) },
            () = hung_up(stream) => return Ok(()),
        }
    }
}
