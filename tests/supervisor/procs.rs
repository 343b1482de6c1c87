//! Looking at processes from outside: what `/proc` of the test's own namespace says.

use std::time::Duration;

/// A line of `/proc/PID/stat`.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// User and system time of the process itself.
    pub(crate) cpu: Duration,
}

pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu: Duration::from_millis(ticks * 10),
    })
}

/// There, and no zombie. The number is one of the test's own namespace; `World::alive` translates.
pub(crate) fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|s| !matches!(s.state, 'Z' | 'X'))
}

/// A value of `/proc/PID/status`.
pub(crate) fn status(pid: i32, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Kilobytes in memory.
pub(crate) fn rss(pid: i32) -> u64 {
    let text = status(pid, "VmRSS").unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Open descriptors.
pub(crate) fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The number inside the innermost namespace.
pub(crate) fn inner(pid: i32) -> Option<i32> {
    status(pid, "NSpid")?.split_whitespace().last()?.parse().ok()
}

/// The pid namespace of a process.
pub(crate) fn namespace(pid: i32) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    Some(link.display().to_string())
}

pub(crate) fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Children of every thread, zombies included.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

fn holds(pid: i32, file: &str, needle: &str) -> bool {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    bytes.windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// The topmost process below `root` (itself included) that is a supervisor.
pub(crate) fn supervisor(root: i32) -> Option<i32> {
    let mut level = vec![root];
    while !level.is_empty() {
        let is_one = |pid: &i32| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            exe.file_name().is_some_and(|n| n == "supafly") && holds(*pid, "cmdline", "\0run\0")
        };
        if let Some(pid) = level.iter().copied().find(is_one) {
            return Some(pid);
        }
        level = level.into_iter().flat_map(children).collect();
    }
    None
}

/// Living processes that were given this text in their environment or, when `wide`, in their arguments.
pub(crate) fn marked(needle: &str, wide: bool) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).unwrap();
    all()
        .into_iter()
        .filter(|pid| *pid != me && alive(*pid))
        .filter(|pid| holds(*pid, "environ", needle) || (wide && holds(*pid, "cmdline", needle)))
        .collect()
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    // What has gone meanwhile needs no signal.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}
