//! Whether `/dev/shm` holds what Postgres's parallel queries and index builds put there. Docker gives 64 MB.
//!
//! Postgres finds out in the middle of a query (`could not resize shared memory segment`), so it is said before. It is no
//! refusal: most work needs none of it.

use super::session::{Session, sql};
use crate::control::client::Row;
use crate::exit::Failure;

const MIB: u64 = 1 << 20;

/// What counts, all in bytes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Size of the file system.
    there: u64,
    /// The hash table of one parallel join: each of its processes may add this much.
    hash: u64,
    /// Processes of one parallel query, its leader among them.
    processes: u64,
    /// A parallel build of an index (pgvector's HNSW puts the whole graph there).
    maintenance: u64,
}

impl Sizes {
    /// The largest single thing that is put there.
    fn needed(self) -> u64 {
        self.hash.saturating_mul(self.processes).max(self.maintenance)
    }

    /// What a person reads when it is too small.
    fn complaint(self) -> Option<String> {
        let needed = self.needed();
        (needed > self.there).then(|| {
            format!(
                "/dev/shm has {} MB, and one parallel query or index build may need {} MB (work_mem, \
                 maintenance_work_mem): such statements fail with `could not resize shared memory segment`. Start the \
                 container with --shm-size={}m (compose: shm_size), or set a smaller maintenance_work_mem and work_mem",
                self.there / MIB,
                needed.div_ceil(MIB),
                needed.div_ceil(64 * MIB) * 64
            )
        })
    }
}

/// A row for the status when it is too small.
pub(super) async fn look(session: &Session) -> Result<Option<Row>, Failure> {
    // As they hold, whoever set them. The multiplier is there from 13 on.
    let question = "select pg_catalog.current_setting('dynamic_shared_memory_type'), \
         (pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) \
         * coalesce(pg_catalog.current_setting('hash_mem_multiplier', true)::float8, 1))::int8, \
         pg_catalog.current_setting('max_parallel_workers_per_gather')::int8, \
         pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')), \
         pg_catalog.current_setting('max_parallel_maintenance_workers')::int8";
    let asked = session.client.query_one(question, &[]).await;
    let row = asked.map_err(|e| sql("ask for sizes of shared memory", &e))?;
    let (kind, hash, workers, maintenance, builders): (String, i64, i64, i64, i64) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    if kind != "posix" {
        return Ok(None);
    }
    let there = match nix::sys::statvfs::statvfs("/dev/shm") {
        Ok(stat) => stat.blocks().saturating_mul(stat.fragment_size()),
        Err(e) => {
            return Ok(said(format!("/dev/shm: {e}: Postgres puts its shared memory there; mount a tmpfs")));
        }
    };
    let size = |n: i64| u64::try_from(n).unwrap_or_default();
    let sizes = Sizes {
        there,
        hash: if workers > 0 { size(hash) } else { 0 },
        processes: size(workers).saturating_add(1),
        maintenance: if builders > 0 { size(maintenance) } else { 0 },
    };
    Ok(sizes.complaint().and_then(said))
}

fn said(text: String) -> Option<Row> {
    tracing::warn!("{text}");
    Some(super::row("shared memory", "small", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_64_megabytes_are_compared_with_what_one_statement_may_take() {
        let sizes = |there, hash, maintenance| Sizes {
            there,
            hash: hash * MIB,
            processes: 3,
            maintenance: maintenance * MIB,
        };
        assert_eq!(sizes(64 * MIB, 8, 64).complaint(), None);
        let said = sizes(64 * MIB, 8, 128).complaint().unwrap();
        assert!(
            said.contains("has 64 MB") && said.contains("need 128 MB") && said.contains("--shm-size=128m"),
            "{said}"
        );
        assert!(sizes(64 * MIB, 32, 16).complaint().unwrap().contains("--shm-size=128m"));
        assert_eq!(sizes(u64::MAX, 32, 16).complaint(), None);
    }
}
