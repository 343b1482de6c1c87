//! The data directory against its own archive, and how Postgres had stopped, as keeper sees them.

use super::home::{EVER, Home, exit};
use crate::archive::codec;
use crate::archive::testkit::real;
use crate::exit::Exit;
use crate::owner::Origin;
use crate::postgres::control::State;
use crate::store::Kind;
use crate::store::memory::Fate;

#[tokio::test]
async fn a_drain_is_not_clean_when_postgres_had_not_stopped_in_order_although_nothing_is_left_ready() {
    let home = Home::new(Origin::Fresh).await;
    for (state, expected) in [
        (State::ShutDown, Exit::Clean),
        (State::ShutDownInRecovery, Exit::Clean),
        (State::Production, Exit::NotArchived),
        (State::CrashRecovery, Exit::NotArchived),
        (State::ShuttingDown, Exit::NotArchived),
    ] {
        home.control(state, 0);
        assert_eq!(home.keeper.drain(EVER).await, expected, "{state:?}");
    }
    *home.control.lock().unwrap() = None;
    assert_eq!(
        home.keeper.drain(EVER).await,
        Exit::NotArchived,
        "what cannot be read is not known to be archived"
    );
}

#[tokio::test]
async fn an_older_copy_of_the_volume_stores_nothing_takes_no_backup_and_asks_to_be_fenced() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..2);
    home.control(State::Production, 1);
    // The archive went on: the third segment is not in pg_wal.
    (0..3).for_each(|index| home.plant(index));
    let before = home.memory.objects();
    for index in [0, 1] {
        let answer = home.push(index).await;
        assert_eq!(exit(&answer), Exit::No);
        let why = answer.unwrap_err().message;
        assert!(why.contains(&real().name(2)) && why.contains("SUPAFLY_TAKEOVER=1"), "{why}");
    }
    let settings = home.settings.clone();
    let backup = tokio::task::spawn_blocking(move || crate::keeper::client::backup_now(&settings, true))
        .await
        .unwrap();
    assert!(backup.unwrap_err().message.contains("older than what its own epoch"));
    assert_eq!(home.memory.objects(), before);
    let told = home.keeper.told();
    assert!(told.fence.is_some_and(|why| why.contains("older than what its own epoch")));
    assert!(told.health.is_some_and(|health| !health.ok));
    assert!(home.row("archive").starts_with("alarm: "), "{}", home.row("archive"));
    // The way out: what comes in the place of the old copy is looked at anew.
    let global = home.settings.pgdata().join("global");
    std::fs::rename(&global, global.with_file_name("away")).unwrap();
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    assert_eq!(home.keeper.told().fence, None);
    std::fs::rename(global.with_file_name("away"), &global).unwrap();
    assert_eq!(exit(&home.push(1).await), Exit::No);
    home.keeper.alive(&home.settings.pgdata().join("pg_wal"));
    assert_eq!(home.keeper.drain(EVER).await, Exit::NotArchived);
    assert_eq!(home.memory.objects(), before);
}

#[tokio::test]
async fn a_segment_that_is_only_begun_here_and_whole_in_the_archive_proves_an_older_copy() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    home.control(State::ShutDown, 1);
    let mut begun = real().segments[1].bytes.clone();
    begun[50_000..].fill(0);
    std::fs::write(home.path(1), begun).unwrap();
    assert_eq!(exit(&home.push(0).await), Exit::Clean, "nothing at or behind redo is archived");
    let copy = Home::new(Origin::Fresh).await;
    copy.ready(0..1);
    copy.control(State::ShutDown, 1);
    std::fs::copy(home.path(1), copy.path(1)).unwrap();
    copy.plant(1);
    let answer = copy.push(0).await;
    assert_eq!(exit(&answer), Exit::No);
    assert!(answer.unwrap_err().message.contains("other content"), "{:?}", copy.row("archive"));
    // An object that is damaged is no proof against a volume.
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..2);
    home.control(State::Production, 1);
    home.memory.plant(&home.key(1), codec::pack(b"damaged").unwrap());
    assert_eq!(exit(&home.push(0).await), Exit::Clean);
    assert_eq!(exit(&home.push(1).await), Exit::No, "and is never overwritten");
}

#[tokio::test]
async fn an_owner_that_could_not_compare_stores_nothing_before_it_has_and_then_goes_on() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..3);
    home.control(State::Production, 0);
    home.plant(0);
    home.plant(2);
    for (operation, fails) in [("list", "/wal_005/"), ("get", "/wal_005/0")] {
        home.memory.faults(move |op, key| {
            if op == operation && key.contains(fails) { Fate::Fail(Kind::Denied) } else { Fate::Pass }
        });
        assert_eq!(exit(&home.push(1).await), Exit::No, "{operation}");
        assert!(!home.stored(1), "{operation}");
        assert!(home.row("archive").contains("not compared"), "{}", home.row("archive"));
        assert_eq!(home.keeper.told().fence, None);
    }
    home.memory.faults(|_, _| Fate::Pass);
    for index in 0..3 {
        assert_eq!(exit(&home.push(index).await), Exit::Clean, "{index}");
    }
    assert!(home.row("archive").starts_with("ok: "), "{}", home.row("archive"));
}
