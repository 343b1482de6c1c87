//! The harness of `make bench` held to what it says: its statistics, its judgements, its report, and that a slowed
//! build loses. No peer and no Postgres is needed here.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests, and what a person at a terminal runs")]
#![allow(dead_code, reason = "what only the bench target uses of the harness")]

#[path = "../../benches/numbers/mod.rs"]
mod numbers;

mod contest;
mod goal;
mod report;
mod slowed;
mod stats;
