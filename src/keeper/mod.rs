//! The one resident that knows the store: it confirms that we are the owner, ships and fetches WAL, drives the backup
//! engine and watches that Postgres answers.
//!
//! These are tasks of one role because they share one fate: an archiver that has not heard of the loss of ownership
//! would go on acknowledging. They hold the same credentials, which therefore live in this one process, unreadable
//! for Postgres's user. Keeper is ready as soon as its socket answers, whether or not the store does: Postgres must
//! be able to start through an outage. `decide.rs` has every decision as a pure function; the rest carries it out.

mod adoption;
mod backup;
mod bounded;
pub mod client;
pub mod decide;
mod inbox;
mod lineage;
mod outbox;
mod ownership;
pub mod protocol;
mod report;
mod resident;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Runs keeper until it is told to stop.
///
/// # Errors
/// What keeps it from serving at all: no socket, no identity, wrong credentials file.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    // First of all: no process of another user, and no core dump, may show the store's keys.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|e| Failure::gave_up(format!("keeper: cannot be made unreadable for others: {e}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|e| Failure::gave_up(format!("keeper: cannot start its event loop: {e}")))?;
    let exit = runtime.block_on(resident::run(settings));
    // Uploads that the drain gave up on must not hold the end back.
    runtime.shutdown_background();
    exit
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock that goes on while the machine sleeps: what a confirmation's age is measured with.
fn boottime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
