//! Our stdout, written by a thread of its own that alone may block on it. Everybody else puts bytes into a bounded
//! queue and goes on; what does not fit is counted, and the count is written as soon as there is room again. What
//! a sink did not take is counted too, and a line of which it took only the beginning is ended before the next.

#[cfg(test)]
mod tests;

use super::line::{Level, Line, Shape};
use super::ring::Rings;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What may wait for a slow reader, overall and per source; and what is kept free for our own lines.
const ROOM: usize = 4 << 20;
const ROOM_EACH: usize = 1 << 20;
const ROOM_OWN: usize = 256 << 10;
/// How much of one source is put into one batch while another is being written.
const BATCH: usize = 32 << 10;

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
struct Batch {
    source: Source,
    bytes: Vec<u8>,
    /// 0, or how many lines it says were lost: then it says nothing else, and they are lost again with it.
    lost: u64,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    waiting: usize,
    sources: Vec<PerSource>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    drained: Condvar,
    /// Those who wait for room: how many, and how they are told that there is more.
    wanting: AtomicUsize,
    freed: Notify,
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
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            wanting: AtomicUsize::new(0),
            freed: Notify::new(),
            shape,
        });
        let its = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).stack_size(128 << 10).spawn(move || {
            let mut taken = Taken::default();
            loop {
                its.write_next(&mut sink, &mut taken);
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

    /// Whether about so many bytes would be taken now; lines that would not need not be put into their form.
    #[must_use]
    pub fn has_room(&self, source: Source, bytes: usize) -> bool {
        self.shared.lock().has_room(source, bytes, ROOM)
    }

    /// Waits until about so many bytes would be taken.
    pub async fn room(&self, source: Source, bytes: usize) {
        struct Wants<'a>(&'a AtomicUsize);
        impl Drop for Wants<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        // First counted and listening, then looking: room is either seen here, or whoever makes it sees us.
        self.shared.wanting.fetch_add(1, SeqCst);
        let _wants = Wants(&self.shared.wanting);
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.has_room(source, bytes) {
                return;
            }
            freed.await;
        }
    }

    /// Queues complete lines; `false` when there was no room and they are lost (and counted).
    pub fn push(&self, source: Source, bytes: Vec<u8>, lines: u64) -> bool {
        self.queue(source, bytes, lines, ROOM)
    }

    /// Counts lines that are lost because there was no room.
    pub fn lose(&self, source: Source, lines: u64) {
        if let Some(per) = self.shared.lock().sources.get_mut(source.0) {
            per.lost += lines;
        }
        self.shared.filled.notify_one();
    }

    /// Queues one line of our own.
    pub fn line(&self, source: Source, line: &Line<'_>) {
        if let Some(rings) = &self.rings {
            rings.ring(line.service).push(line);
        }
        let mut bytes = Vec::with_capacity(256);
        line.write(self.shared.shape, &mut bytes);
        self.queue(source, bytes, 1, ROOM + ROOM_OWN);
    }

    fn queue(&self, source: Source, bytes: Vec<u8>, lines: u64, room: usize) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let mut queue = self.shared.lock();
        let fits = queue.has_room(source, bytes.capacity(), room);
        let Some(per) = queue.sources.get_mut(source.0) else { return false };
        if !fits {
            per.lost += lines;
            self.shared.filled.notify_one();
            return false;
        }
        queue.mark(source, self.shared.shape);
        queue.put(source, bytes, 0);
        drop(queue);
        self.shared.filled.notify_one();
        true
    }

    /// Waits until everything is written, but not longer than `patience`; a stalled reader costs only that.
    pub fn flush(&self, patience: Duration) {
        #[allow(clippy::disallowed_methods, reason = "a deadline of this very call, on the wall of a thread")]
        let until = Instant::now() + patience;
        let mut queue = self.shared.lock();
        queue.mark_all(self.shared.shape);
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

impl Queue {
    fn has_room(&self, source: Source, bytes: usize, room: usize) -> bool {
        let each = self.sources.get(source.0).map_or(ROOM_EACH, |per| per.waiting);
        self.waiting + bytes <= room && each + bytes <= ROOM_EACH
    }

    fn put(&mut self, source: Source, bytes: Vec<u8>, lost: u64) {
        let before = self.batches.back().map_or(0, Batch::weight);
        let weight = match self.batches.back_mut() {
            // Small ones are put together: each has its price.
            Some(last)
                if last.source == source
                    && last.lost + lost == 0
                    && last.bytes.len() + bytes.len() <= BATCH =>
            {
                last.bytes.extend_from_slice(&bytes);
                last.weight() - before
            }
            _ => {
                let batch = Batch { source, bytes, lost };
                let weight = batch.weight();
                self.batches.push_back(batch);
                weight
            }
        };
        self.waiting += weight;
        if let Some(per) = self.sources.get_mut(source.0) {
            per.waiting += weight;
        }
    }

    /// Queues the count of what a source lost up to here; whether it lost anything.
    fn mark(&mut self, source: Source, shape: Shape) -> bool {
        let Some(per) = self.sources.get_mut(source.0).filter(|per| per.lost > 0) else { return false };
        let lost = std::mem::take(&mut per.lost);
        let message = format!("lost {lost} lines: whoever reads our output was too slow");
        let mut line = Line::new(&per.name, Level::Warn, &message);
        line.lost = Some(lost);
        let mut bytes = Vec::with_capacity(256);
        line.write(shape, &mut bytes);
        self.put(source, bytes, lost);
        true
    }

    fn mark_all(&mut self, shape: Shape) -> bool {
        // Each of them, not only up to the first.
        (0..self.sources.len()).filter(|at| self.mark(Source(*at), shape)).count() > 0
    }
}

/// How the sink took what it was given so far.
#[derive(Debug, Default)]
struct Taken {
    /// Not, the last time.
    failed: bool,
    /// It has the beginning of a line without its end.
    torn: bool,
}

impl Shared {
    /// The queue is plain data and valid at every moment, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_next(&self, sink: &mut impl Write, before: &mut Taken) {
        let batch = {
            let mut queue = self.lock();
            loop {
                if let Some(next) = queue.batches.pop_front() {
                    break next;
                }
                // All is written, and whoever lost lines may never say another. A sink that fails is not asked again
                // for that.
                if !before.failed && queue.mark_all(self.shape) {
                    continue;
                }
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let lost = batch.write(sink, before);
        let mut queue = self.lock();
        queue.waiting = queue.waiting.saturating_sub(batch.weight());
        if let Some(per) = queue.sources.get_mut(batch.source.0) {
            per.waiting = per.waiting.saturating_sub(batch.weight());
            per.lost += lost;
        }
        if queue.waiting == 0 {
            self.drained.notify_all();
        }
        drop(queue);
        if self.wanting.load(SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }
}

impl Batch {
    /// The memory that it takes.
    fn weight(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives it to the sink; how many lines are lost with what that did not take.
    fn write(&self, sink: &mut impl Write, before: &mut Taken) -> u64 {
        before.torn = before.torn && write_patiently(sink, b"\n") == 0;
        let taken = if before.torn { 0 } else { write_patiently(sink, &self.bytes) };
        let (written, rest) = self.bytes.split_at_checked(taken).unwrap_or((&self.bytes, &[]));
        if let Some(last) = written.last() {
            before.torn = *last != b'\n';
        }
        before.failed = !rest.is_empty() || patiently(|| sink.flush()).is_err();
        if rest.is_empty() {
            return 0;
        }
        // A line that lacks only its end gets that before the next one.
        let rest = if before.torn { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
        let ends = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.lost > 0 && ends > 0 { self.lost } else { ends }
    }
}

/// Writes all of it, if it can; how much it could. A dead sink (closed, full disk) takes nothing.
fn write_patiently(sink: &mut impl Write, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        match patiently(|| sink.write(rest)) {
            Ok(0) | Err(_) => break,
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
        }
    }
    bytes.len() - rest.len()
}

/// Again and again, while a sink that somebody set to nonblocking only wants time.
fn patiently<T>(mut act: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match act() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let stdout = std::io::stdout();
                let fd = std::os::fd::AsFd::as_fd(&stdout);
                let mut poll = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLOUT)];
                let _ = nix::poll::poll(&mut poll, nix::poll::PollTimeout::from(1_000_u16));
            }
            done => return done,
        }
    }
}
