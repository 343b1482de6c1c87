//! What a line says about itself, pure: how grave it is, and when it was written. Only the head of a line is looked
//! at, in the forms of the services that are run here; a word in the middle of a message, which a client may have
//! chosen, means nothing. It runs for every line of a flood: the first byte decides what is tried, nothing is
//! allocated.

mod json;
mod moment;
#[cfg(test)]
mod tests;

use super::line::Level;
use jiff::Timestamp;
use moment::Cursor;

/// What is looked at in search of the head of a line.
const HEAD: usize = 1 << 10;
/// Longer objects are not parsed.
const OBJECT: usize = 8 << 10;

/// What a line says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// How grave.
    pub level: Level,
    /// When it was written, if it says so and that can be: else the time of its receipt is as good as it gets.
    pub time: Option<Timestamp>,
}

/// Reads the lines of one stream one after the other: what continues a line is as grave as that line.
#[derive(Clone, Debug)]
pub struct Listener {
    last: Said,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener { last: Said { level: Level::Info, time: None } }
    }
}

impl Listener {
    /// Reads a line, or a part of one (counted from 1), that was received at `now`.
    pub fn hear(&mut self, text: &str, part: Option<u32>, now: Timestamp) -> Said {
        if part.is_some_and(|part| part > 1) {
            return self.last;
        }
        let claim = claim(text);
        let level = if claim.follows { self.last.level } else { claim.level.unwrap_or(Level::Info) };
        let time = claim.time.and_then(|time| time.near(now));
        self.last = Said { level, time };
        self.last
    }
}

/// A time as it stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    At(Timestamp),
    /// Since 1970; the unit is the one that makes sense.
    Number(i64),
}

impl Time {
    /// A clock that is off by more than a day is not believed.
    fn near(self, now: Timestamp) -> Option<Timestamp> {
        const DAY: i64 = 86_400;
        let close = |at: &Timestamp| at.as_second().abs_diff(now.as_second()) <= DAY.unsigned_abs();
        match self {
            Time::At(at) => Some(at).filter(close),
            Time::Number(number) => {
                let units =
                    [Timestamp::from_second, Timestamp::from_millisecond, Timestamp::from_microsecond];
                let read = units.iter().filter_map(|unit| unit(number).ok()).find(close);
                read.or_else(|| Timestamp::from_nanosecond(i128::from(number)).ok().filter(close))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    level: Option<Level>,
    time: Option<Time>,
    /// It continues the line before.
    follows: bool,
}

impl Claim {
    fn level(level: Option<Level>) -> Claim {
        Claim { level, ..Claim::default() }
    }
}

fn claim(text: &str) -> Claim {
    match text.as_bytes() {
        [b'{', ..] if text.len() < OBJECT => json::claim(text),
        [b'\t', ..] | [b' ', b' ' | b'\t', ..] => Claim { follows: true, ..Claim::default() },
        [_, _, b':', b'0'..=b'9', ..] if text.starts_with(|c: char| c.is_ascii_digit()) => clock(text),
        [b'0'..=b'9', _, b'/', ..] => diagnostic(text),
        [b'0'..=b'9', _, _, b'0'..=b'9', b'-', ..] => dated(text),
        [b'0'..=b'9' | b':', ..] => access(text).unwrap_or_default(),
        [b'a'..=b'f', ..] => access(text).unwrap_or_else(|| Claim::level(spoken(text))),
        [] => Claim::default(),
        _ => Claim::level(spoken(text)),
    }
}

/// A level by name, whatever its case.
fn named(word: &str) -> Option<Level> {
    let is = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
    match word.as_bytes().first()? {
        b'E' | b'e' if is(&["ERROR", "ERR", "EMERGENCY"]) => Some(Level::Error),
        b'F' | b'f' if is(&["FATAL"]) => Some(Level::Error),
        b'P' | b'p' if is(&["PANIC"]) => Some(Level::Error),
        b'C' | b'c' if is(&["CRITICAL"]) => Some(Level::Error),
        b'A' | b'a' if is(&["ALERT"]) => Some(Level::Error),
        b'W' | b'w' if is(&["WARNING", "WARN"]) => Some(Level::Warn),
        b'I' | b'i' if is(&["INFO"]) => Some(Level::Info),
        b'L' | b'l' if is(&["LOG"]) => Some(Level::Info),
        b'N' | b'n' if is(&["NOTICE"]) => Some(Level::Info),
        b'N' | b'n' if is(&["NOISE"]) => Some(Level::Debug),
        b'T' | b't' if is(&["TRACE"]) => Some(Level::Debug),
        b'D' | b'd' if is(&["DEBUG", "DEBUG1", "DEBUG2", "DEBUG3", "DEBUG4", "DEBUG5"]) => Some(Level::Debug),
        _ => None,
    }
}

/// Lines that belong to the message before, as Postgres writes them.
fn follows(word: &str) -> bool {
    ["DETAIL", "HINT", "CONTEXT", "STATEMENT", "QUERY", "LOCATION", "BACKTRACE"].contains(&word)
}

/// The level with which a text begins: `WARN …`, `[error] …`, `Error: …`, `pg_ctl: error: …`, or a panic of ours.
fn spoken(text: &str) -> Option<Level> {
    let text = text.trim_start_matches(' ');
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    if let Some(inner) = word.strip_prefix('[') {
        return named(inner.trim_end_matches(':').strip_suffix(']')?);
    }
    if let Some(word) = word.strip_suffix(':') {
        let second = || rest.split_once(": ").and_then(|(word, _)| named(word));
        return named(word).or_else(second);
    }
    if word == "thread" && rest.get(..HEAD).unwrap_or(rest).contains(" panicked at ") {
        return Some(Level::Error);
    }
    if word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) { named(word) } else { None }
}

/// `2026-01-01 10:00:00.123 UTC [7] LOG:  …` of Postgres, without the colon of PgBouncer, and `2026-01-01T10:00:00Z`
/// before anything.
fn dated(text: &str) -> Claim {
    let mut cursor = Cursor::new(text);
    let Some(day) = cursor.day() else { return access(text).unwrap_or_default() };
    if !(cursor.eat(b' ') || cursor.eat(b'T')) {
        return Claim::default();
    }
    let Some(clock) = cursor.clock() else { return Claim::default() };
    let mut offset = cursor.offset();
    let mut rest = cursor.rest().trim_start_matches(' ');
    if offset.is_none() {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        offset = moment::zone(word);
        // Any other zone is known by what follows: the level is, the time is not.
        if offset.is_some() || after.starts_with('[') {
            rest = after;
        }
    }
    let time = offset.and_then(|offset| moment::at(day, clock, offset)).map(Time::At);
    match process(rest) {
        Some(said) => Claim { time, ..server(said) },
        None => Claim { level: spoken(rest), time, follows: false },
    }
}

/// `2026-01-01T10:00:00Z` and nothing else, with an offset that it names.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let mut cursor = Cursor::new(text);
    let day = cursor.day()?;
    let clock = (cursor.eat(b'T') || cursor.eat(b' ')).then(|| cursor.clock())??;
    let offset = cursor.offset().or_else(|| moment::zone(cursor.rest().trim_start_matches(' ')))?;
    moment::at(day, clock, offset)
}

/// What comes after `[7] `.
fn process(text: &str) -> Option<&str> {
    let (number, rest) = text.strip_prefix('[')?.split_once("] ")?;
    (number.len() <= 10 && number.bytes().all(|b| b.is_ascii_digit())).then_some(rest)
}

/// `LOG:  …`, `LOG …`, and `user@database LOG:  …` for those who write more before it.
fn server(text: &str) -> Claim {
    let mut rest = text;
    for nth in 0..3 {
        let Some((word, after)) = rest.split_once(' ') else { break };
        match word.strip_suffix(':') {
            Some(word) if after.starts_with(' ') && follows(word) => {
                return Claim { follows: true, ..Claim::default() };
            }
            Some(word) if after.starts_with(' ') || nth == 0 => return Claim::level(named(word)),
            Some(_) => break,
            None if nth == 0 && word.bytes().all(|b| b.is_ascii_uppercase()) => {
                if let Some(level) = named(word) {
                    return Claim::level(Some(level));
                }
            }
            None => {}
        }
        rest = after;
    }
    Claim::default()
}

/// `10:00:00.123 key=val [level] …` of Supavisor, which gives no date.
fn clock(text: &str) -> Claim {
    let mut cursor = Cursor::new(text);
    if cursor.clock().is_none() || !cursor.eat(b' ') {
        // An address may begin like a time.
        return access(text).unwrap_or_default();
    }
    let head = cursor.rest();
    let head = head.get(..HEAD).unwrap_or(head);
    let mut keyed = false;
    for word in head.split(' ') {
        if let Some(level) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).and_then(named) {
            return Claim::level(Some(level));
        }
        // A value may hold spaces, a message comes only after the level.
        keyed = keyed || word.contains('=');
        if !keyed {
            break;
        }
    }
    Claim::default()
}

