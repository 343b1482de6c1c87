//! Where and with what it was measured.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Name and value, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(pub(crate) Vec<(String, String)>);

/// Programs whose versions are said, and how they are asked; Debian's packages are asked of dpkg.
const PACKAGES: &[&str] = &["s6", "runit", "supervisor", "tini", "postgresql-15", "pgbouncer"];

/// Programs that `make bench` names by a variable.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("Horust", "SUPAFLY_HORUST", &["--version"]),
    ("PostgREST", "SUPAFLY_POSTGREST", &["--version"]),
    ("versitygw", "SUPAFLY_VERSITYGW", &["--version"]),
    ("backup engine", "SUPAFLY_WALG", &["--version"]),
];

impl Facts {
    pub(crate) fn gather() -> Facts {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("?", |(_, v)| v.trim()).to_owned()
        };
        let mut facts = Vec::new();
        let mut say = |name: &str, value: String| facts.push((name.to_owned(), value));
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        say("processor", format!("{} × {cpus}", field(&read("/proc/cpuinfo"), "model name")));
        say("memory", field(&read("/proc/meminfo"), "MemTotal"));
        say("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned());
        say("system", os_name(&read("/etc/os-release")));
        say("commit", commit());
        say("compiler", output("rustc", &["--version"]));
        say("date", jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
        say("load when it began", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "));
        for package in PACKAGES {
            say(package, output("dpkg-query", &["-W", "-f=${Version}", package]));
        }
        for (name, variable, arguments) in PROGRAMS {
            let program = supafly::facts::environment().remove(*variable).unwrap_or_default();
            say(name, if program.is_empty() { "–".to_owned() } else { output(&program, arguments) });
        }
        Facts(facts)
    }

    pub(crate) fn say(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }
}

fn os_name(release: &str) -> String {
    let line = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("?").trim_matches('"').to_owned()
}

/// The commit, and whether the tree has changes that are in no commit. The report itself is no such change.
fn commit() -> String {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let changes = output("git", &["status", "--porcelain", "--", ":!docs/benchmarks.*"]);
    if matches!(changes.as_str(), "" | "–") {
        commit
    } else {
        format!("{commit}, and changes that are in no commit")
    }
}

/// What a program prints, on one line; `–` when it cannot be asked.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match out {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().replace('\n', " "),
        Ok(_) | Err(_) => "–".to_owned(),
    }
}
