//! A volume that is older than what its own epoch archived (a snapshot or a copy put back) is never the owner again, and
//! an honest owner always is, however it ended.

use crate::support::bucket::{Bucket, Kind};
use crate::support::ledger::{self, Writer};
use crate::support::machine::{Machine, PATIENCE, until};
use crate::support::programs::pg_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use supafly::archive::compare::{CannotTell, compare};
use supafly::archive::rollback::Position;
use supafly::owner::Epoch;
use supafly::postgres::bin::Bin;
use supafly::postgres::control;
use supafly::postgres::lsn::{Lsn, SegmentSize};

const COMPARED: &str = "the data directory has all that epoch 0000000001 archived";

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// What a volume snapshot keeps.
fn snapshot(machine: &Machine, name: &str) {
    copy(&machine.data(), &machine.dir.path().join(name));
}

/// Puts it back.
fn put_back(machine: &mut Machine, name: &str) {
    machine.lose_volume();
    copy(&machine.dir.path().join(name), &machine.data());
}

fn segments(n: u64) -> Lsn {
    Lsn(n * SegmentSize::DEFAULT.bytes())
}

/// Objects with their bytes: nothing of it may change.
fn contents(bucket: &Bucket) -> Vec<(String, Vec<u8>)> {
    bucket.keys("").into_iter().map(|key| (bucket.get(&key), key)).map(|(bytes, key)| (key, bytes)).collect()
}

/// Boots to a 77 that says why; neither the archive nor the data directory has changed.
fn refused(machine: &mut Machine, bucket: &Bucket, words: &[&str]) {
    let before = contents(bucket);
    let control = machine.data().join("pgdata/global/pg_control");
    let (at, pid) = (std::fs::read(&control).unwrap(), machine.data().join("pgdata/postmaster.pid"));
    let running = pid.exists();
    let said = machine.log().len();
    machine.boot();
    let status = machine.wait_end();
    let log = machine.log()[said..].to_owned();
    assert_eq!(status.code(), Some(77), "{log}");
    for word in ["older than what its own epoch", "move ", "away and start again", "SUPAFLY_TAKEOVER=1"]
        .iter()
        .chain(words)
    {
        assert!(log.contains(word), "`{word}` is not said:\n{log}");
    }
    assert!(contents(bucket) == before, "the archive has changed");
    assert!(std::fs::read(&control).unwrap() == at && pid.exists() == running, "the volume was touched");
}

