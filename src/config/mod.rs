//! The settings: one typed struct, read once, from built-in defaults, then `supafly.toml`, then the environment.
//!
//! Pure: the environment and the file's text are arguments (`facts.rs` is the only reader of the real ones). Every
//! setting has one row in [`TABLE`], which is also what `supafly check` prints and what the documentation is made from.
//! All problems are reported at once.

mod initdb;
mod page;
mod rest;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod variables;

pub use initdb::InitdbArgs;
pub use page::markdown;
pub use rest::Rest;
pub use server::ServerSettings;
pub use table::{Row, TABLE};
pub use values::{
    Adopt, Listen, LogFormat, Mode, Pooler, Secret, Source, StoreUrl, SupavisorPorts, Takeover, UNRESERVED,
};
pub use variables::{Fate, VARIABLES, fates};

use crate::spec::duration;
use crate::spec::problem::{Problem, Problems};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use values::{
    absolute, parse_adopt, parse_listen, parse_off_or_path, parse_store, parse_supavisor_ports, parse_switch,
    parse_takeover,
};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented by its row in TABLE")]
pub struct Settings {
    pub services: PathBuf,
    pub data: PathBuf,
    pub run: PathBuf,
    pub store: StoreUrl,
    pub project: String,
    pub takeover: Takeover,
    pub mode: Mode,
    pub ttl: Duration,
    pub stop_budget: Duration,
    pub archive_timeout: Duration,
    pub log: String,
    pub log_format: LogFormat,
    pub pg_bin: Option<PathBuf>,
    pub pg_port: u16,
    pub pg_listen: String,
    pub pg_locale: String,
    /// A further directory of the socket; none: off.
    pub pg_sockets: Option<PathBuf>,
    pub pg_settings: ServerSettings,
    pub pg_initdb_args: InitdbArgs,
    pub adopt: Adopt,
    pub web_listen: Listen,
    pub web_private: Listen,
    pub web_metrics: Listen,
    pub walg: Option<PathBuf>,
    pub postgrest: Option<PathBuf>,
    pub rest: Rest,
    pub pgbouncer: Option<PathBuf>,
    pub supavisor: Option<PathBuf>,
    pub pooler: Pooler,
    pub pooler_listen: String,
    pub pooler_port: u16,
    pub pooler_session_port: u16,
    pub supavisor_ports: SupavisorPorts,
    pub auto_expose: bool,
    pub migrations: Option<PathBuf>,
    /// `FLY_MACHINE_ID`: we are on a Fly Machine.
    pub machine: Option<String>,
    /// Where each value came from, by key.
    pub sources: BTreeMap<&'static str, Source>,
}

