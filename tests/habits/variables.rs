//! Variables that users of other images set: what becomes of them is said, before anything is touched.

use crate::support::bucket::Bucket;
use crate::support::machine::Machine;

#[test]
fn what_cannot_be_had_is_refused_at_once_and_nothing_is_touched() {
    let mut machine = Machine::new(&[
        ("POSTGRES_HOST_AUTH_METHOD", "trust".into()),
        ("POSTGRES_DB", "shop".into()),
        ("PGDATA", "/var/lib/postgresql/data".into()),
    ]);
    machine.boot();
    assert_eq!(machine.wait_end().code(), Some(78));
    let log = machine.log();
    for word in [
        "POSTGRES_HOST_AUTH_METHOD is refused",
        "POSTGRES_DB is refused",
        "SUPAFLY_ADOPT=/var/lib/postgresql/data",
    ] {
        assert!(log.contains(word), "{word}\n{log}");
    }
    assert!(!machine.data().exists());
    let checked = machine.supafly(&["check"]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("POSTGRES_DB is refused"));
}

#[test]
fn what_is_ignored_is_said_and_the_arguments_of_initdb_make_the_cluster() {
    let mut machine = Machine::new(&[
        ("POSTGRES_USER", "postgres".into()),
        ("POSTGRES_INITDB_ARGS", "--locale=C --data-checksums --wal-segsize=64".into()),
        ("GOTRUE_SITE_URL", "https://shop.example".into()),
        ("POSTGRES_HOST", "/var/run/postgresql".into()),
    ]);
    machine.boot();
    machine.wait_ready();
    let made = machine
        .sql("select datcollate, current_setting('wal_segment_size'), current_setting('data_checksums') from pg_database where datname = 'postgres'")
        .unwrap();
    assert_eq!(made, [["C", "64MB", "on"]]);
    let log = machine.log();
    for word in ["GOTRUE_SITE_URL is set and ignored", "POSTGRES_HOST is set and ignored"] {
        assert_eq!(log.matches(word).count(), 1, "{word}\n{log}");
    }
    assert!(!log.contains("shop.example") && !log.contains("POSTGRES_USER is set and"), "{log}");
    assert!(log.contains("set, and as in other images: POSTGRES_USER, POSTGRES_INITDB_ARGS"), "{log}");
    let checked = String::from_utf8_lossy(&machine.supafly(&["check"]).stdout).into_owned();
    assert!(checked.contains("  POSTGRES_USER: same: so it is anyway\n"), "{checked}");
    assert!(checked.contains("  GOTRUE_SITE_URL: ignored: GoTrue is not part of this image\n"), "{checked}");
}

/// As `fly storage create` sets them, and nothing else: keeper's own client writes WAL, the engine writes the backup, both
/// into the same bucket of one server; and another machine gets the rows back from there.
#[test]
fn the_bucket_variables_of_fly_are_enough_for_both_writers() {
    let mut bucket = Bucket::in_region_auto();
    // Where tests share a server, a name of its own.
    let env = bucket.fly_env(&format!("shop-{}", std::process::id()));
    assert!(env.iter().all(|(name, _)| !name.starts_with("SUPAFLY_")));
    let mut machine = Machine::new(&env);
    machine.boot();
    machine.wait_protected();
    machine.sql("create table kept (i int)").unwrap();
    machine.sql("insert into kept select generate_series(1, 1000)").unwrap();
    machine.sql("select pg_switch_wal()").unwrap();
    let switched = machine.sql("select pg_walfile_name(pg_switch_wal())").unwrap().concat().join("");
    machine.wait("the WAL in the bucket", |_| {
        let keys = bucket.keys("e0000000001/wal_005/");
        keys.iter().any(|k| k.contains(&switched)).then_some(())
    });
    let of = |part: &str| bucket.keys(&format!("e0000000001/{part}"));
    assert!(of("basebackups_005/").iter().any(|k| k.ends_with("_backup_stop_sentinel.json")));
    machine.cut_power();
    machine.lose_volume();
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.sql("select count(*), sum(i) from kept").unwrap(), [["1000", "500500"]]);
}
