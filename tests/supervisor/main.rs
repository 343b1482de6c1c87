//! The real binary with a stand-in service: starting, stopping, crashing, logging, sockets, as a child and as PID 1.
//! `docs/scenarios.md` says which test proves what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests: a failure must be seen"
)]

mod harness;
mod procs;
mod sight;

mod ancestors;
mod catalogue;
mod control;
mod descent;
mod environment;
mod freezing;
mod life;
mod limits;
mod living;
mod logs;
mod memory;
mod oracle;
mod powers;
mod probing;
mod refusals;
mod restart;
mod room;
mod soak;
mod sockets;
mod spawning;
mod stop;
mod strangers;
mod surroundings;
mod teardown;
mod wishes;
