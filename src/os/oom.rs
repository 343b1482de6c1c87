//! Was it the kernel's out-of-memory killer? A SIGKILL that nobody of us sent, together with a rise of `oom_kill` in
//! the cgroup's `memory.events`, is called by its name. Where there is no such file, nothing is claimed.

use std::path::PathBuf;

/// Watches the counter of our own cgroup.
#[derive(Debug)]
pub struct OomWatch {
    file: Option<PathBuf>,
    seen: u64,
}

impl OomWatch {
    /// Finds the cgroup and remembers its count.
    #[must_use]
    pub fn new() -> OomWatch {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut watch = OomWatch { file: None, seen: 0 };
        for file in counters(&cgroups) {
            watch.file = Some(file);
            if let Some(seen) = watch.count() {
                watch.seen = seen;
                return watch;
            }
        }
        OomWatch { file: None, seen: 0 }
    }

    fn count(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Whether the killer struck since we last asked.
    pub fn struck(&mut self) -> bool {
        let Some(now) = self.count() else { return false };
        let struck = now > self.seen;
        self.seen = now;
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
