//! Was it the kernel's out-of-memory killer? A SIGKILL that nobody of us sent, together with a rise of `oom_kill` in
//! the cgroup's `memory.events`, is called by its name. Where there is no such file, nothing is claimed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Watches the counter of our own cgroup.
#[derive(Debug)]
pub struct OomWatch {
    file: Option<PathBuf>,
    seen: u64,
    /// Kills that nobody was named for yet, and until when they count.
    left: u64,
    until: Option<Instant>,
}

/// How long after a rise of the counter an end may still belong to it: more than one may have died of one want.
const TOGETHER: Duration = Duration::from_secs(2);

impl OomWatch {
    /// Finds the cgroup and remembers its count.
    #[must_use]
    pub fn new() -> OomWatch {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut watch = OomWatch { file: None, seen: 0, left: 0, until: None };
        for file in counters(&cgroups) {
            watch.file = Some(file);
            if let Some(seen) = watch.count() {
                watch.seen = seen;
                return watch;
            }
        }
        OomWatch { file: None, seen: 0, left: 0, until: None }
    }

    fn count(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Whether the killer struck once more than we asked.
    pub fn struck(&mut self, now: Instant) -> bool {
        let Some(count) = self.count() else { return false };
        if count > self.seen {
            self.left = count - self.seen;
            self.until = Some(now + TOGETHER);
            self.seen = count;
        }
        let struck = self.left > 0 && self.until.is_some_and(|until| now <= until);
        self.left = self.left.saturating_sub(1);
        struck
    }
}

impl Default for OomWatch {
    fn default() -> OomWatch {
        OomWatch::new()
    }
}

/// Where the counter may be, from the text of `/proc/self/cgroup`: version 2 says it in `memory.events`, for the whole
/// tree below; version 1 in `memory.oom_control`, for this cgroup alone (Documentation/admin-guide/cgroup-v1/memory.rst).
fn counters(cgroups: &str) -> Vec<PathBuf> {
    let two = cgroups.lines().find_map(|l| l.strip_prefix("0::"));
    let one = cgroups.lines().find_map(|l| {
        let (controllers, path) = l.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|c| c == "memory").then_some(path)
    });
    // In a container the root of its own cgroup may be mounted, whatever path the kernel names.
    let two =
        two.into_iter().flat_map(|path| [path, "/"]).map(|p| format!("/sys/fs/cgroup{p}/memory.events"));
    let one = one.into_iter().flat_map(|path| [path, "/"]);
    let one = one.map(|p| format!("/sys/fs/cgroup/memory{p}/memory.oom_control"));
    two.chain(one).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_died_of_one_want_are_both_named_and_a_later_end_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let write = |n: u64| std::fs::write(&file, format!("low 0\noom_kill {n}\n")).unwrap();
        write(3);
        let mut watch = OomWatch { file: Some(file.clone()), seen: 3, left: 0, until: None };
        let now = Instant::now();
        assert!(!watch.struck(now));
        write(5);
        assert!(watch.struck(now) && watch.struck(now) && !watch.struck(now));
        write(7);
        assert!(watch.struck(now) && !watch.struck(now + Duration::from_secs(60)));
    }

    #[test]
    fn the_counter_is_looked_for_where_either_version_has_it() {
        let both = counters("12:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/docker/abc\n");
        let texts: Vec<_> = both.iter().map(|p| p.display().to_string()).collect();
        assert_eq!(
            texts,
            [
                "/sys/fs/cgroup/docker/abc/memory.events",
                "/sys/fs/cgroup//memory.events",
                "/sys/fs/cgroup/memory/docker/abc/memory.oom_control",
                "/sys/fs/cgroup/memory//memory.oom_control"
            ]
        );
        assert!(counters("").is_empty());
    }
}
