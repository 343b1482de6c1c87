//! What to do about the data directory: initialise, restore, adopt or refuse. The decision is pure.
//!
//! The dangerous mistakes are an empty cluster where data should be, and data that is not ours below our prefix. So a
//! cluster is initialised only when nothing says that there was one, and everything that does not fit is left alone.

use super::lsn::SegmentSize;
use crate::exit::Failure;
use crate::owner::{Cluster, Identity, Origin};
use std::path::Path;

/// What is at `<data>/pgdata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Missing,
    /// An empty directory.
    Empty,
    /// A cluster of our major.
    Cluster {
        /// Its identifier.
        system_identifier: u64,
        /// Its segment size.
        wal_segment_size: SegmentSize,
        /// Whether its pages have checksums.
        checksums: bool,
    },
    /// A cluster of another major: `PG_VERSION` says so.
    OtherMajor(u32),
    /// Something that is no cluster; in words.
    Garbage(String),
}

/// What the role does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make a new cluster.
    Init,
    /// Fetch and replay from the archive.
    Restore,
    /// Use what is there.
    Adopt,
}

/// Decides. `recorded` is what our own epoch says of its cluster.
///
/// # Errors
/// 77 with what does not fit and what to do.
pub fn decide(
    pgdata: &Path,
    major: u32,
    there: &There,
    identity: &Identity,
    recorded: Option<&Cluster>,
) -> Result<Decision, Failure> {
    let refuse = |text: String| Err(Failure::refused(format!("{}: {text}", pgdata.display())));
    if let Some(cluster) = recorded.filter(|c| c.major != major) {
        return refuse(format!(
            "this prefix holds Postgres {}, installed is {major}: use the image of that major (PG_VERSION)",
            cluster.major
        ));
    }
    let known = identity.system_identifier.or(recorded.map(|c| c.system_identifier));
    match there {
        There::Missing | There::Empty => match (identity.origin, recorded, identity.system_identifier) {
            (Origin::Fresh, None, None) => Ok(Decision::Init),
            (Origin::Fresh, None, Some(id)) if identity.epoch.is_none() => refuse(format!(
                "the data of cluster {id} is gone and there is no store to restore it from; put it back, or remove \
                 identity.json to begin anew"
            )),
            (Origin::Takeover { .. }, _, _)
            | (Origin::Fresh, Some(_), _)
            | (Origin::Fresh, None, Some(_)) => Ok(Decision::Restore),
        },
        There::Cluster { system_identifier, .. } => match known {
            Some(id) if id != *system_identifier => refuse(format!(
                "it holds cluster {system_identifier}, but this volume's identity and prefix belong to cluster {id}; \
                 nothing was touched: move it away, or use its own SUPAFLY_STORE"
            )),
            Some(_) | None => Ok(Decision::Adopt),
        },
        There::OtherMajor(other) => refuse(format!(
            "PG_VERSION says {other}, installed is Postgres {major}; nothing was touched: use the image of Postgres {other}"
        )),
        There::Garbage(what) => {
            refuse(format!("{what}; nothing was touched: empty it or put the cluster back"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::owner::Epoch;

    fn identity(epoch: Option<u32>, origin: Origin, system_identifier: Option<u64>) -> Identity {
        Identity {
            project: "p".into(),
            epoch: epoch.map(Epoch),
            incarnation: uuid::Uuid::nil(),
            origin,
            system_identifier,
            store: String::new(),
        }
    }

    fn recorded(id: u64, major: u32) -> Cluster {
        let size = SegmentSize::DEFAULT;
        Cluster { system_identifier: id, major, wal_segment_size: size, checksums: true, engine: "x".into() }
    }

    fn there(id: u64) -> There {
        There::Cluster { system_identifier: id, wal_segment_size: SegmentSize::DEFAULT, checksums: true }
    }

    fn run(there: &There, identity: &Identity, recorded: Option<&Cluster>) -> Result<Decision, Failure> {
        decide(Path::new("/data/pgdata"), 15, there, identity, recorded)
    }

    #[test]
    fn a_cluster_is_made_only_when_nothing_says_that_there_was_one() {
        let fresh = identity(Some(1), Origin::Fresh, None);
        let taken = identity(Some(2), Origin::Takeover { from: Epoch(1) }, None);
        assert_eq!(run(&There::Missing, &fresh, None).unwrap(), Decision::Init);
        assert_eq!(run(&There::Empty, &fresh, None).unwrap(), Decision::Init);
        assert_eq!(run(&There::Missing, &taken, None).unwrap(), Decision::Restore);
        assert_eq!(run(&There::Missing, &fresh, Some(&recorded(7, 15))).unwrap(), Decision::Restore);
        let lost = run(&There::Missing, &identity(None, Origin::Fresh, Some(7)), None).unwrap_err();
        assert_eq!(lost.exit, Exit::Refused);
    }

    #[test]
    fn what_is_ours_is_adopted_and_what_is_foreign_is_refused() {
        let known = identity(Some(1), Origin::Fresh, Some(7));
        assert_eq!(run(&there(7), &known, None).unwrap(), Decision::Adopt);
        assert_eq!(run(&there(7), &identity(Some(1), Origin::Fresh, None), None).unwrap(), Decision::Adopt);
        for (there, recorded, word) in [
            (there(8), None, "cluster 8"),
            (There::OtherMajor(9), None, "PG_VERSION says 9"),
            (There::Garbage("it holds `x`".into()), None, "`x`"),
            (There::Missing, Some(recorded(7, 14)), "Postgres 14"),
        ] {
            let e = run(&there, &known, recorded.as_ref()).unwrap_err();
            assert_eq!(e.exit, Exit::Refused);
            assert!(e.message.contains(word), "{e}");
        }
    }
}
