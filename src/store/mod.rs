//! The object store, reduced to what we need and to what can be trusted: create-only writes, whole reads, listings.
//!
//! There is no "put": every object is created once (`If-None-Match: *`) and never changed, so a lost reply, a zombie or
//! a bug cannot overwrite anything. Errors are classified by consequence, because the worst bug this project can have
//! is to take "I could not look" for "it is not there" (`docs/adr`, Postgres ends recovery on it).

mod classify;
pub mod credentials;
mod error;
pub mod file;
mod keys;
pub mod memory;
mod probe;
pub mod s3;

pub use error::{Kind, StoreError};
pub use probe::{Unusable, probe};

use crate::config::{Settings, StoreUrl};
use crate::exit::Failure;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full key below the store's prefix, without a leading slash.
    pub key: String,
    /// Size in bytes as stored.
    pub size: u64,
}

/// What a kind of store must be able to do. Keys are relative to the store's prefix.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Creates the object; [`Kind::Conflict`] when it exists. Durable when it returns.
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Reads the whole object; [`Kind::Absent`] only when the store said that this key does not exist in an existing bucket.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>>;
    /// Every object whose key begins with `prefix` (which ends in '/' or is empty), sorted by key. Complete or an error.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>>;
    /// Removes an object; absent is success. Used for probes and (later) retention only.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;
    /// For messages: `s3://bucket/prefix`, `file:///dir`.
    fn url(&self) -> String;
}

/// A store, cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<dyn Backend>);

/// How a create-only write ended, when the caller is content with its own bytes being there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// We made it.
    New,
    /// It was there with exactly these bytes (our own earlier write whose reply was lost).
    Same,
    /// It is there with other bytes. Never overwritten.
    Different,
}

impl Store {
    /// A store over a backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Store {
        Store(backend)
    }

    /// See [`Backend::create`].
    ///
    /// # Errors
    /// As classified by [`Kind`].
    pub async fn create(&self, key: &str, body: impl Into<Bytes>) -> Result<(), StoreError> {
        self.0.create(key, body.into()).await
    }

    /// Creates the object, or finds out what is there. An ambiguous failure is settled by reading back.
    ///
    /// # Errors
    /// When neither the write nor the read back gave an answer.
    pub async fn create_or_compare(&self, key: &str, body: impl Into<Bytes>) -> Result<Created, StoreError> {
        let body = body.into();
        let failed = match self.0.create(key, body.clone()).await {
            Ok(()) => return Ok(Created::New),
            Err(e) => e,
        };
        match failed.kind {
            Kind::Conflict | Kind::Transient => {}
            Kind::Absent | Kind::Denied | Kind::Broken => return Err(failed),
        }
        match (self.0.get(key).await, failed.kind) {
            (Ok(there), _) if there == body => Ok(Created::Same),
            (Ok(_), _) => Ok(Created::Different),
            // "It exists" and then no look at it: nothing is known of its bytes, so nobody may act on the conflict.
            (Err(e), Kind::Conflict) => Err(StoreError {
                kind: if e.kind == Kind::Absent { Kind::Transient } else { e.kind },
                message: format!("it exists, but could not be compared: {}", e.message),
                ..e
            }),
            (Err(_), Kind::Absent | Kind::Denied | Kind::Transient | Kind::Broken) => Err(failed),
        }
    }

    /// See [`Backend::get`].
    ///
    /// # Errors
    /// As classified by [`Kind`].
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.0.get(key).await
    }

    /// Reads an object that may be absent.
    ///
    /// # Errors
    /// Anything but success and proved absence.
    pub async fn get_optional(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.0.get(key).await {
            Ok(body) => Ok(Some(body)),
            Err(e) if e.kind == Kind::Absent => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// See [`Backend::list`].
    ///
    /// # Errors
    /// As classified by [`Kind`]; never a partial listing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }

    /// See [`Backend::delete`].
    ///
    /// # Errors
    /// As classified by [`Kind`].
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key).await
    }

    /// For messages.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }
}

/// Opens the store that the settings name, with credentials from [`Settings::store_credentials`] when this process may
/// read that file, else from its environment. Nothing is sent yet: [`probe`] does.
///
/// # Errors
/// 78 when there is no store, or its credentials or certificates cannot be used.
pub fn open(settings: &Settings) -> Result<Store, Failure> {
    match &settings.store {
        StoreUrl::None => Err(Failure::config(
            "there is no store: set SUPAFLY_STORE to s3://bucket/prefix or file:///directory",
        )),
        StoreUrl::File { dir } => {
            file::sweep(dir);
            Ok(Store::new(Arc::new(file::Directory::new(dir))))
        }
        StoreUrl::S3 { bucket, prefix } => {
            let given =
                credentials::Credentials::read(&settings.store_credentials(), &crate::facts::environment())?;
            let bucket = s3::Bucket::new(bucket, prefix, &given, s3::Limits::default())?;
            Ok(Store::new(Arc::new(bucket)))
        }
    }
}
