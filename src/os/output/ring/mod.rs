//! The recent lines of all services, for `supafly logs` and for the report of a failure: they are here whatever our
//! own reader does. A number counted over all services gives their order. Text lies in one buffer per service that
//! grows as it is used, so that a quiet service costs next to nothing and a flood costs no allocation.

#[cfg(test)]
mod tests;

use super::line::{Level, Line, Shape};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How many lines are kept of a service, how much of their text, and how much of one line.
const LINES: usize = 256;
const BYTES: usize = 64 << 10;
const LENGTH: usize = 1 << 10;
/// How many lines a report of a failure shows.
const LAST: usize = 20;
/// How many readers of one service are told exactly how many lines they missed.
const READERS: usize = 16;

/// The rings of all services. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Rings {
    order: Arc<Order>,
    rings: Arc<Mutex<Vec<Ring>>>,
}

/// The recent lines of one service, over all its runs. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    service: Arc<str>,
    kept: Arc<Mutex<Lines>>,
    order: Arc<Order>,
}

/// What all rings share; they do not hold each other.
#[derive(Debug, Default)]
struct Order {
    newest: AtomicU64,
    waiting: AtomicUsize,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    entries: VecDeque<Entry>,
    text: VecDeque<u8>,
    /// Ever pushed here.
    pushed: u64,
    /// The last line that had to go.
    gone: u64,
    /// Where readers of this service stand: a number, and how many lines of this service there were up to it.
    readers: VecDeque<(u64, u64)>,
}

/// A line without its text.
#[derive(Debug)]
struct Entry {
    seq: u64,
    time: jiff::Timestamp,
    run: Option<u64>,
    stream: Option<&'static str>,
    length: u16,
    level: Level,
    more: bool,
}

/// Lines for a reader.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// In the order in which they came.
    pub lines: Vec<Kept>,
    /// What to ask after the next time.
    pub next: u64,
    /// How many lines came in between that are no longer kept.
    pub lost: u64,
}

/// A line as it is kept; as JSON it has the keys of [`Line`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its place among the lines of all services, from 1.
    #[serde(skip)]
    pub seq: u64,
    /// RFC 3339.
    pub time: jiff::Timestamp,
    /// How grave.
    pub level: Level,
    /// Whose.
    #[serde(serialize_with = "name")]
    pub service: Arc<str>,
    /// Which life of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// `stdout` or `stderr`; none for our own lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'static str>,
    /// The text, or its beginning.
    #[serde(rename = "message")]
    pub text: String,
    /// The line was longer than what is kept of one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl Kept {
    /// Appends the line in the form of our output, newline included.
    pub fn write(&self, shape: Shape, out: &mut Vec<u8>) {
        let mut line = Line::new(&self.service, self.level, &self.text);
        line.time = self.time;
        line.run = self.run;
        line.stream = self.stream;
        line.more = self.more;
        line.write(shape, out);
    }
}

impl Rings {
    /// None yet.
    #[must_use]
    pub fn new() -> Rings {
        Rings::default()
    }

    /// The ring of a service; always the same for the same name.
    #[must_use]
    pub fn ring(&self, service: &str) -> Ring {
        let mut rings = self.lock();
        if let Some(ring) = rings.iter().find(|r| &*r.service == service) {
            return ring.clone();
        }
        let ring = Ring { service: Arc::from(service), kept: Arc::default(), order: Arc::clone(&self.order) };
        rings.push(ring.clone());
        ring
    }

    /// The lines after number `after` (0: from the beginning) of one service or of all.
    #[must_use]
    pub fn since(&self, service: Option<&str>, after: u64) -> Recent {
        if let Some(service) = service {
            let ring = self.lock().iter().find(|r| &*r.service == service).cloned();
            return match ring {
                Some(ring) => ring.since(after),
                None => Recent { next: self.newest(), ..Recent::default() },
            };
        }
        // Numbers are given under the lock of a ring: whatever has one up to here is found below, or is gone.
        let next = self.newest();
        let rings = self.lock().clone();
        let mut lines: Vec<Kept> = Vec::new();
        rings.iter().for_each(|ring| lines.extend(ring.collect(&ring.lock(), after, next)));
        lines.sort_unstable_by_key(|k| k.seq);
        let lost = next.saturating_sub(after).saturating_sub(lines.len() as u64);
        Recent { lines, next, lost }
    }

