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
        let path = cgroups.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
        let file = PathBuf::from(format!("/sys/fs/cgroup{path}/memory.events"));
        let mut watch = OomWatch { file: Some(file), seen: 0 };
        match watch.count() {
            Some(seen) => watch.seen = seen,
            None => watch.file = None,
        }
        watch
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
