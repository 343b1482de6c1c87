//! Habits of `docker run postgres` and of Supabase's image, against the real binary and a real Postgres: what users type
//! without thinking works, or is refused with the reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic; what it measured goes to its own output"
)]

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod arguments;
mod clusters;
mod killed;
mod variables;