#[test]
fn a_copy_put_back_after_more_was_archived_is_refused_and_both_ways_out_have_every_row() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    ledger::create_table(&machine);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    snapshot(&machine, "stopped");

    // One segment more, the very one that the copy has begun.
    machine.boot();
    machine.wait_ready();
    assert!(machine.log().contains(COMPARED), "{}", machine.tail());
    let before = bucket.archived_end(1);
    machine.sql("create table one_more as select 1 as one").unwrap();
    machine.sql("select pg_switch_wal()").unwrap();
    machine.wait("one segment more", |_| (bucket.archived_end(1) > before).then_some(()));
    assert_eq!(bucket.archived_end(1), Lsn(before.0 + segments(1).0));
    machine.cut_power();
    snapshot(&machine, "killed");
    put_back(&mut machine, "stopped");
    refused(&mut machine, &bucket, &["other content"]);

    // Many more, recycled meanwhile; the copy of a killed machine.
    put_back(&mut machine, "killed");
    machine.boot();
    machine.wait_ready();
    let writer = Writer::start(&machine, 50, Duration::ZERO);
    until("many segments more", PATIENCE, || {
        (bucket.archived_end(1) >= Lsn(before.0 + segments(6).0)).then_some(())
    });
    let ledger = writer.finish();
    machine.sql("select pg_switch_wal()").unwrap();
    machine.sql("checkpoint").unwrap();
    let last = ledger.last().unwrap();
    machine.wait("every row to be archived", |_| (bucket.archived_end(1) > last.lsn).then_some(()));
    machine.cut_power();
    snapshot(&machine, "newest");
    put_back(&mut machine, "killed");
    refused(&mut machine, &bucket, &["the archive has WAL segment"]);

    // Where a refused machine holds instead of ending, its status says why.
    machine.env.insert("FLY_MACHINE_ID".into(), "e2e".into());
    machine.boot();
    let shown = machine.wait("the status to say why", |m| {
        let shown = m.status()?.to_string();
        shown.contains("older than what its own epoch").then_some(shown)
    });
    assert!(shown.contains("SUPAFLY_TAKEOVER=1"), "{shown}");
    assert!(!machine.supafly(&["health", "--ready"]).status.success());
    machine.cut_power();
    machine.env.remove("FLY_MACHINE_ID");

    // A way out: the data directory is moved away, and comes back from the archive.
    std::fs::rename(machine.data().join("pgdata"), machine.dir.path().join("pgdata.old")).unwrap();
    machine.boot();
    machine.wait_ready();
    ledger::assert_rows(|s| machine.sql(s), last.last);
    assert_eq!(machine.sql("table one_more").unwrap(), [["1"]]);
    assert_eq!(bucket.keys("owner/").len(), 1);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());

    // What was the newest before that is on an older timeline now.
    put_back(&mut machine, "newest");
    refused(&mut machine, &bucket, &["the archive has timeline 2"]);

    // The other way out.
    machine.lose_volume();
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    machine.boot();
    machine.wait_ready();
    ledger::assert_rows(|s| machine.sql(s), last.last);
    assert_eq!(bucket.keys("owner/").len(), 2);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn an_honest_owner_is_adopted_after_every_kind_of_end() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    ledger::create_table(&machine);
    let mut writer = Writer::start(&machine, 50, Duration::ZERO);
    let mut rows = 0;
    // The control file far behind what is archived; amid a checkpoint; just behind one, with everything recycled; and
    // with checkpoints that follow each other as fast as they can, also while keeper compares.
    for (round, checkpoint) in [None, Some(700), Some(0), Some(100)].into_iter().enumerate() {
        let until_archived = Lsn(bucket.archived_end(1).0 + segments(3).0);
        until("some segments more", PATIENCE, || (bucket.archived_end(1) >= until_archived).then_some(()));
        if let Some(pause) = checkpoint {
            std::thread::scope(|scope| {
                let done = scope.spawn(|| machine.sql("checkpoint"));
                std::thread::park_timeout(Duration::from_millis(pause));
                if pause == 0 {
                    done.join().unwrap().unwrap();
                }
                machine.signal(Signal::SIGKILL);
            });
        }
        machine.cut_power();
        rows = rows.max(writer.finish().last().map_or(0, |a| a.last));
        let said = machine.log().len();
        machine.boot();
        machine.wait_ready();
        let log = machine.log()[said..].to_owned();
        assert!(log.contains(COMPARED), "round {round}: {log}");
        ledger::assert_rows(|s| machine.sql(s), rows);
        machine.sql("truncate ledger").unwrap();
        if round == 2 {
            machine.sql("alter system set max_wal_size = '32MB'").unwrap();
            machine.sql("alter system set min_wal_size = '32MB'").unwrap();
            machine.sql("select pg_reload_conf()").unwrap();
        }
        rows = 0;
        writer = Writer::start(&machine, 50, Duration::ZERO);
    }
    writer.wait_rows(500);
    rows = rows.max(writer.finish().last().unwrap().last);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.boot();
    machine.wait_ready();
    ledger::assert_rows(|s| machine.sql(s), rows);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    assert_eq!(bucket.keys("owner/"), ["owner/0000000001.json"]);
}

