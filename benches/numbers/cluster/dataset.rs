//! One gigabyte of WAL, made once a run and used by every contestant.
//!
//! What it is: a table of accounts filled by INSERT, its primary key, then rounds of a checkpoint, an UPDATE of every sixth
//! account (so full page images, then small records) and an INSERT of history rows, on a cluster with the settings that
//! ours have (checksums, `wal_level = logical`, `wal_compression = on`, `wal_log_hints = on`). Every value follows from
//! [`SEED`]. Packed by zstd it comes to about two fifths: neither zeros nor noise.

use super::rig::{self, Server, said};
use crate::numbers::row::Context;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(super) const SEED: u32 = 20_261_125;
/// Bytes of a segment.
pub(super) const SEGMENT: u64 = 16 << 20;
const ACCOUNTS: u32 = 1_500_000;

pub(super) struct Dataset {
    /// Where `SUPAFLY_DATA` may point: the cluster, stopped, with all its segments ready, lies below it as `pgdata`.
    pub(super) data: PathBuf,
    /// The same cluster before the WAL was written, stopped, without segments.
    pub(super) base: PathBuf,
    /// The segments that the recovery of `base` needs, in their order, and that are ready.
    pub(super) segments: Vec<String>,
    /// What [`COUNT`] says on the whole.
    pub(super) rows: String,
}

/// What is compared after a recovery: how many rows there are, and what is in them.
pub(super) const COUNT: &str = "select (select count(*) || ' ' || sum(abalance) || ' ' || sum(hashtext(filler)) from accounts), \
     (select count(*) || ' ' || sum(delta) from history)";

impl Dataset {
    /// Makes it, or says how it was made before.
    pub(super) fn of(context: &Context) -> Result<&'static Dataset, String> {
        static MADE: OnceLock<Result<Dataset, String>> = OnceLock::new();
        MADE.get_or_init(|| make(context)).as_ref().map_err(Clone::clone)
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.data.join("pgdata")
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT
    }

    /// In words, for the report.
    pub(super) fn words(&self) -> String {
        format!("{} segments of 16 MiB, seed {SEED}", self.segments.len())
    }
}

fn settings() -> Vec<String> {
    [
        "archive_mode=on",
        "archive_command=",
        "wal_level=logical",
        "wal_compression=on",
        "wal_log_hints=on",
        "max_wal_size=32GB",
        "checkpoint_timeout=1d",
        "autovacuum=off",
        "shared_buffers=512MB",
        "max_prepared_transactions=0",
        // It is made, not measured.
        "fsync=off",
        "synchronous_commit=off",
    ]
    .map(str::to_owned)
    .into()
}

/// Names in `archive_status` with this ending, sorted.
pub(super) fn marked(pgdata: &Path, ending: &str) -> Result<Vec<String>, String> {
    let dir = pgdata.join("pg_wal/archive_status");
    let entries = fs::read_dir(&dir).map_err(said(dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|e| Some(e.ok()?.file_name().to_str()?.strip_suffix(ending)?.to_owned()))
        .filter(|name| name.len() == 24)
        .collect();
    names.sort();
    Ok(names)
}

fn make(context: &Context) -> Result<Dataset, String> {
    let wanted = context.size(64, 4);
    let home = context.disk.join("wal");
    let (data, base) = (home.join("data"), home.join("base"));
    fs::create_dir_all(&data).map_err(said(data.display()))?;
    for dir in [&home, &data] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(said(dir.display()))?;
    }
    rig::give_to_postgres(&home)?;
    let pgdata = data.join("pgdata");
    rig::initdb(&pgdata)?;
    let mut server = Server::start(&pgdata, &home, &settings(), &Vec::new())?;
    server.ready()?;
    server.sql("create table accounts (aid bigint, bid int, abalance int, filler char(84))")?;
    server.sql(
        "create table history (tid int, bid int, aid bigint, delta int, mtime timestamptz, filler char(22))",
    )?;
    server.stop()?;
    for old in marked(&pgdata, ".ready")? {
        fs::remove_file(pgdata.join("pg_wal/archive_status").join(format!("{old}.ready")))
            .map_err(said(&old))?;
    }
    rig::copy_tree(&pgdata, &base)?;
    for entry in fs::read_dir(base.join("pg_wal")).map_err(said("pg_wal"))?.flatten() {
        if entry.path().is_file() {
            fs::remove_file(entry.path()).map_err(said(entry.path().display()))?;
        }
    }

    let mut server = Server::start(&pgdata, &home, &settings(), &Vec::new())?;
    server.ready()?;
    let accounts = context.size(u64::from(ACCOUNTS), 100_000);
    server.sql(&format!(
        "insert into accounts select i, i % 97, hashint8extended(i, {SEED}) % 100000, md5(hashint8extended(i, {SEED})::text) \
         from generate_series(1, {accounts}) i"
    ))?;
    server.sql("alter table accounts add primary key (aid)")?;
    let mut round = 0;
    while (marked(&pgdata, ".ready")?.len() as u64) < wanted.saturating_sub(1) {
        round += 1;
        server.sql("checkpoint")?;
        server.sql(&format!(
            "update accounts set abalance = abalance + (hashint8extended(aid, {SEED} + {round}) % 5000)::int \
             where hashint8extended(aid, {SEED} - {round}) % 6 = 0"
        ))?;
        server.sql(&format!(
            "insert into history select i % 10, i % 97, abs(hashint8extended(i, {round}) % {accounts}), \
             hashint8extended(i, {SEED} + {round}) % 5000, timestamptz '2026-11-25 00:00Z' + i * interval '1 ms' \
             from generate_series(1, {accounts} / 5) i"
        ))?;
    }
    server.sql("select pg_switch_wal()")?;
    let rows = server.sql(COUNT)?;
    server.stop()?;
    let mut segments = marked(&pgdata, ".ready")?;
    // The rounds do not end at a segment: what is more than was wanted is part of it all the same.
    segments.sort();
    if segments.len() as u64 > wanted + wanted / 2 || segments.is_empty() {
        return Err(format!("{} segments were made, about {wanted} were wanted", segments.len()));
    }
    Ok(Dataset { data, base, segments, rows })
}
