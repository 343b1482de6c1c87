//! Keeper in one process with its real clients, real WAL, and a store that fails as it is told.

mod adoption;
mod exchange;
mod home;
mod outgoing;
mod watch;

use super::decide::{Life, Protection};
use super::protocol::{Answer, Call, Verb};
use super::report;
use super::resident::Keeper;
use crate::archive::client::{fetch_within, push_within};
use crate::archive::codec;
use crate::archive::testkit::real;
use crate::exit::Exit;
use crate::owner::{Epoch, Origin};
use crate::postgres::lsn::WalFile;
use crate::store::Kind;
use crate::store::memory::Fate;
use home::{BRIEF, EVER, Home, exit, settings};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const KINDS: [Kind; 4] = [Kind::Conflict, Kind::Denied, Kind::Transient, Kind::Broken];

#[tokio::test]
async fn what_postgres_pushes_it_gets_back_and_what_never_was_is_proved_absent() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    let (got, bytes) = home.fetch(&real().name(0)).await;
    assert_eq!(exit(&got), Exit::Clean);
    assert_eq!(bytes.as_deref(), Some(&real().segments[0].bytes[..]));
    for absent in [real().name(1), "00000002.history".to_owned()] {
        let (got, bytes) = home.fetch(&absent).await;
        assert_eq!(exit(&got), Exit::No, "{absent}");
        assert_eq!(bytes, None, "nothing is left behind");
    }
    assert_eq!(exit(&home.fetch("../../etc/passwd").await.0), Exit::Fatal);
    assert!(home.row("archive").starts_with("ok: "), "{}", home.row("archive"));
}

#[tokio::test]
async fn what_is_ready_is_archived_ahead_and_acknowledged_without_the_store() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..3);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    home.until("three objects", |h| {
        let outbox = &h.keeper.archive().unwrap().outbox;
        let files: Vec<WalFile> = (0..3).map(|i| WalFile::Segment(real().name(i))).collect();
        outbox.unsettled(&files).is_empty()
    })
    .await;
    assert!((0..3).all(|index| home.stored(index)));
    home.hangs.store(true, Ordering::SeqCst);
    assert_eq!(exit(&home.push(1).await), Exit::Clean);
    // Other content under a name that was archived is looked at anew.
    std::fs::write(home.path(2), &real().segments[1].bytes).unwrap();
    assert_eq!(exit(&home.push(2).await), Exit::No);
}

#[tokio::test]
async fn nothing_is_acknowledged_without_a_confirmation_after_the_write() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    home.memory.faults(
        |_, key| {
            if key.starts_with("owner/") { Fate::Fail(Kind::Transient) } else { Fate::Pass }
        },
    );
    let answer = home.push(0).await;
    assert_eq!(exit(&answer), Exit::No);
    assert!(home.stored(0), "it is durable, but nobody has confirmed that we are the owner");
    home.memory.faults(|_, _| Fate::Pass);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
}

#[tokio::test]
async fn an_owner_that_lost_acknowledges_nothing_and_asks_to_be_fenced() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    home.ready(1..2);
    let successor = serde_json::json!({
        "project": "local", "epoch": 2, "incarnation": "6f0f6b54-93a1-4c8e-9f2b-0d7e3f6f1a11",
        "machine": "other", "mode": "available"
    });
    home.memory.plant("owner/0000000002.json", successor.to_string());
    for _ in 0..2 {
        let answer = home.push(1).await;
        assert_eq!(exit(&answer), Exit::No);
        assert!(answer.unwrap_err().message.contains("lost"));
    }
    let report = report::report(&home.keeper.facts());
    assert!(report.fence.is_some_and(|why| why.contains("epoch 2")));
    assert!(report.health.is_some_and(|health| !health.ok));
    // Also what had been acknowledged before is not acknowledged again.
    assert_eq!(exit(&home.push(0).await), Exit::No);
    assert_eq!(home.keeper.drain(EVER).await, Exit::NotArchived);
}

#[tokio::test]
async fn no_failure_of_the_store_is_a_success_of_a_push() {
    for operation in ["create", "get"] {
        for kind in KINDS {
            let home = Home::new(Origin::Fresh).await;
            home.ready(0..1);
            home.memory.faults(move |op, _| if op == operation { Fate::Fail(kind) } else { Fate::Pass });
            assert_eq!(exit(&home.push(0).await), Exit::No, "{operation} {kind:?}");
            home.memory.faults(|_, _| Fate::Pass);
            assert_eq!(exit(&home.push(0).await), Exit::Clean, "{operation} {kind:?}");
        }
    }
}

