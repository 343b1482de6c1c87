//! The restore itself: fetch beside, replay and promote in private, prove, make durable, rename.
//!
//! | killed | what is there | next boot |
//! |---|---|---|
//! | before the lineage | nothing | begins |
//! | before the rename | lineage, cluster, a staging directory, perhaps a new timeline in our epoch | throws staging away and begins again; the timeline moves on |
//! | after the rename | the data directory | adopts it |
//!
//! Without room nothing is left behind either: `datadir` throws staging away, asks for more room than there was (where bytes were
//! what lacked), and ends with 73. Killed in that, it is as before the rename.

use super::survey::{Survey, patient, survey};
use crate::archive::{codec::Codec, names};
use crate::control::client::notify;
use crate::exit::{Exit, Failure};
use crate::failpoint;
use crate::owner::{Cluster, Epoch, Lineage, cluster, lineage};
use crate::postgres::control::{self, State};
use crate::postgres::lsn::{Lsn, Segment, Timeline, WalFile};
use crate::postgres::private::Private;
use crate::postgres::{Place, conf, said, tree};
use crate::store::{Kind, Store};
use crate::walg::{Engine, Wanted};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// wal-fetch has a deadline of its own for each file; this only ends what hangs for another reason.
const REPLAY: Duration = Duration::from_secs(24 * 3600);
const FETCH: Duration = Duration::from_secs(12 * 3600);
/// Keeper has the file within moments unless the store is away.
const HISTORY: Duration = Duration::from_secs(1800);
const STOP: Duration = Duration::from_secs(300);
/// How much more must be free, at least, after a restore that found too little.
const MORE: u64 = 64 << 20;
/// With less than this left a file system is full: a segment of WAL, and a page or two.
const FULL: u64 = 17 << 20;
/// Between two lines about a replay.
const TOLD: Duration = Duration::from_secs(10);
/// What of a former life must not be in a restored data directory.
const STALE: &[&str] = &[
    "postmaster.pid",
    "postmaster.opts",
    "standby.signal",
    "recovery.signal",
    "walg_data",
    "pg_wal/.wal-g",
    "pg_wal/walg_data",
    ".wal-g",
];

/// Restores the cluster of `own`'s history to `pgdata`.
///
/// # Errors
/// 77 when the archive cannot give everything it holds, 70 when a step fails. `pgdata` is not there then.
pub(crate) fn run(place: &Place<'_>, store: &Store, own: Epoch) -> Result<(), Failure> {
    let staging = place.staging();
    tree::remove(&staging)?;
    let engine = Engine::needed(place.settings)?;
    say("reads what the archive holds");
    let survey = place.runtime.block_on(survey(store, own))?;
    if survey.cluster.major != place.bin.major {
        return Err(Failure::refused(format!(
            "the archive holds Postgres {}, installed is {} (PG_VERSION): use the image of that major",
            survey.cluster.major, place.bin.major
        )));
    }
    place.runtime.block_on(claim_history(store, own, &survey, &engine))?;
    failpoint::hit("restore.after-lineage");
    let room = survey.uncompressed + survey.uncompressed / 5 + 8 * survey.cluster.wal_segment_size.bytes();
    let free = place.room(room, "the restore")?;
    make(place, store, own, &survey, &engine).map_err(|failure| {
        // Looked at before what is half made gives back what it took. The engine's last words need not say why it failed.
        let full = tree::free(&place.settings.data).is_ok_and(|left| left < FULL);
        let failure = if full && failure.exit == Exit::GaveUp {
            let place = place.settings.data.display();
            let text = format!("{place}: the disk is full: make room or grow the volume; {failure}");
            Failure::new(Exit::NoRoom, text)
        } else {
            failure.or_no_room()
        };
        if failure.exit == Exit::NoRoom && full {
            // It was not enough for what there is to fetch, or another took it. The same again would end as this has, after
            // another fetch of everything. Of a quota and of inodes more bytes would be no sign.
            place.ask_for(free + room / 10 + MORE);
        }
        failure
    })
}

/// Everything between the first byte fetched and the name.
fn make(
    place: &Place<'_>,
    store: &Store,
    own: Epoch,
    survey: &Survey,
    engine: &Engine,
) -> Result<(), Failure> {
    let staging = place.staging();
    fetch(place, engine, survey, &staging)?;
    failpoint::hit("restore.after-fetch");
    let settings = set_aside(&staging)?;
    prepare(place, &staging)?;
    failpoint::hit("restore.after-signal-file");
    let timeline = replay(place, store, own, survey, &staging)?;
    failpoint::hit("restore.after-stop");
    if let Some(text) = settings {
        put_back(place, &staging, &text)?;
    }
    let control = control::read(place.bin, &staging)?;
    if control.state != State::ShutDown || control.timeline != timeline {
        return Err(Failure::gave_up(format!(
            "{}: after its stop the cluster is {:?} on timeline {}, wanted is ShutDown on {timeline}",
            staging.display(),
            control.state,
            control.timeline
        )));
    }
    tree::sync(&staging)?;
    failpoint::hit("restore.after-fsync");
    tree::publish(&staging, &place.settings.pgdata())?;
    failpoint::hit("restore.after-rename");
    say(&format!("done: timeline {timeline}, every archived record up to {}", survey.expected));
    Ok(())
}

