//! All rows, in the order of the report.

use super::cluster;
use super::goal::{Goal, Unit};
use super::row::{Context, Measured, Row};

const fn later(name: &'static str) -> Row {
    fn not_yet(_: &Context) -> Result<Measured, String> {
        Err("it is not written yet".to_owned())
    }
    Row { name, what: "", unit: Unit::Count, goals: &[Goal::AtMost(0.0)], run: not_yet, when_missed: "" }
}

/// Every row there is.
pub(crate) static ROWS: &[Row] = &[
    later("pss_idle_six"),
    later("pss_all_roles"),
    later("idle_cpu"),
    later("idle_wakeups"),
    later("start_six"),
    later("start_chain_six"),
    later("stop_child"),
    later("stop_pid1"),
    cluster::STOP_POSTGRES_CLIENT,
    later("restart_killed"),
    later("orphans_20k"),
    later("orphans_burst_5k"),
    later("log_json_blocks"),
    later("log_json_lines"),
    later("log_text_blocks"),
    later("log_stalled_rss"),
    cluster::BOOT_POSTGRES,
    cluster::BOOT_STACK,
    cluster::WAL_OUT_0MS,
    cluster::WAL_OUT_50MS,
    cluster::WAL_IN_0MS,
    cluster::WAL_IN_50MS,
    cluster::WAL_CLIENT,
    cluster::PGBENCH_ARCHIVING,
    cluster::BACKUP,
    cluster::RESTORE,
];
