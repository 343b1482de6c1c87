//! `e<epoch>/lineage.json`: where an epoch that took over got its data from, and up to where its parent's WAL counts.
//!
//! A position alone does not bound a parent: a former owner that restores within its own epoch, not knowing yet, begins
//! a timeline inside the segment at which we branched, below the branch. So the newest timeline that the plan followed
//! is recorded too, and nothing of a later one counts. Files written before that field was there bound by position only.
//!
//! Killed before the object is there, nothing is bound yet and the next boot plans anew, perhaps along what the former
//! owner archived meanwhile: until then nobody has served anything of this epoch. Killed after it, the next boot reads
//! the object and plans within it.

use super::Epoch;
use crate::postgres::lsn::{Lsn, Timeline};
use crate::store::{Created, Kind, Store, StoreError};
use serde::{Deserialize, Serialize};

/// Where an epoch branched off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The epoch whose WAL goes on below the branch.
    pub parent: Epoch,
    /// The epoch that holds the base backup of the restore.
    pub backup_epoch: Epoch,
    /// Its name.
    pub backup: String,
    /// Where the parent's WAL ended when this epoch had become the owner. What came later was never acknowledged.
    pub branch: Lsn,
    /// The newest timeline below the branch, along which the restore was planned. Later ones are not ours. Absent in
    /// files of releases that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// One epoch of a chain, and up to where its WAL counts; `None` = to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The epoch.
    pub epoch: Epoch,
    /// WAL of this epoch from here on is of nobody's history.
    pub until: Option<Lsn>,
    /// WAL of a later timeline of this epoch is of nobody's history; `None` = every timeline counts.
    pub newest: Option<Timeline>,
}

impl Link {
    /// An epoch whose WAL counts to its end.
    #[must_use]
    pub const fn whole(epoch: Epoch) -> Link {
        Link { epoch, until: None, newest: None }
    }

    /// Whether WAL of this epoch that begins at `start` on `timeline` is of the chain's history.
    #[must_use]
    pub fn counts(&self, timeline: Timeline, start: Lsn) -> bool {
        self.counts_timeline(timeline) && self.until.is_none_or(|until| start < until)
    }

    /// This link, bounded by another one as well.
    #[must_use]
    pub fn within(self, other: Link) -> Link {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        let (until, newest) = (least(self.until, other.until), least(self.newest, other.newest));
        Link { epoch: self.epoch, until, newest }
    }

    /// Whether anything of `timeline` can be.
    #[must_use]
    pub fn counts_timeline(&self, timeline: Timeline) -> bool {
        self.newest.is_none_or(|newest| timeline <= newest)
    }
}

fn key(epoch: Epoch) -> String {
    format!("{}/lineage.json", epoch.dir())
}

/// Reads where an epoch branched off; `None` for one that began a cluster, or has not restored yet.
///
/// # Errors
/// The store's, or `Broken` when the object makes no sense.
pub async fn read(store: &Store, epoch: Epoch) -> Result<Option<Lineage>, StoreError> {
    let key = key(epoch);
    let Some(body) = store.get_optional(&key).await? else { return Ok(None) };
    let parsed: Result<Lineage, _> = serde_json::from_slice(&body);
    let broken =
        |why: String| StoreError::new(Kind::Broken, "get", &key, format!("not a lineage object: {why}"));
    let lineage = parsed.map_err(|e| broken(e.to_string()))?;
    if lineage.parent < epoch {
        Ok(Some(lineage))
    } else {
        Err(broken(format!("its parent is {}", lineage.parent)))
    }
}

/// Writes it, once; what is there already wins and is returned.
///
/// # Errors
/// The store's.
pub async fn write(store: &Store, epoch: Epoch, lineage: &Lineage) -> Result<Lineage, StoreError> {
    let key = key(epoch);
    let body = serde_json::to_vec(lineage)
        .map_err(|e| StoreError::new(Kind::Broken, "create", &key, e.to_string()))?;
    match store.create_or_compare(&key, body).await? {
        Created::New | Created::Same => Ok(lineage.clone()),
        Created::Different => read(store, epoch).await?.ok_or_else(|| {
            StoreError::new(Kind::Transient, "create", &key, "it conflicted and is not there")
        }),
    }
}

