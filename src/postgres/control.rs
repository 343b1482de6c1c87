//! What a cluster says of itself: `pg_controldata`, read strictly.
//!
//! The control file decides whether data is ours (system identifier), whether a restore may go on (state, timeline)
//! and how small some settings may not be, so a line that is missing or does not parse is an error, never a default.
//! The program is run with `LC_ALL=C`, because it translates its labels.

use super::bin::Bin;
use super::lsn::{Lsn, SegmentSize, Timeline};
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// What the cluster was doing when its control file was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `starting up`
    StartingUp,
    /// `shut down`: stopped in order.
    ShutDown,
    /// `shut down in recovery`
    ShutDownInRecovery,
    /// `shutting down`
    ShuttingDown,
    /// `in crash recovery`
    CrashRecovery,
    /// `in archive recovery`
    ArchiveRecovery,
    /// `in production`: runs, or was killed.
    Production,
}

impl State {
    /// As `pg_controldata` says it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            State::StartingUp => "starting up",
            State::ShutDown => "shut down",
            State::ShutDownInRecovery => "shut down in recovery",
            State::ShuttingDown => "shutting down",
            State::CrashRecovery => "in crash recovery",
            State::ArchiveRecovery => "in archive recovery",
            State::Production => "in production",
        }
    }

    /// Whether Postgres stopped in order, so that its WAL is closed and marked as ready to be archived.
    #[must_use]
    pub const fn stopped_in_order(self) -> bool {
        match self {
            State::ShutDown | State::ShutDownInRecovery => true,
            State::StartingUp
            | State::ShuttingDown
            | State::CrashRecovery
            | State::ArchiveRecovery
            | State::Production => false,
        }
    }

    const ALL: [State; 7] = [
        State::StartingUp,
        State::ShutDown,
        State::ShutDownInRecovery,
        State::ShuttingDown,
        State::CrashRecovery,
        State::ArchiveRecovery,
        State::Production,
    ];
}

/// Settings that a recovery may not find smaller than they were on the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// `max_connections`
    pub max_connections: u32,
    /// `max_worker_processes`
    pub max_worker_processes: u32,
    /// `max_wal_senders`
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: u32,
}

/// The control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The cluster's identifier, the same over restores.
    pub system_identifier: u64,
    /// `Catalog version number`
    pub catalog: u64,
    /// What it was doing.
    pub state: State,
    /// Timeline of the latest checkpoint.
    pub timeline: Timeline,
    /// Timeline up to which a recovery must lead at least; 0 when none is under way.
    pub recovery_timeline: Timeline,
    /// The latest checkpoint.
    pub checkpoint: Lsn,
    /// Where redo of it begins.
    pub redo: Lsn,
    /// Size of a segment.
    pub wal_segment_size: SegmentSize,
    /// Whether pages have checksums.
    pub checksums: bool,
    /// See [`Floors`].
    pub floors: Floors,
}

/// Reads the control file of the cluster in `pgdata`.
///
/// # Errors
/// 70 when the program fails or says something else than expected.
pub fn read(bin: &Bin, pgdata: &Path) -> Result<Control, Failure> {
    let program = bin.program("pg_controldata");
    let output = Command::new(&program)
        .arg("-D")
        .arg(pgdata)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::gave_up(format!("{}: cannot be run: {e}", program.display())))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let text = format!("pg_controldata of {} failed: {}", pgdata.display(), told.trim());
        return Err(Failure::gave_up(text));
    }
    if told.contains("CRC checksum does not match")
        || String::from_utf8_lossy(&output.stdout).contains("CRC checksum")
    {
        let text = "its control file is damaged (checksum)";
        return Err(Failure::gave_up(format!("{}: {text}; restore from the archive", pgdata.display())));
    }
    parse(&String::from_utf8_lossy(&output.stdout)).map_err(|e| {
        Failure::gave_up(format!(
            "pg_controldata of {}: {e}; the control file is not one of Postgres {}",
            pgdata.display(),
            bin.major
        ))
    })
}

/// Parses what `pg_controldata` prints under `LC_ALL=C`.
///
/// # Errors
/// The name of the line that is missing or makes no sense.
pub fn parse(text: &str) -> Result<Control, String> {
    let lines =
        Lines(text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect());
    let said = lines.text("Database cluster state")?;
    let state = State::ALL.into_iter().find(|state| state.words() == said);
    let state = state.ok_or_else(|| format!("`Database cluster state` is `{said}`"))?;
    let size: u64 = lines.get("Bytes per WAL segment")?;
    Ok(Control {
        system_identifier: lines.get("Database system identifier")?,
        catalog: lines.get("Catalog version number")?,
        state,
        timeline: Timeline(lines.get("Latest checkpoint's TimeLineID")?),
        recovery_timeline: Timeline(lines.get("Min recovery ending loc's timeline")?),
        checkpoint: lines.get("Latest checkpoint location")?,
        redo: lines.get("Latest checkpoint's REDO location")?,
        wal_segment_size: SegmentSize::try_from(size).map_err(|e| e.to_string())?,
        checksums: lines.get::<u32>("Data page checksum version")? != 0,
        floors: Floors {
            max_connections: lines.get("max_connections setting")?,
            max_worker_processes: lines.get("max_worker_processes setting")?,
            max_wal_senders: lines.get("max_wal_senders setting")?,
            max_prepared_transactions: lines.get("max_prepared_xacts setting")?,
            max_locks_per_transaction: lines.get("max_locks_per_xact setting")?,
        },
    })
}

struct Lines<'a>(BTreeMap<&'a str, &'a str>);

impl Lines<'_> {
    fn text(&self, name: &str) -> Result<&str, String> {
        self.0.get(name).copied().ok_or_else(|| format!("line `{name}` is missing"))
    }

    fn get<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.text(name)?;
        text.parse().map_err(|_| format!("`{name}` is `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7571234567890123456
Database cluster state:               in production
pg_control last modified:             Mon 23 Nov 2026 10:00:00 AM UTC
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's REDO WAL file:    000000010000000000000003
Latest checkpoint's TimeLineID:       1
Min recovery ending loc's timeline:   0
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn a_control_file_is_read_whole() {
        let control = parse(SAID).unwrap();
        assert_eq!(control.system_identifier, 7_571_234_567_890_123_456);
        assert_eq!(control.state, State::Production);
        assert_eq!(control.redo.to_string(), "0/3000028");
        assert!(control.checksums);
        assert_eq!(control.floors.max_locks_per_transaction, 64);
    }

    #[test]
    fn a_missing_or_strange_line_is_named() {
        for (from, to, word) in [
            ("Database system identifier:", "Datenbankkennung:", "Database system identifier"),
            ("in production", "asleep", "asleep"),
            ("16777216", "16777217", "16777217"),
        ] {
            let e = parse(&SAID.replace(from, to)).unwrap_err();
            assert!(e.contains(word), "{e}");
        }
    }
}
