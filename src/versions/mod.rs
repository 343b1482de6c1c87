//! `supafly version --all`: what is really installed, asked of each program by its path, beside what the image is made of.

pub mod pinned;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::pooler::choice::{self, Kind};
use crate::{facts, postgres, postgrest, walg};
use pinned::Parts;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// Where the image says where its parts are from.
const ORIGINS: &[&str] = &["/usr/share/supafly/parts.txt", "/usr/share/supafly/extras.txt"];

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Table,
    /// One object.
    Json,
}

/// One part on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    part: &'static str,
    /// Where its program or file is; none when it is not installed.
    path: Option<PathBuf>,
    /// What it says of itself; the reason when it does not.
    installed: Option<String>,
    problem: Option<String>,
    /// What the image is made of.
    pinned: Option<String>,
    /// Where the image got it.
    origin: Option<String>,
}

/// Shows all.
///
/// # Errors
/// When nobody reads it.
pub fn all(settings: &Settings, form: Form) -> Result<Exit, Failure> {
    let parts =
        pinned::parse(pinned::TEXT).map_err(|e| Failure::config(format!("image/versions.toml: {e}")))?;
    let rows = rows(settings, &parts);
    let text = match form {
        Form::Table => table(&rows),
        Form::Json => {
            let whole = serde_json::json!({ "supafly": env!("CARGO_PKG_VERSION"), "parts": rows, "pinned": pinned::arguments(&parts).into_iter().collect::<std::collections::BTreeMap<_, _>>() });
            serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
        }
    };
    print(&text)
}

/// Our own version.
///
/// # Errors
/// When nobody reads it.
pub fn own(form: Form) -> Result<Exit, Failure> {
    print(match form {
        Form::Table => concat!("supafly ", env!("CARGO_PKG_VERSION"), "\n"),
        Form::Json => concat!("{\"supafly\": \"", env!("CARGO_PKG_VERSION"), "\"}\n"),
    })
}

fn print(text: &str) -> Result<Exit, Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|e| Failure::gave_up(format!("stdout: {e}")))?;
    Ok(Exit::Clean)
}

fn rows(settings: &Settings, parts: &Parts) -> Vec<Row> {
    let origins: String = ORIGINS.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let row = |part: &'static str, path: Option<PathBuf>, said: Option<Result<String, String>>| Row {
        part,
        path,
        installed: said.as_ref().and_then(|s| s.as_ref().ok()).cloned(),
        problem: said.and_then(Result::err),
        pinned: parts.get(part).and_then(|p| p.version.clone()),
        origin: origin(&origins, part),
    };
    let program = |part, path: Option<PathBuf>, argument: &str| {
        let said = path.as_ref().map(|path| ask(path, argument));
        row(part, path, said)
    };
    let bin = postgres::bin::directory(settings);
    let control = bin.as_deref().and_then(graphql);
    let graphql = control.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        default_version(&text).ok_or_else(|| "says no default_version".to_owned())
    });
    vec![
        program("postgres", bin.map(|dir| dir.join("postgres")).filter(|p| p.exists()), "--version"),
        program("walg", walg::Engine::path(settings), "--version"),
        program(
            "postgrest",
            Some(postgrest::program(settings)).filter(|p| which::which(p).is_ok()),
            "--version",
        ),
        program("pgbouncer", choice::installed(settings, Kind::PgBouncer), "--version"),
        program("supavisor", choice::installed(settings, Kind::Supavisor), "version"),
        row("pg_graphql", control, graphql),
    ]
}

/// The extension's control file, seen from Postgres's programs: Debian's layout, or that of a build from source.
fn graphql(bin: &Path) -> Option<PathBuf> {
    let major = bin.parent()?.file_name()?;
    let debian = bin.join("../../../../share/postgresql").join(major).join("extension");
    let all = [debian, bin.join("../share/extension"), bin.join("../share/postgresql/extension")];
    let found = all.into_iter().map(|dir| dir.join("pg_graphql.control")).find(|file| file.is_file());
    found.and_then(|file| file.canonicalize().ok())
}

/// `default_version = '1.6.1'` → 1.6.1
fn default_version(control: &str) -> Option<String> {
    let line = control.lines().find_map(|l| l.trim().strip_prefix("default_version"))?;
    Some(line.trim_start_matches([' ', '=']).trim().trim_matches('\'').to_owned())
}

