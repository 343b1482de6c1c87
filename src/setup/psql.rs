//! A script that only `psql` can run: backslash commands, `copy … from stdin` with its rows.

use super::session::{DATABASE, USER};
use crate::config::Settings;
use crate::postgres::bin;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines of its output that are shown when it fails.
const SHOWN: usize = 5;

fn program(settings: &Settings) -> Result<PathBuf, String> {
    let beside = bin::find(settings).ok().map(|bin| bin.program("psql")).filter(|p| p.exists());
    beside.or_else(|| which::which("psql").ok()).ok_or_else(|| {
        "it has backslash commands or rows for `copy`, which only psql can run, and psql is not installed"
            .to_owned()
    })
}

/// Runs it with `last`, a statement of ours, after it. With `first`, one of ours before it, all three are one transaction;
/// else each statement is one of its own.
///
/// # Errors
/// The first line says where and what.
pub(super) fn run(settings: &Settings, file: &Path, first: Option<&str>, last: &str) -> Result<(), String> {
    let mut command = Command::new(program(settings)?);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", DATABASE]);
    command.arg("-h").arg(settings.pg_socket_dir()).arg("-p").arg(settings.pg_port.to_string());
    if let Some(first) = first {
        command.args(["-1", "-c", first]);
    }
    command.arg("-f").arg(file).arg("-c").arg(last);
    let path = crate::facts::environment().remove("PATH").unwrap_or_else(|| "/usr/bin:/bin".to_owned());
    let near = file.parent().unwrap_or(Path::new("/"));
    command
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("PGCLIENTENCODING", "UTF8")
        .current_dir(near);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().map_err(|e| format!("psql cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        for line in said.lines() {
            tracing::info!("{line}");
        }
        return Ok(());
    }
    let prefix = format!("psql:{}:", file.display());
    let from = said.lines().position(|line| line.contains("ERROR:") || line.contains("error:")).unwrap_or(0);
    let lines: Vec<String> = said
        .lines()
        .skip(from)
        .take(SHOWN)
        .map(|line| line.strip_prefix(&prefix).map_or_else(|| line.to_owned(), |rest| format!("line {rest}")))
        .collect();
    if lines.is_empty() {
        return Err(format!("psql ended with {}", output.status));
    }
    Err(lines.join("\n"))
}
