//! A store in memory, for unit and property tests of everything that stands on a store: faults are decided by a
//! function that sees each request, so that a lost reply or an outage happens exactly where a history wants it.

use super::{Backend, Entry, Kind, StoreError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As it should.
    Pass,
    /// It fails so, and nothing was done.
    Fail(Kind),
    /// It was carried out, but the caller sees no answer.
    LostReply,
}

type Decide = dyn FnMut(&'static str, &str) -> Fate + Send;

/// A store in memory.
#[derive(Clone)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    decide: Arc<Mutex<Box<Decide>>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { objects: Arc::default(), decide: Arc::new(Mutex::new(Box::new(|_, _| Fate::Pass))) }
    }
}

impl Memory {
    /// From now on `decide(operation, key)` says what happens to each request.
    pub fn faults(&self, decide: impl FnMut(&'static str, &str) -> Fate + Send + 'static) {
        *lock(&self.decide) = Box::new(decide);
    }

    /// What is stored, for oracles.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        lock(&self.objects).clone()
    }

    /// Puts bytes in place, past every rule: for tests that damage or prepare a store.
    pub fn plant(&self, key: &str, body: impl Into<Bytes>) {
        lock(&self.objects).insert(key.to_owned(), body.into());
    }

    fn answer<T>(
        &self,
        operation: &'static str,
        key: &str,
        act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fate = (lock(&self.decide))(operation, key);
        match fate {
            Fate::Pass => act(&mut lock(&self.objects)),
            Fate::Fail(kind) => Err(StoreError::new(kind, operation, key, "injected")),
            Fate::LostReply => {
                let _ = act(&mut lock(&self.objects));
                Err(StoreError::new(Kind::Transient, operation, key, "injected: reply lost"))
            }
        }
    }
}

impl Backend for Memory {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer("create", key, |objects| {
                if objects.contains_key(key) {
                    return Err(StoreError::new(Kind::Conflict, "create", key, "exists"));
                }
                objects.insert(key.to_owned(), body);
                Ok(())
            })
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        Box::pin(async move {
            self.answer("get", key, |objects| {
                objects
                    .get(key)
                    .cloned()
                    .ok_or_else(|| StoreError::new(Kind::Absent, "get", key, "no such key"))
            })
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            self.answer("list", prefix, |objects| {
                Ok(objects
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix))
                    .map(|(key, body)| Entry { key: key.clone(), size: body.len() as u64 })
                    .collect())
            })
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.answer("delete", key, |objects| {
                objects.remove(key);
                Ok(())
            })
        })
    }

    fn url(&self) -> String {
        "memory:".to_owned()
    }
}