/// `walg  WAL-G, its own release` → what is behind the name
fn origin(text: &str, part: &str) -> Option<String> {
    let of = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        (name == part).then(|| rest.trim().to_owned())
    };
    text.lines().find_map(of)
}

/// The first line that it prints. It gets nothing of our environment but what a program needs to run.
fn ask(program: &Path, argument: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env_clear();
    command.envs(facts::environment().remove("PATH").map(|path| ("PATH", path)));
    command.envs([("LC_ALL", "C.UTF-8"), ("HOME", "/")]);
    let mut child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            Ok(None) => break Err(format!("does not say its version within {} s", PATIENCE.as_secs())),
            Err(e) => break Err(e.to_string()),
        }
    };
    if status.is_err() {
        // Gone already is as good as killed.
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = status?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(|e| e.to_string())?;
    }
    let said = String::from_utf8_lossy(&said);
    let first = said.lines().next().unwrap_or_default().trim();
    if first.is_empty() { Err(format!("says nothing ({status})")) } else { Ok(first.replace('\t', " ")) }
}

/// Whether what it says names the version that is pinned.
fn fits(installed: &str, pinned: &str) -> bool {
    let begins = |word: &str| {
        let rest = word.trim_start_matches('v').strip_prefix(pinned);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    installed.split(|c: char| c.is_whitespace() || c == '(').any(begins)
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("supafly {}\n\n", env!("CARGO_PKG_VERSION"));
    for row in rows {
        let said = match (&row.installed, &row.problem) {
            (Some(installed), _) => installed.clone(),
            (None, Some(problem)) => problem.clone(),
            (None, None) => "not installed".to_owned(),
        };
        let pinned = match (&row.installed, &row.pinned) {
            (Some(installed), Some(pinned)) if fits(installed, pinned) => String::new(),
            (Some(_), Some(pinned)) => format!(" (the image's own release would be {pinned})"),
            (None, Some(_)) | (_, None) => String::new(),
        };
        let path = row.path.as_ref().map(|p| format!("\n{:11}{}", "", p.display())).unwrap_or_default();
        let origin = row.origin.as_ref().map(|o| format!("\n{:11}{o}", "")).unwrap_or_default();
        // A `String` takes everything.
        let _ = writeln!(text, "{:11}{said}{pinned}{path}{origin}", row.part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fits_as_a_whole_number_only() {
        assert!(fits("postgres (PostgreSQL) 17.12 (Debian 17.12-0+deb13u1)", "17"));
        assert!(fits("wal-g version v3.0.9 abcdef", "3.0.9"));
        assert!(fits("PgBouncer 1.26.1", "1.26.1"));
        assert!(!fits("PgBouncer 1.26.10", "1.26.1"));
        assert!(!fits("postgres (PostgreSQL) 15.18", "17"));
        assert!(!fits("walrus 0.4.1", "3.0.9"));
    }

    #[test]
    fn a_program_that_hangs_or_is_silent_has_a_reason_for_it() {
        assert_eq!(ask(Path::new("/bin/echo"), "x 1.2\nsecond"), Ok("x 1.2".to_owned()));
        assert!(ask(Path::new("/bin/true"), "--").unwrap_err().starts_with("says nothing"));
        assert!(ask(Path::new("/nowhere"), "--version").unwrap_err().starts_with("cannot be run"));
        let why = ask(Path::new("/bin/sleep"), "60").unwrap_err();
        assert_eq!(why, "does not say its version within 5 s");
    }

    #[test]
    fn what_differs_from_the_pinned_is_said_and_where_it_is_from() {
        let row = |installed: Option<&str>, pinned: &str| Row {
            part: "walg",
            path: Some("/usr/bin/walrus".into()),
            installed: installed.map(str::to_owned),
            problem: None,
            pinned: Some(pinned.to_owned()),
            origin: origin("postgrest  its own\nwalg  wal-rus, in its place\n", "walg"),
        };
        let said = table(&[row(Some("walrus 0.4.1"), "3.0.9")]);
        assert!(said.contains("walrus 0.4.1 (the image's own release would be 3.0.9)"), "{said}");
        assert!(said.contains("wal-rus, in its place") && said.contains("/usr/bin/walrus"), "{said}");
        assert!(table(&[row(None, "3.0.9")]).contains("walg       not installed\n"));
        assert_eq!(default_version("# x\ndefault_version = '1.6.1'\n"), Some("1.6.1".to_owned()));
    }
}
