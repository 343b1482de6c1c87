//! One row a setting: its key in `supafly.toml`, its variable, its default and its meaning.

use super::Source;
use crate::spec::problem::Problem;
use std::collections::BTreeMap;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Key in `supafly.toml`.
    pub key: &'static str,
    /// Environment variable.
    pub variable: &'static str,
    /// As shown to people; computed defaults are described.
    pub default: &'static str,
    /// One line.
    pub meaning: &'static str,
}

const fn row(key: &'static str, variable: &'static str, default: &'static str, meaning: &'static str) -> Row {
    Row { key, variable, default, meaning }
}

/// Every setting, in the order in which `check` prints them.
pub const TABLE: &[Row] = &[
    row("services", "SUPAFLY_SERVICES", "/etc/supafly/services", "directory of service files"),
    row("data", "SUPAFLY_DATA", "/data", "the volume"),
    row("run", "SUPAFLY_RUN", "/run/supafly", "sockets and rendered configuration, rebuilt at every boot"),
    row("store", "SUPAFLY_STORE", "s3://$BUCKET_NAME/<project>, else none", "where WAL and backups go"),
    row("project", "SUPAFLY_PROJECT", "$FLY_APP_NAME, else local", "project name in owner objects"),
    row("takeover", "SUPAFLY_TAKEOVER", "never", "never, auto, or the epoch that may be taken over"),
    row(
        "mode",
        "SUPAFLY_MODE",
        "available",
        "when ownership cannot be confirmed: serve on, or strict: freeze",
    ),
    row("ttl", "SUPAFLY_TTL", "20s", "how long a confirmation of ownership holds"),
    row("stop_budget", "SUPAFLY_STOP_BUDGET", "9s, 4.5s on Fly", "how long the whole stop may take"),
    row("archive_timeout", "SUPAFLY_ARCHIVE_TIMEOUT", "60s", "how old unarchived WAL may become"),
    row("log", "SUPAFLY_LOG", "info", "log filter"),
    row("log_format", "SUPAFLY_LOG_FORMAT", "auto", "auto, json or text"),
    row(
        "pg_bin",
        "SUPAFLY_PG_BIN",
        "the newest below /usr/lib/postgresql",
        "directory of Postgres's programs",
    ),
    row("pg_port", "SUPAFLY_PG_PORT", "5432", "Postgres's port"),
    row("pg_listen", "SUPAFLY_PG_LISTEN", "*", "Postgres's listen_addresses"),
    row("pg_locale", "SUPAFLY_PG_LOCALE", "C.UTF-8", "locale of a new cluster"),
    row(
        "pg_sockets",
        "SUPAFLY_PG_SOCKETS",
        "/var/run/postgresql",
        "a further directory of Postgres's socket, where `psql` and `pg_isready` look by themselves, or off",
    ),
    row(
        "pg_settings",
        "SUPAFLY_PG_SETTINGS",
        "none",
        "server settings, one `name=value` a line; arguments of the image (`-c name=value`) come on top",
    ),
    row(
        "pg_initdb_args",
        "POSTGRES_INITDB_ARGS",
        "none",
        "locale, text search and size of WAL segments of a new cluster, as initdb's arguments",
    ),
    row(
        "adopt",
        "SUPAFLY_ADOPT",
        "ask",
        "a foreign cluster to adopt, by its directory; ask: one that is found is refused by its name; never: none is looked for",
    ),
    row("web_listen", "SUPAFLY_WEB_LISTEN", "[::]:8080", "address of the open health routes, or off"),
    row(
        "web_private",
        "SUPAFLY_WEB_PRIVATE",
        "127.0.0.1:9187",
        "address of status, metrics and page, or off; elsewhere than on loopback with a token",
    ),
    row(
        "web_metrics",
        "SUPAFLY_WEB_METRICS",
        "off",
        "address that gives /metrics alone and asks for no token, for scrapers that can show none; or off",
    ),
    row("walg", "SUPAFLY_WALG", "wal-g, else walrus, from PATH", "the backup engine"),
    row("postgrest", "SUPAFLY_POSTGREST", "postgrest from PATH", "PostgREST"),
    row(
        "postgrest_listen",
        "SUPAFLY_POSTGREST_LISTEN",
        "127.0.0.1",
        "PostgREST's address, or * for all; its admin port stays on loopback from version 13 on",
    ),
    row("postgrest_port", "SUPAFLY_POSTGREST_PORT", "3000", "PostgREST's port"),
    row(
        "postgrest_admin_port",
        "SUPAFLY_POSTGREST_ADMIN_PORT",
        "3001",
        "PostgREST's port for questions about itself",
    ),
    row(
        "postgrest_schemas",
        "SUPAFLY_POSTGREST_SCHEMAS",
        "public,graphql_public",
        "schemas that the API shows, the first one by default; all must be there",
    ),
    row(
        "postgrest_search_path",
        "SUPAFLY_POSTGREST_SEARCH_PATH",
        "public,extensions",
        "schemas that the API's statements find besides; all must be there",
    ),
    row("postgrest_max_rows", "SUPAFLY_POSTGREST_MAX_ROWS", "1000", "rows in one answer at most, or off"),
    row(
        "postgrest_pool",
        "SUPAFLY_POSTGREST_POOL",
        "auto",
        "PostgREST's connections; auto: a sixth of max_connections, 4 to 20",
    ),
    row("pgbouncer", "SUPAFLY_PGBOUNCER", "pgbouncer from PATH", "PgBouncer"),
    row(
        "supavisor",
        "SUPAFLY_SUPAVISOR",
        "supavisor from PATH",
        "Supavisor (`bin/supavisor` of its release)",
    ),
    row("pooler", "SUPAFLY_POOLER", "auto", "supavisor, pgbouncer or off; auto: the first that is installed"),
    row(
        "pooler_listen",
        "SUPAFLY_POOLER_LISTEN",
        "as pg_listen",
        "addresses of the pooler; Supavisor takes all of IPv4, and a packet filter shuts the rest",
    ),
    row("pooler_port", "SUPAFLY_POOLER_PORT", "6543", "the pooler's port for transaction mode"),
    row("pooler_session_port", "SUPAFLY_POOLER_SESSION_PORT", "6544", "the pooler's port for session mode"),
    row(
        "supavisor_ports",
        "SUPAFLY_SUPAVISOR_PORTS",
        "4000, 5412, 12100-12107",
        "ten ports that Supavisor opens for itself: its API, its proxy, eight inner ones",
    ),
    row(
        "auto_expose",
        "SUPAFLY_AUTO_EXPOSE",
        "off",
        "on: new tables in `public` are open to anon, authenticated and service_role; functions always are",
    ),
    row(
        "migrations",
        "SUPAFLY_MIGRATIONS",
        "none; /docker-entrypoint-initdb.d is read too",
        "directory of *.sql files, run once each in the order of their names",
    ),
];

