//! The harness around a real backup engine and a real Postgres, over a directory store: a backup that is believed can be
//! restored, and one that is not whole, or an engine that lies, is not believed. Needs an engine (`SUPAFLY_WALG`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;

use cluster::{Cluster, EPOCH, PATIENCE, postgres, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use supafly::exit::Failure;
use supafly::postgres::lsn::SegmentSize;
use supafly::store::{self, Store};
use supafly::walg::{self, Backup, Engine, Unfit, Wanted};

async fn push(cluster: &Cluster, engine: &Engine, deadline: Duration) -> Result<String, Failure> {
    engine.push(&cluster.settings, EPOCH, &cluster.settings.pgdata(), deadline, |_| {}).await
}

async fn fetch(
    cluster: &Cluster,
    engine: &Engine,
    name: &str,
    to: &Path,
    deadline: Duration,
) -> Result<(), Failure> {
    let wanted = Wanted { epoch: EPOCH, name, destination: to, run_as: postgres() };
    engine.fetch(&cluster.settings, &wanted, deadline, |_| {}).await
}

/// Verifies until the WAL that a backup needs has had the time to be archived.
async fn verified(store: &Store, backup: &Backup, id: u64) -> Result<(), Unfit> {
    let end = Instant::now() + PATIENCE;
    loop {
        match walg::verify(store, backup, Some(id), SegmentSize::DEFAULT).await {
            Err(Unfit::WalMissing { .. }) if Instant::now() < end => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

fn parts(cluster: &Cluster, name: &str) -> Vec<PathBuf> {
    let dir = cluster.basebackups().join(name).join("tar_partitions");
    let mut parts: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    parts.sort();
    parts
}

#[tokio::test]
async fn a_backup_that_is_believed_is_restored_and_a_damaged_one_is_not_believed() {
    let mut cluster = Cluster::start();
    let engine = cluster.engine.clone();
    let store = store::open(&cluster.settings).unwrap();
    let first = push(&cluster, &engine, PATIENCE).await.unwrap();
    // Nothing was written since, and still the name is another one: none is ever overwritten.
    let second = push(&cluster, &engine, PATIENCE).await.unwrap();
    let backups = walg::list(&store, EPOCH).await.unwrap();
    assert_eq!(backups.iter().map(|b| &b.name).collect::<Vec<_>>(), [&first, &second]);
    let id: u64 = cluster.sql("select system_identifier from pg_control_system()").parse().unwrap();
    let backup = &backups[1];
    assert_eq!(backup.system_identifier, id);
    cluster.sql("insert into t select g, 'late' from generate_series(20001, 20500) g");
    let rows = cluster.sql("select count(*) || ' ' || sum(g) from t");
    let last = cluster.sql("select pg_walfile_name(pg_switch_wal())");
    verified(&store, backup, id).await.unwrap();
    until("the last segment to be archived", || cluster.wal().join(&last).exists().then_some(()));

    assert!(matches!(verified(&store, backup, id + 1).await, Err(Unfit::Foreign { .. })));
    let segment = cluster.wal().join(second.strip_prefix("base_").unwrap());
    fs::rename(&segment, segment.with_extension("away")).unwrap();
    let history = format!("{}.", segment.file_name().unwrap().to_str().unwrap());
    until("the backup's own file to be archived", || {
        let names = fs::read_dir(cluster.wal()).unwrap().map(|e| e.unwrap().file_name());
        names.into_iter().any(|n| n.to_str().unwrap().starts_with(&history)).then_some(())
    });
    let e = walg::verify(&store, backup, Some(id), SegmentSize::DEFAULT).await.unwrap_err();
    assert!(matches!(e, Unfit::WalMissing { .. }), "{e}");
    fs::rename(segment.with_extension("away"), &segment).unwrap();

    let whole = cluster.destination("whole");
    fetch(&cluster, &engine, &second, &whole, PATIENCE).await.unwrap();
    let again = fetch(&cluster, &engine, &second, &whole, PATIENCE).await.unwrap_err();
    assert!(again.message.contains("must be empty"), "{again}");
    let unknown = fetch(&cluster, &engine, "LATEST", &cluster.destination("n"), PATIENCE).await.unwrap_err();
    assert!(unknown.message.contains("no backup `LATEST`"), "{unknown}");

    for (number, part) in parts(&cluster, &second).into_iter().enumerate() {
        let kept = fs::read(&part).unwrap();
        // WAL-G does not count the label's tar, so that a few bytes less of anything do not show.
        for damage in [None, Some(kept.len().saturating_sub(1024)), Some(0)] {
            match damage {
                None => fs::remove_file(&part).unwrap(),
                Some(length) => fs::write(&part, &kept[..length]).unwrap(),
            }
            let e = walg::verify(&store, backup, Some(id), SegmentSize::DEFAULT).await.unwrap_err();
            assert!(
                matches!(e, Unfit::PartMissing { .. } | Unfit::Smaller { .. }),
                "{}: {e}",
                part.display()
            );
            let to = cluster.destination(&format!("damaged-{number}"));
            let e = fetch(&cluster, &engine, &second, &to, PATIENCE).await.unwrap_err();
            assert!(e.message.contains(&second), "{e}");
            assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "nothing is fetched of what is not whole");
        }
        fs::write(&part, &kept).unwrap();
    }

    cluster.stop();
    cluster.recover(&whole);
    assert_eq!(cluster.sql("select count(*) || ' ' || sum(g) from t"), rows);
}

#[tokio::test]
async fn an_engine_that_lies_or_hangs_is_found_out_in_time() {
    let cluster = Cluster::start();
    let store = store::open(&cluster.settings).unwrap();
    let short = Duration::from_secs(2);

    let idle = cluster.impostor("idle", "exit 0");
    let e = push(&cluster, &idle, PATIENCE).await.unwrap_err();
    assert!(e.message.contains("left no new backup"), "{e}");
    let pid = cluster.settings.run.join("pid");
    let hangs = format!(
        "trap '' TERM INT HUP; echo $$ >{}; echo hangs now; while :; do sleep 600; done",
        pid.display()
    );
    let hangs = cluster.impostor("hangs", &hangs);
    let begun = Instant::now();
    let e = push(&cluster, &hangs, short).await.unwrap_err();
    assert!(e.message.contains("killed at its deadline of 2s") && e.message.contains("| hangs now"), "{e}");
    assert!(begun.elapsed() < PATIENCE);
    let number = fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(number.trim()).exists(), "it lives on");
    assert_eq!(walg::list(&store, EPOCH).await.unwrap(), []);

    let name = push(&cluster, &cluster.engine, PATIENCE).await.unwrap();
    let lies = [
        ("nothing", "exit 0", "left out"),
        ("lost", "\"$REAL\" \"$@\" && rm $(find $2/base -size +100k -type f | head -1)", "left out base/"),
        (
            "short",
            "\"$REAL\" \"$@\" && truncate -s 0 $(find $2/base -size +1M -type f | head -1)",
            "files short",
        ),
        ("control", "\"$REAL\" \"$@\" && rm $2/global/pg_control", "left out global/pg_control"),
        ("half", "\"$REAL\" \"$@\" && truncate -s 100 $2/global/pg_control", "with 100 bytes"),
        ("fails", "echo 'no luck' >&2; exit 1", "| no luck"),
    ];
    for (what, script, said) in lies {
        let engine = cluster.impostor(what, script);
        let to = cluster.destination(&format!("to-{what}"));
        let e = fetch(&cluster, &engine, &name, &to, PATIENCE).await.unwrap_err();
        assert!(e.message.contains(said), "{what}: {e}");
    }
    let to = cluster.destination("to-hangs");
    fs::remove_file(&pid).unwrap();
    let stuck = cluster.impostor("stuck", "trap '' TERM; while :; do sleep 600; done");
    let e = fetch(&cluster, &stuck, &name, &to, short).await.unwrap_err();
    assert!(e.message.contains("killed at its deadline of 2s"), "{e}");
    fetch(&cluster, &cluster.engine, &name, &to, PATIENCE).await.unwrap();
}
