//! Whether a store can carry what rests on it, found out by asking it: create-only writes that a second writer loses,
//! reads and listings that show what was just written, and a plain "no such key". A server that ignores
//! `If-None-Match` answers every request with success, so nothing but a trial shows it; two machines would both own it.

use super::{Kind, Store, StoreError};
use crate::exit::Failure;
use std::fmt;

/// Why a store cannot be used now.
#[derive(Debug)]
pub enum Unusable {
    /// It did not answer; it may answer later. An owner waits.
    Unreachable(StoreError),
    /// It answered, and will not answer otherwise until somebody changes something.
    Refused(Failure),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Unreachable(e) => write!(f, "the store does not answer: {e}"),
            Unusable::Refused(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Failure {
        match unusable {
            Unusable::Refused(failure) => failure,
            Unusable::Unreachable(_) => Failure::gave_up(unusable.to_string()),
        }
    }
}

/// Tries the store out on an object of its own below `_probe/`.
///
/// # Errors
/// [`Unusable::Unreachable`] when an answer lacks, [`Unusable::Refused`] (78) when the store is not one that we can use.
pub async fn probe(store: &Store) -> Result<(), Unusable> {
    let key = format!("_probe/{}", uuid::Uuid::new_v4());
    let tried = trial(store, &key).await;
    // Also after a failure: the object may be there. Who may not delete may still archive.
    if let Err(e) = store.delete(&key).await {
        tracing::warn!(error = %e, "the probe's own object could not be removed");
    }
    tried
}

async fn trial(store: &Store, key: &str) -> Result<(), Unusable> {
    let url = store.url();
    let refused = |what: &str| {
        Err(Unusable::Refused(Failure::config(format!("the store {url} cannot be used: {what}"))))
    };
    let failed = |e: StoreError| explain(&url, e);

    store.create(key, key.to_owned()).await.map_err(failed)?;
    // All at once: each asks after what was written before them, and none after what another does.
    let nobody = format!("_probe/{}", uuid::Uuid::new_v4());
    let (second, read, listed, nothing) = tokio::join!(
        store.create(key, "another writer"),
        store.get(key),
        store.list("_probe/"),
        store.get(&nobody),
    );
    match second {
        Err(e) if e.kind == Kind::Conflict => {}
        Err(e) => return Err(failed(e)),
        Ok(()) => {
            return refused(
                "it let a second writer overwrite an object (it ignores `If-None-Match: *`), so two machines could own \
                 one database. Use a store with conditional writes (SUPAFLY_STORE, AWS_ENDPOINT_URL_S3)",
            );
        }
    }
    match read {
        Ok(body) if body == key => {}
        Ok(_) => return refused("it gave back other bytes than it was given"),
        Err(e) if e.kind == Kind::Absent => {
            return refused("it does not show an object right after it was written");
        }
        Err(e) => return Err(failed(e)),
    }
    let listed = listed.map_err(failed)?;
    if !listed.iter().any(|entry| entry.key == key && entry.size == key.len() as u64) {
        return refused("its listing does not show an object right after it was written");
    }
    match nothing {
        Err(e) if e.kind == Kind::Absent => Ok(()),
        Err(e) => Err(failed(e)),
        Ok(_) => refused("it gives back an object that nobody wrote"),
    }
}

fn explain(url: &str, e: StoreError) -> Unusable {
    let what = match e.kind {
        Kind::Transient => return Unusable::Unreachable(e),
        Kind::Denied => {
            "it refuses us: check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role), \
                         their policy (GetObject, PutObject, DeleteObject, ListBucket) and this machine's clock"
        }
        Kind::Broken => "check SUPAFLY_STORE, AWS_ENDPOINT_URL_S3 and AWS_REGION",
        Kind::Absent | Kind::Conflict => "it contradicts itself",
    };
    Unusable::Refused(Failure::config(format!("the store {url} cannot be used: {what}. {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{Fate, Memory};
    use std::sync::Arc;

    async fn probed(memory: &Memory) -> Result<(), Unusable> {
        probe(&Store::new(Arc::new(memory.clone()))).await
    }

    #[tokio::test]
    async fn a_good_store_passes_and_nothing_is_left_in_it() {
        let memory = Memory::default();
        probed(&memory).await.unwrap();
        assert!(memory.objects().is_empty());
    }

    #[tokio::test]
    async fn an_outage_is_something_to_wait_for_and_a_refusal_is_not() {
        for step in ["create", "get", "list"] {
            let memory = Memory::default();
            memory.faults(move |op, _| if op == step { Fate::Fail(Kind::Transient) } else { Fate::Pass });
            assert!(matches!(probed(&memory).await, Err(Unusable::Unreachable(_))), "{step}");
            for kind in [Kind::Denied, Kind::Broken] {
                memory.faults(move |op, _| if op == step { Fate::Fail(kind) } else { Fate::Pass });
                let Err(Unusable::Refused(e)) = probed(&memory).await else { panic!("{step} {kind:?}") };
                assert!(e.message.contains("AWS_"), "{e}");
            }
        }
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_seen_again_is_a_refusal() {
        let memory = Memory::default();
        memory.faults(|op, _| if op == "get" { Fate::Fail(Kind::Absent) } else { Fate::Pass });
        assert!(matches!(probed(&memory).await, Err(Unusable::Refused(_))));
    }
}
