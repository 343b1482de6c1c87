//! `wal_client`: what Postgres waits for when there is nothing to wait for: `wal-push` of a segment that is in the store by
//! then, and `wal-fetch` of one that keeper has fetched ahead.

use super::dataset::Dataset;
use super::rig::{self, as_postgres, said};
use super::support::programs;
use super::wal_out;
use crate::numbers::goal::{Goal, Unit};
use crate::numbers::row::{Condition, Context, Measured};
use crate::numbers::stats::Samples;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a busy segment takes to be replayed (the dataset's: 40 to 50 ms, shell and client included); keeper fetches ahead
/// meanwhile.
const BETWEEN: Duration = Duration::from_millis(45);

pub(super) fn run(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    let dataset = Dataset::of(context)?;
    let bucket = wal_out::bucket(Duration::ZERO);
    let mut machine = wal_out::keeper(context, &bucket, dataset)?;
    wal_out::ours(&machine, dataset)?;
    let env = wal_out::client_env(&machine);
    let program = programs::programs().join("supafly");
    let timed = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(dataset.pgdata()).env_clear().envs(env.iter().cloned());
        as_postgres(&mut command);
        let begun = Instant::now();
        rig::run(&mut command)?;
        Ok::<_, String>(begun.elapsed().as_secs_f64() * 1e3)
    };
    let last = dataset.segments.len().saturating_sub(16);
    let known = dataset.segments.get(last..).unwrap_or_default();
    let mut push = Vec::new();
    for _ in 0..context.rounds(6) {
        for name in known {
            push.push(timed(&["wal-push", &format!("pg_wal/{name}")])?);
        }
    }
    let room = context.disk_room();
    rig::give_to_postgres(room.path())?;
    let mut fetch = Vec::new();
    for (i, name) in dataset.segments.iter().take(40).enumerate() {
        let to = room.path().join("RECOVERYXLOG");
        let took = timed(&["wal-fetch", name, &to.display().to_string()])?;
        // The first one nobody had foreseen.
        if i > 0 {
            fetch.push(took);
        }
        let there = fs::read(&to).map_err(said(to.display()))?;
        if there != fs::read(dataset.pgdata().join("pg_wal").join(name)).map_err(said(name))? {
            return Err(format!("wal-fetch gave other bytes for {name}"));
        }
        fs::remove_file(&to).map_err(said(to.display()))?;
        std::thread::park_timeout(BETWEEN);
    }
    machine.stop();
    let fetch = Samples::new(fetch)?;
    Ok(Measured {
        ours: Samples::new(push)?,
        peers: Vec::new(),
        conditions: vec![Condition {
            what: "wal-fetch of what is fetched ahead".to_owned(),
            value: fetch.median(),
            unit: Unit::Milliseconds,
            goal: Goal::AtMost(5.0),
        }],
        notes: vec![format!(
            "wal-fetch {:.2} ms (from {:.2} to {:.2})",
            fetch.median(),
            fetch.least(),
            fetch.most()
        )],
    })
}
