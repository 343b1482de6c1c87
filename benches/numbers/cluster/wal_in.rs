//! `wal_in_*`: how much longer a recovery takes because its WAL comes out of a bucket: through keeper, and through the
//! engine's `wal-fetch`. The same recovery with all its segments in `pg_wal` is taken off both.

use super::dataset::{COUNT, Dataset};
use super::rig::{self, Env, Server, engine, engine_name, said};
use super::support::programs;
use super::wal_out::{self, DELAY};
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::row::{Context, Measured, Standing};
use crate::numbers::stats::Samples;
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Recovers a copy of the base; seconds from its start until it takes connections, at the end of all WAL and with all rows.
fn recover(
    context: &Context,
    dataset: &Dataset,
    segments: Option<&Path>,
    restore_command: &str,
    env: impl Fn(&Path) -> Env,
) -> Result<f64, String> {
    let room = context.disk_room();
    let pgdata = room.path().join("pgdata");
    rig::copy_tree(&dataset.base, &pgdata)?;
    if let Some(segments) = segments {
        for name in &dataset.segments {
            fs::hard_link(segments.join(name), pgdata.join("pg_wal").join(name)).map_err(said(name))?;
        }
    }
    fs::write(pgdata.join("recovery.signal"), "").map_err(said("recovery.signal"))?;
    rig::give_to_postgres(room.path())?;
    let mut settings: Vec<String> = [
        "archive_mode=off",
        "hot_standby=off",
        "shared_buffers=512MB",
        "max_wal_size=32GB",
        "checkpoint_timeout=1d",
        "autovacuum=off",
        "wal_level=logical",
        // A file that is used again is written to under its old inode, which the next round links to.
        "wal_recycle=off",
        // Flushes of the whole end the recovery of all three alike, and differ from round to round by more than we measure.
        "fsync=off",
    ]
    .map(str::to_owned)
    .into();
    settings.push(format!("restore_command={restore_command}"));
    let mut server = Server::start(&pgdata, room.path(), &settings, &env(&pgdata))?;
    let seconds = server.ready()?;
    let rows = server.sql(COUNT)?;
    let last = server.last.join(" | ");
    server.stop()?;
    if rows == dataset.rows {
        return Ok(seconds);
    }
    Err(format!("recovered `{rows}`, written was `{}`: {last}", dataset.rows))
}

/// The segments as files that a recovery may link to: it reads them and removes its links, and writes to none.
fn local(context: &Context, dataset: &Dataset) -> Result<tempfile::TempDir, String> {
    let room = context.disk_room();
    for name in &dataset.segments {
        let from = dataset.pgdata().join("pg_wal").join(name);
        fs::copy(&from, room.path().join(name)).map_err(said(from.display()))?;
    }
    rig::give_to_postgres(room.path())?;
    Ok(room)
}

fn run(context: &Context, delay: Duration) -> Result<Measured, String> {
    rig::install(context)?;
    let dataset = Dataset::of(context)?;
    let bucket = wal_out::bucket(delay);
    if !delay.is_zero() {
        bucket.proxy().rules([]);
    }
    let mut machine = wal_out::keeper(context, &bucket, dataset)?;
    wal_out::ours(&machine, dataset)?;
    let engine_env = wal_out::engine_env(&bucket, dataset, delay);
    wal_out::theirs(&engine_env, dataset)?;
    if !delay.is_zero() {
        bucket.proxy().rules([wal_out::late(delay)]);
    }
    let segments = local(context, dataset)?;
    let taken: [RefCell<Vec<f64>>; 3] = Default::default();
    let keep = |which: usize, seconds: f64| {
        if let Some(taken) = taken.get(which) {
            taken.borrow_mut().push(seconds);
        }
        seconds
    };
    let (program, engines) = (programs::programs().join("supafly"), programs::programs().join("engine"));
    let client = wal_out::client_env(&machine);
    let ours = || {
        let command = format!("\"{}\" wal-fetch %f %p", program.display());
        recover(context, dataset, None, &command, |_| client.clone()).map(|s| keep(0, s))
    };
    let peer = || {
        let command = format!("\"{}\" wal-fetch %f %p", engines.display());
        let env = |pgdata: &Path| engine(engine_env.clone(), pgdata, &[]);
        recover(context, dataset, None, &command, env).map(|s| keep(1, s))
    };
    let base =
        || recover(context, dataset, Some(segments.path()), "false", |_| Vec::new()).map(|s| keep(2, s));
    let peers = vec![
        Contestant::new(format!("{} wal-fetch", engine_name()), Standing::Rival, peer),
        Contestant::new("all segments local", Standing::Reference("it is taken off the others"), base),
    ];
    let (_, mut peers) = contest(context, (5, WarmUp::No), ours, peers)?;
    machine.stop();
    for (which, peer) in peers.iter().enumerate() {
        if let Err(why) = &peer.samples {
            return Err(format!("{} ({which}): {why}", peer.name));
        }
    }
    let [ours, its, local] = taken.map(RefCell::into_inner);
    let walls = [&ours, &its, &local].map(|s| Samples::new(s.clone()));
    let [own_wall, its_wall, base] = walls;
    let (own_wall, its_wall, base) = (own_wall?.median(), its_wall?.median(), base?.median());
    let less = |walls: Vec<f64>| Samples::new(walls.into_iter().map(|s| s - base).collect());
    if let Some(peer) = peers.first_mut() {
        peer.samples = less(its);
    }
    Ok(Measured {
        ours: less(ours)?,
        peers,
        conditions: Vec::new(),
        notes: vec![format!(
            "{}; walls: local {base:.2} s, ours {own_wall:.2} s, the engine's {its_wall:.2} s; every recovery had all rows",
            dataset.words()
        )],
    })
}

pub(super) fn at_once(context: &Context) -> Result<Measured, String> {
    run(context, Duration::ZERO)
}

pub(super) fn from_afar(context: &Context) -> Result<Measured, String> {
    run(context, DELAY)
}