/// A value somebody gave.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) value: String,
    source: Source,
    /// File name, text and byte range, for the caret.
    place: Option<(String, String, std::ops::Range<usize>)>,
}

impl Given {
    pub(super) fn problem(&self, key: &str, right: &str) -> Problem {
        match (&self.place, &self.source) {
            (Some((file, text, span)), _) => {
                Problem::at(file, text, span.clone(), format!("`{key}` should be {right}"))
            }
            (None, Source::Environment(name)) => {
                Problem::whole(name, format!("`{}` should be {right}", self.value.escape_debug()))
            }
            (None, Source::Default | Source::File { .. }) => {
                Problem::whole(key, format!("should be {right}"))
            }
        }
    }
}

/// What was given, by key.
#[derive(Debug)]
pub(super) struct Raw(BTreeMap<&'static str, Given>);

impl Raw {
    pub(super) fn get(&self, key: &str) -> Option<&Given> {
        self.0.get(key)
    }

    pub(super) fn sources(&self) -> BTreeMap<&'static str, Source> {
        TABLE
            .iter()
            .map(|row| (row.key, self.get(row.key).map_or(Source::Default, |g| g.source.clone())))
            .collect()
    }
}

pub(super) fn collect(
    file: Option<(&str, &str)>,
    env: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Raw {
    let mut raw = BTreeMap::new();
    if let Some((name, text)) = file {
        from_file(name, text, &mut raw, problems);
    }
    for row in TABLE {
        if let Some(value) = env.get(row.variable).filter(|v| !v.is_empty()) {
            let source = Source::Environment(row.variable.to_owned());
            raw.insert(row.key, Given { value: value.clone(), source, place: None });
        }
    }
    Raw(raw)
}

fn from_file(name: &str, text: &str, raw: &mut BTreeMap<&'static str, Given>, problems: &mut Vec<Problem>) {
    type Keys = BTreeMap<toml::Spanned<String>, toml::Spanned<toml::Value>>;
    let keys: Keys = match toml::from_str(text) {
        Ok(keys) => keys,
        Err(e) => {
            problems.push(Problem::at(name, text, e.span().unwrap_or(0..0), e.message()));
            return;
        }
    };
    for (key, value) in keys {
        let Some(row) = TABLE.iter().find(|row| row.key == key.get_ref().as_str()) else {
            let all: Vec<_> = TABLE.iter().map(|row| row.key).collect();
            let message = format!("unknown key `{}`; the keys are {}", key.get_ref(), all.join(", "));
            problems.push(Problem::at(name, text, key.span(), message));
            continue;
        };
        let span = value.span();
        let value = match value.into_inner() {
            toml::Value::String(s) => s,
            toml::Value::Integer(i) => i.to_string(),
            toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => {
                problems.push(Problem::at(
                    name,
                    text,
                    span,
                    format!("`{}` should be a text in quotes", row.key),
                ));
                continue;
            }
        };
        let line = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
        let source = Source::File { file: name.to_owned(), line };
        raw.insert(row.key, Given { value, source, place: Some((name.to_owned(), text.to_owned(), span)) });
    }
}
