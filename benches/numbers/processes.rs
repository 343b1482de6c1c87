//! Looking at processes, and ending those of a directory.

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The monotonic clock, which actors stamp by, in nanoseconds.
pub(crate) fn now() -> u128 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    Duration::from(nix::time::clock_gettime(clock).unwrap()).as_nanos()
}

/// Milliseconds between two moments of that clock.
pub(crate) fn milliseconds(from: u128, to: u128) -> f64 {
    let between = to.saturating_sub(from);
    Duration::from_nanos(u64::try_from(between).unwrap_or(u64::MAX)).as_secs_f64() * 1e3
}

pub(crate) fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    let pid = i32::try_from(pid).map_err(|e| e.to_string())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)
        .map_err(|e| format!("{signal} to {pid}: {e}"))
}

/// The children of all threads of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("children")).unwrap_or_default();
    let text: String = threads.flatten().map(of).collect();
    text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// A process and everything below it.
pub(crate) fn below(top: u32) -> Vec<u32> {
    let mut all = vec![top];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        all.extend(children(pid));
        at += 1;
    }
    all
}

/// Memory that is a process's own or its share of what several have, in megabytes.
pub(crate) fn pss(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    field(&text, "Pss:").map(|kib| kib * 1_024.0 / 1e6).ok_or_else(|| format!("{path} has no Pss"))
}

/// The most memory that a process ever had in use, in megabytes.
pub(crate) fn peak_rss(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    field(&text, "VmHWM:").map(|kib| kib * 1_024.0 / 1e6).ok_or_else(|| format!("{path} has no VmHWM"))
}

/// Whether it has ended and nobody has asked how.
pub(crate) fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// The first number after a name at the beginning of a line.
pub(crate) fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Kills every process that names this directory in its command line or works in it, until there is none.
pub(crate) fn end_all_of(dir: &Path) {
    for _ in 0..200 {
        let found = all_of(dir);
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = signal(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn all_of(dir: &Path) -> Vec<u32> {
    let name = dir.as_os_str().as_bytes();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let is_of = |pid: &u32| {
        let named = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let works = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        works || named.windows(name.len()).any(|w| w == name)
    };
    pids.filter(|pid| *pid != std::process::id()).filter(is_of).collect()
}
