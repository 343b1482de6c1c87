//! One line of output on its way out: JSON for machines, text for people. Control characters never reach a terminal.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For those who look for something.
    Debug,
    /// The normal course of things.
    Info,
    /// Odd, and survived.
    Warn,
    /// A person must look.
    Error,
}

impl Level {
    const fn shown(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
    }
}

/// The form of our output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One object a line.
    Json,
    /// `time service level message`.
    Text,
}

/// What a line carries.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// RFC 3339.
    pub time: jiff::Timestamp,
    /// How grave.
    pub level: Level,
    /// Whose.
    pub service: &'a str,
    /// Which life of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// `stdout` or `stderr`; none for our own lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'static str>,
    /// The text.
    pub message: &'a str,
    /// Part of a long line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// More parts follow.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// Lines that were lost before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// Further fields of our own lines.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl<'a> Line<'a> {
    /// A plain line of now.
    #[must_use]
    pub fn new(service: &'a str, level: Level, message: &'a str) -> Line<'a> {
        Line::at(jiff::Timestamp::now(), service, level, message)
    }

    /// A plain line.
    #[must_use]
    pub fn at(time: jiff::Timestamp, service: &'a str, level: Level, message: &'a str) -> Line<'a> {
        Line {
            time,
            level,
            service,
            run: None,
            stream: None,
            message,
            part: None,
            more: false,
            lost: None,
            fields: serde_json::Map::new(),
        }
    }

    /// The message, followed by the further fields as text.
    #[must_use]
    pub fn flat(&self) -> Cow<'a, str> {
        if self.fields.is_empty() {
            return Cow::Borrowed(self.message);
        }
        let mut text = self.message.to_owned();
        for (name, value) in &self.fields {
            // Into memory: it cannot fail.
            let _ = match value.as_str() {
                Some(value) => write!(text, " {name}={}", value.escape_debug()),
                None => write!(text, " {name}={value}"),
            };
        }
        Cow::Owned(text)
    }

    /// Appends the line, newline included.
    pub fn write(&self, shape: Shape, out: &mut Vec<u8>) {
        self.write_after(&mut Head::default(), shape, out);
    }

    /// The same for one of many lines: what comes before the message is made once for all that have it alike. `head` is
    /// for lines of one service, run, stream and shape.
    pub fn write_after(&self, head: &mut Head, shape: Shape, out: &mut Vec<u8>) {
        if head.of != Some((self.time, self.level)) {
            head.of = Some((self.time, self.level));
            head.bytes.clear();
            self.begin(shape, &mut head.bytes);
        }
        out.extend_from_slice(&head.bytes);
        match shape {
            Shape::Json => {
                push_quoted(out, self.message);
                self.end(out);
            }
            Shape::Text => {
                push_printable(out, &self.flat());
                if self.more {
                    out.extend_from_slice(" \\".as_bytes());
                }
            }
        }
        out.push(b'\n');
    }

    /// What comes before the message.
    fn begin(&self, shape: Shape, out: &mut Vec<u8>) {
        // Plain data into memory, here and below: nothing of it can fail.
        let _ = match shape {
            Shape::Json => write!(out, "{{\"time\":\"{}\",\"level\":", self.time)
                .and_then(|()| serde_json::to_writer(&mut *out, &self.level).map_err(Into::into))
                .and_then(|()| write!(out, ",\"service\":"))
                .and_then(|()| serde_json::to_writer(&mut *out, self.service).map_err(Into::into))
                .and_then(|()| self.run.map_or(Ok(()), |run| write!(out, ",\"run\":{run}")))
                .and_then(|()| self.stream.map_or(Ok(()), |stream| write!(out, ",\"stream\":\"{stream}\"")))
                .and_then(|()| write!(out, ",\"message\":")),
            Shape::Text => write!(out, "{:.3} {:<10} {:<5} ", self.time, self.service, self.level.shown()),
        };
    }

    /// What comes after the message of an object.
    fn end(&self, out: &mut Vec<u8>) {
        if let Some(part) = self.part {
            let _ = write!(out, ",\"part\":{part}");
        }
        if self.more {
            out.extend_from_slice(b",\"more\":true");
        }
        if let Some(lost) = self.lost {
            let _ = write!(out, ",\"lost\":{lost}");
        }
        if !self.fields.is_empty() {
            out.extend_from_slice(b",\"fields\":");
            let _ = serde_json::to_writer(&mut *out, &self.fields);
        }
        out.push(b'}');
    }
}

