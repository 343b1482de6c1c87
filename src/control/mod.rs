//! The control socket `<run>/control.sock`: newline-delimited JSON, versioned, one object a request and one an answer.
//!
//! The verbs are few and generic (`status`, `report`, `stop`, `start`, `retry`, `freeze`, `thaw`). Who may do what is
//! decided by the peer's credentials, never by what the request says of itself: root and our own uid may do
//! everything, a supervised process may read the status and report the facts of its own service. Every request gets
//! an answer: accepted, nothing to do, or rejected because of something.

pub mod client;
pub mod commands;
pub mod server;