fn say(what: &str) {
    tracing::info!("restore: {what}");
    let _ = notify(&format!("STATUS=restore: {what}"));
}

/// Writes down where we branch off and which cluster our epoch holds, before anything can be written below it.
async fn claim_history(store: &Store, own: Epoch, survey: &Survey, engine: &Engine) -> Result<(), Failure> {
    let plan = &survey.plan;
    if let (None, Some(parent)) = (&survey.lineage, survey.parent) {
        let ours = Lineage {
            parent,
            backup_epoch: plan.base.epoch,
            backup: plan.base.name.clone(),
            branch: plan.end,
            timeline: Some(plan.timeline),
        };
        patient("our lineage", async || lineage::write(store, own, &ours).await).await?;
    }
    let cluster = Cluster { engine: engine.to_string(), ..survey.cluster.clone() };
    patient("cluster.json", async || match cluster::write(store, own, &cluster).await {
        Err(e) if e.kind == Kind::Conflict => Ok(Err(Failure::refused(format!("epoch {own}: {e}")))),
        Err(e) => Err(e),
        Ok(()) => Ok(Ok(())),
    })
    .await?
}

fn fetch(place: &Place<'_>, engine: &Engine, survey: &Survey, staging: &Path) -> Result<(), Failure> {
    if let Some(segment) = survey.plan.in_flight {
        tracing::warn!(
            end = %survey.plan.end, behind = segment.number,
            "restore: the archive has a gap at its end: WAL behind it was in flight when the former owner died, was never \
             acknowledged, and is left out"
        );
    }
    let base = &survey.plan.base;
    say(&format!("fetches backup {} of epoch {} with {engine}", base.name, base.epoch));
    tree::make(staging, 0o700, place.keeper)?;
    let root = nix::unistd::Uid::effective().is_root();
    let wanted = Wanted {
        epoch: base.epoch,
        name: &base.name,
        destination: staging,
        run_as: root.then(|| (place.keeper.uid.as_raw(), place.keeper.gid.as_raw())),
    };
    let progress = |line: String| say(&format!("fetches the backup: {line}"));
    let begun = Instant::now();
    place.runtime.block_on(engine.fetch(place.settings, &wanted, FETCH, progress))?;
    let (megabytes, took) = (survey.uncompressed >> 20, begun.elapsed());
    let rate = rate(survey.uncompressed, took);
    say(&format!("fetched {megabytes} MB in {} s, {rate} MB/s", took.as_secs()));
    Ok(())
}

const AUTO: &str = "postgresql.auto.conf";

/// Takes what ALTER SYSTEM had set out of the fetched tree: the private Postgres must not listen or replay by it.
fn set_aside(staging: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let path = staging.join(AUTO);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(tree::failed(&path, "read it", &e)),
    };
    tree::remove(&path)?;
    let (kept, left_out) = conf::kept(&text);
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        tracing::warn!(
            names,
            "restore: ALTER SYSTEM had set what is not kept here: archive and recovery are ours"
        );
    }
    Ok(Some(kept))
}

fn put_back(place: &Place<'_>, staging: &Path, text: &[u8]) -> Result<(), Failure> {
    let path = staging.join(AUTO);
    fs::write(&path, text).map_err(|e| tree::failed(&path, "write this file", &e))?;
    tree::hand_over(&path, place.postgres)
}

/// Makes the fetched tree Postgres's own and one that can only start as a recovery.
fn prepare(place: &Place<'_>, staging: &Path) -> Result<(), Failure> {
    for stale in STALE {
        tree::remove(&staging.join(stale))?;
    }
    let signal = staging.join("recovery.signal");
    let made = || -> std::io::Result<()> {
        fs::File::create_new(&signal)?.sync_all()?;
        fs::set_permissions(staging, fs::Permissions::from_mode(0o750))?;
        fs::File::open(staging)?.sync_all()
    };
    made().map_err(|e| tree::failed(&signal, "write this file", &e))?;
    tree::hand_over(staging, place.postgres)
}

