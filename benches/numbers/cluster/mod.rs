//! The rows that need a real Postgres, a real engine and a real S3 server.

#[path = "../../../tests/support/mod.rs"]
mod support;

mod dataset;
mod rig;
mod wal_out;

use super::goal::{Goal, Unit};
use super::row::Row;

pub(crate) const WAL_OUT_0MS: Row = Row {
    name: "wal_out_0ms",
    what: "1 GiB of WAL, ready, archived one file after the other as Postgres asks: `supafly wal-push` through keeper, and the \
           engine's wal-push",
    unit: Unit::MegabytesPerSecond,
    goals: &[Goal::AtLeastPeer { factor: 2.0 }],
    run: wal_out::at_once,
    when_missed: "",
};

pub(crate) const WAL_OUT_50MS: Row = Row {
    name: "wal_out_50ms",
    what: "the same, with every request to the bucket 50 ms later",
    run: wal_out::from_afar,
    ..WAL_OUT_0MS
};
