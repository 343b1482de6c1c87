//! How a supervisor of a test ends: asked, killed, or with its test; nothing of it is left in any case.

use crate::harness::{PATIENCE, World};
use crate::procs;
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

impl World {
    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits for the end of the supervisor; nothing of it may be left.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = self.ended_somehow();
        assert_eq!(status.signal(), None, "{}", self.log());
        assert_eq!(self.left(), Vec::<i32>::new(), "left behind; {}", self.log());
        status
    }

    /// Waits for its end, whatever it is.
    #[track_caller]
    pub(crate) fn ended_somehow(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                self.child = Some(child);
                panic!("waited in vain for: the supervisor's end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().unwrap().is_none())
    }

    /// It was killed by the test itself.
    pub(crate) fn forget(&mut self) {
        let _ = self.child.take().unwrap().wait();
    }

    /// TERM, and the exit code.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> i32 {
        self.term();
        self.ended().code().unwrap()
    }

    /// TERM, the exit code, and how long it took.
    #[track_caller]
    pub(crate) fn timed_stop(&mut self) -> (i32, Duration) {
        let begun = Instant::now();
        let code = self.stop();
        (code, begun.elapsed())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(16 << 10);
            eprintln!("{}", String::from_utf8_lossy(log.as_bytes().get(from..).unwrap_or_default()));
        }
        if let Some(mut child) = self.child.take() {
            let root = i32::try_from(child.id()).unwrap_or(i32::MAX);
            // Gently first: so it ends what it started. Then by force.
            if let Some(pid) = procs::supervisor(root) {
                procs::kill(pid, Signal::SIGTERM);
            }
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end && !matches!(child.try_wait(), Ok(Some(_))) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if let Some(pid) = procs::supervisor(root) {
                procs::kill(pid, Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // And whatever still carries this directory's name.
        let name = self.dir.path().display().to_string();
        for _ in 0..200 {
            let left = procs::marked(&name, true);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| procs::kill(pid, Signal::SIGKILL));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