/// Replays, promotes, compares the end, proves the history, and stops in order. Returns the new timeline.
fn replay(
    place: &Place<'_>,
    store: &Store,
    own: Epoch,
    survey: &Survey,
    staging: &Path,
) -> Result<Timeline, Failure> {
    let control = control::read(place.bin, staging)?;
    if control.system_identifier != survey.cluster.system_identifier {
        return Err(Failure::refused(format!(
            "backup {} is of cluster {}, this prefix belongs to cluster {}",
            survey.plan.base.name, control.system_identifier, survey.cluster.system_identifier
        )));
    }
    let facts = place.facts(place.archive(), &control);
    let mut private =
        Private::start(place.settings, place.bin, place.postgres, staging, &facts, &place.users())?;
    let mut told = Duration::ZERO;
    let size = survey.cluster.wal_segment_size;
    private.wait_ready(REPLAY, |private, since| {
        if since >= told {
            told = since + TOLD;
            let last = private.restored().and_then(|name| Segment::parse(&name, size).ok());
            let at = last.map_or(survey.plan.base.start, |segment| segment.end(size));
            let line = progress(survey.plan.base.start, at, survey.expected, since);
            say(&format!("replays {line}"));
        }
    })?;
    failpoint::hit("restore.after-promotion");
    let timeline = place.runtime.block_on(promoted(&private))?;
    let end = left(staging, timeline)?;
    if end < survey.expected {
        return Err(private.failure(&format!(
            "recovered to {end} only, but the archive holds records up to {}; nothing was opened",
            survey.expected
        )));
    }
    say(&format!("recovered to {end}; waits for timeline {timeline} to be in the store"));
    let begun = Instant::now();
    let key = names::key(own, &WalFile::History(timeline), Codec::Zstd);
    loop {
        private.alive()?;
        let there =
            place.runtime.block_on(patient("the new history", async || store.get_optional(&key).await))?;
        if there.is_some() {
            break;
        }
        if begun.elapsed() > HISTORY {
            return Err(private.failure(&format!("{key} did not reach the store; is keeper running?")));
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    private.stop(STOP)?;
    Ok(timeline)
}

/// How far a replay is: where, to where, and how fast.
fn progress(start: Lsn, at: Lsn, end: Lsn, since: Duration) -> String {
    let (done, all) = (at.0.saturating_sub(start.0), end.0.saturating_sub(start.0));
    let percent = done.min(all).saturating_mul(100).checked_div(all).unwrap_or(100);
    format!("{} of {end}, {percent} %, {} MB/s, {} s", at.min(end), rate(done, since), since.as_secs())
}

/// Megabytes a second.
fn rate(bytes: u64, since: Duration) -> u64 {
    let per_second =
        u128::from(bytes).saturating_mul(1000).checked_div(since.as_millis()).unwrap_or_default();
    u64::try_from(per_second >> 20).unwrap_or(u64::MAX)
}

/// Asks the server itself whether it has left recovery, and on which timeline it is.
async fn promoted(private: &Private) -> Result<Timeline, Failure> {
    let failed = |e: tokio_postgres::Error| private.failure(&format!("does not answer: {}", said(&e)));
    let (client, connection) = private.connection().connect(tokio_postgres::NoTls).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let sql = "select pg_is_in_recovery(), case when not pg_is_in_recovery() \
               then pg_walfile_name(pg_current_wal_insert_lsn()) end";
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    drop(client);
    let _ = driver.await;
    let name: Option<String> = row.get(1);
    let timeline = name.as_deref().and_then(|n| u32::from_str_radix(n.get(..8)?, 16).ok());
    match timeline {
        Some(timeline) if !row.get::<_, bool>(0) => Ok(Timeline(timeline)),
        Some(_) | None => Err(private.failure("is still in recovery")),
    }
}

/// Where the former timeline was left: the last line of the new one's history.
fn left(staging: &Path, timeline: Timeline) -> Result<Lsn, Failure> {
    let path = staging.join("pg_wal").join(WalFile::History(timeline).name());
    let text = fs::read(&path).map_err(|e| tree::failed(&path, "read it", &e))?;
    let switches = names::history(&text, timeline.0);
    let last = switches.ok().and_then(|s| s.last().map(|s| s.at));
    last.ok_or_else(|| Failure::gave_up(format!("{}: not a timeline history", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_where_it_is_and_how_fast() {
        let (start, end) = (Lsn(0x200_0028), Lsn(0x1200_0000));
        let at = |lsn, seconds| progress(start, Lsn(lsn), end, Duration::from_secs(seconds));
        assert_eq!(at(0x200_0028, 0), "0/2000028 of 0/12000000, 0 %, 0 MB/s, 0 s");
        assert_eq!(at(0xA00_0000, 4), "0/A000000 of 0/12000000, 49 %, 31 MB/s, 4 s");
        assert_eq!(at(0x1300_0000, 8), "0/12000000 of 0/12000000, 100 %, 33 MB/s, 8 s");
        assert_eq!(progress(end, end, end, Duration::ZERO), "0/12000000 of 0/12000000, 100 %, 0 MB/s, 0 s");
    }
}
