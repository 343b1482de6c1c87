//! A machine outlives its volume.

use crate::support::bucket::{Bucket, Kind};
use crate::support::ledger::{self, Writer};
use crate::support::machine::{Machine, PATIENCE, open_directory, root, until};
use crate::support::programs::{pg_bin, programs};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use supafly::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline};

#[test]
fn every_archived_row_survives_the_loss_of_the_volume_over_s3() {
    survives(Kind::S3);
}

#[test]
fn every_archived_row_survives_the_loss_of_the_volume_over_files() {
    survives(Kind::File);
}

fn survives(kind: Kind) {
    let bucket = Bucket::start(kind);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    ledger::create_table(&first);
    let writer = Writer::start(&first, 50, Duration::ZERO);
    writer.wait_rows(10_000);
    let random = u64::from(rand::random::<u16>()) % 2_000;
    eprintln!("power cut {random} ms after the ten thousandth row");
    let end = std::time::Instant::now() + Duration::from_millis(random);
    until("three archived segments and the random moment", PATIENCE, || {
        (bucket.archived_end(1) >= Lsn(4 * SegmentSize::DEFAULT.bytes()) && std::time::Instant::now() >= end)
            .then_some(())
    });
    first.cut_power();
    let ledger = writer.finish();
    first.lose_volume();

    let archived = bucket.archived_end(1);
    let last = ledger::must_survive(&ledger, archived);
    assert!(last > 0, "the archived share is empty: {archived}");
    eprintln!(
        "{} rows acknowledged, {last} of them before {archived}, the end of the archive",
        ledger.last().unwrap().last
    );

    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    assert_eq!(second.sql("select pg_is_in_recovery()").unwrap(), [["f"]]);
    second.wait_protected();
    assert!(!bucket.keys("e0000000002/basebackups_005/").is_empty());
    second.sql("create table after_the_fact as select 42 as answer").unwrap();
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());

    engine_alone(&bucket, 2, |sql| {
        ledger::assert_rows(sql, last);
        assert_eq!(sql("select answer from after_the_fact").unwrap(), [["42"]]);
    });
}

#[test]
fn idle_traffic_is_archived_by_the_timeout_alone_and_survives() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.env.insert("SUPAFLY_ARCHIVE_TIMEOUT".into(), "2s".into());
    first.boot();
    first.wait_ready();
    ledger::create_table(&first);
    let before = bucket.archived_end(1);
    let writer = Writer::start(&first, 1, Duration::from_millis(250));
    writer.wait_rows(5);
    let lsn = writer.lsn();
    until("the timeout to archive what was written", PATIENCE, || {
        (bucket.archived_end(1) > lsn).then_some(())
    });
    first.cut_power();
    let ledger = writer.finish();
    first.lose_volume();
    let archived = bucket.archived_end(1);
    assert!(archived > before);
    let last = ledger::must_survive(&ledger, archived);
    assert!(last >= 5);

    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

#[test]
fn a_segment_that_the_power_cut_caught_in_flight_ends_the_history_before_it() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    first.wait_protected();
    ledger::create_table(&first);
    let writer = Writer::start(&first, 50, Duration::ZERO);
    until("some archived segments", PATIENCE, || {
        (bucket.archived_end(1) >= Lsn(7 * SegmentSize::DEFAULT.bytes())).then_some(())
    });
    first.cut_power();
    let ledger = writer.finish();
    first.lose_volume();
    // Uploads run side by side: the last but one had not arrived when the power went, the last had.
    let end = bucket.archived_end(1);
    let number = end.0 / SegmentSize::DEFAULT.bytes() - 2;
    let segment = Segment { timeline: Timeline(1), number };
    bucket.remove(&format!("e0000000001/wal_005/{}.zst", segment.name(SegmentSize::DEFAULT)));
    let last = ledger::must_survive(&ledger, bucket.archived_end(1));
    assert!(last > 0 && bucket.archived_end(1) < end);

    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    assert!(second.log().contains("was in flight"), "{}", second.tail());
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

