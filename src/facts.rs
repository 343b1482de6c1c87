//! The only reader of the environment, `/proc`, cgroups and Fly's metadata: turns the world into plain data.

use crate::config::Settings;
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::path::Path;

/// Where `supafly.toml` is looked for when `--config` does not say.
const CONFIG: &str = "/etc/supafly/supafly.toml";

/// The environment as text; what is not UTF-8 is left out (no setting can be).
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Reads the settings from `--config` (else `SUPAFLY_CONFIG`, else `/etc/supafly/supafly.toml` when there) and the environment.
///
/// # Errors
/// 78 with every problem at once.
pub fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    let env = environment();
    let named = config.map(Path::to_path_buf).or_else(|| env.get("SUPAFLY_CONFIG").map(Into::into));
    let path = named.clone().unwrap_or_else(|| CONFIG.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => None,
        Err(e) => return Err(Failure::config(format!("{}: cannot be read: {e}", path.display()))),
    };
    let name = path.display().to_string();
    Settings::read(text.as_deref().map(|t| (name.as_str(), t)), &env)
        .map_err(|p| Failure::config(p.to_string()))
}

/// Memory that this machine or container may use, in bytes: the smallest of the cgroup limits and the machine's own.
/// (Fly sets no cgroup limit; there the machine is the limit.)
#[must_use]
pub fn memory() -> u64 {
    let limit = |path: &str| {
        std::fs::read_to_string(path).ok().and_then(|s| s.trim().parse::<u64>().ok()).filter(|n| *n > 0)
    };
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|s| {
            let line = s.lines().find(|l| l.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib * 1024);
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .filter_map(limit)
        .fold(machine, u64::min)
}

/// Processors that we may use.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
