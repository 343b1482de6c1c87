//! Supavisor as the pooler of a whole machine: a real Postgres behind it, our resident before it.
//!
//! With `SUPAFLY_SUPAVISOR` (`bin/supavisor` of a release) most of these run against the real one. Where it is not
//! given, and wherever misbehaviour is made on purpose, a stand-in with the real one's habits takes its place, and each
//! test says which it had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and says what it had"
)]

#[path = "../support/mod.rs"]
mod support;

mod drain;
mod faults;
mod habits;
mod life;
mod network;
mod vault;
mod world;