#[test]
fn a_restored_machine_keeps_what_alter_system_had_set_but_nothing_of_archive_and_recovery() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    first.sql("alter system set work_mem = '9MB'").unwrap();
    first.sql("alter system set listen_addresses = '127.0.0.1,127.0.0.2'").unwrap();
    first.sql("alter system set recovery_target_lsn = '0/1'").unwrap();
    first.sql("alter system set archive_cleanup_command = 'false'").unwrap();
    // They are in the file, which is in the next base backup.
    first.wait_protected();
    let taken = first.supafly(&["backup", "now"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    first.cut_power();
    first.lose_volume();
    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    second.boot();
    second.wait_ready();
    assert_eq!(second.sql("show work_mem").unwrap(), [["9MB"]]);
    assert_eq!(second.sql("show listen_addresses").unwrap(), [["127.0.0.1,127.0.0.2"]]);
    let auto = std::fs::read_to_string(second.data().join("pgdata/postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("recovery_target_lsn") && !auto.contains("archive_cleanup_command"), "{auto}");
    let log = second.log();
    assert!(
        log.contains("recovery_target_lsn") && log.contains("MB/s") && log.contains("replays 0/"),
        "{log}"
    );
    // The private Postgres of the restore listened to nobody.
    let private = log.split("starting archive recovery").next().unwrap();
    assert!(!private.contains("listening on IPv4"), "{private}");
    second.sql("alter system set work_mem = '10MB'").unwrap();
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

#[test]
fn a_timeline_that_a_zombie_begins_inside_the_branch_segment_takes_no_row_away() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    first.wait_protected();
    ledger::create_table(&first);
    let writer = Writer::start(&first, 50, Duration::ZERO);
    until("some archived segments", PATIENCE, || {
        (bucket.archived_end(1) >= Lsn(5 * SegmentSize::DEFAULT.bytes())).then_some(())
    });
    first.cut_power();
    let ledger = writer.finish();
    let end = bucket.archived_end(1);
    let last = ledger::must_survive(&ledger, end);
    assert!(last > 0);

    // The heir has branched off, and is killed before it has a base backup of its own.
    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    second.env.insert("SUPAFLY_FAILPOINT".into(), "restore.after-lineage:hang".into());
    second.boot();
    second.wait("the branch", |m| m.log().contains("hung by a failpoint").then_some(()));
    second.cut_power();
    second.env.remove("SUPAFLY_FAILPOINT");
    let lineage: serde_json::Value = serde_json::from_slice(&bucket.get("e0000000002/lineage.json")).unwrap();
    assert_eq!(lineage["timeline"], 1, "{lineage}");
    assert_eq!(lineage["branch"], end.to_string(), "{lineage}");

    // The former owner, which does not know, restores itself within its own epoch: its timeline 2 leaves timeline 1 at
    // the beginning of the very last segment, below the branch.
    let size = SegmentSize::DEFAULT;
    let branch = Segment { timeline: Timeline(1), number: end.0 / size.bytes() - 1 };
    let at = Lsn(branch.start(size).0 + 40);
    let history = format!("1\t{at}\tno recovery target specified\n");
    let pack = |bytes: &[u8]| supafly::archive::codec::pack(bytes).unwrap();
    bucket.create("e0000000001/wal_005/00000002.history.zst", pack(history.as_bytes()));
    let bytes = bucket.get(&format!("e0000000001/wal_005/{}.zst", branch.name(size)));
    let zombie = Segment { timeline: Timeline(2), ..branch };
    bucket.create(&format!("e0000000001/wal_005/{}.zst", zombie.name(size)), bytes);

    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| second.sql(s), last);
    let histories = bucket.keys("e0000000002/wal_005/");
    assert!(histories.iter().any(|k| k.ends_with("/00000002.history.zst")), "{histories:?}");
    second.wait_protected();
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());

    // And once more, over both epochs.
    let mut third = Machine::new(&bucket.env());
    third.env.insert("SUPAFLY_TAKEOVER".into(), "2".into());
    third.boot();
    third.wait_ready();
    ledger::assert_rows(|s| third.sql(s), last);
    assert_eq!(third.stop().code(), Some(0), "{}", third.tail());
}

/// Restores an epoch with the engine and Postgres alone, as someone without supafly would, and lets `check` look at it.
fn engine_alone(
    bucket: &Bucket,
    epoch: u32,
    check: impl Fn(&dyn Fn(&str) -> Result<Vec<Vec<String>>, String>),
) {
    let dir = open_directory();
    let pgdata = dir.path().join("pgdata");
    let env = bucket.engine_env(epoch);
    let as_postgres = |program: &Path| {
        let mut c = if root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            c
        } else {
            Command::new(program)
        };
        c.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir.path()).envs(env.clone()).current_dir("/");
        c.stdin(Stdio::null());
        c
    };
    if root() {
        let chown = Command::new("chown").args(["-R", "postgres:"]).arg(dir.path()).status().unwrap();
        assert!(chown.success());
        bucket.open_to("postgres");
    }
    let engine = programs().join("engine");
    let name = bucket.newest_backup(epoch);
    let fetched = as_postgres(&engine).arg("backup-fetch").arg(&pgdata).arg(&name).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let setting = format!("restore_command='{} wal-fetch %f %p'", engine.display());
    let socket = format!("unix_socket_directories={}", dir.path().display());
    let touch =
        as_postgres(Path::new("/usr/bin/touch")).arg(pgdata.join("recovery.signal")).status().unwrap();
    assert!(touch.success());
    for own in ["postgresql.auto.conf", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        let path = pgdata.join(own);
        let _ = std::fs::remove_file(&path);
    }
    let hba = dir.path().join("hba");
    std::fs::write(&hba, "local all all trust\n").unwrap();
    let conf = dir.path().join("conf");
    let text = format!(
        "{setting}\n{socket}\nlisten_addresses=''\nport=5432\nhba_file='{}'\nident_file='{}'\nmax_connections=300\n\
         max_worker_processes=64\nmax_wal_senders=64\nmax_prepared_transactions=64\nmax_locks_per_transaction=512\n\
         archive_mode=off\nwal_level=logical\n",
        hba.display(),
        hba.with_file_name("ident").display()
    );
    let text = text
        .replace("unix_socket_directories=", "unix_socket_directories='")
        .replace("\nlisten", "'\nlisten");
    std::fs::write(&conf, text).unwrap();
    std::fs::write(hba.with_file_name("ident"), "").unwrap();
    let log = dir.path().join("postgres.log");
    let mut postgres = as_postgres(&pg_bin().join("postgres"))
        .arg("-D")
        .arg(&pgdata)
        .arg("-c")
        .arg(format!("config_file={}", conf.display()))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let sql = |statement: &str| {
        let out = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-F", "\t", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(dir.path())
            .args(["-c", statement])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&out.stdout);
        Ok(text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect())
    };
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the engine's own restore to open", PATIENCE, || {
            sql("select pg_is_in_recovery()").ok().filter(|r| r == &[["f"]])
        });
        check(&sql);
    }));
    let pid = nix::unistd::Pid::from_raw(postgres.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT).unwrap();
    postgres.wait().unwrap();
    if let Err(panic) = opened {
        eprintln!("{}", std::fs::read_to_string(&log).unwrap_or_default());
        std::panic::resume_unwind(panic);
    }
}
