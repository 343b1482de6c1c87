//! What a failure of the store means for the caller.

use std::fmt;

/// A failure, by what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The store answered that this very key does not exist, in a bucket that does.
    Absent,
    /// A create-only write met an existing object.
    Conflict,
    /// The store refused us: credentials, policy, clock. Trying again will not help by itself.
    Denied,
    /// No answer or a temporary one; the request may or may not have been carried out. Try again.
    Transient,
    /// The store or its configuration is not usable: no such bucket, an answer that makes no sense, a local error.
    Broken,
}

/// A failed request to the store.
#[derive(Clone, Debug, thiserror::Error)]
pub struct StoreError {
    /// What follows from it.
    pub kind: Kind,
    /// `create`, `get`, `list`, `delete`, `probe`
    pub operation: &'static str,
    /// The key or prefix, as the operator finds it in the bucket.
    pub key: String,
    /// What the store or the network said; never a credential.
    pub message: String,
    /// The store's own id of the request, where it gave one.
    pub request_id: Option<String>,
}

impl StoreError {
    /// An error without request id.
    pub fn new(kind: Kind, operation: &'static str, key: &str, message: impl Into<String>) -> StoreError {
        StoreError { kind, operation, key: key.to_owned(), message: message.into(), request_id: None }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StoreError { kind, operation, key, message, request_id } = self;
        let kind = match kind {
            Kind::Absent => "absent",
            Kind::Conflict => "exists already",
            Kind::Denied => "denied",
            Kind::Transient => "no answer",
            Kind::Broken => "broken",
        };
        write!(f, "store: {operation} {key}: {kind}: {message}")?;
        if let Some(id) = request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}
