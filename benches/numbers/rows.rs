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
    &later("pss_idle_six"),
    &later("pss_all_roles"),
    &later("idle_cpu"),
    &later("idle_wakeups"),
    &super::start::SIX,
    &super::start::CHAIN,
    &later("stop_child"),
    &later("stop_pid1"),
    &later("stop_postgres_client"),
    &later("restart_killed"),
    &later("orphans_20k"),
    &later("orphans_burst_5k"),
    &later("log_json_blocks"),
    &later("log_json_lines"),
    &later("log_text_blocks"),
    &later("log_stalled_rss"),
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
