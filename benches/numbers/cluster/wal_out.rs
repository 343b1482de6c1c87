//! `wal_out_*`: a backlog of WAL on its way into a bucket, through keeper and through the engine's own `wal-push`. The
//! harness plays Postgres's archiver for both, so that nothing but the way out is measured.

use super::dataset::Dataset;
use super::rig::{self, Env, engine, engine_name, said};
use super::support::bucket::{Bucket, Kind};
use super::support::machine::Machine;
use super::support::programs;
use super::support::proxy::{Fault, Rule};
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::goal::{Goal, Unit};
use crate::numbers::row::{Condition, Context, Measured, Standing};
use std::cell::RefCell;
use std::fs;
use std::time::Duration;

/// The epoch prefix that the engine alone writes below, far from ours.
pub(super) const ENGINES: u32 = 7_000_000;
/// What every request takes longer in the rows of 50 ms.
pub(super) const DELAY: Duration = Duration::from_millis(50);

/// A bucket, and what every request to it costs in time.
pub(super) fn bucket(delay: Duration) -> Bucket {
    if delay.is_zero() {
        return Bucket::start(Kind::S3);
    }
    let bucket = Bucket::behind_proxy();
    bucket.proxy().rules([late(delay)]);
    bucket
}

/// Every request is passed on after a while.
pub(super) fn late(delay: Duration) -> Rule {
    Rule::new(Fault::Slow(delay))
}

/// The engine's variables for a bucket, through the proxy when there is one.
pub(super) fn engine_env(bucket: &Bucket, dataset: &Dataset, delay: Duration) -> Env {
    let mut env = bucket.engine_env(ENGINES);
    if !delay.is_zero() {
        env.push(("AWS_ENDPOINT".into(), bucket.proxy().endpoint()));
    }
    engine(env, &dataset.pgdata(), &[])
}

/// A machine with keeper and no Postgres, whose data directory is the dataset's.
pub(super) fn keeper(context: &Context, bucket: &Bucket, dataset: &Dataset) -> Result<Machine, String> {
    let own = dataset.data.join("supafly");
    if own.exists() {
        fs::remove_dir_all(&own).map_err(said(own.display()))?;
    }
    rig::made_here(&dataset.data)?;
    let services = rig::services(context, &["secrets", "claim", "keeper", "datadir"])?;
    let mut env = bucket.env();
    env.push(("SUPAFLY_SERVICES", services.display().to_string()));
    env.push(("SUPAFLY_DATA", dataset.data.display().to_string()));
    let mut machine = Machine::new(&env);
    machine.boot();
    rig::wait_service(&mut machine, "datadir", &["done"]);
    Ok(machine)
}

/// What Postgres's children know of our machine.
pub(super) fn client_env(machine: &Machine) -> Env {
    vec![
        ("SUPAFLY_RUN".into(), machine.run_dir().display().to_string()),
        ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
    ]
}

/// Everything out, through keeper.
pub(super) fn ours(machine: &Machine, dataset: &Dataset) -> Result<f64, String> {
    let program = programs::programs().join("supafly");
    rig::archiver(&dataset.pgdata(), &dataset.segments, &client_env(machine), |name| {
        format!("\"{}\" wal-push pg_wal/{name}", program.display())
    })
}

/// Everything out, by the engine.
pub(super) fn theirs(env: &Env, dataset: &Dataset) -> Result<f64, String> {
    let program = programs::programs().join("engine");
    rig::archiver(&dataset.pgdata(), &dataset.segments, env, |name| {
        format!("\"{}\" wal-push pg_wal/{name}", program.display())
    })
}

fn run(context: &Context, delay: Duration) -> Result<Measured, String> {
    rig::install(context)?;
    let dataset = Dataset::of(context)?;
    let rate = |seconds: f64| dataset.bytes() as f64 / 1e6 / seconds;
    let stored = RefCell::new((0, 0));
    let whole = |bucket: &Bucket, epoch: u32| {
        let there = bucket.stored(&format!("e{epoch:010}/wal_005/"));
        if there.len() == dataset.segments.len() {
            Ok(there.iter().map(|e| e.size).sum::<u64>())
        } else {
            Err(format!("{} segments are in the bucket, {} were sent", there.len(), dataset.segments.len()))
        }
    };
    let sample = || {
        let bucket = bucket(delay);
        let mut machine = keeper(context, &bucket, dataset)?;
        let seconds = ours(&machine, dataset)?;
        stored.borrow_mut().0 = whole(&bucket, 1)?;
        machine.stop();
        Ok(rate(seconds))
    };
    let peer = || {
        let bucket = bucket(delay);
        let seconds = theirs(&engine_env(&bucket, dataset, delay), dataset)?;
        stored.borrow_mut().1 = whole(&bucket, ENGINES)?;
        Ok(rate(seconds))
    };
    let peers = vec![Contestant::new(format!("{} wal-push", engine_name()), Standing::Rival, peer)];
    let (ours, peers) = contest(context, (5, WarmUp::Yes), sample, peers)?;
    let (own, its) = *stored.borrow();
    if its == 0 {
        return Err("the engine stored nothing".to_owned());
    }
    Ok(Measured {
        ours,
        peers,
        conditions: vec![Condition {
            what: "stored bytes, divided by the engine's".to_owned(),
            value: own as f64 / its as f64,
            unit: Unit::Ratio,
            goal: Goal::AtMost(1.05),
        }],
        notes: vec![format!(
            "{}; stored {} MB, the engine {} MB",
            dataset.words(),
            own / 1_000_000,
            its / 1_000_000
        )],
    })
}

pub(super) fn at_once(context: &Context) -> Result<Measured, String> {
    run(context, Duration::ZERO)
}

pub(super) fn from_afar(context: &Context) -> Result<Measured, String> {
    run(context, DELAY)
}