#[tokio::test]
async fn other_content_under_a_name_is_an_alarm_and_is_left_as_it_is() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    home.memory.plant(&home.key(0), codec::pack(b"other").unwrap());
    let before = home.memory.objects();
    assert_eq!(exit(&home.push(0).await), Exit::No);
    assert_eq!(home.memory.objects(), before);
    assert!(home.row("archive").starts_with("alarm: ALARM"), "{}", home.row("archive"));
}

#[tokio::test]
async fn no_failure_of_the_store_and_no_damage_is_absence() {
    for operation in ["get", "list"] {
        for kind in KINDS {
            let home = Home::new(Origin::Fresh).await;
            home.memory.faults(move |op, _| if op == operation { Fate::Fail(kind) } else { Fate::Pass });
            let (got, bytes) = home.fetch_within(&real().name(0), BRIEF).await;
            assert_eq!(exit(&got), Exit::Fatal, "{operation} {kind:?}");
            assert_eq!(bytes, None);
        }
    }
    let home = Home::new(Origin::Fresh).await;
    home.memory.plant(&home.key(0), codec::pack(&vec![0; real().segments[0].bytes.len()]).unwrap());
    assert_eq!(exit(&home.fetch(&real().name(0)).await.0), Exit::Fatal);
}

#[tokio::test]
async fn an_epoch_that_was_taken_over_proves_nothing_absent_before_its_lineage_is_written() {
    let home = Home::new(Origin::Takeover { from: Epoch(1) }).await;
    let (got, _) = home.fetch_within("00000002.history", BRIEF).await;
    assert_eq!(exit(&got), Exit::Fatal);
    assert!(got.unwrap_err().message.contains("lineage.json"));
}

#[tokio::test]
async fn without_a_keeper_a_fetch_is_fatal_and_a_push_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory);
    let destination = directory.path().join("RECOVERYXLOG");
    let got = fetch_within(&settings, &real().name(0), &destination, Duration::from_millis(50));
    assert_eq!(exit(&got), Exit::Fatal);
    assert!(!destination.exists());
    let file = directory.path().join(real().name(0));
    std::fs::write(&file, "x").unwrap();
    assert_eq!(exit(&push_within(&settings, &file, Duration::from_millis(50))), Exit::No);
}

#[tokio::test]
async fn the_next_segments_are_fetched_before_they_are_asked_for() {
    let home = Home::new(Origin::Fresh).await;
    (0..3).for_each(|index| home.plant(index));
    assert_eq!(exit(&home.fetch(&real().name(0)).await.0), Exit::Clean);
    let waited = Instant::now();
    // The listing is what a request needs that finds nothing: with it gone, only what is in memory can be served.
    home.until("two segments are in memory", |h| h.keeper.archive().unwrap().inbox.held() >= 2).await;
    home.hangs.store(true, Ordering::SeqCst);
    for index in 1..3 {
        let (got, bytes) = home.fetch(&real().name(index)).await;
        assert_eq!(exit(&got), Exit::Clean, "{index}");
        assert_eq!(bytes.as_deref(), Some(&real().segments[index].bytes[..]));
    }
    assert!(waited.elapsed() < EVER);
}

#[tokio::test]
async fn a_store_that_hangs_holds_neither_a_request_nor_the_drain_in_a_stop() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..2);
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    home.until("both are archived ahead", |h| h.stored(1)).await;
    let path = home.path(1);
    let other = real().name(2);
    std::fs::write(path.with_file_name(&other), &real().segments[2].bytes).unwrap();
    std::fs::write(path.with_file_name("archive_status").join(format!("{other}.ready")), "").unwrap();
    home.hangs.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let share = Duration::from_millis(150);
    let announce = async {
        home.until("a request is waiting", |h| h.keeper.life.receiver_count() > 0).await;
        home.keeper.life.send_modify(|life| *life = life.announced(share));
    };
    let (answer, ()) = tokio::join!(home.push(2), announce);
    // Above 125: the archiver ends, and Postgres's stop does not wait for its next tries.
    assert_eq!(exit(&answer), Exit::Fatal);
    assert_eq!(exit(&home.push(2).await), Exit::Fatal, "and the next one at once");
    let (got, _) = home.fetch(&real().name(0)).await;
    assert_eq!(exit(&got), Exit::Fatal);
    assert_eq!(home.keeper.drain(share).await, Exit::NotArchived);
    assert!(begun.elapsed() < EVER / 3, "{:?}", begun.elapsed());
    assert_eq!(*home.keeper.life.borrow(), Life::Draining);
}

