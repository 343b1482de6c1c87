//! Kills a process that did not end in time, so that a blocking wait for it ends too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stops watching when it is dropped.
pub(crate) struct Watchdog {
    bitten: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// `pid` must be a child of ours that nobody else waits for.
    pub(crate) fn start(pid: u32, patience: Duration) -> Watchdog {
        let (stop, stopped) = channel();
        let bitten = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&bitten);
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                its.store(true, Ordering::SeqCst);
                let _ = super::processes::signal(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
        Watchdog { bitten, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn has_bitten(&self) -> bool {
        self.bitten.load(Ordering::SeqCst)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