/// `25/Nov/2026:10:00:00 +0000: …`, what PostgREST says about itself. It names no level; its failures begin alike.
fn diagnostic(text: &str) -> Claim {
    let mut cursor = Cursor::new(text);
    let Some(time) = cursor.apache() else { return Claim::default() };
    let Some(said) = cursor.rest().strip_prefix(": ") else { return Claim::default() };
    let begins = |with: &[&str]| with.iter().any(|w| said.starts_with(w));
    let level = if begins(&["{\"", "An error ", "Failed ", "Fatal "]) {
        Level::Error
    } else if begins(&["Attempting to reconnect", "Retrying", "WARNING"]) {
        Level::Warn
    } else {
        Level::Info
    };
    Claim { level: Some(level), time: time.map(Time::At), follows: false }
}

/// `address - role [25/Nov/2026:10:00:00 +0000] "GET /path HTTP/1.1" 200 18 "…" "…"`. The address and the role cannot
/// hold a blank, the path is what a client says: every place up to the status must fit.
fn access(text: &str) -> Option<Claim> {
    let (_, rest) = text.split_once(' ')?;
    let (_, rest) = rest.strip_prefix("- ")?.split_once(' ')?;
    let mut cursor = Cursor::new(rest.strip_prefix('[')?);
    let time = cursor.apache()?.map(Time::At);
    let mut words = cursor.rest().strip_prefix("] \"")?.split(' ');
    let (_method, _path, protocol) = (words.next()?, words.next()?, words.next()?);
    if !(protocol.starts_with("HTTP/") && protocol.ends_with('"')) {
        return None;
    }
    let level = match words.next()?.as_bytes() {
        [b'5', _, _] => Level::Error,
        [b'4', _, _] => Level::Warn,
        _ => Level::Info,
    };
    Some(Claim { level: Some(level), time, follows: false })
}
