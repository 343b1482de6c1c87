//! Our stdout, written by a thread of its own that alone may block on it. Everybody else puts bytes into a bounded
//! queue and goes on; what does not fit is counted, and the count is written as soon as there is room again.

use super::line::{Level, Line, Shape};
use super::ring::Rings;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What may wait for a slow reader, overall and per source.
const ROOM: usize = 4 << 20;
const ROOM_EACH: usize = 1 << 20;

/// A service, as far as its output is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(usize);

#[derive(Debug)]
struct PerSource {
    name: String,
    waiting: usize,
    lost: u64,
}

#[derive(Debug)]
struct Queue {
    batches: VecDeque<(Source, Vec<u8>)>,
    waiting: usize,
    sources: Vec<PerSource>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    drained: Condvar,
    shape: Shape,
}

/// The way out. Clones share it.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    rings: Option<Rings>,
}

impl Writer {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(shape: Shape, mut sink: impl Write + Send + 'static) -> std::io::Result<Writer> {
        let queue = Queue { batches: VecDeque::new(), waiting: 0, sources: Vec::new() };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            drained: Condvar::new(),
            shape,
        });
        let its = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).stack_size(64 << 10).spawn(move || {
            loop {
                its.write_next(&mut sink);
            }
        })?;
        Ok(Writer { shared, rings: None })
    }

    /// The same way out, which also keeps our own lines, in the ring of their service.
    #[must_use]
    pub fn with_rings(self, rings: &Rings) -> Writer {
        Writer { rings: Some(rings.clone()), ..self }
    }

    /// The form that lines take here.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shared.shape
    }

    /// A new source of lines.
    #[must_use]
    pub fn source(&self, name: &str) -> Source {
        let mut queue = self.shared.lock();
        if let Some(at) = queue.sources.iter().position(|s| s.name == name) {
            return Source(at);
        }
        queue.sources.push(PerSource { name: name.to_owned(), waiting: 0, lost: 0 });
        Source(queue.sources.len() - 1)
    }

    /// Queues complete lines; `false` when there was no room and they are lost (and counted).
    pub fn push(&self, source: Source, bytes: Vec<u8>, lines: u64) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let mut queue = self.shared.lock();
        let total = queue.waiting;
        let Some(per) = queue.sources.get_mut(source.0) else { return false };
        if total + bytes.len() > ROOM || per.waiting + bytes.len() > ROOM_EACH {
            per.lost += lines;
            return false;
        }
        let mark = lost_mark(per, self.shared.shape);
        per.waiting += mark.len() + bytes.len();
        queue.waiting += mark.len() + bytes.len();
        if !mark.is_empty() {
            queue.batches.push_back((source, mark));
        }
        queue.batches.push_back((source, bytes));
        drop(queue);
        self.shared.filled.notify_one();
        true
    }

    /// Queues one line of our own.
    pub fn line(&self, source: Source, line: &Line<'_>) {
        if let Some(rings) = &self.rings {
            rings.ring(line.service).push(line);
        }
        let mut bytes = Vec::with_capacity(256);
        line.write(self.shared.shape, &mut bytes);
        self.push(source, bytes, 1);
    }

    /// Waits until everything is written, but not longer than `patience`; a stalled reader costs only that.
    pub fn flush(&self, patience: Duration) {
        #[allow(clippy::disallowed_methods, reason = "a deadline of this very call, on the wall of a thread")]
        let until = Instant::now() + patience;
        let mut queue = self.shared.lock();
        for at in 0..queue.sources.len() {
            let Some(per) = queue.sources.get_mut(at) else { break };
            let mark = lost_mark(per, self.shared.shape);
            per.waiting += mark.len();
            queue.waiting += mark.len();
            if !mark.is_empty() {
                queue.batches.push_back((Source(at), mark));
            }
        }
        self.shared.filled.notify_one();
        while queue.waiting > 0 {
            #[allow(clippy::disallowed_methods, reason = "as above")]
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.drained.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn lost_mark(per: &mut PerSource, shape: Shape) -> Vec<u8> {
    let mut bytes = Vec::new();
    if per.lost > 0 {
        let message = format!("lost {} lines: whoever reads our output was too slow", per.lost);
        let mut line = Line::new(&per.name, Level::Warn, &message);
        line.lost = Some(per.lost);
        line.write(shape, &mut bytes);
        per.lost = 0;
    }
    bytes
}

impl Shared {
    /// The queue is plain data and valid at every moment, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_next(&self, sink: &mut impl Write) {
        let (source, bytes) = {
            let mut queue = self.lock();
            loop {
                if let Some(next) = queue.batches.pop_front() {
                    break next;
                }
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let written = write_patiently(sink, &bytes);
        let mut queue = self.lock();
        queue.waiting = queue.waiting.saturating_sub(bytes.len());
        if let Some(per) = queue.sources.get_mut(source.0) {
            per.waiting = per.waiting.saturating_sub(bytes.len());
            if !written {
                per.lost += bytes.iter().filter(|b| **b == b'\n').count() as u64;
            }
        }
        if queue.waiting == 0 {
            self.drained.notify_all();
        }
    }
}

/// Writes all of it. A sink that somebody set to nonblocking is waited for; a dead one (closed, full disk) takes
/// nothing, and what it did not take is lost.
fn write_patiently(sink: &mut impl Write, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return false,
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let stdout = std::io::stdout();
                let fd = std::os::fd::AsFd::as_fd(&stdout);
                let mut poll = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLOUT)];
                let _ = nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(1_000_u16));
            }
            Err(_) => return false,
        }
    }
    sink.flush().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gate(std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);
    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_that_are_counted_and_never_blocks() {
        let (open, gate) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let writer = Writer::start(Shape::Text, Gate(gate, tell)).unwrap();
        let source = writer.source("flood");
        let batch = vec![b'\n'; 100_000];
        let taken = (0..20).filter(|_| writer.push(source, batch.clone(), 100_000)).count();
        assert!((9..=11).contains(&taken), "{taken}");
        writer.flush(Duration::from_millis(1));
        drop(open);
        let mut all = Vec::new();
        while let Ok(bytes) = told.recv_timeout(Duration::from_secs(10)) {
            all.extend(bytes);
            if all.windows(5).any(|w| w == b"lost ") {
                break;
            }
        }
        let lost = (20 - taken) * 100_000;
        assert!(String::from_utf8_lossy(&all).contains(&format!("lost {lost} lines")));
    }
}
