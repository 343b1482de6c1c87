//! `supafly backup now` and `supafly backup list`: the command line's end of keeper's socket.

use super::protocol::{Answer, Call, Listed, Verb};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How long to wait for keeper's next word: it says something at least when a step ends.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long a listing may take.
const LIST_PATIENCE: Duration = Duration::from_secs(120);

/// Takes a base backup and waits until it is verified.
///
/// # Errors
/// 70 with keeper's reason.
pub fn backup_now(settings: &Settings, json: bool) -> Result<Exit, Failure> {
    let mut call = call(settings, Verb::BackupNow)?;
    loop {
        match call.answer(PATIENCE).map_err(|e| silent(settings, &e))? {
            Answer::Progress { text } if json => say(&serde_json::json!({ "progress": text }).to_string())?,
            Answer::Progress { text } => say(&text)?,
            Answer::Done { what } if json => {
                say(&serde_json::json!({ "backup": what, "verified": true }).to_string())?;
                return Ok(Exit::Clean);
            }
            Answer::Done { what } => {
                say(&format!("{what}: verified"))?;
                return Ok(Exit::Clean);
            }
            Answer::Failed { because } | Answer::Again { because } | Answer::Leave { because } => {
                return Err(Failure::gave_up(format!("backup now: {because}")));
            }
            answer @ (Answer::Absent | Answer::Exchanged | Answer::Backups { .. }) => {
                return Err(nonsense(&answer));
            }
        }
    }
}

/// Lists the base backups of our epoch and of those it came from.
///
/// # Errors
/// 70 with keeper's reason.
pub fn backup_list(settings: &Settings, json: bool) -> Result<Exit, Failure> {
    let mut call = call(settings, Verb::BackupList)?;
    match call.answer(LIST_PATIENCE).map_err(|e| silent(settings, &e))? {
        Answer::Backups { backups } if json => {
            let text = serde_json::to_string(&backups)
                .map_err(|e| Failure::gave_up(format!("backup list: the list cannot be written: {e}")))?;
            say(&text)?;
            Ok(Exit::Clean)
        }
        Answer::Backups { backups } => {
            say(table(&backups).trim_end())?;
            Ok(Exit::Clean)
        }
        Answer::Failed { because } | Answer::Again { because } | Answer::Leave { because } => {
            Err(Failure::gave_up(format!("backup list: {because}")))
        }
        answer @ (Answer::Done { .. } | Answer::Exchanged | Answer::Absent | Answer::Progress { .. }) => {
            Err(nonsense(&answer))
        }
    }
}

fn call(settings: &Settings, verb: Verb) -> Result<Call, Failure> {
    Call::start(&settings.keeper_socket(), verb, &[], Duration::from_secs(10))
        .map_err(|e| silent(settings, &e))
}

fn silent(settings: &Settings, e: &std::io::Error) -> Failure {
    let socket = settings.keeper_socket();
    Failure::gave_up(format!(
        "keeper does not answer at {}: {e}. Is `supafly run` running with this run directory? See `supafly status`",
        socket.display()
    ))
}

fn nonsense(answer: &Answer) -> Failure {
    Failure::gave_up(format!("keeper gave an answer that makes no sense here: {answer:?}"))
}

fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let written = writeln!(out, "{text}").and_then(|()| if out.is_terminal() { out.flush() } else { Ok(()) });
    match written {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::gave_up(format!("the answer cannot be written: {e}"))),
    }
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = (bytes as f64 / 1024.0, "KiB");
    for unit in UNITS {
        shown.1 = unit;
        if shown.0 < 1024.0 || unit == "TiB" {
            break;
        }
        shown.0 /= 1024.0;
    }
    format!("{:.1} {}", shown.0, shown.1)
}

/// A table of at most 80 columns; why a backup cannot be used stands on a line of its own.
fn table(backups: &[Listed]) -> String {
    if backups.is_empty() {
        return "no base backups: UNPROTECTED until the first one is verified".to_owned();
    }
    let mut text =
        format!("{:>5}  {:<31}  {:<15}  {:>10}  {}\n", "EPOCH", "NAME", "FINISH LSN", "STORED", "VERIFIED");
    for backup in backups {
        let verified = if backup.unfit.is_none() { "yes" } else { "NO" };
        text += &format!(
            "{:>5}  {:<31}  {:<15}  {:>10}  {verified}\n",
            backup.epoch,
            backup.name,
            backup.finish,
            size(backup.compressed_size),
        );
        if let Some(why) = &backup.unfit {
            text += &format!("       {why}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_80_columns_and_says_why_a_backup_cannot_be_used() {
        let listed = Listed {
            epoch: 7,
            name: "base_000000010000000000000003".into(),
            timeline: 1,
            start: "0/3000028".into(),
            finish: "FFFFF/FF000138".into(),
            compressed_size: 123 << 30,
            uncompressed_size: 999 << 30,
            finished: "2026-11-25T07:00:00Z".into(),
            unfit: None,
        };
        let broken = Listed { unfit: Some("part 2 is missing".into()), ..listed.clone() };
        let text = table(&[listed, broken]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("part 2 is missing") && text.contains("123.0 GiB"), "{text}");
        assert!(table(&[]).contains("UNPROTECTED"));
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        assert_eq!(size(0), "0.0 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 20), "5.0 MiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
