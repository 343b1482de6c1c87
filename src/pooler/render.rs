//! PgBouncer's configuration, from facts. Pure.

use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// One pooler process serves one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A server connection for the length of a transaction.
    Transaction,
    /// One for as long as the client stays.
    Session,
}

impl Mode {
    /// As PgBouncer writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Transaction => "transaction",
            Mode::Session => "session",
        }
    }
}

/// PgBouncer's version: several keys are fatal to those that do not know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// From what `pgbouncer --version` says (`PgBouncer 1.18.0`).
    #[must_use]
    pub fn said(text: &str) -> Option<Version> {
        let word = text.lines().next()?.strip_prefix("PgBouncer ")?.split_whitespace().next()?;
        let mut numbers = word
            .split(['.', '-', '_'])
            .map(|n| n.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Version(major, minor, numbers.next().flatten().unwrap_or(0)))
    }

    /// Whether anybody may log in as anybody (CVE-2026-107350, 1.17.0 to 1.26.0). A distribution may have mended its own
    /// build, which the number does not say.
    #[must_use]
    pub fn open_to_all(self) -> bool {
        (Version(1, 17, 0)..Version(1, 26, 1)).contains(&self)
    }
}

/// How many connections: to Postgres in all and a pool, and of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Server connections of one user to one database.
    pub pool: u64,
    /// Server connections to one database.
    pub database: u64,
    /// Clients.
    pub clients: u64,
}

/// From the memory, as Postgres's own `max_connections` is: at most two fifths of them for transactions and one fifth for
/// sessions, so that PostgREST and direct connections keep the rest.
#[must_use]
pub fn sizes(memory: u64, mode: Mode) -> Sizes {
    let connections = (memory / (10 * MIB)).clamp(60, 200);
    let clients = (memory / (2 * MIB)).clamp(200, 2000);
    match mode {
        Mode::Transaction => {
            let database = connections * 2 / 5;
            Sizes { pool: (connections / 8).clamp(8, 25).min(database), database, clients }
        }
        Mode::Session => {
            let database = connections / 5;
            Sizes { pool: database, database, clients: clients.min(database * 10) }
        }
    }
}

/// Everything that the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of the program.
    pub version: Version,
    /// Which of the two it is.
    pub mode: Mode,
    /// Addresses, as Postgres writes them.
    pub listen: String,
    /// Its port.
    pub port: u16,
    /// Directory of its own socket and files.
    pub own: PathBuf,
    /// The rendered list of users.
    pub users: PathBuf,
    /// Postgres's address, or the directory of its socket.
    pub postgres: String,
    /// Postgres's port.
    pub pg_port: u16,
    /// See [`sizes`].
    pub sizes: Sizes,
}

/// A comment must have a line of its own: PgBouncer takes a later `;` for a part of the value.
#[must_use]
pub fn ini(facts: &Facts) -> String {
    let Facts { version, sizes, .. } = facts;
    let mut lines = vec![
        "; Rendered at every start by `supafly pooler`: changes here are lost.".to_owned(),
        "[databases]".to_owned(),
    ];
    let auth = if *version >= Version(1, 19, 0) { " auth_dbname=postgres" } else { "" };
    lines.push(format!("* = host={} port={}{auth}", facts.postgres, facts.pg_port));
    lines.push("[pgbouncer]".to_owned());
    let mut set = |key: &str, value: &str| lines.push(format!("{key} = {value}"));
    set("listen_addr", &facts.listen);
    set("listen_port", &facts.port.to_string());
    set("unix_socket_dir", &facts.own.display().to_string());
    set("unix_socket_mode", "0700");
    set("auth_type", "scram-sha-256");
    set("auth_file", &facts.users.display().to_string());
    set("auth_user", "pgbouncer");
    set("auth_query", "SELECT username, password FROM pgbouncer.get_auth($1)");
    // No admin_users: the console is for whoever comes over the socket with this process's own uid, and nobody else.
    set("pool_mode", facts.mode.word());
    set("default_pool_size", &sizes.pool.to_string());
    set("max_db_connections", &sizes.database.to_string());
    set("max_client_conn", &sizes.clients.to_string());
    // The default of 15 s goes on failing clients long after Postgres is back.
    set("server_login_retry", "0.3");
    set("server_connect_timeout", "5");
    // How long clients wait while Postgres is away, in a query or in their login.
    set("query_wait_timeout", "60");
    set("client_login_timeout", "60");
    // `options` must be among them: without it a client can stop older versions (CVE-2026-107349).
    set("ignore_startup_parameters", "extra_float_digits,options");
    set("server_reset_query_always", "0");
    set("tcp_keepidle", "30");
    set("tcp_keepintvl", "10");
    set("tcp_keepcnt", "3");
    if *version >= Version(1, 21, 0) && facts.mode == Mode::Transaction {
        set("max_prepared_statements", "200");
    }
    // One line a connection would be one for each of our own questions, too. Refused logins are still said.
    set("log_connections", "0");
    set("log_disconnections", "0");
    set("log_stats", "0");
    set("logfile", "");
    set("pidfile", "");
    lines.push(String::new());
    lines.join("\n")
}