#[tokio::test]
async fn the_drain_ships_what_postgres_left_ready_but_nothing_of_a_directory_that_no_postgres_of_ours_used() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..3);
    assert_eq!(home.keeper.drain(Duration::from_secs(5)).await, Exit::NotArchived);
    assert!(!home.stored(0), "it may be another history");
    home.keeper.alive(&home.settings.pgdata().join("pg_wal"));
    assert_eq!(home.keeper.drain(EVER).await, Exit::Clean);
    assert!((0..3).all(|index| home.stored(index)));
}

#[tokio::test]
async fn behind_a_file_that_a_person_must_look_at_nothing_is_stored() {
    let home = Home::new(Origin::Fresh).await;
    home.memory.plant(&home.key(0), codec::pack(b"another history").unwrap());
    home.ready(0..1);
    assert_eq!(exit(&home.push(0).await), Exit::No);
    // What is known to differ keeps back what comes after it. (What was on its way already is another matter: ADR 5.)
    home.ready(1..3);
    let outbox = Arc::clone(&home.keeper.archive().unwrap().outbox);
    let before = home.memory.objects();
    outbox.run_ahead(&home.settings.pgdata().join("pg_wal"), None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(home.memory.objects(), before);
}

#[tokio::test]
async fn a_failed_backup_leaves_the_epoch_unprotected_and_says_why() {
    let home = Home::new(Origin::Fresh).await;
    let settings = home.settings.clone();
    let answer =
        tokio::task::spawn_blocking(move || super::client::backup_now(&settings, true)).await.unwrap();
    assert!(answer.unwrap_err().message.contains("the engine was killed"));
    let archive = home.keeper.archive().unwrap();
    assert!(matches!(archive.backups.protection(), Protection::None { failures: 1, .. }));
    let row = home.row("backup (wal-x 1.2.3)");
    assert!(row.contains("UNPROTECTED") && row.contains("the engine was killed"), "{row}");
    let settings = home.settings.clone();
    let listed =
        tokio::task::spawn_blocking(move || super::client::backup_list(&settings, true)).await.unwrap();
    assert_eq!(exit(&listed), Exit::Clean);
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_answered_in_words() {
    let home = Home::new(Origin::Fresh).await;
    let socket = home.settings.keeper_socket();
    let answers = tokio::task::spawn_blocking(move || {
        let push = Verb::WalPush { name: "00000002.history".to_owned() };
        let without_file = Call::start(&socket, push, &[], EVER).unwrap().answer(EVER).unwrap();
        let file = tempfile::tempfile().unwrap();
        let odd = Verb::WalPush { name: "passwd".to_owned() };
        let odd = Call::start(&socket, odd, &[file.as_fd()], EVER).unwrap().answer(EVER).unwrap();
        [without_file, odd]
    });
    for answer in answers.await.unwrap() {
        assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn the_next_segment_comes_in_a_file_that_was_filled_before_it_was_asked_for() {
    let home = Home::new(Origin::Fresh).await;
    (0..3).for_each(|index| home.plant(index));
    let socket = home.settings.keeper_socket();
    let calls = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let file = || tempfile::tempfile().unwrap();
        let ask = |index: usize, exchange, files: &[&std::fs::File]| {
            let verb = Verb::WalFetch { name: real().name(index), patience_ms: 10_000, exchange };
            let files: Vec<_> = files.iter().rev().map(|f| f.as_fd()).collect();
            let mut call = Call::start(&socket, verb, &files, EVER).unwrap();
            let (answer, file) = (call.answer(EVER).unwrap(), call.file().map(std::fs::File::from));
            assert!(matches!(answer, Answer::Done { .. }) && file.is_none() || answer == Answer::Exchanged);
            file
        };
        let holds = |file: &std::fs::File, index: usize| {
            let expected = &real().segments[index].bytes;
            let mut bytes = vec![0; expected.len()];
            file.metadata().unwrap().len() == expected.len() as u64
                && file.read_exact_at(&mut bytes, 0).is_ok()
                && bytes == *expected
        };
        // The first one nobody could foresee; its spare gets the second.
        let (first, spare) = (file(), file());
        assert!(ask(0, true, &[&first, &spare]).is_none() && holds(&first, 0));
        let begun = Instant::now();
        while !holds(&spare, 1) {
            assert!(begun.elapsed() < EVER, "the spare file is never filled");
            std::thread::yield_now();
        }
        // It comes back for the place that was offered, and that one gets the third.
        let place = file();
        let filled = ask(1, true, &[&place, &file()]).unwrap();
        assert_eq!(filled.metadata().unwrap().ino(), spare.metadata().unwrap().ino());
        // Another segment than the one that was foreseen comes as if nothing were.
        let again = file();
        assert!(ask(1, true, &[&again, &file()]).is_none() && holds(&again, 1));
        // And who does not take files in exchange, as a client of an older release, gets his own filled.
        let own = file();
        assert!(ask(2, false, &[&own]).is_none() && holds(&own, 2));
    });
    calls.await.unwrap();
}

#[tokio::test]
async fn a_fetched_file_takes_the_place_of_what_has_its_name() {
    let home = Home::new(Origin::Fresh).await;
    (0..3).for_each(|index| home.plant(index));
    let directory = home.settings.pgdata().join("pg_wal");
    std::fs::write(directory.join("RECOVERYXLOG"), "what a killed recovery left").unwrap();
    let count = || std::fs::read_dir(&directory).unwrap().count();
    let before = count();
    for index in 0..3 {
        let (got, bytes) = home.fetch(&real().name(index)).await;
        assert_eq!(exit(&got), Exit::Clean);
        assert_eq!(bytes.as_deref(), Some(&real().segments[index].bytes[..]));
        assert_eq!(count(), before, "no other name is left");
    }
}

#[tokio::test]
async fn without_a_store_keeper_only_watches_and_says_unprotected() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(settings(&directory), Err("no store".to_owned()));
    let report = report::report(&keeper.facts());
    assert!(report.rows.iter().any(|row| row.detail.contains("UNPROTECTED: no store")));
    assert_eq!(report.values["protected"], false);
    assert_eq!(report.fence, None);
    assert_eq!(keeper.drain(Duration::ZERO).await, Exit::Clean);
}

#[tokio::test]
async fn a_store_that_does_not_let_us_look_at_a_backup_makes_it_neither_verified_nor_missing() {
    let home = Home::new(Origin::Fresh).await;
    home.plant(0);
    let name = format!("base_{}", real().name(0));
    let start = real().segments[0].segment.start(real().size).0 + 40;
    let sentinel = serde_json::json!({
        "LSN": start, "FinishLSN": start + 8, "PgVersion": 150_000, "SystemIdentifier": real().system,
        "FinishTime": (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(3)).to_string()
    });
    let base = "e0000000001/basebackups_005";
    home.memory.plant(&format!("{base}/{name}_backup_stop_sentinel.json"), sentinel.to_string());
    home.memory.plant(&format!("{base}/{name}/tar_partitions/pg_control.tar.zst"), "control");
    let backups = &home.keeper.archive().unwrap().backups;
    let (part, wal) = (format!("{name}/"), "wal_005/".to_owned());
    for refused in [part, wal] {
        home.memory.faults(
            move |_, key| {
                if key.ends_with(&refused) { Fate::Fail(Kind::Transient) } else { Fate::Pass }
            },
        );
        backups.find_out(&home.keeper).await;
        assert_eq!(backups.protection(), Protection::Unknown);
    }
    home.memory.faults(|_, _| Fate::Pass);
    backups.find_out(&home.keeper).await;
    assert!(matches!(backups.protection(), Protection::Verified { name: n, .. } if n == name));
    assert!(home.row("backup").starts_with("ok: "), "{}", home.row("backup"));
    let values = report::report(&home.keeper.facts()).values;
    assert!(
        values["backup_age_seconds"].as_u64().is_some_and(|age| (10_800..10_860).contains(&age)),
        "{values:?}"
    );
}
