//! Where Postgres's programs are and which major they are of.
//!
//! The data directory fits one major only, so the answer is asked of a program and never guessed from a path: of
//! `pg_controldata`, which is built and installed together with `postgres` and answers in a tenth of the time (a server
//! loads some sixty libraries before it says its version, and every boot waits for the answer).

use crate::config::Settings;
use crate::exit::Failure;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where Debian's packages put each major.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Postgres's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    /// The directory that holds `postgres`, `initdb`, `pg_controldata`.
    pub directory: PathBuf,
    /// The major version of the programs in it.
    pub major: u32,
}

impl Bin {
    /// Those of `names` that are installed as loadable libraries: beside the programs, where Debian and a build from source
    /// put them.
    #[must_use]
    pub fn libraries(&self, names: &[&str]) -> Vec<String> {
        let beside = [self.directory.join("../lib"), self.directory.join("../lib/postgresql")];
        let there = |name: &&&str| beside.iter().any(|dir| dir.join(format!("{name}.so")).is_file());
        names.iter().filter(there).map(|name| (*name).to_owned()).collect()
    }

    /// The path of one of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Where the programs are: `SUPAFLY_PG_BIN`, else the newest major below `/usr/lib/postgresql`. Runs nothing, so that
/// whoever only hands the path on does not wait for it.
#[must_use]
pub fn directory(settings: &Settings) -> Option<PathBuf> {
    settings.pg_bin.clone().or_else(|| newest(Path::new(DEBIAN)))
}

/// Finds the programs: `SUPAFLY_PG_BIN`, else the newest major below `/usr/lib/postgresql`.
///
/// # Errors
/// 78 when there is none or it does not say its version. A server that is there and cannot run (a library that lacks) is found
/// by who starts it.
pub fn find(settings: &Settings) -> Result<Bin, Failure> {
    let directory = directory(settings).ok_or_else(|| {
        Failure::config(format!(
            "no Postgres below {DEBIAN}/<major>/bin: install it, or name its directory by SUPAFLY_PG_BIN"
        ))
    })?;
    let not_run = |program: &Path, why: &dyn std::fmt::Display| {
        Failure::config(format!(
            "{}: cannot be run: {why}; SUPAFLY_PG_BIN names its directory",
            program.display()
        ))
    };
    let server = directory.join("postgres");
    which::which(&server).map_err(|e| not_run(&server, &e))?;
    let program = directory.join("pg_controldata");
    let asked = Command::new(&program).arg("--version").stdin(Stdio::null()).env("LC_ALL", "C").output();
    let output = asked.map_err(|e| not_run(&program, &e))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let major = version(&said).ok_or_else(|| {
        Failure::config(format!("{} --version says `{}`: not Postgres's", program.display(), said.trim()))
    })?;
    Ok(Bin { directory, major })
}

fn newest(root: &Path) -> Option<PathBuf> {
    let majors = std::fs::read_dir(root).ok()?.filter_map(|e| {
        let major: u32 = e.ok()?.file_name().to_str()?.parse().ok()?;
        root.join(major.to_string()).join("bin/postgres").exists().then_some(major)
    });
    majors.max().map(|m| root.join(m.to_string()).join("bin"))
}

/// `pg_controldata (PostgreSQL) 15.18 (Debian 15.18-1.pgdg120+1)` → 15
fn version(text: &str) -> Option<u32> {
    let rest = text.strip_prefix("pg_controldata (PostgreSQL) ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_major_is_read_from_what_postgres_says() {
        assert_eq!(version("pg_controldata (PostgreSQL) 15.18 (Debian 15.18-1)\n"), Some(15));
        assert_eq!(version("pg_controldata (PostgreSQL) 19devel\n"), Some(19));
        assert_eq!(version("pg_controldata 15"), None);
    }
}
