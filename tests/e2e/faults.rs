//! Store faults between a whole machine and a real S3 server, one request at a time: nothing is acknowledged that is not
//! stored, nothing counts as the archive's end that is not, and what was broken mends itself when the fault is over.

use crate::support::bucket::Bucket;
use crate::support::ledger::{self, Writer};
use crate::support::machine::{Machine, PATIENCE, until};
use crate::support::proxy::{Fault, Rule};
use std::time::{Duration, Instant};
use supafly::postgres::lsn::{Segment, SegmentSize, Timeline};

const WAL: &str = "/wal_005/";

fn archive_row(machine: &Machine) -> Option<(String, String)> {
    let row = machine.row("archive")?;
    Some((row.get("state")?.as_str()?.to_owned(), row.get("detail")?.as_str()?.to_owned()))
}

/// Closes the current segment after one more row; its name.
fn switch(machine: &Machine, what: &str) -> String {
    machine.sql(&format!("insert into pushed values ('{what}')")).unwrap();
    machine.sql("select pg_walfile_name(pg_switch_wal())").unwrap()[0][0].clone()
}

fn marked(machine: &Machine, segment: &str, suffix: &str) -> bool {
    machine.data().join(format!("pgdata/pg_wal/archive_status/{segment}.{suffix}")).exists()
}

fn stored(bucket: &Bucket, segment: &str) -> bool {
    bucket.keys("e0000000001/wal_005/").iter().any(|k| k.ends_with(&format!("{segment}.zst")))
}

/// The archiver has it, and so has the store: nothing wrong was acknowledged, and nothing is left behind.
fn wait_archived(machine: &mut Machine, bucket: &Bucket, segment: &str, what: &str) {
    machine.wait(&format!("{segment} to be archived after {what}"), |m| {
        marked(m, segment, "done").then_some(())
    });
    assert!(stored(bucket, segment), "{what}: {segment} was acknowledged and is not in the store");
}

