//! The commands that ask a running supervisor: they say what the one status says, and hand on wishes.

mod health;
mod logs;
mod status;
mod wishes;

pub use health::{Which, health};
pub use logs::{LogArgs, logs};
pub use status::{Shown, Watch, status};
pub use wishes::{Change, Everything, Patience, everything, one};

use super::client::{self, ClientError};
use crate::exit::Failure;
use crate::status::Status;
use std::io::Write;
use std::path::Path;

/// The status, typed and as it came.
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

/// The services that are absent, by name.
///
/// # Errors
/// There is no supervisor, or it does not answer.
pub fn absent(run: &Path) -> Result<Vec<String>, Failure> {
    let (status, _) = ask(run).map_err(|e| Failure::gave_up(e.to_string()))?;
    let absent = |s: crate::status::ServiceStatus| (s.state == "absent").then_some(s.name);
    Ok(status.services.into_iter().filter_map(absent).collect())
}

/// Prints an answer of another module's, as these commands print theirs.
///
/// # Errors
/// It cannot be written; a reader that has enough is no failure.
pub fn print_all(text: &str) -> Result<(), Failure> {
    print(text).map(drop)
}

/// Says something beside the answer, to whoever reads our standard error.
pub fn aside(text: &str) {
    // Nobody there to be told is no reason not to answer.
    let _ = writeln!(std::io::stderr().lock(), "supafly: {text}");
}

/// Whether somebody still reads what we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Reads,
    /// As `head` does when it has enough.
    Gone,
}

impl Reader {
    fn is_gone(self) -> bool {
        self == Reader::Gone
    }
}

/// A reader that has enough is no failure.
fn written(written: std::io::Result<()>) -> Result<Reader, Failure> {
    match written {
        Ok(()) => Ok(Reader::Reads),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(Failure::gave_up(format!("cannot write the answer: {e}"))),
    }
}

fn print(text: &str) -> Result<Reader, Failure> {
    let mut out = std::io::stdout();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
