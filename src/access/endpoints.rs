//! Where this boot's services are to be found. No secret is in it.

use crate::config::Settings;
use crate::exit::Failure;
use crate::pooler::{self, choice};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file's name in the run directory.
const FILE: &str = "endpoints.json";

/// A port, and the host by which it is reached from this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A pooler's two ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pooler {
    /// `pgbouncer` or `supavisor`.
    pub(super) program: String,
    pub(super) transaction: Endpoint,
    pub(super) session: Endpoint,
    /// What stands behind a user's name and a dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The volume, where the secrets are.
    pub(super) data: PathBuf,
    /// Nothing where Postgres has its Unix socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pooler: Option<Pooler>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rest: Option<Endpoint>,
}

impl Endpoints {
    /// As the settings say, with the programs that are installed.
    #[must_use]
    pub fn of(settings: &Settings) -> Endpoints {
        let at = |listen: &str, port| Endpoint { host: pooler::from_here(listen).to_owned(), port };
        let pooler = choice::chosen(settings).map(|chosen| {
            let (program, listen, tenant) = match chosen.kind {
                choice::Kind::PgBouncer => ("pgbouncer", settings.pooler_listen.as_str(), None),
                // It takes all of IPv4, whatever it is told.
                choice::Kind::Supavisor => ("supavisor", "*", Some(pooler::tenant(settings))),
            };
            Pooler {
                program: program.to_owned(),
                transaction: at(listen, settings.pooler_port),
                session: at(listen, settings.pooler_session_port),
                tenant,
            }
        });
        Endpoints {
            data: settings.data.clone(),
            database: (!settings.pg_listen.is_empty()).then(|| at(&settings.pg_listen, settings.pg_port)),
            pooler,
            rest: None,
        }
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(run: &Path) -> PathBuf {
        run.join(FILE)
    }

    /// What is written there.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// What this boot, or the one before it, has written.
    ///
    /// # Errors
    /// Nothing has booted with this run directory; or the file is damaged.
    pub fn read(run: &Path) -> Result<Endpoints, Failure> {
        let path = Endpoints::path(run);
        let text = std::fs::read(&path).map_err(|e| {
            Failure::gave_up(if e.kind() == std::io::ErrorKind::NotFound {
                format!(
                    "{}: not there: no machine has booted with this run directory (SUPAFLY_RUN names another)",
                    path.display()
                )
            } else {
                format!("{}: cannot be read: {e}", path.display())
            })
        })?;
        serde_json::from_slice(&text).map_err(|e| {
            Failure::gave_up(format!("{}: {e}; `supafly restart secrets` writes it anew", path.display()))
        })
    }

    /// Without the services of these names.
    #[must_use]
    pub fn without(mut self, absent: &[String]) -> Endpoints {
        let lacks = |name: &str| absent.iter().any(|a| a == name);
        if lacks("pooler") {
            self.pooler = None;
        }
        if lacks("postgrest") {
            self.rest = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(env: &[(&str, &str)]) -> Settings {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::read(None, &env).unwrap()
    }

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        let all = Endpoints::of(&settings(&[("SUPAFLY_POOLER", "off"), ("SUPAFLY_PG_PORT", "6000")]));
        assert_eq!(all.database, Some(Endpoint { host: "127.0.0.1".into(), port: 6000 }));
        assert_eq!(all.pooler, None);
        let one = Endpoints::of(&settings(&[("SUPAFLY_POOLER", "off"), ("SUPAFLY_PG_LISTEN", "10.1.2.3")]));
        assert_eq!(one.database.unwrap().host, "10.1.2.3");
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_absent_goes() {
        let dir = tempfile::tempdir().unwrap();
        let said = Endpoints::read(dir.path()).unwrap_err().message;
        assert!(said.contains("SUPAFLY_RUN"), "{said}");
        let mut all = Endpoints::of(&settings(&[("SUPAFLY_POOLER", "pgbouncer")]));
        all.rest = Some(Endpoint { host: "127.0.0.1".into(), port: 3000 });
        std::fs::write(Endpoints::path(dir.path()), all.text()).unwrap();
        let back = Endpoints::read(dir.path()).unwrap();
        assert_eq!(back, all);
        let less = back.without(&["pooler".to_owned(), "postgrest".to_owned()]);
        assert!(less.pooler.is_none() && less.rest.is_none() && less.database.is_some());
    }
}
