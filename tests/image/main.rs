//! The image in a container, as users run it: black-box tests by podman or docker of what `make image` built, as PID 1 and
//! under another init. Not part of `make test`: `make test-image` builds the images and runs them, at most two at a time.
//!
//! Where `PARTS=registry` built them, Supavisor and pg_graphql are stand-ins, the engine is wal-rus and PostgREST is 12:
//! `supafly version --all` says which, and `scripts/image/test.sh` prints that first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic; what it measured goes to its own output"
)]

#[path = "../support/mod.rs"]
mod support;

mod boot;
mod container;
mod engine;
mod extensions;
mod health;
mod kill;
mod limits;
mod numbers;
mod page;
mod rights;
mod secrecy;
mod stop;
mod volume;
