//! One run's stdout or stderr: read as it comes by a task of its own, and read to the end of what is there by the
//! supervisor before it believes an ending, so that a service's last words come before the news of its death. A
//! grandchild that keeps the pipe open delays nothing: nobody waits for the end of the stream.

use super::line::Line;
use super::ring::Ring;
use super::said::Listener;
use super::split::{Piece, Splitter};
use super::writer::{Source, Writer};
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;

/// How much is read for one ending before others get a turn.
const DRAIN: usize = 1 << 20;

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
}

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
        let mut buffer = vec![0_u8; 16 << 10];
        while let Ok(mut ready) = self.inner.pipe.readable().await {
            match self.inner.read(&mut buffer) {
                Read::Some => tokio::task::yield_now().await,
                Read::Nothing => ready.clear_ready(),
                Read::End => break,
            }
        }
        self.inner.finish();
    }

    /// Reads what is there now, and takes an unfinished last line for a line.
    pub fn drain(&self) {
        let mut buffer = vec![0_u8; 64 << 10];
        for _ in 0..DRAIN / buffer.len() {
            if self.inner.read(&mut buffer) != Read::Some {
                break;
            }
        }
        self.inner.finish();
    }
}

impl Inner {
    fn read(&self, buffer: &mut [u8]) -> Read {
        match nix::unistd::read(self.pipe.get_ref(), buffer) {
            Ok(0) => Read::End,
            Ok(n) => {
                self.hand_on(|splitter, emit| {
                    splitter.feed(buffer.get(..n).unwrap_or_default(), &mut |p| emit(p))
                });
                Read::Some
            }
            Err(Errno::EINTR) => Read::Some,
            Err(Errno::EAGAIN) => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    fn finish(&self) {
        self.hand_on(|splitter, emit| splitter.finish(&mut |p| emit(p)));
    }

    fn hand_on(&self, act: impl FnOnce(&mut Splitter, &mut dyn FnMut(Piece<'_>))) {
        let mut out = Vec::new();
        let mut lines = 0;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Heard { splitter, listener } = &mut *heard;
        let now = jiff::Timestamp::now();
        act(splitter, &mut |piece| {
            let said = listener.hear(&piece.text, piece.part, now);
            let mut line = Line::new(&self.service, said.level, &piece.text);
            line.time = said.time.unwrap_or(now);
            line.run = Some(self.run);
            line.stream = Some(self.stream);
            line.part = piece.part;
            line.more = piece.more;
            self.ring.push(&line);
            line.write(self.writer.shape(), &mut out);
            lines += 1;
        });
        self.writer.push(self.source, out, lines);
    }
}
