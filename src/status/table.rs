//! The status for people: a table that fits 80 columns, worst news first in the heading.

use super::Status;
use crate::spec::duration;
use std::fmt::Write;
use std::time::Duration;

/// Whether the output goes to a terminal that shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    On,
    /// Plain text.
    Off,
}

/// The table; no line is longer than `width` characters.
#[must_use]
pub fn render(status: &Status, width: usize, colour: Colour) -> String {
    let width = width.max(40);
    let mut out = String::new();
    let word = status.state.word();
    let up = duration::show(Duration::from_millis(status.up_ms));
    line(&mut out, &format!("supafly: {word}, up {up}"), width, paint(word), colour);
    for part in wrap(&status.reason, width.saturating_sub(2)) {
        line(&mut out, &format!("  {part}"), width, None, colour);
    }
    out.push('\n');
    let longest = |text: &str| text.chars().count();
    let names = status
        .services
        .iter()
        .flat_map(|s| std::iter::once(longest(&s.name)).chain(s.rows.iter().map(|r| longest(&r.name) + 2)));
    let name_width = names.max().unwrap_or(0).clamp(8, 26);
    line(
        &mut out,
        &format!("{:<name_width$}  {:<11}  {:>6}  DETAIL", "SERVICE", "STATE", "FOR"),
        width,
        None,
        colour,
    );
    for s in &status.services {
        let age = duration::show(Duration::from_millis(s.for_ms));
        let restarts = match s.restarts {
            0 => String::new(),
            1 => " (1 restart)".to_owned(),
            n => format!(" ({n} restarts)"),
        };
        let detail = format!("{}{restarts}", s.detail);
        row(&mut out, (&s.name, name_width), &s.state, &age, detail.trim(), width, colour);
        for r in &s.rows {
            row(&mut out, (&format!("  {}", r.name), name_width), &r.state, "", &r.detail, width, colour);
        }
        for text in s.output.iter().rev().take(5).rev() {
            line(&mut out, &format!("    | {text}"), width, None, colour);
        }
    }
    out
}

fn row(
    out: &mut String,
    (name, name_width): (&str, usize),
    state: &str,
    age: &str,
    detail: &str,
    width: usize,
    colour: Colour,
) {
    let head = format!("{name:<name_width$}  {state:<11}  {age:>6}  ");
    let room = width.saturating_sub(head.chars().count()).max(10);
    let mut parts = wrap(detail, room).into_iter();
    let first = parts.next().unwrap_or_default();
    line(out, &format!("{head}{first}"), width, paint(state), colour);
    for part in parts {
        let indent = " ".repeat(head.chars().count().min(width.saturating_sub(10)));
        line(out, &format!("{indent}{part}"), width, None, colour);
    }
}

fn paint(state: &str) -> Option<&'static str> {
    match state {
        "ready" | "ok" | "done" => Some("\x1b[32m"),
        "failed" | "held" | "blocked" | "unprotected" | "UNPROTECTED" | "degraded" | "lost" | "alarm"
        | "unready" | "no-room" => Some("\x1b[31m"),
        "starting" | "stopping" | "backoff" | "waiting" | "frozen" | "freezing" => Some("\x1b[33m"),
        _ => None,
    }
}

/// Breaks at blanks where there are some, and within a word that is longer than a line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().filter(|c| !c.is_control()).collect();
        while !word.is_empty() {
            let fits = lines.last().map(|l| l.chars().count());
            match fits {
                Some(used) if used + 1 + word.len() <= width => {
                    if let Some(last) = lines.last_mut() {
                        let _ = write!(last, " {}", word.iter().collect::<String>());
                    }
                    word.clear();
                }
                Some(_) | None => {
                    let rest = word.split_off(word.len().min(width));
                    lines.push(word.into_iter().collect());
                    word = rest;
                }
            }
        }
    }
    lines
}

fn line(out: &mut String, text: &str, width: usize, paint: Option<&str>, colour: Colour) {
    let cut: String = text.trim_end().chars().filter(|c| !c.is_control()).take(width).collect();
    match (paint, colour) {
        (Some(code), Colour::On) => {
            let _ = writeln!(out, "{code}{cut}\x1b[0m");
        }
        (Some(_), Colour::Off) | (None, _) => {
            let _ = writeln!(out, "{cut}");
        }
    }
}
