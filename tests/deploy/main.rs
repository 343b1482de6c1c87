//! What users deploy with, held to what the binary really serves: `fly.toml`, `image/machine.json`, `compose.yaml`, the
//! systemd unit and packer's files. The rules ask the settings and a running `web`, never a list of their own; and each
//! rule is shown on a variant of the file that breaks it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic"
)]

#[path = "../web/client.rs"]
#[allow(dead_code, reason = "this target uses a part of it")]
mod client;
#[allow(dead_code, unused_macros, unused_imports, reason = "this target uses a part of it")]
#[path = "../supervisor/harness.rs"]
mod harness;
#[allow(dead_code, reason = "this target uses a part of it")]
#[path = "../supervisor/procs.rs"]
mod procs;
#[allow(dead_code, reason = "this target uses a part of it")]
#[path = "../supervisor/sight.rs"]
mod sight;

mod compose;
mod dockerfile;
mod fly;
mod plan;
mod rules;
mod served;
mod unit;
mod versions;

/// A file of the repository.
fn text(path: &str) -> String {
    let whole = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&whole).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The text with one place changed, which must be there exactly once: else a test would break nothing.
#[track_caller]
fn broken(text: &str, place: &str, other: &str) -> String {
    assert_eq!(text.matches(place).count(), 1, "`{place}` is not there once");
    text.replacen(place, other, 1)
}

/// Whether one of the problems is this one, and says so by all of these words.
#[track_caller]
fn refused(problems: &[String], words: &[&str]) {
    let found = problems.iter().any(|p| words.iter().all(|w| p.contains(w)));
    assert!(found, "no problem says {words:?}: {problems:#?}");
}