    /// The number of the newest line; 0: there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.order.newest.load(SeqCst)
    }

    /// Returns when there is a line after number `after`.
    pub async fn changed(&self, after: u64) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        // First counted and listening, then looking: a line is either seen here, or its pusher sees us.
        self.order.waiting.fetch_add(1, SeqCst);
        let _waits = Waits(&self.order.waiting);
        loop {
            let pushed = self.order.pushed.notified();
            tokio::pin!(pushed);
            pushed.as_mut().enable();
            if self.newest() > after {
                return;
            }
            pushed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ring>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Keeps a line. Of a line in parts only the first is kept, of any only the beginning.
    pub fn push(&self, line: &Line<'_>) {
        if line.part.is_some_and(|part| part > 1) {
            return;
        }
        let text = line.flat();
        let length = boundary(&text, LENGTH);
        let mut lines = self.lock();
        while lines.entries.len() >= LINES || lines.text.len() + length > BYTES {
            let Some(old) = lines.entries.pop_front() else { break };
            lines.gone = old.seq;
            lines.text.drain(..usize::from(old.length));
        }
        let seq = self.order.newest.fetch_add(1, SeqCst) + 1;
        lines.pushed += 1;
        lines.text.extend(text.as_bytes().get(..length).unwrap_or_default());
        lines.entries.push_back(Entry {
            seq,
            time: line.time,
            run: line.run,
            stream: line.stream,
            length: u16::try_from(length).unwrap_or_default(),
            level: line.level,
            more: line.more || length < text.len(),
        });
        drop(lines);
        if self.order.waiting.load(SeqCst) > 0 {
            self.order.pushed.notify_waiters();
        }
    }

    /// The text of the last lines, oldest first, for the report of a failure.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lock();
        let skip = lines.entries.len().saturating_sub(LAST);
        let after = lines.entries.get(skip).map_or(u64::MAX, |e| e.seq - 1);
        let text = |kept: Kept| if kept.more { kept.text + " …" } else { kept.text };
        self.collect(&lines, after, u64::MAX).map(text).collect()
    }

    fn since(&self, after: u64) -> Recent {
        let mut lines = self.lock();
        let next = self.order.newest.load(SeqCst);
        let found: Vec<Kept> = self.collect(&lines, after, next).collect();
        let gone = lines.pushed - lines.entries.len() as u64;
        let known = lines.readers.iter().position(|r| r.0 == after).and_then(|at| lines.readers.remove(at));
        let lost = match known {
            _ if lines.gone <= after => 0,
            Some((_, before)) => gone.saturating_sub(before),
            None => gone.min(lines.gone - after),
        };
        if lines.readers.len() >= READERS {
            lines.readers.pop_front();
        }
        let stands = (next, lines.pushed);
        lines.readers.push_back(stands);
        Recent { lines: found, next, lost }
    }

    fn collect<'a>(&'a self, lines: &'a Lines, after: u64, upto: u64) -> impl Iterator<Item = Kept> + 'a {
        let first = lines.entries.partition_point(|e| e.seq <= after);
        let mut at: usize = lines.entries.iter().take(first).map(|e| usize::from(e.length)).sum();
        lines.entries.iter().skip(first).take_while(move |e| e.seq <= upto).map(move |entry| {
            let length = usize::from(entry.length);
            let text = lines.text.range(at..at + length).copied().collect();
            at += length;
            Kept {
                seq: entry.seq,
                time: entry.time,
                level: entry.level,
                service: Arc::clone(&self.service),
                run: entry.run,
                stream: entry.stream,
                // It was cut between two characters.
                text: String::from_utf8(text).unwrap_or_default(),
                more: entry.more,
            }
        })
    }

    /// Plain data and valid at every moment, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name<S: serde::Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

/// The last place up to `most` where `text` may be cut.
fn boundary(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    (most.saturating_sub(3)..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
