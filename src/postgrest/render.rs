//! PostgREST's configuration, from facts. Pure.

use crate::config::{Secret, UNRESERVED};
use percent_encoding::utf8_percent_encode;

const MIB: u64 = 1 << 20;

/// PostgREST's version: keys come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// From what `postgrest --version` says (`PostgREST 12.0.2`, `PostgREST 14.17 (3f2a9c1)`).
    #[must_use]
    pub fn said(text: &str) -> Option<Version> {
        let word = text.lines().next()?.strip_prefix("PostgREST ")?.split_whitespace().next()?;
        let mut numbers = word
            .split(['.', '-'])
            .map(|n| n.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Version(next()?, next().unwrap_or(0), next().unwrap_or(0)))
    }

    /// The oldest whose claims our database functions read, and that takes our keys.
    #[must_use]
    pub fn is_known(self) -> bool {
        self >= Version(12, 0, 0)
    }

    /// Whether its admin port has an address of its own; before, it is where the API is.
    #[must_use]
    pub fn has_admin_host(self) -> bool {
        self >= Version(13, 0, 0)
    }

    /// Whether its admin port tells everybody its whole configuration, secrets included (`/config`, 12.1 to 12.2.11).
    #[must_use]
    pub fn tells_secrets(self) -> bool {
        (Version(12, 1, 0)..Version(12, 2, 12)).contains(&self)
    }
}

/// Everything that the configuration depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Of the program.
    pub version: Version,
    /// Address of the API, or `*`.
    pub listen: &'a str,
    /// Port of the API.
    pub port: u16,
    /// Port for questions about itself.
    pub admin_port: u16,
    /// Schemas that are shown.
    pub schemas: &'a [String],
    /// Schemas that are found besides.
    pub search_path: &'a [String],
    /// Rows in one answer at most.
    pub max_rows: Option<u32>,
    /// Connections; one more listens for changes.
    pub pool: u32,
    /// How to reach Postgres, password included ([`uri`]).
    pub uri: Secret,
    /// What tokens are signed with, in base64.
    pub jwt_secret: Secret,
    /// How long a user's token is good for, in seconds.
    pub jwt_expiry: u64,
}

/// Renders the file.
#[must_use]
pub fn conf(facts: &Facts<'_>) -> String {
    let mut text = "# Rendered at every start by `supafly postgrest`: changes here are lost.\n".to_owned();
    let mut set = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
    set("server-host", quoted(facts.listen));
    set("server-port", facts.port.to_string());
    if facts.version.has_admin_host() {
        set("admin-server-host", quoted("127.0.0.1"));
    }
    set("admin-server-port", facts.admin_port.to_string());
    set("db-uri", quoted(facts.uri.reveal()));
    set("db-anon-role", quoted("anon"));
    set("db-schemas", quoted(&facts.schemas.join(",")));
    set("db-extra-search-path", quoted(&facts.search_path.join(",")));
    if let Some(rows) = facts.max_rows {
        set("db-max-rows", rows.to_string());
    }
    set("db-pool", facts.pool.to_string());
    // `alter role authenticator set pgrst.…` wins over this file, as people know it from Supabase.
    set("db-config", "true".to_owned());
    set("db-channel", quoted("pgrst"));
    set("db-channel-enabled", "true".to_owned());
    // A secret that begins with `@` would be the name of a file; base64 has none.
    set("jwt-secret", quoted(facts.jwt_secret.reveal()));
    set("jwt-secret-is-base64", "true".to_owned());
    set("app.settings.jwt_exp", quoted(&facts.jwt_expiry.to_string()));
    // Requests that failed, and nothing of those that went well.
    set("log-level", quoted("warn"));
    text
}

/// A text of the file's format, where `$(name)` would be a variable.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '$' => out.push_str("$$"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Postgres on its Unix socket, for libpq.
#[must_use]
pub fn uri(sockets: &std::path::Path, port: u16, password: &Secret) -> Secret {
    let host = percent(&sockets.display().to_string());
    let password = percent(password.reveal());
    Secret::new(format!("postgresql://authenticator:{password}@/postgres?host={host}&port={port}"))
}