/// The list of users: one, whose password the pooler needs to ask Postgres for everybody else's.
#[must_use]
pub fn users(password: &str) -> String {
    format!("\"pgbouncer\" \"{}\"\n", password.replace('"', "\"\""))
}

/// What PgBouncer cannot read in its file.
#[must_use]
pub fn unfit(text: &str) -> bool {
    text.is_empty() || text.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: Version, mode: Mode) -> Facts {
        Facts {
            version,
            mode,
            listen: "*".to_owned(),
            port: 6543,
            own: "/run/supafly/pooler".into(),
            users: "/run/supafly/pooler/users".into(),
            postgres: "127.0.0.1".to_owned(),
            pg_port: 5432,
            sizes: sizes(1 << 30, mode),
        }
    }

    #[test]
    fn an_old_version_gets_no_key_that_is_fatal_to_it() {
        let old = ini(&facts(Version(1, 18, 0), Mode::Transaction));
        assert!(!old.contains("auth_dbname") && !old.contains("max_prepared_statements"), "{old}");
        let new = ini(&facts(Version(1, 26, 1), Mode::Transaction));
        assert!(new.contains(" auth_dbname=postgres\n") && new.contains("\nmax_prepared_statements = 200\n"));
        let session = ini(&facts(Version(1, 26, 1), Mode::Session));
        assert!(session.contains("\npool_mode = session\n") && !session.contains("prepared"));
        for text in [old, new, session] {
            assert!(!text.contains("admin_users") && text.contains("extra_float_digits,options"));
            assert!(text.lines().all(|l| l.starts_with(';') || !l.contains(';')), "{text}");
        }
    }

    #[test]
    fn versions_are_read_as_they_are_said() {
        let said = |s: &str| Version::said(s);
        assert_eq!(said("PgBouncer 1.18.0\nlibevent 2.1.12-stable"), Some(Version(1, 18, 0)));
        assert_eq!(said("PgBouncer 1.26.1"), Some(Version(1, 26, 1)));
        assert_eq!(said("PgBouncer 1.25dev"), Some(Version(1, 25, 0)));
        assert_eq!(said("postgres (PostgreSQL) 15"), None);
        assert!(Version(1, 18, 0).open_to_all() && Version(1, 26, 0).open_to_all());
        assert!(!Version(1, 26, 1).open_to_all() && !Version(1, 16, 1).open_to_all());
    }

    #[test]
    fn both_modes_together_leave_connections_for_the_others_at_every_size() {
        for megabytes in [128, 256, 512, 1024, 2048, 65_536_u64] {
            let connections = (megabytes / 10).clamp(60, 200);
            let (t, s) = (sizes(megabytes * MIB, Mode::Transaction), sizes(megabytes * MIB, Mode::Session));
            assert!(t.database + s.database <= connections - 20, "{megabytes}: {t:?} {s:?}");
            assert!(t.pool <= t.database && t.clients > t.database && s.clients > s.database);
        }
    }

    #[test]
    fn a_password_cannot_leave_its_quotes() {
        assert_eq!(users("a\"b"), "\"pgbouncer\" \"a\"\"b\"\n");
        assert!(unfit("/run/a b") && unfit("x\ny") && unfit("") && !unfit("/run/supafly"));
    }
}
