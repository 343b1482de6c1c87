//! Files that change hands: what a client names must be what was asked for, whatever the other end is and does.

use super::super::protocol::{Answer, Call, Verb, reply};
use super::home::{EVER, Home, exit, settings};
use crate::archive::client::fetch_within;
use crate::archive::testkit::real;
use crate::exit::Exit;
use crate::os::passing;
use crate::owner::Origin;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks a keeper that answers each connection as the function says, and gets what is there then.
fn asked(
    patience: Duration,
    answers: impl Fn(Vec<File>) -> Vec<u8> + Send + 'static,
) -> (Exit, Option<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    std::fs::create_dir_all(settings.keeper_socket().parent().unwrap()).unwrap();
    let listener = UnixListener::bind(settings.keeper_socket()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (_, files) = passing::receive(&stream, &mut [0; 4096]).unwrap();
            let files = files.into_iter().map(File::from).collect();
            if stream.write_all(&answers(files)).is_err() {
                return;
            }
        }
    });
    let destination = directory.path().join("RECOVERYXLOG");
    let got = fetch_within(&settings, &real().name(0), &destination, patience);
    (exit(&got), std::fs::read(destination).ok())
}

#[test]
fn a_keeper_of_an_older_release_fills_the_file_that_is_named() {
    let content = &real().segments[0].bytes;
    let (exit, bytes) = asked(EVER, |files| {
        // It knows of one file in a request, and keeps the last.
        files.last().unwrap().write_all_at(content, 0).unwrap();
        reply(Answer::Done { what: String::new() }).unwrap()
    });
    assert_eq!((exit, bytes.as_ref()), (Exit::Clean, Some(content)));
}

#[test]
fn a_file_that_is_lost_on_its_way_is_never_taken_for_the_one_that_was_offered() {
    // So it is when the client may open no more files, or is not let have this one.
    let (exit, bytes) = asked(Duration::from_millis(50), |_| reply(Answer::Exchanged).unwrap());
    assert_eq!((exit, bytes), (Exit::Fatal, None));
}

#[tokio::test]
async fn a_file_of_another_owner_or_mode_is_not_handed_out() {
    let home = Home::new(Origin::Fresh).await;
    (0..2).for_each(|index| home.plant(index));
    let socket = home.settings.keeper_socket();
    let calls = tokio::task::spawn_blocking(move || {
        let file = |mode| {
            let file = tempfile::tempfile().unwrap();
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            file
        };
        let ask = |index: usize, spare: &File, place: &File| {
            let verb = Verb::WalFetch { name: real().name(index), patience_ms: 10_000, exchange: true };
            let mut call = Call::start(&socket, verb, &[spare.as_fd(), place.as_fd()], EVER).unwrap();
            (call.answer(EVER).unwrap(), call.file())
        };
        let length = real().segments[1].bytes.len() as u64;
        let (secret, place) = (file(0o600), file(0o640));
        ask(0, &secret, &place);
        let begun = Instant::now();
        while secret.metadata().unwrap().len() != length {
            assert!(begun.elapsed() < EVER, "the spare file is never filled");
            std::thread::yield_now();
        }
        let (answer, got) = ask(1, &file(0o640), &place);
        assert!(matches!(answer, Answer::Done { .. }) && got.is_none(), "{answer:?}");
        assert_eq!(place.metadata().unwrap().len(), length);
    });
    calls.await.unwrap();
}

#[tokio::test]
async fn a_destination_that_is_no_plain_file_is_written_into_and_not_replaced() {
    let home = Home::new(Origin::Fresh).await;
    home.plant(0);
    let link = home.settings.pgdata().join("pg_wal/RECOVERYXLOG");
    std::fs::write(link.with_extension("there"), "").unwrap();
    std::os::unix::fs::symlink(Path::new("RECOVERYXLOG.there"), &link).unwrap();
    let (got, bytes) = home.fetch(&real().name(0)).await;
    assert_eq!(exit(&got), Exit::Clean);
    assert_eq!(bytes.as_deref(), Some(&real().segments[0].bytes[..]));
    assert!(link.symlink_metadata().unwrap().is_symlink());
}

#[tokio::test]
async fn clients_that_are_gone_leave_no_file_open_in_keeper() {
    let home = Home::new(Origin::Fresh).await;
    (0..2).for_each(|index| home.plant(index));
    let directory = home.settings.pgdata().join("pg_wal");
    // Other tests of this process open files of their own: only those of this directory are counted.
    let own = directory.clone();
    let open = move || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|path| path.starts_with(&own))
            .count()
    };
    let (socket, count) = (home.settings.keeper_socket(), open.clone());
    let calls = tokio::task::spawn_blocking(move || {
        for number in 0..120 {
            let verb = Verb::WalFetch { name: real().name(number % 3), patience_ms: 10_000, exchange: true };
            let (spare, place) =
                (tempfile::tempfile_in(&directory).unwrap(), tempfile::tempfile_in(&directory).unwrap());
            let mut call = Call::start(&socket, verb, &[spare.as_fd(), place.as_fd()], EVER).unwrap();
            if number % 4 != 0 {
                call.answer(EVER).unwrap();
            }
        }
        assert!(count() <= 2 * 64, "no more than connections carry");
    });
    calls.await.unwrap();
    // One may be kept for whoever asks next.
    home.until("closed", |_| open() <= 1).await;
    home.keeper.archive().unwrap().inbox.forget_idle(Duration::ZERO);
    home.until("closed", |_| open() == 0).await;
}