impl Settings {
    /// Reads the settings from a file's text (name and text) and the environment.
    ///
    /// # Errors
    /// Every problem at once: unknown keys and values that cannot be, with their place.
    pub fn read(file: Option<(&str, &str)>, env: &BTreeMap<String, String>) -> Result<Settings, Problems> {
        let mut problems = Vec::new();
        let raw = table::collect(file, env, &mut problems);
        let settings = Settings::from_raw(&raw, env, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }

    fn from_raw(raw: &table::Raw, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Settings {
        let mut get = Getter { raw, problems };
        let on = |name: &str| env.get(name).filter(|v| !v.is_empty()).cloned();
        let machine = on("FLY_MACHINE_ID");
        let project_default = on("FLY_APP_NAME").unwrap_or_else(|| "local".to_owned());
        let project = get.text("project", &project_default, |s| {
            let fits = !s.is_empty()
                && s.len() <= 63
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if fits { Ok(s.to_owned()) } else { Err("1 to 63 letters, digits, '-', '_' or '.'".to_owned()) }
        });
        let port =
            |s: &str| s.parse().ok().filter(|p| *p != 0).ok_or_else(|| "a port from 1 to 65535".to_owned());
        let pg_listen = get.text("pg_listen", "*", |s| Ok(s.to_owned()));
        let store_default = on("BUCKET_NAME").map_or_else(String::new, |b| format!("s3://{b}/{project}"));
        Settings {
            services: get.path("services"),
            data: get.path("data"),
            run: get.path("run"),
            store: get.text("store", &store_default, parse_store),
            takeover: get.text("takeover", "never", parse_takeover),
            mode: get.text("mode", "available", |s| match s {
                "available" => Ok(Mode::Available),
                "strict" => Ok(Mode::Strict),
                _ => Err("`available` or `strict`".to_owned()),
            }),
            ttl: get.duration("ttl", "20s"),
            stop_budget: get.duration("stop_budget", if machine.is_some() { "4.5s" } else { "9s" }),
            archive_timeout: get.duration("archive_timeout", "60s"),
            log: get.text("log", "info", |s| Ok(s.to_owned())),
            log_format: get.text("log_format", "auto", |s| match s {
                "auto" => Ok(LogFormat::Auto),
                "json" => Ok(LogFormat::Json),
                "text" => Ok(LogFormat::Text),
                _ => Err("`auto`, `json` or `text`".to_owned()),
            }),
            pg_bin: get.optional("pg_bin"),
            pg_port: get.text("pg_port", "5432", port),
            pooler: get.text("pooler", "auto", |s| match s {
                "auto" => Ok(Pooler::Auto),
                "supavisor" => Ok(Pooler::Supavisor),
                "pgbouncer" => Ok(Pooler::PgBouncer),
                "off" => Ok(Pooler::Off),
                _ => Err("`auto`, `supavisor`, `pgbouncer` or `off`".to_owned()),
            }),
            pooler_listen: get.text("pooler_listen", &pg_listen, |s| Ok(s.to_owned())),
            pooler_port: get.text("pooler_port", "6543", port),
            pooler_session_port: get.text("pooler_session_port", "6544", port),
            supavisor_ports: get.text(
                "supavisor_ports",
                get.default("supavisor_ports"),
                parse_supavisor_ports,
            ),
            pg_listen,
            pg_locale: get.text("pg_locale", "C.UTF-8", |s| Ok(s.to_owned())),
            pg_sockets: get.text("pg_sockets", get.default("pg_sockets"), parse_off_or_path),
            pg_settings: get.text("pg_settings", "", ServerSettings::from_text),
            pg_initdb_args: get.text("pg_initdb_args", "", InitdbArgs::from_text),
            adopt: get.text("adopt", "ask", parse_adopt),
            web_listen: get.text("web_listen", get.default("web_listen"), parse_listen),
            web_private: get.text("web_private", get.default("web_private"), parse_listen),
            web_metrics: get.text("web_metrics", get.default("web_metrics"), parse_listen),
            walg: get.optional("walg"),
            postgrest: get.optional("postgrest"),
            rest: Rest::read(&mut get),
            pgbouncer: get.optional("pgbouncer"),
            supavisor: get.optional("supavisor"),
            auto_expose: get.text("auto_expose", "off", parse_switch),
            migrations: get.optional("migrations"),
            project,
            machine,
            sources: raw.sources(),
        }
    }

    /// What two settings say against each other. A volume that has its cluster needs neither any more, so it still starts with
    /// both; `auto` takes nothing where there is no owner, and whether there is one `claim` sees.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        match (&self.adopt, self.takeover, &self.store) {
            (Adopt::Path(path), Takeover::Epoch(epoch), StoreUrl::S3 { .. } | StoreUrl::File { .. }) => {
                Some(format!(
                    "SUPAFLY_ADOPT={} and SUPAFLY_TAKEOVER={epoch} contradict each other: a new volume holds either that cluster or \
                     what is archived in {}. Take SUPAFLY_ADOPT away to restore what is archived, or SUPAFLY_TAKEOVER to adopt \
                     the cluster, with an empty SUPAFLY_STORE",
                    path.display(),
                    self.store
                ))
            }
            (Adopt::Path(_), Takeover::Never | Takeover::Auto, _)
            | (Adopt::Path(_), Takeover::Epoch(_), StoreUrl::None)
            | (Adopt::Ask | Adopt::Never, _, _) => None,
        }
    }

    /// `<data>/pgdata`
    #[must_use]
    pub fn pgdata(&self) -> PathBuf {
        self.data.join("pgdata")
    }

    /// `<data>/supafly`
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.data.join("supafly")
    }

    /// The file with the store's credentials, one `NAME=value` a line, made by `secrets` for `supafly`.
    #[must_use]
    pub fn store_credentials(&self) -> PathBuf {
        self.own().join("secrets").join("store")
    }

    /// A file of `secrets` by its name.
    #[must_use]
    pub fn secret(&self, name: &str) -> PathBuf {
        self.own().join("secrets").join(name)
    }

    /// The token that the private routes of `web` ask for, made by `secrets` for `supafly-web`.
    #[must_use]
    pub fn web_token(&self) -> PathBuf {
        self.own().join("secrets").join("web-token")
    }

    /// The pooler's secrets, a JSON object, made by `secrets` for `supafly-pool`.
    #[must_use]
    pub fn pooler_secrets(&self) -> PathBuf {
        self.secret("pooler.json")
    }

    /// The pooler's rendered configuration and its Unix socket, for its own user alone.
    #[must_use]
    pub fn pooler_dir(&self) -> PathBuf {
        self.run.join("pooler")
    }

    /// Keeper's socket, in a directory that only keeper may write and only Postgres's group may enter.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.run.join("keeper").join("keeper.sock")
    }

    /// PostgREST's rendered configuration, made by `secrets` for its user alone.
    #[must_use]
    pub fn rest_dir(&self) -> PathBuf {
        self.run.join("postgrest")
    }

    /// Directory of Postgres's Unix socket.
    #[must_use]
    pub fn pg_socket_dir(&self) -> PathBuf {
        self.run.join("postgres")
    }
}

