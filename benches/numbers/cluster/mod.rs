//! The rows that need a real Postgres, a real engine and a real S3 server.

#[path = "../../../tests/support/mod.rs"]
#[allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what tests stand on; a row that panics is caught and reported"
)]
mod support;

mod archiving;
mod backups;
mod boot;
mod dataset;
mod rig;
mod stack;
mod wal_client;
mod wal_in;
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
    when_missed: "it is a matter of the processor: a quarter of its time is the server's, the same for both contestants, and nearly \
                  all of the rest packs; a smaller table and longer matches would win another tenth and cost a twentieth of \
                  what is stored, for ever",
};

pub(crate) const WAL_OUT_50MS: Row = Row {
    name: "wal_out_50ms",
    what: "the same, with every request to the bucket 50 ms later",
    run: wal_out::from_afar,
    ..WAL_OUT_0MS
};

pub(crate) const WAL_IN_0MS: Row = Row {
    name: "wal_in_0ms",
    what: "recovery of 1 GiB of WAL out of a bucket, less the same recovery with all segments in pg_wal: `supafly wal-fetch` \
           through keeper, and the engine's wal-fetch; rows are compared after each",
    unit: Unit::Seconds,
    goals: &[Goal::AtMostPeer { factor: 0.5, plus: 0.0 }],
    run: wal_in::at_once,
    when_missed: "what is fetched must be received, unpacked, checked and written, and on two processors that slows the replay \
                  beside it (by a fifth) even when every file is there before it is asked for; the client's own 4 ms a segment \
                  are the start of two processes",
};

pub(crate) const WAL_IN_50MS: Row = Row {
    name: "wal_in_50ms",
    what: "the same, with every request to the bucket 50 ms later",
    run: wal_in::from_afar,
    ..WAL_IN_0MS
};

pub(crate) const WAL_CLIENT: Row = Row {
    name: "wal_client",
    what: "`supafly wal-push` of a segment that is in the store by then, exec to exit; besides it `supafly wal-fetch` of one \
           that was fetched ahead",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMost(5.0)],
    run: wal_client::run,
    when_missed: "",
};

pub(crate) const STOP_POSTGRES_CLIENT: Row = Row {
    name: "stop_postgres_client",
    what: "real Postgres with one client in a transaction: SIGTERM to the end of all of supafly, and `pg_ctl stop -m fast`",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 20.0 }],
    run: boot::stop,
    when_missed: "",
};

pub(crate) const BOOT_POSTGRES: Row = Row {
    name: "boot_postgres",
    what: "exec of `supafly run` on its volume to READY=1 of its Postgres, archiving to file://; beside it from s3 at 50 ms a \
           request. The peer is `postgres` on the same data and configuration, on a notify socket of ours",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 60.0 }],
    run: boot::postgres,
    when_missed: "",
};

pub(crate) const BOOT_STACK: Row = Row {
    name: "boot_stack",
    what: "from READY=1 of Postgres until set-up, pooler and PostgREST are ready",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 50.0 }],
    run: stack::run,
    when_missed: "set-up comes first, and looks at everything anew in 25 ms of a fresh backend; then PostgREST's launcher asks \
                  for its version, its ports and the database (13 ms), and PostgREST starts beside two PgBouncers on two \
                  processors",
};

pub(crate) const PGBENCH_ARCHIVING: Row = Row {
    name: "pgbench_archiving",
    what: "transactions a second with archiving, divided by those without: through keeper, and by the engine",
    unit: Unit::Ratio,
    goals: &[Goal::AtLeastPeer { factor: 1.0 }],
    run: archiving::run,
    when_missed: "",
};

pub(crate) const BACKUP: Row = Row {
    name: "backup",
    what: "a base backup of 1 GB: `supafly backup now`, which ends when it is proved, and the engine's backup-push alone",
    unit: Unit::Seconds,
    goals: &[Goal::AtMostPeer { factor: 1.1, plus: 0.0 }],
    run: backups::backup,
    when_missed: "",
};

pub(crate) const RESTORE: Row = Row {
    name: "restore",
    what: "1 GB fetched, checked and durable on an empty volume, and the engine's backup-fetch followed by a sync of the tree",
    unit: Unit::Seconds,
    goals: &[Goal::AtMostPeer { factor: 1.1, plus: 0.0 }],
    run: backups::restore,
    when_missed: "",
};