/// The epochs whose WAL makes up this epoch's history, newest first: itself to its end, its parent up to the branch,
/// and so on. A branch further down bounds every epoch beneath it, and so does a timeline.
///
/// # Errors
/// The store's.
pub async fn chain(store: &Store, epoch: Epoch) -> Result<Vec<Link>, StoreError> {
    let mut last = Link::whole(epoch);
    let mut links = vec![last];
    while let Some(Lineage { parent, branch, timeline, .. }) = read(store, last.epoch).await? {
        last = Link { epoch: parent, until: Some(branch), newest: timeline }.within(last);
        links.push(last);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use std::sync::Arc;

    const OLD: &str = r#"{"parent":1,"backup_epoch":1,"backup":"base_1","branch":"0/5000000"}"#;

    fn lineage(parent: u32, branch: u64, timeline: Option<u32>) -> Lineage {
        let (parent, timeline) = (Epoch(parent), timeline.map(Timeline));
        Lineage { parent, backup_epoch: parent, backup: "base_1".into(), branch: Lsn(branch), timeline }
    }

    #[tokio::test]
    async fn an_old_file_is_read_as_before_and_a_new_one_has_every_field_of_an_old_one() {
        let memory = Memory::default();
        let store = Store::new(Arc::new(memory.clone()));
        memory.plant("e0000000002/lineage.json", OLD);
        assert_eq!(read(&store, Epoch(2)).await.unwrap(), Some(lineage(1, 0x500_0000, None)));
        let links = chain(&store, Epoch(2)).await.unwrap();
        assert_eq!(links.last().map(|l| (l.until, l.newest)), Some((Some(Lsn(0x500_0000)), None)));
        // What a former release reads: the same fields, and one more that it passes over.
        let new = serde_json::to_value(lineage(1, 0x500_0000, Some(3))).unwrap();
        let old: serde_json::Value = serde_json::from_str(OLD).unwrap();
        for (name, value) in old.as_object().unwrap() {
            assert_eq!(new.get(name), Some(value), "{name}");
        }
        assert_eq!(new.get("timeline"), Some(&serde_json::json!(3)));
    }

    #[tokio::test]
    async fn what_an_earlier_try_wrote_wins_also_when_it_is_an_old_file() {
        let memory = Memory::default();
        let store = Store::new(Arc::new(memory.clone()));
        memory.plant("e0000000002/lineage.json", OLD);
        let before = memory.objects();
        let there = write(&store, Epoch(2), &lineage(1, 0x600_0000, Some(2))).await.unwrap();
        assert_eq!(there, lineage(1, 0x500_0000, None));
        assert_eq!(memory.objects(), before);
    }

    #[tokio::test]
    async fn a_bound_holds_for_every_epoch_beneath_it() {
        let store = Store::new(Arc::new(Memory::default()));
        for (epoch, of) in
            [(4, lineage(3, 0x900, Some(3))), (3, lineage(2, 0xA00, None)), (2, lineage(1, 0x700, Some(5)))]
        {
            write(&store, Epoch(epoch), &of).await.unwrap();
        }
        let links = chain(&store, Epoch(4)).await.unwrap();
        let bounds: Vec<_> =
            links.iter().map(|l| (l.epoch.0, l.until.map(|u| u.0), l.newest.map(|t| t.0))).collect();
        assert_eq!(
            bounds,
            [
                (4, None, None),
                (3, Some(0x900), Some(3)),
                (2, Some(0x900), Some(3)),
                (1, Some(0x700), Some(3))
            ]
        );
        let parent = links[1];
        assert!(parent.counts(Timeline(3), Lsn(0x8FF)) && !parent.counts(Timeline(3), Lsn(0x900)));
        assert!(!parent.counts(Timeline(4), Lsn(0)) && links[0].counts(Timeline(9), Lsn(u64::MAX)));
    }
}