struct Getter<'a> {
    raw: &'a table::Raw,
    problems: &'a mut Vec<Problem>,
}

impl Getter<'_> {
    fn text<T>(&mut self, key: &'static str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> T
    where
        T: FromDefault,
    {
        let given = self.raw.get(key);
        let (value, problem) = given.map_or((default, None), |g| (g.value.as_str(), Some(g)));
        parse(value).unwrap_or_else(|right| {
            if let Some(given) = problem {
                self.problems.push(given.problem(key, &right));
            }
            parse(default).unwrap_or_else(|_| T::from_default())
        })
    }

    fn duration(&mut self, key: &'static str, default: &str) -> Duration {
        self.text(key, default, |s| {
            duration::parse(s).ok_or_else(|| "a duration such as 500ms, 9s or 2m".to_owned())
        })
    }

    /// As the table shows it: for settings whose default is not computed.
    fn default(&self, key: &'static str) -> &'static str {
        TABLE.iter().find(|row| row.key == key).map_or("", |row| row.default)
    }

    fn path(&mut self, key: &'static str) -> PathBuf {
        self.text(key, self.default(key), absolute)
    }

    fn optional(&mut self, key: &'static str) -> Option<PathBuf> {
        self.raw.get(key)?;
        Some(self.text(key, "/", absolute))
    }
}

/// What stands in for a value that could not be read; never seen, because the problem is reported instead.
trait FromDefault {
    fn from_default() -> Self;
}
macro_rules! from_default {
    ($($t:ty => $e:expr),* $(,)?) => { $(impl FromDefault for $t { fn from_default() -> Self { $e } })* };
}
from_default! {
    String => String::new(), PathBuf => PathBuf::new(), StoreUrl => StoreUrl::None, Takeover => Takeover::Never,
    Mode => Mode::Available, Duration => Duration::from_secs(1), LogFormat => LogFormat::Auto, u16 => 0,
    Listen => Listen::Off, bool => false, Pooler => Pooler::Off, Vec<String> => Vec::new(), Option<u32> => None,
    SupavisorPorts => SupavisorPorts::default(), Option<PathBuf> => None, Adopt => Adopt::Ask,
    ServerSettings => ServerSettings::default(), InitdbArgs => InitdbArgs::default(),
}

impl Settings {
    /// Every setting that holds a value, as text, in the order of [`TABLE`]. No secret is a setting.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let mode = match self.mode {
            Mode::Available => "available",
            Mode::Strict => "strict",
        };
        let pooler = match self.pooler {
            Pooler::Auto => "auto",
            Pooler::Supavisor => "supavisor",
            Pooler::PgBouncer => "pgbouncer",
            Pooler::Off => "off",
        };
        let format = match self.log_format {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        };
        let first = [
            ("services", self.services.display().to_string()),
            ("data", self.data.display().to_string()),
            ("run", self.run.display().to_string()),
            ("store", self.store.to_string()),
            ("project", self.project.clone()),
            ("takeover", self.takeover.to_string()),
            ("mode", mode.to_owned()),
            ("ttl", duration::show(self.ttl)),
            ("stop_budget", duration::show(self.stop_budget)),
            ("archive_timeout", duration::show(self.archive_timeout)),
            ("log", self.log.clone()),
            ("log_format", format.to_owned()),
            ("pg_bin", path(&self.pg_bin)),
            ("pg_port", self.pg_port.to_string()),
            ("pg_listen", self.pg_listen.clone()),
            ("pg_locale", self.pg_locale.clone()),
            (
                "pg_sockets",
                self.pg_sockets.as_ref().map_or_else(|| "off".to_owned(), |p| p.display().to_string()),
            ),
            ("pg_settings", self.pg_settings.to_string()),
            ("pg_initdb_args", self.pg_initdb_args.to_string()),
            ("adopt", self.adopt.to_string()),
            ("web_listen", self.web_listen.to_string()),
            ("web_private", self.web_private.to_string()),
            ("web_metrics", self.web_metrics.to_string()),
            ("walg", path(&self.walg)),
            ("postgrest", path(&self.postgrest)),
        ];
        let last = [
            ("pgbouncer", path(&self.pgbouncer)),
            ("supavisor", path(&self.supavisor)),
            ("pooler", pooler.to_owned()),
            ("pooler_listen", self.pooler_listen.clone()),
            ("pooler_port", self.pooler_port.to_string()),
            ("pooler_session_port", self.pooler_session_port.to_string()),
            ("supavisor_ports", self.supavisor_ports.to_string()),
            ("auto_expose", if self.auto_expose { "on" } else { "off" }.to_owned()),
            ("migrations", path(&self.migrations)),
        ];
        first.into_iter().chain(self.rest.shown()).chain(last)
    }
}
