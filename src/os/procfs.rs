//! What `/proc` says of a process, as plain data. Parsing is pure and takes any text.
//!
//! A pid alone names nobody: it is reused. A pid together with its start time does, so both travel together and are
//! compared again before anybody is signalled.

use nix::libc;
use std::path::Path;

/// A process at one moment: the number and when it began (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Process number; reused by the kernel.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start: u64,
}

/// A line of the table of processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Identity.
    pub who: Who,
    /// Its parent at that moment.
    pub parent: i32,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`.
    pub state: char,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Process {
    /// Dead already: waits to be reaped by its parent.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Whether `/proc` shows our own pid namespace; otherwise its numbers must not be used.
#[must_use]
pub fn is_ours() -> bool {
    std::fs::read_link("/proc/self")
        .is_ok_and(|link| link.as_os_str().to_str() == Some(&std::process::id().to_string()))
}

/// Every process that can be seen. Those that vanish meanwhile are left out.
///
/// # Errors
/// Not everything could be read (most likely: no descriptor is left). Then nothing is known, and nobody is gone.
pub fn table() -> std::io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            found.extend(process(pid)?);
        }
    }
    Ok(found)
}

/// One process; `None` when there is none of that number, or none that we may see.
///
/// # Errors
/// It could not be read.
pub fn process(pid: i32) -> std::io::Result<Option<Process>> {
    let dir = format!("/proc/{pid}");
    let dir = Path::new(&dir);
    let (Some(stat), Some(status)) = (read(&dir.join("stat"))?, read(&dir.join("status"))?) else {
        return Ok(None);
    };
    let Some((state, parent, start)) = parse_stat(&String::from_utf8_lossy(&stat)) else { return Ok(None) };
    let groups = parse_groups(&String::from_utf8_lossy(&status));
    Ok(Some(Process { who: Who { pid, start }, parent, state, groups }))
}

fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // ENOENT before it is opened, ESRCH after; EACCES is `hidepid`, and another user's process is none of ours.
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Whether every thread of a process is stopped by a signal. A debugger's stop is none: the debugger ends it when it
/// likes. The state of a process is that of its first thread, and others may still be in the middle of a write.
#[must_use]
pub fn stands(pid: i32) -> bool {
    let stands = |entry: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read(entry.ok()?.path().join("stat")).ok()?;
        Some(matches!(after_name(&String::from_utf8_lossy(&stat))?.chars().next()?, 'T' | 'Z' | 'X' | 'x'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .is_ok_and(|mut threads| threads.all(|entry| stands(entry) == Some(true)))
}

/// The start time of a process, or `None` when there is none of that number.
#[must_use]
pub fn start_of(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&stat)).map(|(_, _, start)| start)
}

/// The name of the program that a process runs, at most 15 bytes of it (`comm` of its first thread).
#[must_use]
pub fn program(pid: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// The value of one variable in a process's environment, as it was at exec. Unreadable and absent look alike: Postgres
/// backends overwrite theirs.
#[must_use]
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|b| *b == 0).find_map(|entry| {
        let value = std::str::from_utf8(entry).ok()?.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.to_owned())
    })
}

/// State, parent and start time. The name in parentheses may hold anything, parentheses and newlines included.
fn parse_stat(stat: &str) -> Option<(char, i32, u64)> {
    let mut fields = after_name(stat)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Fields 20 and 22 of the whole; state is field 3 and parent field 4.
    let threads: u32 = fields.nth(15)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    // A process whose first thread has ended lives on in the others.
    let state = if state == 'Z' && threads > 1 { 'S' } else { state };
    Some((state, parent, start))
}

fn after_name(stat: &str) -> Option<&str> {
    stat.get(stat.rfind(')')? + 1..).map(str::trim_start)
}

fn parse_groups(status: &str) -> Vec<u32> {
    // `Name:` comes first and has its newlines escaped by the kernel, so no process can forge a `Groups:` line.
    let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|g| g.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse_the_stat_line() {
        let stat = "42 (a) R 1 (b)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 991 0 0";
        assert_eq!(parse_stat(stat), Some(('S', 7, 991)));
        let zombie = "42 (x) Z 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 991 0 0";
        assert_eq!(parse_stat(zombie), Some(('Z', 7, 991)));
        let headless = zombie.replace(" 1 0 991", " 2 0 991");
        assert_eq!(parse_stat(&headless), Some(('S', 7, 991)), "its other thread lives");
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn we_find_ourselves_in_the_table() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = table().unwrap().into_iter().find(|p| p.who.pid == pid).unwrap();
        assert_eq!(Some(me.who.start), start_of(pid));
        assert!(!me.is_dead());
        assert!(is_ours());
    }
}
