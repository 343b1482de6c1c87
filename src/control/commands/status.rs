//! `supafly status`: once, or again and again.

use super::{ask, print};
use crate::exit::{Exit, Failure};
use crate::status::{Colour, Status, render};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

/// How often a watched status is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// For whom it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// People.
    Table,
    /// Programs.
    Json,
}

/// Whether it is shown once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    Once,
    /// Until somebody ends it, or the supervisor has gone. On a terminal in place, elsewhere at each change.
    On,
}

/// Prints the status.
///
/// # Errors
/// There is no supervisor, or it does not answer.
pub fn status(run: &Path, shown: Shown, watch: Watch) -> Result<Exit, Failure> {
    let mut former = None;
    loop {
        let (status, value) = ask(run).map_err(|e| Failure::gave_up(e.to_string()))?;
        let terminal = std::io::stdout().is_terminal();
        match watch {
            Watch::Once => {
                print(&once(&status, &value, shown, terminal))?;
                return Ok(Exit::Clean);
            }
            Watch::On if terminal && shown == Shown::Table => {
                let table = once(&status, &value, shown, terminal);
                print(&in_place(&table, crate::os::terminal_size().map_or(24, |size| size.rows)))?;
            }
            Watch::On => {
                let now = ageless(&value);
                if former.as_ref() != Some(&now) {
                    former = Some(now);
                    let text = match shown {
                        Shown::Json => format!("{value}\n"),
                        Shown::Table => once(&status, &value, shown, terminal) + "\n",
                    };
                    if print(&text)?.is_gone() {
                        return Ok(Exit::Clean);
                    }
                }
            }
        }
        std::thread::sleep(EVERY);
    }
}

fn once(status: &Status, value: &Value, shown: Shown, terminal: bool) -> String {
    match shown {
        Shown::Json => format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()),
        Shown::Table if terminal => {
            // Whoever sets NO_COLOR wants none (no-color.org).
            let plain = crate::facts::environment().get("NO_COLOR").is_some_and(|v| !v.is_empty());
            let colour = if plain { Colour::Off } else { Colour::On };
            render(status, crate::os::terminal_size().map_or(80, |size| size.columns), colour)
        }
        Shown::Table => render(status, 80, Colour::Off),
    }
}

/// Home, the table with each line cleared to its end, and what was below it away. What is longer than the terminal is
/// high would scroll at each turn: it is cut, and that is said. Pure.
fn in_place(table: &str, rows: usize) -> String {
    let lines: Vec<&str> = table.lines().collect();
    let room = rows.saturating_sub(1).max(2);
    let mut shown = lines.clone();
    let more = lines.len().saturating_sub(room);
    if more > 0 {
        shown.truncate(room - 1);
    }
    let mut out = "\x1b[H".to_owned();
    for line in shown {
        out.push_str(line);
        out.push_str("\x1b[K\n");
    }
    if more > 0 {
        out.push_str(&format!("… {} more lines: the terminal is too low …\x1b[K\n", more + 1));
    }
    out + "\x1b[J"
}

/// A status without what grows by itself: two that are equal so far show the same. Pure.
fn ageless(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let keeps = |key: &str| {
                !(key.ends_with("_ms")
                    || key.contains("age")
                    || key == "values"
                    || key == "detail"
                    || key == "reason")
            };
            let kept = fields.iter().filter(|(key, _)| keeps(key));
            Value::Object(kept.map(|(key, value)| (key.clone(), ageless(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(ageless).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_in_place_never_scrolls() {
        let table = |lines: usize| (0..lines).map(|n| format!("line {n}\n")).collect::<String>();
        let whole = in_place(&table(23), 24);
        assert!(
            whole.starts_with("\x1b[Hline 0\x1b[K\n") && whole.ends_with("line 22\x1b[K\n\x1b[J"),
            "{whole}"
        );
        let cut = in_place(&table(30), 24);
        assert_eq!(cut.matches('\n').count(), 23);
        assert!(cut.contains("line 21\x1b[K\n… 8 more lines"), "{cut}");
    }

    #[test]
    fn an_older_status_is_the_same_and_another_state_is_not() {
        let at = |state: &str, ms: u64| json!({"state": "ready", "up_ms": ms, "services": [{"state": state, "for_ms": ms}]});
        assert_eq!(ageless(&at("ready", 1)), ageless(&at("ready", 2)));
        assert_ne!(ageless(&at("ready", 1)), ageless(&at("backoff", 1)));
    }
}