fn percent(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// How many connections PostgREST gets where nobody says: a sixth of what Postgres has. With the pooler's three fifths
/// that leaves a quarter for superusers, keeper, backups and direct connections.
#[must_use]
pub fn pool(max_connections: u32) -> u32 {
    (max_connections / 6).clamp(4, 20)
}

/// What is left of Postgres's connections for everybody else, when it is too little to work with: below the reserve of
/// superusers and five.
#[must_use]
pub fn shortage(max_connections: u32, reserved: u32, pool: u32) -> Option<u32> {
    let poolers = max_connections * 3 / 5;
    let left = max_connections.saturating_sub(poolers).saturating_sub(pool + 1);
    (left < reserved + 5).then_some(left)
}

/// Limits of its runtime, for `GHCRTS`: a quarter of the memory, within reason, as heap, and four cores at most. Beyond
/// the heap it ends and is started again, which is better than the kernel's choice of whom to kill.
#[must_use]
pub fn runtime_limits(memory: u64, processors: usize) -> String {
    let heap = (memory / 4 / MIB).clamp(128, 2048);
    format!("-M{heap}m -N{}", processors.clamp(1, 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn facts(version: Version) -> String {
        conf(&Facts {
            version,
            listen: "127.0.0.1",
            port: 3000,
            admin_port: 3001,
            schemas: &["public".to_owned(), "gr$(HOME)".to_owned()],
            search_path: &["public".to_owned(), "a\\b".to_owned()],
            max_rows: Some(1000),
            pool: 10,
            uri: uri(Path::new("/run/a b"), 5432, &Secret::new("p@ss/\"wö$(x)")),
            jwt_secret: Secret::new("QGZvbw=="),
            jwt_expiry: 3600,
        })
    }

    #[test]
    fn every_version_that_is_out_there_is_told_apart() {
        for (said, version) in [
            ("PostgREST 12.0.2\n", Some(Version(12, 0, 2))),
            ("PostgREST 14.17", Some(Version(14, 17, 0))),
            ("PostgREST 16.2 (3f2a9c1)", Some(Version(16, 2, 0))),
            ("PostgREST 17-devel", Some(Version(17, 0, 0))),
            ("postgres (PostgreSQL) 15.4", None),
            ("", None),
        ] {
            assert_eq!(Version::said(said), version, "{said}");
        }
        assert!(!Version(11, 2, 2).is_known() && Version(12, 0, 2).is_known());
        assert!(Version(12, 2, 8).tells_secrets() && !Version(12, 2, 12).tells_secrets());
        assert!(!Version(12, 0, 2).tells_secrets());
    }

    #[test]
    fn keys_come_with_the_version_that_knows_them() {
        let old = facts(Version(12, 0, 2));
        assert!(!old.contains("admin-server-host"), "{old}");
        for version in [Version(14, 17, 0), Version(16, 2, 0)] {
            assert_eq!(facts(version).matches("\nadmin-server-host = \"127.0.0.1\"\n").count(), 1);
        }
    }

    #[test]
    fn no_value_leaves_its_quotes_or_means_a_variable() {
        let text = facts(Version(12, 0, 2));
        assert!(text.contains("db-schemas = \"public,gr$$(HOME)\"\n"), "{text}");
        assert!(text.contains("db-extra-search-path = \"public,a\\\\b\"\n"), "{text}");
        assert!(
            text.contains(
                "db-uri = \"postgresql://authenticator:p%40ss%2F%22w%C3%B6%24%28x%29@/postgres?host=%2Frun%2Fa%20b&port=5432\"\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn the_heap_is_a_share_of_the_memory() {
        assert_eq!(runtime_limits(256 * MIB, 1), "-M128m -N1");
        assert_eq!(runtime_limits(4096 * MIB, 2), "-M1024m -N2");
        assert_eq!(runtime_limits(1 << 40, 64), "-M2048m -N4");
    }

    #[test]
    fn a_pool_of_ones_own_that_leaves_nothing_is_found() {
        assert_eq!(shortage(60, 3, 10), None);
        assert_eq!(shortage(60, 3, 20), Some(3));
    }

    proptest! {
        #[test]
        fn pooler_and_postgrest_leave_enough_on_every_machine(connections in 60_u32..=200, reserved in 0_u32..=5) {
            prop_assert_eq!(shortage(connections, reserved, pool(connections)), None);
        }

        #[test]
        fn a_quoted_text_is_one_line_and_ends_where_it_should(text in "\\PC|[\\x00-\\x1f\"$\\\\]{0,20}") {
            let quoted = quoted(&text);
            prop_assert!(!quoted.contains('\n'));
            let inner = &quoted[1..quoted.len() - 1];
            let mut escaped = false;
            for c in inner.chars() {
                prop_assert!(escaped || c != '"');
                escaped = c == '\\' && !escaped;
            }
            prop_assert!(!escaped);
            prop_assert!(!inner.replace("$$", "").contains('$'));
        }
    }
}