#[test]
fn no_fault_of_a_push_is_taken_for_success_and_each_ends_with_the_fault() {
    let bucket = Bucket::behind_proxy();
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table pushed (what text)").unwrap();
    let put = |fault| Rule::new(fault).method("PUT").key(WAL);
    for (fault, said) in [
        (None, ""),
        (Some(Fault::Reset), ""),
        (Some(Fault::Forbidden), "AccessDenied"),
        (Some(Fault::NoSuchBucket), "NoSuchBucket"),
        (Some(Fault::SlowDown), "SlowDown"),
    ] {
        let what = fault.map_or("refused".to_owned(), |fault| format!("{fault:?}"));
        match fault {
            None => bucket.proxy().refuse(),
            Some(fault) => bucket.proxy().rules([put(fault)]),
        }
        let segment = switch(&machine, &what);
        let state = machine.wait(&format!("the status to say {what}"), |m| {
            archive_row(m).filter(|(state, detail)| state != "ok" && detail.contains(said))
        });
        assert_eq!(state.0, "degraded", "{what}: {}", state.1);
        assert!(marked(&machine, &segment, "ready") && !marked(&machine, &segment, "done"), "{what}");
        assert!(!stored(&bucket, &segment), "{what}");
        assert_eq!(machine.sql("select count(*) from pushed").unwrap().len(), 1, "{what}: Postgres serves");
        match fault {
            None => bucket.proxy().listen_again(),
            Some(_) => bucket.proxy().rules([]),
        }
        // Postgres's archiver sleeps for a minute after three failures, or until there is more to do.
        let woken = switch(&machine, "the fault is over");
        wait_archived(&mut machine, &bucket, &woken, &what);
        wait_archived(&mut machine, &bucket, &segment, &what);
        machine.wait("the status to recover", |m| archive_row(m).filter(|(state, _)| state == "ok"));
    }
    // A slow store is only slow; after a lost reply, our own object is not somebody else's.
    for rule in [put(Fault::Slow(Duration::from_secs(1))), put(Fault::LostReply).times(2)] {
        let what = format!("{rule:?}");
        bucket.proxy().rules([rule]);
        let segment = switch(&machine, "slow or lost");
        wait_archived(&mut machine, &bucket, &segment, &what);
        assert!(!bucket.proxy().injected().is_empty(), "{what}");
        machine.wait("the status to recover", |m| archive_row(m).filter(|(state, _)| state == "ok"));
    }
    assert!(!machine.log().contains("different content"), "{}", machine.tail());
    bucket.proxy().rules([]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_stop_while_the_store_hangs_ends_with_76_within_the_budget() {
    let bucket = Bucket::behind_proxy();
    let mut machine = Machine::new(&bucket.env());
    // Both Postgres's archiver and keeper wait for the store: each for a quarter of this at most.
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "20s".into());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table pushed (what text)").unwrap();
    bucket.proxy().rules([Rule::new(Fault::BlackHole)]);
    switch(&machine, "hung");
    until("a push into the black hole", PATIENCE, || (!bucket.proxy().seen().is_empty()).then_some(()));
    let begun = Instant::now();
    let status = machine.stop();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(76), "{}", machine.tail());
    assert!(took < Duration::from_secs(20), "{took:?} is beyond the budget");
    bucket.proxy().rules([]);
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.sql("table pushed").unwrap(), [["hung"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_store_that_fails_its_trial_is_tried_again_with_pauses_until_it_passes() {
    let bucket = Bucket::behind_proxy();
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    bucket.proxy().rules([Rule::new(Fault::Forbidden).method("PUT").key("_probe/")]);
    machine.boot();
    machine.wait_ready();
    let trials = |n: usize| {
        let tried = || bucket.proxy().injected().len();
        until("another trial of the store", PATIENCE, || (tried() >= n).then(tried))
    };
    let (before, begun) = (trials(1), Instant::now());
    trials(before + 8);
    // A turn of two seconds has one trial of its own, and few of those who want to store something.
    assert!(begun.elapsed() >= Duration::from_secs(3), "8 trials in {:?}", begun.elapsed());
    bucket.proxy().rules([]);
    machine.wait("the status to recover", |m| archive_row(m).filter(|(state, _)| state == "ok"));
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_store_that_ignores_conditions_is_refused_at_boot() {
    let bucket = Bucket::behind_proxy();
    bucket.proxy().rules([Rule::new(Fault::IgnoredCondition)]);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    let status = machine.wait_end();
    assert_eq!(status.code(), Some(78), "{}", machine.tail());
    assert!(machine.log().contains("it ignores `If-None-Match: *`"), "{}", machine.tail());
    assert!(!machine.data().join("pgdata").exists());
    assert!(bucket.keys("owner/").is_empty());
}

/// Archives some segments of rows and loses the volume; the last row that must survive.
fn lost_machine(bucket: &Bucket) -> u64 {
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    first.wait_protected();
    ledger::create_table(&first);
    let writer = Writer::start(&first, 50, Duration::ZERO);
    writer.wait_rows(8_000);
    let ledger = writer.finish();
    let all = ledger.last().unwrap();
    first.sql("select pg_switch_wal()").unwrap();
    first.wait("the rows to be archived", |_| (bucket.archived_end(1) > all.lsn).then_some(()));
    first.cut_power();
    let last = ledger::must_survive(&ledger, bucket.archived_end(1));
    assert_eq!(last, all.last);
    last
}

fn heir(bucket: &Bucket) -> Machine {
    let mut heir = Machine::new(&bucket.env());
    heir.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    heir
}

#[test]
fn no_fault_of_a_fetch_ends_a_recovery_early() {
    let bucket = Bucket::behind_proxy();
    let last = lost_machine(&bucket);
    // Keys of the lost epoch: what the heir archives is its own affair.
    let get = |fault| Rule::new(fault).method("GET").key("/e0000000001/wal_005/00000001000");
    let mut second = heir(&bucket);
    // Each of them once or twice, at segment after segment: mended without anybody.
    let faults = [
        Fault::SlowDown,
        Fault::Reset,
        Fault::Forbidden,
        Fault::NoSuchBucket,
        Fault::Truncated,
        Fault::Flipped,
    ];
    bucket.proxy().rules(faults.map(|fault| get(fault).skip(usize::from(fault != faults[0])).times(1)));
    second.boot();
    second.wait_ready();
    assert_eq!(bucket.proxy().injected(), faults);
    ledger::assert_rows(|s| second.sql(s), last);
    assert_eq!(second.sql("select pg_is_in_recovery()").unwrap(), [["f"]]);
    second.cut_power();
}

#[test]
fn a_restore_asks_again_when_its_look_at_the_last_segment_is_damaged_or_refused() {
    let bucket = Bucket::behind_proxy();
    let last = lost_machine(&bucket);
    let mut second = heir(&bucket);
    // The first segment that is read is the last one of the archive, before anything is fetched.
    let get = |fault| Rule::new(fault).method("GET").key("/e0000000001/wal_005/00000001000");
    bucket.proxy().rules([get(Fault::Flipped).times(2), get(Fault::Forbidden).times(2)]);
    second.boot();
    second.wait_ready();
    let said = second.log();
    assert!(
        said.contains("asks the store again") && said.contains("must not be given to Postgres"),
        "{said}"
    );
    assert!(said.contains("AccessDenied"), "{said}");
    ledger::assert_rows(|s| second.sql(s), last);
    second.cut_power();
}

#[test]
fn a_lasting_fault_of_a_fetch_never_opens_a_database_and_the_next_boot_has_every_row() {
    let bucket = Bucket::behind_proxy();
    let last = lost_machine(&bucket);
    let get = |fault| Rule::new(fault).method("GET").key("/e0000000001/wal_005/00000001000");
    let mut second = heir(&bucket);
    // The segment that the archive does not have, too: what is said of it instead is no proof of its absence.
    let size = SegmentSize::DEFAULT;
    let end = Segment::containing(Timeline(1), bucket.archived_end(1), size).name(size);
    let absent = |fault| Rule::new(fault).method("GET").key(&format!("/wal_005/{end}"));
    for (rule, said) in [
        (get(Fault::Flipped).skip(2), "must not be given to Postgres"),
        (get(Fault::Shortened).skip(2), "must not be given to Postgres"),
        (absent(Fault::NoSuchBucket), "NoSuchBucket"),
    ] {
        let fault = format!("{rule:?}");
        bucket.proxy().rules([rule]);
        let before = second.log().len();
        second.boot();
        let status = second.wait_end();
        let log = second.log()[before..].to_owned();
        assert!([70, 77].contains(&status.code().unwrap()), "{fault}: {status}\n{}", second.tail());
        assert!(log.contains(said), "{fault} is not said:\n{log}");
        assert!(!second.data().join("pgdata").exists(), "{fault}: a part was published");
    }
    // What can pass by itself is waited for, visibly; a refusal for a while.
    for fault in [Fault::SlowDown, Fault::Truncated, Fault::Forbidden] {
        bucket.proxy().rules([get(fault).skip(2)]);
        let before = second.log().len();
        second.boot();
        second.wait("the restore to wait for the store", |m| {
            let said = m.log()[before..].contains("a WAL file cannot be fetched yet");
            (said && archive_row(m).is_some_and(|(state, _)| state == "degraded")).then_some(())
        });
        assert!(!second.supafly(&["health", "--ready"]).status.success());
        assert!(!second.data().join("pgdata").exists(), "{fault:?}: a part was published");
        if fault != Fault::Forbidden {
            second.cut_power();
        }
    }
    bucket.proxy().rules([]);
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    second.cut_power();
}
