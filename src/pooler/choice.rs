//! Which pooler runs, and where its program is.

use crate::config::{Pooler, Settings};
use std::path::{Path, PathBuf};

/// A pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Supavisor: both ports are one process's.
    Supavisor,
    /// PgBouncer: one process a port.
    PgBouncer,
}

/// The pooler that the settings ask for, and its program: a path where it is installed, else its bare name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
}

/// Where Debian puts PgBouncer; no ordinary user has it in PATH.
const SYSTEM: &[&str] = &["/usr/local/sbin", "/usr/sbin"];

/// Where this one is, chosen or not; `None` where it is not installed.
#[must_use]
pub fn installed(settings: &Settings, kind: Kind) -> Option<PathBuf> {
    match kind {
        Kind::Supavisor => find(settings.supavisor.as_ref(), "supavisor"),
        Kind::PgBouncer => find(settings.pgbouncer.as_ref(), "pgbouncer"),
    }
}

fn find(given: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    if let Some(path) = given {
        return which::which(path).ok();
    }
    let beside = || SYSTEM.iter().find_map(|dir| which::which(Path::new(dir).join(name)).ok());
    which::which(name).ok().or_else(beside)
}

/// The choice; `None` when no pooler is wanted or, left to us, none is installed.
#[must_use]
pub fn chosen(settings: &Settings) -> Option<Chosen> {
    let supavisor = || installed(settings, Kind::Supavisor);
    let pgbouncer = || installed(settings, Kind::PgBouncer);
    // Asked for by name and not there: the name is what the status will say is missing.
    let named = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| name.into());
    let of = |kind, program| Chosen { kind, program };
    match settings.pooler {
        Pooler::Off => None,
        Pooler::Supavisor => {
            let program = supavisor().unwrap_or_else(|| named(&settings.supavisor, "supavisor"));
            Some(of(Kind::Supavisor, program))
        }
        Pooler::PgBouncer => {
            let program = pgbouncer().unwrap_or_else(|| named(&settings.pgbouncer, "pgbouncer"));
            Some(of(Kind::PgBouncer, program))
        }
        Pooler::Auto => supavisor()
            .map(|program| of(Kind::Supavisor, program))
            .or_else(|| pgbouncer().map(|program| of(Kind::PgBouncer, program))),
    }
}

/// What service files may name: `${pooler_program}`, and `${pooler_session_program}` where the session port is a process
/// of its own; empty where there is none.
#[must_use]
pub fn variables(settings: &Settings) -> [(String, String); 2] {
    let chosen = chosen(settings);
    let program = |wanted: bool| {
        let program = chosen.as_ref().filter(|_| wanted).map(|c| c.program.display().to_string());
        program.unwrap_or_default()
    };
    let apart = chosen.as_ref().is_some_and(|c| c.kind == Kind::PgBouncer);
    [("pooler_program".to_owned(), program(true)), ("pooler_session_program".to_owned(), program(apart))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read(None, &env).unwrap()
    }

    #[test]
    fn supavisor_goes_first_and_only_pgbouncer_has_a_process_for_the_session_port() {
        let both = [("SUPAFLY_SUPAVISOR", "/bin/sh"), ("SUPAFLY_PGBOUNCER", "/bin/ls")];
        let auto = chosen(&settings(&both)).unwrap();
        assert_eq!((auto.kind, auto.program), (Kind::Supavisor, "/bin/sh".into()));
        assert_eq!(variables(&settings(&both)).map(|v| v.1), ["/bin/sh", ""]);
        let only = [("SUPAFLY_SUPAVISOR", "/nowhere"), ("SUPAFLY_PGBOUNCER", "/bin/ls")];
        assert_eq!(variables(&settings(&only)).map(|v| v.1), ["/bin/ls", "/bin/ls"]);
    }

    #[test]
    fn what_is_asked_for_by_name_is_named_when_it_is_missing_and_off_is_off() {
        let named = [("SUPAFLY_POOLER", "supavisor"), ("SUPAFLY_SUPAVISOR", "/nowhere")];
        assert_eq!(variables(&settings(&named)).map(|v| v.1), ["/nowhere", ""]);
        let off = [("SUPAFLY_POOLER", "off"), ("SUPAFLY_PGBOUNCER", "/bin/ls")];
        assert_eq!(chosen(&settings(&off)), None);
        assert_eq!(variables(&settings(&off)).map(|v| v.1), ["", ""]);
    }
}
