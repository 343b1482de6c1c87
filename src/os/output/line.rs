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
        match shape {
            Shape::Json => {
                // Plain data into memory: neither can fail.
                let _ = serde_json::to_writer(&mut *out, self);
            }
            Shape::Text => {
                let time = self.time.round(jiff::Unit::Millisecond).unwrap_or(self.time);
                let _ = write!(out, "{time} {:<10} {:<5} ", self.service, self.level.shown());
                push_printable(out, &self.flat());
                if self.more {
                    out.extend_from_slice(" \\".as_bytes());
                }
            }
        }
        out.push(b'\n');
    }
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
            "2026-01-02T03:04:05Z web        WARN  a \"b\"\\u{1b}[31m\n"
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
