//! `supafly logs`: what services have said lately, and with `-f` what they go on to say. The lines come from the
//! supervisor's memory, so they are there whatever becomes of its own output.

use super::written;
use crate::control::client::{self, ClientError};
use crate::exit::{Exit, Failure};
use crate::os::output::{Level, Line, Shape};
use serde::Deserialize;
use std::io::{BufRead, Write};
use std::path::Path;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct LogArgs {
    /// Of one service; of all.
    pub service: Option<String>,
    /// Whether to stay for what comes.
    pub follow: bool,
    /// At most so many of those that are there.
    pub lines: Option<usize>,
    /// As they came.
    pub json: bool,
}

/// One object from the supervisor.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Sent {
    Lost { lost: u64 },
    Line(Said),
}

#[derive(Debug, Deserialize)]
struct Said {
    time: jiff::Timestamp,
    level: Level,
    service: String,
    message: String,
    #[serde(default)]
    more: bool,
}

/// Prints recent lines.
///
/// # Errors
/// There is no supervisor, it says no, or it breaks off.
pub fn logs(run: &Path, args: &LogArgs) -> Result<Exit, Failure> {
    let failed = |e: ClientError| match e {
        ClientError::Rejected(why) => Failure::new(Exit::No, why),
        e @ (ClientError::Absent(_) | ClientError::Io { .. }) => Failure::gave_up(e.to_string()),
    };
    let mut wanted = Vec::new();
    if let Some(service) = &args.service {
        wanted.push(("service", service.clone().into()));
    }
    // What is there first: only of that, the last ones are picked.
    let (newest, lines) = client::lines(run, &wanted).map_err(failed)?;
    let lines: Vec<String> = lines.lines().collect::<Result<_, _>>().map_err(broke)?;
    let skip = args.lines.map_or(0, |n| lines.len().saturating_sub(n));
    let mut out = std::io::stdout().lock();
    for line in lines.iter().skip(skip) {
        if written(out.write_all(&shown(line, args.json)))?.is_gone() {
            return Ok(Exit::Clean);
        }
    }
    if written(out.flush())?.is_gone() || !args.follow {
        return Ok(Exit::Clean);
    }
    wanted.push(("after", newest.into()));
    wanted.push(("follow", true.into()));
    let (_, mut lines) = client::lines(run, &wanted).map_err(failed)?;
    let mut line = String::new();
    // What ends without a newline broke off in the middle.
    while lines.read_line(&mut line).map_err(broke)? > 0 && line.ends_with('\n') {
        let text = shown(line.trim_end_matches('\n'), args.json);
        if written(out.write_all(&text).and_then(|()| out.flush()))?.is_gone() {
            return Ok(Exit::Clean);
        }
        line.clear();
    }
    if super::ask(run).is_ok() {
        let why = "the supervisor hung up: it has too many clients, and the oldest goes first";
        return Err(Failure::gave_up(why));
    }
    super::aside("the supervisor has gone");
    Ok(Exit::Clean)
}

fn broke(e: std::io::Error) -> Failure {
    Failure::gave_up(format!("the supervisor's lines broke off: {e}"))
}

/// A line for people, or as it came. Pure.
fn shown(line: &str, json: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 1);
    match serde_json::from_str::<Sent>(line) {
        Ok(Sent::Line(said)) if !json => {
            let mut line = Line::new(&said.service, said.level, &said.message);
            line.time = said.time;
            line.more = said.more;
            line.write(Shape::Text, &mut out);
        }
        Ok(Sent::Lost { lost }) if !json => {
            out.extend_from_slice(format!("… {lost} lines are no longer kept …\n").as_bytes());
        }
        Ok(_) | Err(_) => {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_the_supervisor_itself_would() {
        let line = r#"{"time":"2026-01-02T03:04:05Z","level":"warn","service":"web","run":3,"stream":"stderr","message":"a\u001bb"}"#;
        let text = String::from_utf8(shown(line, false)).unwrap();
        assert_eq!(text, "2026-01-02T03:04:05.000Z web        WARN  a\\u{1b}b\n");
        assert_eq!(String::from_utf8(shown(line, true)).unwrap(), format!("{line}\n"));
        assert_eq!(
            String::from_utf8(shown(r#"{"lost":3}"#, false)).unwrap(),
            "… 3 lines are no longer kept …\n"
        );
    }
}
