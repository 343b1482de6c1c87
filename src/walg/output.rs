//! What the engine says, made fit for our log: its own time and level off, secrets masked, long lines cut.
//!
//! The engine is not ours and prints what it likes, at any rate and length; a reader must neither grow without limit
//! nor let a key through, whole or in two halves on either side of a cut.

use crate::config::Secret;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// How many of the last lines are kept for the error.
const KEPT: usize = 20;
/// A longer line is cut; what follows up to its end is not shown.
const LONGEST: u64 = 8 << 10;
/// Shorter values are too common to be masked wherever they occur.
const SHORTEST_SECRET: usize = 8;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Values that must not reach the log.
#[derive(Clone)]
pub(super) struct Masks(Vec<String>);

impl Masks {
    /// Whatever came from a credential and is long enough to be one.
    pub(super) fn of(environment: &[(String, Secret)]) -> Masks {
        let secret =
            |name: &str| ["SECRET", "TOKEN", "KEY", "PASSWORD"].iter().any(|word| name.contains(word));
        let values = environment.iter().filter(|(name, _)| secret(name)).map(|(_, v)| v.reveal());
        let mut masks: Vec<String> =
            values.filter(|v| v.len() >= SHORTEST_SECRET).map(str::to_owned).collect();
        // The longest first: one that contains another must go as a whole.
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
        Masks(masks)
    }

    fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, mask| text.replace(mask, "(secret)"))
    }

    fn longest(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }
}

/// The last lines, shared by the readers of both streams.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(super) fn take(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// Reads a stream to its end in a thread of its own, or until its next line after `closed`. `_open` is dropped at the end.
pub(super) fn reader(
    from: impl Read + Send + 'static,
    masks: Masks,
    tail: Tail,
    closed: Arc<AtomicBool>,
    open: mpsc::Sender<()>,
) {
    std::thread::spawn(move || {
        let _open = open;
        let mut from = BufReader::new(from);
        while let Ok(Some(line)) = next(&mut from, &masks) {
            if closed.load(Ordering::SeqCst) {
                return;
            }
            let (level, text) = spoken(&line);
            match level {
                Level::Debug => tracing::debug!(target: "engine", "{text}"),
                Level::Info => tracing::info!(target: "engine", "{text}"),
                Level::Warn => tracing::warn!(target: "engine", "{text}"),
                Level::Error => tracing::error!(target: "engine", "{text}"),
            }
            tail.push(text.to_owned());
        }
    });
}

/// The next line, masked; `None` at the end.
fn next(from: &mut impl BufRead, masks: &Masks) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let whole = line.ends_with(b"\n") || from.fill_buf().is_ok_and(<[u8]>::is_empty);
    let hidden = masks.hide(String::from_utf8_lossy(&line).trim_end());
    if whole {
        return Ok(Some(hidden));
    }
    from.skip_until(b'\n')?;
    // The cut may go through a secret: its first half is within the last bytes.
    let mut end = hidden.len().saturating_sub(masks.longest());
    while !hidden.is_char_boundary(end) {
        end -= 1;
    }
    Ok(Some(format!("{} (cut)", hidden.get(..end).unwrap_or_default())))
}

/// Takes the engine's own time and level off a line. A line that has neither goes with the one before it.
///
/// WAL-G writes `INFO: 2026/11/23 22:05:54.615776 text`, wal-rus `2026-11-23T22:05:54.6Z  INFO text`.
fn spoken(line: &str) -> (Level, &str) {
    fn level(word: &str) -> Option<Level> {
        match word {
            "TRACE" | "DEBUG" => Some(Level::Debug),
            "INFO" => Some(Level::Info),
            "WARN" | "WARNING" => Some(Level::Warn),
            "ERROR" | "FATAL" => Some(Level::Error),
            _ => None,
        }
    }
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let walg = || {
        let (word, rest) = line.split_once(": ")?;
        let (day, rest) = rest.split_once(' ')?;
        let (time, text) = rest.split_once(' ')?;
        (digit(day) && digit(time)).then_some((level(word)?, text))
    };
    let walrus = || {
        let (time, rest) = line.split_once("Z ")?;
        let (word, text) = rest.trim_start().split_once(' ')?;
        (digit(time) && time.contains('T')).then_some((level(word)?, text))
    };
    walg().or_else(walrus).unwrap_or((Level::Info, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks(secret: &str) -> Masks {
        Masks::of(&[
            ("AWS_SECRET_ACCESS_KEY".into(), Secret::new(secret)),
            ("AWS_REGION".into(), Secret::new("eu-central-1")),
        ])
    }

    #[test]
    fn each_engines_time_and_level_are_taken_off() {
        let of = |line| spoken(line);
        assert_eq!(of("INFO: 2026/11/23 22:05:54.615776 Packing ..."), (Level::Info, "Packing ..."));
        assert_eq!(of("ERROR: 2026/11/23 22:05:54.615776 no: why"), (Level::Error, "no: why"));
        assert_eq!(of("2026-11-23T22:05:54.615776Z  INFO walked 1005"), (Level::Info, "walked 1005"));
        assert_eq!(of("2026-11-23T22:05:54.6Z  WARN delta failed"), (Level::Warn, "delta failed"));
        for plain in ["caused by: x", "INFO", "", "status code: 412", "base_000000010000000000000002"] {
            assert_eq!(of(plain), (Level::Info, plain));
        }
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_read() {
        let mut text = vec![b'x'; 100_000];
        text.extend_from_slice(b"\nnext\nlast");
        let mut from = BufReader::new(text.as_slice());
        let none = Masks::of(&[]);
        assert!(next(&mut from, &none).unwrap().unwrap().ends_with("x (cut)"));
        assert_eq!(next(&mut from, &none).unwrap().as_deref(), Some("next"));
        assert_eq!(next(&mut from, &none).unwrap().as_deref(), Some("last"));
        assert_eq!(next(&mut from, &none).unwrap(), None);
    }

    #[test]
    fn a_secret_within_another_does_not_leave_the_rest_of_it() {
        let both = [("A_KEY", "hunter22"), ("B_KEY", "hunter22-and-more")];
        let both = both.map(|(n, v)| (n.to_owned(), Secret::new(v)));
        assert_eq!(Masks::of(&both).hide("it is hunter22-and-more"), "it is (secret)");
    }

    proptest! {
        #[test]
        fn no_half_of_a_secret_is_left_wherever_the_line_is_cut(before in 8000usize..8300) {
            let secret = "0123456789abcdefghijklmnopqrstuvwxyzABCD";
            let text = format!("{}{secret}{}\n", "é.".repeat(before / 3), "y".repeat(20_000));
            let shown = next(&mut BufReader::new(text.as_bytes()), &masks(secret)).unwrap().unwrap();
            prop_assert!(!shown.contains("0123"), "{}", &shown[shown.len() - 60..]);
        }
    }
}
