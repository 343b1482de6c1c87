//! All rows, in the order of the report.

use super::goal::{Goal, Unit};
use super::row::{Context, Measured, Row};

const fn later(name: &'static str) -> Row {
    fn not_yet(_: &Context) -> Result<Measured, String> {
        Err("it is not written yet".to_owned())
    }
    Row { name, what: "", unit: Unit::Count, goals: &[Goal::AtMost(0.0)], run: not_yet, when_missed: "" }
}

/// Every row there is.
pub(crate) static ROWS: &[&Row] = &[
    &super::memory::SIX,
    &super::stack::ALL_ROLES,
    &super::idle::CPU,
    &super::idle::WAKEUPS,
    &super::start::SIX,
    &super::start::CHAIN,
    &super::stop::CHILD,
    &super::stop::PID1,
    &later("stop_postgres_client"),
    &super::restart::KILLED,
    &super::orphans::STREAM,
    &super::orphans::BURST,
    &super::logs::JSON_BLOCKS,
    &super::logs::JSON_LINES,
    &super::logs::TEXT_BLOCKS,
    &super::logs::STALLED,
    &later("boot_postgres"),
    &later("boot_stack"),
    &later("wal_out_0ms"),
    &later("wal_out_50ms"),
    &later("wal_in_0ms"),
    &later("wal_in_50ms"),
    &later("wal_client"),
    &later("pgbench_archiving"),
    &later("backup"),
    &later("restore"),
];
