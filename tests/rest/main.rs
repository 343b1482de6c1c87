//! The REST API of a whole machine: the real binary, real Postgres, real PostgREST, and the client that Supabase's users
//! have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic; what it measured goes to its own output"
)]

#[path = "../support/mod.rs"]
mod support;

mod failures;
mod js;
mod outages;
mod project;
mod rows;
mod versions;
