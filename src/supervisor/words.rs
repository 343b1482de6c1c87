//! What a probe's command prints. It is read so that the command never blocks on us, and its last line is kept: mostly it
//! says why the answer is no.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::unix::pipe::Receiver;

/// How much of it is kept, in bytes, and how often is read before others have their turn.
const KEPT: usize = 400;
const TURNS: usize = 16;

/// One of a command's two outputs.
#[derive(Debug)]
pub(super) struct Words {
    pipe: Receiver,
    last: Mutex<Vec<u8>>,
}

impl Words {
    pub(super) fn new(pipe: Receiver) -> Arc<Words> {
        Arc::new(Words { pipe, last: Mutex::default() })
    }

    /// Until its end.
    pub(super) async fn listen(self: Arc<Self>) {
        while self.pipe.readable().await.is_ok() && self.take(|buffer| self.pipe.try_read(buffer)) {
            tokio::task::yield_now().await;
        }
    }

    /// Reads what is there, without waiting; whether more may come.
    fn take(&self, read: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..TURNS {
            match read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    last.extend(buffer.iter().take(n));
                    let surplus = last.len().saturating_sub(KEPT);
                    last.drain(..surplus);
                }
                Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The last line so far that is not empty, on one line.
    pub(super) fn last_line(&self) -> Option<String> {
        // The command may have ended before the event loop has looked at its pipe, so the system is asked.
        self.take(|buffer| Ok(nix::unistd::read(&self.pipe, buffer)?));
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&last);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.replace(char::is_control, " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::net::unix::pipe;

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_line_is_kept_of_however_much() {
        let (to, from) = pipe::pipe().unwrap();
        let words = Words::new(from);
        let mut to = std::fs::File::from(to.into_blocking_fd().unwrap());
        assert_eq!(words.last_line(), None);
        to.write_all(b"one\n two \x1b[0m\xff\n\n").unwrap();
        assert_eq!(words.last_line().as_deref(), Some("two  [0m\u{fffd}"));
        let listening = tokio::spawn(words.clone().listen());
        let flood = std::thread::spawn(move || {
            (0..10_000).for_each(|i| writeln!(to, "line {i}").unwrap());
            write!(to, "the end").unwrap();
        });
        listening.await.unwrap();
        flood.join().unwrap();
        assert_eq!(words.last_line().as_deref(), Some("the end"));
        assert!(words.last.lock().unwrap().len() <= KEPT);
    }
}
