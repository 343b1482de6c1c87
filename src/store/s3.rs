//! A store in a bucket of anything that speaks S3 with conditional writes.
//!
//! The HTTP client, signatures and XML are `object_store`'s; what it decides for itself is switched off: it would send a
//! create again after a lost reply and take its own object for somebody else's, it calls every 404 "not found", and it
//! waits without an overall limit. So each request is watched at the HTTP level ([`observe`]), classified by us
//! ([`super::classify`]), sent again only where that cannot lie, and ends at a deadline whatever the other side does.

mod client;
mod observe;

use super::classify::{Class, Operation, classify};
use super::credentials::Credentials;
use super::{Backend, Entry, Kind, StoreError, keys};
use crate::exit::Failure;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use observe::Seen;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes of an answer that has begun, and for the whole of a small request.
    pub attempt: Duration,
    /// After this, no further attempt is made. A large body adds a second per 256 KiB to the last one.
    pub total: Duration,
    /// How often a request is sent at most.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(15),
            total: Duration::from_secs(30),
            attempts: 4,
        }
    }
}

/// Body bytes that a slow line is given a second for.
const SLOW_LINE: u64 = 256 * 1024;
/// The largest object that is read whole; only its time limit follows from it.
const LARGEST: u64 = 16 << 20;

/// A store in a bucket.
#[derive(Debug)]
pub struct Bucket {
    client: AmazonS3,
    bucket: String,
    prefix: String,
    limits: Limits,
}

/// Nothing came for too long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {:.1} s", .0.as_secs_f32())]
struct Stalled(Duration);

struct Failed {
    class: Class,
    error: StoreError,
}

impl Bucket {
    /// The store below `prefix` of `bucket`. Nothing is sent yet.
    ///
    /// # Errors
    /// 78 when credentials or certificates cannot be used.
    pub fn new(bucket: &str, prefix: &str, given: &Credentials, limits: Limits) -> Result<Bucket, Failure> {
        let client = client::client(bucket, prefix, given, limits.connect)?;
        Ok(Bucket { client, bucket: bucket.to_owned(), prefix: prefix.to_owned(), limits })
    }

    fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    fn path(&self, operation: Operation, key: &str) -> Result<ObjectPath, StoreError> {
        keys::check(operation.name(), key)?;
        ObjectPath::parse(self.full(key))
            .map_err(|e| StoreError::new(Kind::Broken, operation.name(), key, e.to_string()))
    }

