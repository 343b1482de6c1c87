//! A kill at each step of claim, initialisation, restore and first backup: the next boot converges, and there are never
//! two writers below one epoch.

use crate::support::bucket::{Bucket, Kind};
use crate::support::ledger::{self, Writer};
use crate::support::machine::{Machine, PATIENCE, until};
use std::time::Duration;
use supafly::postgres::lsn::{Lsn, SegmentSize};

/// Cuts the power when the machine has reached a failpoint at which it hangs.
fn die_at(machine: &mut Machine, point: &str) {
    machine.env.insert("SUPAFLY_FAILPOINT".into(), format!("{point}:hang"));
    machine.boot();
    until(&format!("the failpoint {point}"), PATIENCE, || {
        machine.log().contains(&format!("hung by a failpoint: {point}")).then_some(())
    });
    machine.cut_power();
    machine.env.remove("SUPAFLY_FAILPOINT");
}

/// Below each epoch all objects are of one incarnation: every segment name occurs once and there is one owner object.
fn assert_one_writer_an_epoch(bucket: &Bucket) {
    let owners = bucket.keys("owner/");
    for (i, key) in owners.iter().enumerate() {
        assert_eq!(*key, format!("owner/{:010}.json", i + 1), "epochs without a hole");
    }
}

#[test]
fn a_kill_at_each_step_of_the_first_boot_converges() {
    for point in [
        "claim.before-identity",
        "claim.after-identity",
        "claim.after-put",
        "datadir.after-initdb",
        "datadir.after-roles",
        "datadir.after-fsync",
        "datadir.after-rename",
        "datadir.after-cluster",
        "keeper.after-create",
        "keeper.backup-pushed",
    ] {
        let bucket = Bucket::start(Kind::File);
        let mut machine = Machine::new(&bucket.env());
        die_at(&mut machine, point);
        machine.boot();
        machine.wait_ready();
        machine.wait_protected();
        assert_eq!(bucket.keys("owner/"), ["owner/0000000001.json"], "{point}");
        machine.sql("create table after as select 1").unwrap();
        assert_eq!(machine.stop().code(), Some(0), "{point}: {}", machine.tail());
        assert_one_writer_an_epoch(&bucket);
    }
}

#[test]
fn a_kill_at_each_step_of_a_restore_converges_with_every_row() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    ledger::create_table(&first);
    first.wait_protected();
    let writer = Writer::start(&first, 50, Duration::ZERO);
    until("some archived segments", PATIENCE, || {
        (bucket.archived_end(1) >= Lsn(5 * SegmentSize::DEFAULT.bytes())).then_some(())
    });
    first.cut_power();
    let ledger = writer.finish();
    first.lose_volume();
    let last = ledger::must_survive(&ledger, bucket.archived_end(1));
    assert!(last > 0);

    // One machine, killed again and again, each time a step later; its volume stays.
    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    for point in [
        "claim.after-put",
        "restore.after-lineage",
        "restore.after-fetch",
        "restore.after-signal-file",
        "restore.after-promotion",
        "restore.after-stop",
        "restore.after-fsync",
        "restore.after-rename",
    ] {
        die_at(&mut second, point);
        assert_eq!(bucket.keys("owner/").len(), 2, "{point}");
    }
    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    second.wait_protected();
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
    assert_one_writer_an_epoch(&bucket);

    // And once more from the new epoch, which was killed so often on its way.
    second.lose_volume();
    let mut third = Machine::new(&bucket.env());
    third.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    third.boot();
    third.wait_ready();
    ledger::assert_rows(|s| third.sql(s), last);
    assert_eq!(third.stop().code(), Some(0), "{}", third.tail());
}