#[test]
fn a_running_owner_is_never_taken_for_an_old_copy_however_fast_its_checkpoints_follow() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    ledger::create_table(&machine);
    for setting in ["max_wal_size = '32MB'", "min_wal_size = '32MB'"] {
        machine.sql(&format!("alter system set {setting}")).unwrap();
    }
    machine.sql("select pg_reload_conf()").unwrap();
    let writer = Writer::start(&machine, 50, Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut told, mut moved) = (0, 0);
    let end = Lsn(bucket.archived_end(1).0 + segments(12).0);
    // Exactly what keeper does while Postgres runs, again and again instead of once.
    while bucket.archived_end(1) < end || told == 0 {
        let pgdata = machine.data().join("pgdata");
        let (bin, at) = (Bin { directory: pg_bin(), major: 0 }, pgdata.clone());
        let position =
            move || control::read(&bin, &at).map(|c| Position::from(&c)).map_err(|e| e.to_string());
        match runtime.block_on(compare(bucket.store(), Epoch(1), &pgdata, position)) {
            Ok(verdict) => {
                assert_eq!(verdict, Ok(()));
                told += 1;
            }
            Err(CannotTell::Volume(_)) => moved += 1,
            Err(e) => panic!("{e}"),
        }
    }
    eprintln!("compared {told} times, {moved} times nothing could be said");
    assert!(told > moved, "{told} {moved}");
    writer.finish();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn an_honest_owner_is_adopted_after_a_kill_at_each_step_of_archiving_and_adoption() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table steps (step text)").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    let points =
        ["keeper.before-create", "keeper.after-create", "keeper.before-ack", "datadir.after-compare"];
    for (i, point) in points.into_iter().enumerate() {
        machine.env.insert("SUPAFLY_FAILPOINT".into(), format!("{point}:hang"));
        machine.boot();
        if point.starts_with("keeper.") {
            machine.wait("Postgres", |m| m.sql("select 1").ok());
            for _ in 0..3 {
                machine.sql(&format!("insert into steps values ('{point}')")).unwrap();
                machine.sql("select pg_switch_wal()").unwrap();
            }
        }
        until(&format!("the failpoint {point}"), PATIENCE, || {
            machine.log().contains(&format!("hung by a failpoint: {point}")).then_some(())
        });
        machine.cut_power();
        machine.env.remove("SUPAFLY_FAILPOINT");
        machine.boot();
        machine.wait_ready();
        let rows = machine.sql("select count(distinct step), count(*) from steps").unwrap();
        let keepers = (i + 1).min(3);
        assert_eq!(rows, [[keepers.to_string(), (3 * keepers).to_string()]], "{point}");
        assert_eq!(machine.stop().code(), Some(0), "{point}: {}", machine.tail());
    }
}

#[test]
fn a_store_that_does_not_answer_keeps_no_owner_down_and_an_old_copy_is_fenced_when_it_does() {
    let bucket = Bucket::behind_proxy();
    let mut machine = Machine::new(&bucket.env());
    // What is fenced may have WAL that is never taken: keeper is not to wait long for it.
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "20s".into());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table kept as select 1 as one").unwrap();
    machine.cut_power();
    snapshot(&machine, "copy");

    // The honest owner: serves without the store, compares when it is back, and archives what it wrote meanwhile.
    bucket.proxy().refuse();
    machine.boot();
    machine.wait_ready();
    assert!(machine.log().contains("not compared with the archive"), "{}", machine.tail());
    machine.sql("create table meanwhile as select 2 as two").unwrap();
    let segment = machine.sql("select pg_walfile_name(pg_switch_wal())").unwrap()[0][0].clone();
    bucket.proxy().listen_again();
    machine.wait("what was written meanwhile to be archived", |_| {
        bucket.keys("e0000000001/wal_005/").iter().any(|k| k.contains(&segment)).then_some(())
    });
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());

    // The old copy serves as long as nobody can know; then it is fenced, and nothing of it was archived.
    put_back(&mut machine, "copy");
    let before = contents(&bucket);
    bucket.proxy().refuse();
    machine.boot();
    machine.wait_ready();
    machine.sql("create table of_no_history as select 3 as three").unwrap();
    machine.sql("select pg_switch_wal()").unwrap();
    bucket.proxy().listen_again();
    machine.wait("the fence", |m| {
        let shown = m.status()?.to_string();
        (shown.contains("older than what its own epoch") && m.sql("select 1").is_err()).then_some(())
    });
    assert!(!machine.supafly(&["health", "--ready"]).status.success());
    assert!(contents(&bucket) == before, "something of the old copy was stored");
    let status = machine.stop();
    assert_eq!(status.code(), Some(77), "a fenced machine was refused, however it stops: {}", machine.tail());
    assert!(contents(&bucket) == before);
    refused(&mut machine, &bucket, &[]);
}

#[test]
fn a_stop_after_postgres_was_killed_ends_with_76_and_says_that_its_last_wal_is_on_the_volume_only() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "30s".into());
    // As an ordinary child, so that Postgres's pid file says the pid that we see.
    machine.boot_as_child();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table unarchived as select 1 as one").unwrap();
    let text = std::fs::read_to_string(machine.data().join("pgdata/postmaster.pid")).unwrap();
    let postmaster = Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap());
    kill(postmaster, Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    let status = machine.stop();
    assert_eq!(status.code(), Some(76), "{}", machine.tail());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let log = machine.log();
    assert!(log.contains("did not stop in order") && log.contains("Keep the volume"), "{log}");
    machine.wait_volume_free();
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.sql("table unarchived").unwrap(), [["1"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