    /// Sends a request until it ends in a way that another attempt cannot better, or its time is over.
    async fn request<T, F>(
        &self,
        operation: Operation,
        key: &str,
        size: u64,
        mut send: impl FnMut() -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        let slow = Duration::from_secs(size / SLOW_LINE);
        let end = Instant::now() + self.limits.total;
        let mut attempt = 1;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let limit = self.limits.attempt.min(left) + slow;
            let failed = match self.once(operation, key, limit, send()).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let again = match failed.class {
                Class::NotDone => true,
                // A create that may have been carried out is the caller's to settle, by reading back.
                Class::Ambiguous => operation != Operation::Create,
                Class::Absent | Class::AbsentUnproved | Class::Conflict | Class::Denied | Class::Broken => {
                    false
                }
            };
            let pause = Duration::from_millis(100 << attempt.min(5)).mul_f64(rand::random_range(0.5..1.0));
            if !again || attempt >= self.limits.attempts || Instant::now() + pause >= end {
                return Err(failed);
            }
            tracing::debug!(error = %failed.error, attempt, "the store is asked again");
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn once<T>(
        &self,
        operation: Operation,
        key: &str,
        limit: Duration,
        send: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Failed> {
        let (result, seen) = observe::watch(tokio::time::timeout(limit, send)).await;
        let error = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let request_id = match &seen {
            Seen::Success { request_id } => request_id.clone(),
            Seen::Refusal(answer) => answer.request_id.clone(),
            Seen::Nothing | Seen::NotSent(_) | Seen::Lost(_) | Seen::Nonsense(_) => None,
        };
        let (class, message) = match (seen, error) {
            (_, None) => {
                (Class::Ambiguous, format!("no complete answer within {:.1} s", limit.as_secs_f32()))
            }
            (Seen::Refusal(answer), Some(_)) => {
                (classify(operation, answer.status, answer.code.as_deref()), answer.text())
            }
            (Seen::NotSent(text), Some(_)) => (Class::NotDone, text),
            (Seen::Nonsense(text), Some(_)) => (Class::Broken, text),
            (Seen::Lost(text), Some(_)) => (Class::Ambiguous, text),
            (Seen::Success { .. }, Some(error)) => after_success(operation, &error),
            (Seen::Nothing, Some(error)) if observe::is::<Stalled>(&error) => {
                (Class::Ambiguous, observe::chain(&error))
            }
            // Nothing was sent at all: a token file that cannot be read, an address that cannot be one.
            (Seen::Nothing, Some(error)) => (Class::Broken, error.to_string()),
        };
        let error = StoreError {
            kind: class.kind(),
            operation: operation.name(),
            key: key.to_owned(),
            message,
            request_id,
        };
        Err(Failed { class, error })
    }

    /// The next piece of an answer, which must come in the time of a small request however large the whole is.
    async fn moving<T>(&self, next: impl Future<Output = T>) -> Result<T, object_store::Error> {
        let limit = self.limits.attempt;
        tokio::time::timeout(limit, next)
            .await
            .map_err(|_| object_store::Error::Generic { store: "S3", source: Box::new(Stalled(limit)) })
    }

    async fn page(
        &self,
        shown: &str,
        prefix: &str,
        token: Option<String>,
    ) -> Result<(Vec<Entry>, Option<String>), StoreError> {
        let page = self
            .request(Operation::List, shown, 0, || {
                let options =
                    PaginatedListOptions { page_token: token.clone(), ..PaginatedListOptions::default() };
                self.client.list_paginated(Some(prefix), options)
            })
            .await
            .map_err(|f| f.error)?;
        let strip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let mut entries = Vec::with_capacity(page.result.objects.len());
        for object in page.result.objects {
            let full = object.location.as_ref();
            let Some(key) = full.starts_with(prefix).then(|| full.get(strip..)).flatten() else {
                let message = format!("the store listed `{full}`, which was not asked for");
                return Err(StoreError::new(Kind::Broken, "list", shown, message));
            };
            entries.push(Entry { key: key.to_owned(), size: object.size });
        }
        Ok((entries, page.page_token))
    }

    async fn pages(&self, shown: &str, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let (mut entries, next) = self.page(shown, prefix, token.clone()).await?;
            found.append(&mut entries);
            match next {
                None => break,
                Some(next) if token.as_ref() == Some(&next) => {
                    let message = "the store gives the same page of its listing again and again";
                    return Err(StoreError::new(Kind::Broken, "list", shown, message));
                }
                Some(next) => token = Some(next),
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    /// Settles a 404 that did not say what is missing: a listing of an existing bucket without the key proves it.
    async fn settle(&self, operation: Operation, key: &str, unproved: StoreError) -> StoreError {
        match self.pages(key, &self.full(key)).await {
            Ok(entries) if entries.iter().any(|e| e.key == key) => StoreError {
                kind: Kind::Transient,
                message: format!("{}; but the store lists the object", unproved.message),
                ..unproved
            },
            Ok(_) => StoreError { kind: Kind::Absent, ..unproved },
            Err(e) => StoreError { operation: operation.name(), key: key.to_owned(), ..e },
        }
    }
}

/// The server said "success", and yet there is no result.
fn after_success(operation: Operation, error: &object_store::Error) -> (Class, String) {
    let text = observe::chain(error);
    match operation {
        // A body that was cut short, or an answer to a create that cannot be read: it may have been carried out.
        Operation::Create | Operation::Get | Operation::Delete => (Class::Ambiguous, text),
        Operation::List if observe::is_transport(error) => (Class::Ambiguous, text),
        Operation::List => (Class::Broken, format!("not a listing (check AWS_ENDPOINT_URL_S3): {text}")),
    }
}

impl Backend for Bucket {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let path = self.path(Operation::Create, key)?;
            let size = body.len() as u64;
            self.request(Operation::Create, key, size, || {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                self.client.put_opts(&path, PutPayload::from_bytes(body.clone()), options)
            })
            .await
            .map(|_| ())
            .map_err(|f| f.error)
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        Box::pin(async move {
            let path = self.path(Operation::Get, key)?;
            let got = self
                .request(Operation::Get, key, LARGEST, || async {
                    let answer = self.moving(self.client.get(&path)).await??;
                    let expected = answer.meta.size;
                    let mut body = BytesMut::new();
                    let mut chunks = answer.into_stream();
                    while let Some(chunk) = self.moving(chunks.next()).await? {
                        body.extend_from_slice(&chunk?);
                    }
                    if body.len() as u64 == expected {
                        return Ok(body.freeze());
                    }
                    let source = format!("{} bytes came of {expected}", body.len()).into();
                    Err(object_store::Error::Generic { store: "S3", source })
                })
                .await;
            match got {
                Ok(body) => Ok(body),
                Err(Failed { class: Class::AbsentUnproved, error }) => {
                    Err(self.settle(Operation::Get, key, error).await)
                }
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            keys::check_prefix(prefix)?;
            let full =
                if prefix.is_empty() && self.prefix.is_empty() { String::new() } else { self.full(prefix) };
            self.pages(prefix, &full).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let path = self.path(Operation::Delete, key)?;
            match self.request(Operation::Delete, key, 0, || self.client.delete(&path)).await {
                Ok(()) | Err(Failed { class: Class::Absent, .. }) => Ok(()),
                Err(Failed { class: Class::AbsentUnproved, error }) => {
                    match self.settle(Operation::Delete, key, error).await {
                        settled if settled.kind == Kind::Absent => Ok(()),
                        settled => Err(settled),
                    }
                }
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }
}
