//! One run's stdout or stderr: read as it comes by a task of its own, and read to the end of what is there by the
//! supervisor before it believes an ending, so that a service's last words come before the news of its death. A
//! grandchild that keeps the pipe open delays nothing: nobody waits for the end of the stream.

use super::line::{Head, Line};
use super::ring::Ring;
use super::said::Listener;
use super::split::{Piece, Splitter};
use super::writer::{Source, Writer};
use nix::errno::Errno;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How much is read at once.
const READ: usize = 64 << 10;
/// How much is read for one ending before others get a turn: as much as a pipe may hold, and once more to see its end.
const DRAIN: usize = 1 << 20;

/// How long a service may be held up, once, by a reader of ours that is behind.
const PATIENCE: Duration = Duration::from_millis(100);

/// What lines of so many bytes may take with their envelopes.
const fn taken_by(size: usize) -> usize {
    3 * size + 512
}

thread_local! {
    /// All streams are read by one thread, which needs one buffer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream of one run.
#[derive(Clone, Debug)]
pub struct Capture {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pipe: AsyncFd<OwnedFd>,
    heard: Mutex<Heard>,
    service: String,
    run: u64,
    stream: &'static str,
    source: Source,
    writer: Writer,
    ring: Ring,
}

/// What is known of the lines so far.
#[derive(Debug, Default)]
struct Heard {
    splitter: Splitter,
    listener: Listener,
    /// How many sixteenths of what was read it took in its form, the last time.
    grown: usize,
}

/// Where lines go as they are found.
type Emit<'a> = &'a mut dyn FnMut(Piece<'_>);

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Some,
    Nothing,
    End,
}

impl Capture {
    /// Takes over the reading end, which must be nonblocking.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn new(
        pipe: OwnedFd,
        (service, run, stream): (&str, u64, &'static str),
        writer: &Writer,
        ring: &Ring,
    ) -> std::io::Result<Capture> {
        let inner = Inner {
            pipe: crate::os::watch(pipe)?,
            heard: Mutex::default(),
            service: service.to_owned(),
            run,
            stream,
            source: writer.source(service),
            writer: writer.clone(),
            ring: ring.clone(),
        };
        Ok(Capture { inner: Arc::new(inner) })
    }

    /// Reads until the end of the stream; to be run as a task and aborted when the run is proved gone.
    pub async fn follow(self) {
        let mut hope = true;
        while let Ok(mut ready) = self.inner.pipe.readable().await {
            match self.inner.read() {
                Read::Some => {
                    tokio::task::yield_now().await;
                    hope = self.inner.wait_for_room(hope).await;
                }
                Read::Nothing => ready.clear_ready(),
                Read::End => break,
            }
        }
        self.inner.finish();
    }

    /// Reads what is there now, and takes an unfinished last line for a line, unless there is still more: then
    /// somebody lives who will end it.
    pub fn drain(&self) {
        self.drain_up_to(DRAIN);
    }

    fn drain_up_to(&self, most: usize) {
        for _ in 0..=most / READ {
            if self.inner.read() != Read::Some {
                return self.inner.finish();
            }
        }
    }
}

impl Inner {
    /// Gives our own reader a moment when it is behind: it may only be waiting for a processor, as we take one to fill
    /// its queue. Whoever did not make room in that moment is waited for no more until there was room again, so a
    /// stalled reader costs a service no more than that. Whether the next wait may be worth it.
    async fn wait_for_room(&self, hope: bool) -> bool {
        if self.writer.has_room(self.source, taken_by(READ)) {
            return true;
        }
        hope && tokio::time::timeout(PATIENCE, self.writer.room(self.source, taken_by(READ))).await.is_ok()
    }

    fn read(&self) -> Read {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(READ, 0);
            // What was read first is to be heard first.
            let mut heard = self.lock();
            match nix::unistd::read(self.pipe.get_ref(), buffer) {
                Ok(0) => Read::End,
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.hand_on(&mut heard, n, |splitter, emit| splitter.feed(bytes, &mut |p| emit(p)));
                    Read::Some
                }
                Err(Errno::EINTR) => Read::Some,
                Err(Errno::EAGAIN) => Read::Nothing,
                Err(_) => Read::End,
            }
        })
    }

    fn finish(&self) {
        self.hand_on(&mut self.lock(), 0, |splitter, emit| splitter.finish(&mut |p| emit(p)));
    }

    fn hand_on(&self, heard: &mut Heard, size: usize, act: impl FnOnce(&mut Splitter, Emit<'_>)) {
        let Heard { splitter, listener, grown } = heard;
        let mut out = Vec::new();
        let mut head = Head::default();
        let mut lines = 0;
        let now = jiff::Timestamp::now();
        // In a flood that nobody reads, their form is most of the work; with its envelope a short line doubles.
        let room = self.writer.has_room(self.source, taken_by(size));
        act(splitter, &mut |piece| {
            let said = listener.hear(&piece.text, piece.part, now);
            let time = said.time.unwrap_or(now);
            let mut line = Line::at(time, &self.service, said.level, &piece.text);
            line.run = Some(self.run);
            line.stream = Some(self.stream);
            line.part = piece.part;
            line.more = piece.more;
            self.ring.push(&line);
            lines += 1;
            if room {
                if out.is_empty() {
                    out.reserve(*grown * size / 16 + 256);
                }
                line.write_after(&mut head, self.writer.shape(), &mut out);
            }
        });
        if room {
            // What the next read will need: a buffer that must grow is copied, and one that is too large counts in full.
            if let Some(sixteenths) = (out.len() * 16).checked_div(size) {
                *grown = (sixteenths + 1).min(64);
            }
            self.writer.push(self.source, out, lines);
        } else {
            self.writer.lose(self.source, lines);
        }
    }

    /// A panic elsewhere costs at most the line that was being read.
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::output::Shape;
    use std::io::Write;

    /// A capture of a pipe, outside of any task.
    fn captured(act: impl FnOnce(&Capture, &mut std::io::PipeWriter)) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (reader, mut pipe) = std::io::pipe().unwrap();
        let reader = OwnedFd::from(reader);
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&reader, flags).unwrap();
        let ring = Ring::default();
        let writer = Writer::start(Shape::Text, std::io::sink()).unwrap();
        let capture = Capture::new(reader, ("a", 1, "stdout"), &writer, &ring).unwrap();
        act(&capture, &mut pipe);
        ring.lines()
    }

    #[test]
    fn a_drain_ends_the_last_line_when_all_is_read() {
        let lines = captured(|capture, pipe| {
            pipe.write_all(b"whole\nlast").unwrap();
            capture.drain();
            capture.drain();
            pipe.write_all(b"later\n").unwrap();
            capture.drain();
        });
        assert_eq!(lines, ["whole", "last", "later"]);
    }

    #[test]
    fn a_drain_that_stops_before_the_end_tears_no_line() {
        let lines = captured(|capture, pipe| {
            nix::fcntl::fcntl(&*pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 18)).unwrap();
            let line = [b"x".repeat(999), b"\n".to_vec()].concat();
            pipe.write_all(&line.repeat(200)).unwrap();
            capture.drain_up_to(2 * READ);
            capture.drain_up_to(2 * READ);
            capture.drain();
        });
        assert!(lines.iter().all(|l| l.len() == 999), "{lines:?}");
    }

    /// What comes out of so many lines when each write to our own reader goes as `sink` says, and how long that took.
    fn flooded(lines: usize, sink: impl Write + Send + 'static) -> Duration {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (reader, mut pipe) = std::io::pipe().unwrap();
        let reader = OwnedFd::from(reader);
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let writer = Writer::start(Shape::Text, sink).unwrap();
        let capture = Capture::new(reader, ("a", 1, "stdout"), &writer, &Ring::default()).unwrap();
        let flood = std::thread::spawn(move || {
            let block = [b"x".repeat(99), b"\n".to_vec()].concat().repeat(500);
            (0..lines / 500).for_each(|_| pipe.write_all(&block).unwrap());
        });
        #[allow(clippy::disallowed_methods, reason = "a test measures")]
        let begun = std::time::Instant::now();
        runtime.block_on(capture.follow());
        flood.join().unwrap();
        let took = begun.elapsed();
        writer.flush(Duration::from_secs(1));
        took
    }

    #[test]
    fn a_reader_that_is_only_behind_loses_nothing() {
        #[derive(Clone, Default)]
        struct Slow(Arc<Mutex<Vec<u8>>>);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                std::thread::sleep(Duration::from_millis(1));
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Slow::default();
        flooded(200_000, sink.clone());
        let text = sink.0.lock().unwrap();
        let lines = text.split(|b| *b == b'\n').filter(|l| l.ends_with(b"xxx")).count();
        assert_eq!(lines, 200_000);
    }

    #[test]
    fn a_reader_that_stands_costs_a_service_one_moment() {
        struct Stalled(std::sync::mpsc::Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, held) = std::sync::mpsc::channel();
        // 40 MB in 64 KiB: a moment for each would be more than ten seconds.
        let took = flooded(400_000, Stalled(held));
        assert!(took < Duration::from_secs(8), "{took:?}");
        drop(release);
    }
}
