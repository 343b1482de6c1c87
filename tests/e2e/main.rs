//! The end-to-end tests: a machine loses its power and its volume, and another gets back every row that the archive
//! holds. Real Postgres, a real backup engine, a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic; what it measured goes to its own output"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod bad_input;
mod copied;
mod dev;
mod faults;
mod freeze;
mod kill;
mod lifecycle;
mod room;
mod setup;
mod survive;
mod web;
mod whole;
