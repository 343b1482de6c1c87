//! Dates and times at fixed places. Whatever does not fit is no time; nothing is guessed, least of all a zone.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

/// A place in a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor(text)
    }

    pub(super) fn rest(self) -> &'a str {
        self.0
    }

    /// Whether this byte is next; then it is behind us.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.0.as_bytes().first() == Some(&byte);
        if found {
            self.skip(1);
        }
        found
    }

    /// Over bytes that were found to be ASCII.
    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    fn number(&mut self, digits: usize) -> Option<i16> {
        let mut value = 0;
        for byte in self.0.as_bytes().get(..digits)? {
            value = value * 10 + i16::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        self.skip(digits);
        Some(value)
    }

    fn two(&mut self) -> Option<i8> {
        self.number(2).and_then(|n| i8::try_from(n).ok())
    }

    /// `2026-01-31`.
    pub(super) fn day(&mut self) -> Option<Date> {
        let year = self.number(4)?;
        let month = self.eat(b'-').then(|| self.two())??;
        let day = self.eat(b'-').then(|| self.two())??;
        Date::new(year, month, day).ok()
    }

    /// `10:00:00`, with a fraction or without.
    pub(super) fn clock(&mut self) -> Option<jiff::civil::Time> {
        let hour = self.two()?;
        let minute = self.eat(b':').then(|| self.two())??;
        let second = self.eat(b':').then(|| self.two())??;
        let mut nanos = 0;
        if self.eat(b'.') || self.eat(b',') {
            let mut unit = 100_000_000;
            while let Some(digit) = self.0.as_bytes().first().filter(|b| b.is_ascii_digit()) {
                nanos += i32::from(digit - b'0') * unit;
                unit /= 10;
                self.skip(1);
            }
        }
        jiff::civil::Time::new(hour, minute, second, nanos).ok()
    }

    /// `Z`, `+00`, `+0000` or `+00:00` right here.
    pub(super) fn offset(&mut self) -> Option<Offset> {
        if self.eat(b'Z') {
            return Some(Offset::UTC);
        }
        let mut ahead = *self;
        let sign = if ahead.eat(b'+') { 1 } else { ahead.eat(b'-').then_some(-1)? };
        let hours = i32::from(ahead.two()?);
        let colon = ahead.eat(b':');
        let minutes = match ahead.two() {
            Some(minutes) => i32::from(minutes),
            None if colon => return None,
            None => 0,
        };
        *self = ahead;
        Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()
    }

    /// `25/Nov/2026:10:00:00 +0000`; inside is `None` for what looks like it and is no time.
    pub(super) fn apache(&mut self) -> Option<Option<Timestamp>> {
        let day = self.two()?;
        let month = self.eat(b'/').then(|| self.month())??;
        let year = self.eat(b'/').then(|| self.number(4))??;
        let clock = self.eat(b':').then(|| self.clock())??;
        let offset = self.eat(b' ').then(|| self.offset())??;
        Some(Date::new(year, month, day).ok().and_then(|date| at(date, clock, offset)))
    }

    fn month(&mut self) -> Option<i8> {
        const NAMES: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let at = NAMES.iter().position(|name| self.0.starts_with(name))?;
        self.skip(3);
        i8::try_from(at + 1).ok()
    }
}

/// A zone that says how far it is from UTC.
pub(super) fn zone(word: &str) -> Option<Offset> {
    if matches!(word, "UTC" | "GMT" | "Z") {
        return Some(Offset::UTC);
    }
    let mut cursor = Cursor::new(word);
    cursor.offset().filter(|_| cursor.rest().is_empty())
}

/// The moment.
pub(super) fn at(date: Date, time: jiff::civil::Time, offset: Offset) -> Option<Timestamp> {
    offset.to_timestamp(DateTime::from_parts(date, time)).ok()
}