/// What comes before the message, as the line before had it.
#[derive(Debug, Default)]
pub struct Head {
    of: Option<(jiff::Timestamp, Level)>,
    bytes: Vec<u8>,
}

/// A text of JSON. Nearly none has anything to be escaped, and finding that out looks at many bytes at once.
fn push_quoted(out: &mut Vec<u8>, text: &str) {
    let special = |byte: u8| (byte < b' ') | (byte == b'"') | (byte == b'\\');
    if text.bytes().fold(false, |any, byte| any | special(byte)) {
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Control characters, and those that turn the direction of what follows, are shown and not obeyed.
fn push_printable(out: &mut Vec<u8>, text: &str) {
    // Anything that could be one: below the blank, DEL, and the first bytes of U+0080 and U+2000 and what follows
    // them. Nearly no text has any, and this looks at many bytes at once.
    let odd = |byte: u8| (byte < b' ' && byte != b'\t') | (byte == 0x7f) | (byte == 0xc2) | (byte == 0xe2);
    if !text.bytes().fold(false, |any, byte| any | odd(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let obeyed = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| obeyed(*c)) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let _ = write!(out, "{}", c.escape_default());
        rest = after.get(c.len_utf8()..).unwrap_or_default();
    }
    out.extend_from_slice(rest.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_with_service_run_stream_level_and_time() {
        let mut line = Line::new("web", Level::Warn, "a \"b\"\u{1b}[31m");
        line.time = "2026-01-02T03:04:05Z".parse().unwrap();
        line.run = Some(3);
        line.stream = Some("stderr");
        let mut out = Vec::new();
        line.write(Shape::Json, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"time\":\"2026-01-02T03:04:05Z\",\"level\":\"warn\",\"service\":\"web\",\"run\":3,\"stream\":\"stderr\",\
             \"message\":\"a \\\"b\\\"\\u001b[31m\"}\n"
        );
        let mut out = Vec::new();
        line.write(Shape::Text, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-01-02T03:04:05.000Z web        WARN  a \"b\"\\u{1b}[31m\n"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_line_is_written_as_its_type_says(
            message in "[ -~\\PC\\x00-\\x1f\"\\\\é€]{0,60}", service in "[a-z\"]{1,8}", run in proptest::option::of(0u64..9),
            part in proptest::option::of(1u32..9), more: bool, lost in proptest::option::of(1u64..9), field: bool, nanos in 0i32..1_000_000_000,
        ) {
            let time = jiff::Timestamp::new(1_700_000_000, nanos).unwrap();
            let mut line = Line::at(time, &service, Level::Warn, &message);
            line.run = run;
            line.stream = run.map(|_| "stdout");
            (line.part, line.more, line.lost) = (part, more, lost);
            if field {
                line.fields.insert("a\"b".to_owned(), serde_json::json!({ "c": message }));
            }
            let mut head = Head::default();
            let mut out = Vec::new();
            line.write_after(&mut head, Shape::Json, &mut out);
            line.write_after(&mut head, Shape::Json, &mut out);
            let wanted = serde_json::to_string(&line).unwrap() + "\n";
            proptest::prop_assert_eq!(String::from_utf8(out).unwrap(), wanted.repeat(2));
        }
    }

    #[test]
    fn another_time_or_level_is_not_taken_from_the_line_before() {
        let mut head = Head::default();
        let mut lines = |shape| {
            let times = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"].map(|t| t.parse().unwrap());
            let mut out = Vec::new();
            for (time, level) in [(times[0], Level::Info), (times[1], Level::Info), (times[1], Level::Warn)] {
                Line::at(time, "a", level, "x").write_after(&mut head, shape, &mut out);
            }
            String::from_utf8(out).unwrap()
        };
        let text = lines(Shape::Json);
        assert_eq!(
            (text.matches("05Z").count(), text.matches("06Z").count(), text.matches("warn").count()),
            (1, 2, 1)
        );
    }

    #[test]
    fn nothing_in_a_text_is_obeyed_by_a_terminal() {
        let mut out = Vec::new();
        push_printable(&mut out, "a\tb\0\r\n\u{1b}[2J\u{7f}\u{9b}é\u{a0}€\u{202e}\u{2066}\u{2028}…z");
        let shown = "a\tb\\u{0}\\r\\n\\u{1b}[2J\\u{7f}\\u{9b}é\u{a0}€\\u{202e}\\u{2066}\\u{2028}…z";
        assert_eq!(String::from_utf8(out).unwrap(), shown);
    }
}
