//! What `/proc` says of a process, as plain data. Parsing is pure and takes any text.
//!
//! A pid alone names nobody: it is reused. A pid together with its start time does, so both travel together and are
//! compared again before anybody is signalled.

use nix::libc;

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
    let Some(stat) = read(pid, "stat", |text| text.ends_with(b"\n"))? else { return Ok(None) };
    let Some(Stat { state, parent, start, kernel }) = parse_stat(&String::from_utf8_lossy(&stat)) else {
        return Ok(None);
    };
    // A thread of the kernel has no groups, and there may be hundreds.
    let groups = if kernel {
        Vec::new()
    } else {
        let Some(status) = read(pid, "status", has_groups)? else { return Ok(None) };
        parse_groups(&String::from_utf8_lossy(&status))
    };
    Ok(Some(Process { who: Who { pid, start }, parent, state, groups }))
}

/// Reads a file of a process until that is enough of it. A look at all processes is made at every end of a service: what
/// it costs is mostly the number of system calls, so there is one buffer, large enough for nearly all.
fn read(pid: i32, name: &str, enough: fn(&[u8]) -> bool) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut take = || {
        let mut file = std::fs::File::open(format!("/proc/{pid}/{name}"))?;
        loop {
            let begun = bytes.len();
            bytes.resize(begun + 4_096, 0);
            let taken = std::io::Read::read(&mut file, bytes.get_mut(begun..).unwrap_or_default());
            bytes.truncate(begun + *taken.as_ref().unwrap_or(&0));
            match taken {
                Ok(0) => return Ok(()),
                Ok(_) if enough(&bytes) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    };
    match take() {
        Ok(()) => Ok(Some(bytes)),
        // ENOENT before it is opened, ESRCH after; EACCES is `hidepid`, and another user's process is none of ours.
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM)) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Whether the line of groups is there to its end.
fn has_groups(status: &[u8]) -> bool {
    let line = status.windows(8).position(|w| w == b"\nGroups:");
    line.is_some_and(|at| status.iter().skip(at + 1).any(|byte| *byte == b'\n'))
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
    let stat = read(pid, "stat", |text| text.ends_with(b"\n")).ok()??;
    parse_stat(&String::from_utf8_lossy(&stat)).map(|stat| stat.start)
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

/// What is needed of a line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    start: u64,
    /// A thread of the kernel.
    kernel: bool,
}

/// The name in parentheses may hold anything, parentheses and newlines included.
fn parse_stat(stat: &str) -> Option<Stat> {
    /// `PF_KTHREAD` of linux/sched.h.
    const KERNEL: u32 = 0x0020_0000;
    let mut fields = after_name(stat)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Fields 9, 20 and 22 of the whole; state is field 3 and parent field 4.
    let flags: u32 = fields.nth(4)?.parse().ok()?;
    let threads: u32 = fields.nth(10)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    // A process whose first thread has ended lives on in the others.
    let state = if state == 'Z' && threads > 1 { 'S' } else { state };
    Some(Stat { state, parent, start, kernel: flags & KERNEL != 0 })
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
        let living = Stat { state: 'S', parent: 7, start: 991, kernel: false };
        assert_eq!(parse_stat(stat), Some(living));
        let zombie = "42 (x) Z 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 991 0 0";
        assert_eq!(parse_stat(zombie), Some(Stat { state: 'Z', ..living }));
        let headless = zombie.replace(" 1 0 991", " 2 0 991");
        assert_eq!(parse_stat(&headless), Some(living), "its other thread lives");
        let kernel = stat.replace(" 4194560 ", " 69238880 ");
        assert_eq!(parse_stat(&kernel), Some(Stat { kernel: true, ..living }));
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
        let groups: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert_eq!(me.groups, groups);
    }

    #[test]
    fn a_line_of_groups_counts_when_its_end_is_there() {
        assert!(!has_groups(b"Name:\tx\nGroups:\t1 2"));
        assert!(has_groups(b"Name:\tx\nGroups:\t1 2 \n"));
        assert!(!has_groups(b"Name:\tGroups:\n"));
    }
}
