//! `backup` and `restore`: what our harness around the engine costs over the engine alone.

use super::rig::{self, Env, engine, engine_name};
use super::support::bucket::{Bucket, Kind};
use super::support::machine::Machine;
use super::support::programs;
use super::wal_out::ENGINES;
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::row::{Context, Measured, Standing};
use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const SERVICES: &[&str] = &["secrets", "claim", "keeper", "datadir", "postgres"];
/// What is compared after a restore.
const COUNT: &str = "select count(*) || ' ' || sum(abalance::bigint * aid) || ' ' || sum(hashtext(filler)) from pgbench_accounts";

/// A machine with Postgres and keeper, nothing else.
fn machine(context: &Context, bucket: &Bucket) -> Result<Machine, String> {
    let services = rig::services(context, SERVICES)?;
    let mut env = bucket.env();
    env.push(("SUPAFLY_SERVICES", services.display().to_string()));
    Ok(Machine::new(&env))
}

/// One with a gigabyte in it, and its own first backup behind it.
fn filled(context: &Context, bucket: &Bucket) -> Result<Machine, String> {
    let mut machine = machine(context, bucket)?;
    machine.boot();
    rig::wait_service(&mut machine, "postgres", &["ready"]);
    let scale = context.size(70, 2).to_string();
    let mut pgbench = Command::new(programs::pg_bin().join("pgbench"));
    pgbench.args(["-i", "-q", "-s", &scale, "-U", "postgres", "postgres"]);
    rig::run(
        pgbench.env("PGHOST", machine.run_dir().join("postgres")).env("PGPORT", machine.port.to_string()),
    )?;
    machine.sql("update pgbench_accounts set abalance = hashint4(aid) % 5000, filler = md5(aid::text) where aid % 9 = 0")?;
    machine.sql("vacuum")?;
    machine.wait_protected();
    Ok(machine)
}

/// The engine's variables, for a prefix of its own.
fn engine_env(bucket: &Bucket, machine: &Machine, number: u32) -> Env {
    let more = [
        ("PGHOST", machine.run_dir().join("postgres").display().to_string()),
        ("PGPORT", machine.port.to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ];
    engine(bucket.engine_env(ENGINES + number), &machine.data().join("pgdata"), &more)
}

fn engine_command(arguments: &[&str], env: &Env) -> Command {
    let mut command = Command::new(programs::programs().join("engine"));
    command.args(arguments).env_clear().envs(env.iter().cloned()).current_dir("/");
    command
}

fn push(bucket: &Bucket, machine: &Machine, number: u32) -> Result<f64, String> {
    let pgdata = machine.data().join("pgdata").display().to_string();
    let mut arguments = vec!["backup-push", "--full"];
    // `wal-g` always asks for a fast checkpoint and knows no such flag.
    if engine_name().starts_with("walrus") {
        arguments.push("--fast");
    }
    arguments.push(&pgdata);
    let mut command = engine_command(&arguments, &engine_env(bucket, machine, number));
    let begun = Instant::now();
    rig::run(&mut command)?;
    Ok(begun.elapsed().as_secs_f64())
}

pub(super) fn backup(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    let bucket = Bucket::start(Kind::S3);
    let mut machine = filled(context, &bucket)?;
    let numbers = RefCell::new(0);
    let ours = || {
        machine.sql("checkpoint")?;
        let begun = Instant::now();
        let out = machine.supafly(&["backup", "now"]);
        let seconds = begun.elapsed().as_secs_f64();
        if out.status.success() {
            Ok(seconds)
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    };
    let peer = || {
        machine.sql("checkpoint")?;
        *numbers.borrow_mut() += 1;
        push(&bucket, &machine, *numbers.borrow())
    };
    let peers = vec![Contestant::new(format!("{} backup-push", engine_name()), Standing::Rival, peer)];
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers)?;
    let bytes = machine.sql("select pg_database_size('postgres')")?[0][0]
        .parse::<f64>()
        .map_err(|e| e.to_string())?;
    machine.stop();
    let notes = vec![format!(
        "database of {:.2} GB; ours ends when every part and all WAL of it is proved",
        bytes / 1e9
    )];
    Ok(Measured { ours, peers, conditions: Vec::new(), notes })
}

/// Makes a tree durable in the quickest way that there is by hand: the whole file system at once.
fn sync(dir: &Path) -> Result<(), String> {
    rig::run(Command::new("sync").arg("--file-system").arg(dir))
}

/// When each line of a log was written that has this in it.
fn when(log: &str, needle: &str) -> Option<f64> {
    let line = log.lines().rfind(|l| l.contains(needle))?;
    let time = serde_json::from_str::<serde_json::Value>(line).ok()?.get("time")?.as_str()?.to_owned();
    Some(time.parse::<jiff::Timestamp>().ok()?.as_microsecond() as f64 / 1e6)
}

pub(super) fn restore(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    let bucket = Bucket::start(Kind::S3);
    let mut first = filled(context, &bucket)?;
    let out = first.supafly(&["backup", "now"]);
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let rows = first.sql(COUNT)?;
    let env = engine_env(&bucket, &first, 1);
    push(&bucket, &first, 1)?;
    first.stop();
    let whole = RefCell::new(Vec::new());
    let ours = || {
        let mut machine = machine(context, &bucket)?;
        machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
        machine.boot();
        rig::wait_service(&mut machine, "postgres", &["ready"]);
        let took = rig::service(&machine, "datadir").and_then(|s| s.get("start_ms")?.as_f64());
        whole.borrow_mut().push(took.unwrap_or_default() / 1e3);
        let there = machine.sql(COUNT)?;
        let log = machine.log();
        machine.cut_power();
        if there != rows {
            return Err(format!("restored {there:?}, there was {rows:?}"));
        }
        let (begun, done) = (when(&log, "restore: fetches backup base_"), when(&log, "restore: fetched "));
        begun
            .zip(done)
            .map(|(b, d)| d - b)
            .ok_or_else(|| "the log does not say how long the fetch took".to_owned())
    };
    let peer = || {
        let room = context.disk_room();
        let to = room.path().join("pgdata");
        let mut command = engine_command(&["backup-fetch", &to.display().to_string(), "LATEST"], &env);
        let begun = Instant::now();
        rig::run(&mut command)?;
        sync(&to)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let peers =
        vec![Contestant::new(format!("{} backup-fetch, then sync -f", engine_name()), Standing::Rival, peer)];
    let (ours, peers) = contest(context, (5, WarmUp::No), ours, peers)?;
    let mut whole = whole.into_inner();
    whole.sort_by(f64::total_cmp);
    let middle = whole.get(whole.len() / 2).copied().unwrap_or_default();
    let notes = vec![format!(
        "until the fetched tree is checked and durable; the whole of datadir, with replay, promotion and proofs, {middle:.2} s; \
         rows were compared after each"
    )];
    Ok(Measured { ours, peers, conditions: Vec::new(), notes })
}
