//! All rows, in the order of the report.

use super::row::Row;

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
    &super::cluster::STOP_POSTGRES_CLIENT,
    &super::restart::KILLED,
    &super::orphans::STREAM,
    &super::orphans::BURST,
    &super::logs::JSON_BLOCKS,
    &super::logs::JSON_LINES,
    &super::logs::TEXT_BLOCKS,
    &super::logs::STALLED,
    &super::cluster::BOOT_POSTGRES,
    &super::cluster::BOOT_STACK,
    &super::cluster::WAL_OUT_0MS,
    &super::cluster::WAL_OUT_50MS,
    &super::cluster::WAL_IN_0MS,
    &super::cluster::WAL_IN_50MS,
    &super::cluster::WAL_CLIENT,
    &super::cluster::PGBENCH_ARCHIVING,
    &super::cluster::BACKUP,
    &super::cluster::RESTORE,
];
