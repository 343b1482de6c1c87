//! The real binary with a stand-in service: starting, stopping, crashing, logging, sockets, as a child and as PID 1.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests: a failure must be seen")]

mod descent;
mod harness;
mod life;
mod logs;
mod pid1;
mod refusals;
mod sockets;
mod stop;
