//! `supafly status` and `supafly health`: they ask the one status and say what it says.

use super::client::{self, ClientError};
use crate::exit::{Exit, Failure};
use crate::status::{Colour, Overall, Status, render};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Which health is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The supervisor lives and has not given up.
    Live,
    /// Clients can be served.
    Ready,
}

/// Prints the status: a table for people, or JSON.
///
/// # Errors
/// There is no supervisor, or it does not answer.
pub fn status(run: &Path, json: bool) -> Result<Exit, Failure> {
    let (status, value) = ask(run).map_err(|e| Failure::gave_up(e.to_string()))?;
    let text = if json {
        let pretty = serde_json::to_string_pretty(&value).unwrap_or_default();
        format!("{pretty}\n")
    } else {
        let (colour, width) =
            if std::io::stdout().is_terminal() { (Colour::On, width()) } else { (Colour::Off, 80) };
        render(&status, width, colour)
    };
    print(&text)?;
    Ok(Exit::Clean)
}

/// 0 or 1, and the reason on stdout. No supervisor is a no, not an error.
///
/// # Errors
/// The reason cannot be written.
pub fn health(run: &Path, which: Which) -> Result<Exit, Failure> {
    let (good, reason) = match ask(run) {
        Err(error) => (false, error.to_string()),
        Ok((status, _)) => judge(&status, which),
    };
    print(&format!("{reason}\n"))?;
    Ok(if good { Exit::Clean } else { Exit::No })
}

/// Pure: the answer and its reason.
fn judge(status: &Status, which: Which) -> (bool, String) {
    let word = match status.state {
        Overall::Starting => "starting",
        Overall::Ready => "ready",
        Overall::Degraded => "degraded",
        Overall::Stopping => "stopping",
        Overall::Stopped => "stopped",
    };
    let reason =
        if status.reason.is_empty() { word.to_owned() } else { format!("{word}: {}", status.reason) };
    let good = match (which, status.state) {
        (Which::Live, Overall::Starting | Overall::Ready | Overall::Degraded | Overall::Stopping) => true,
        (Which::Live, Overall::Stopped) => false,
        (Which::Ready, Overall::Ready) => true,
        (Which::Ready, Overall::Starting | Overall::Degraded | Overall::Stopping | Overall::Stopped) => false,
    };
    (good, reason)
}

fn ask(run: &Path) -> Result<(Status, serde_json::Value), ClientError> {
    let mut answer = client::request(run, "status", &[])?;
    let value = answer.get_mut("status").map(serde_json::Value::take).unwrap_or_default();
    let status = serde_json::from_value(value.clone()).map_err(|e| ClientError::Io {
        verb: "understand the status",
        path: run.join("control.sock"),
        source: std::io::Error::other(e),
    })?;
    Ok((status, value))
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Failure::gave_up(format!("cannot write the answer: {e}")))
}

fn width() -> usize {
    crate::os::terminal_width().unwrap_or(80)
}
