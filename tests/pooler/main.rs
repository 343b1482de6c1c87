//! The pooler as a service of a whole machine: real Postgres, real PgBouncer, clients that come over TCP as users' do.
//! What clients see when something happens is the table in `docs/behaviour.md`; each of its cells is asserted here.

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
mod behaviour;
mod client;
mod faults;
mod load;
mod rig;
