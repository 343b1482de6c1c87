//! Variables of the official Postgres image and of Supabase's all-in-one image: what becomes of each one here. Pure.
//!
//! One entry each. What would be answered wrongly without a word is refused: whoever sets `PGDATA` and is not heard finds
//! his data gone with the container. What only concerns a program that is not here is ignored, and that is said.

use super::Settings;
use std::collections::BTreeMap;
use std::fmt;

/// A variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The images that know it.
    pub of: Of,
    rule: Rule,
}

/// Whose variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The official image of Postgres (and Supabase's, which builds on its entrypoint).
    Official,
    /// Supabase's all-in-one image.
    Supabase,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// It does here what it does there.
    Same(&'static str),
    /// With one of these values it asks for what is so anyway; with any other it is refused.
    Only(&'static [&'static str], &'static str),
    /// It has to name where the cluster is: with the value of this setting and ending, or of `adopt`.
    Place(&'static str, &'static str),
    /// Fine when it says what the setting of this key says, else ignored.
    As(&'static str),
    Refused(&'static str),
    Ignored(&'static str),
}

/// What becomes of a variable with the value that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does here what it does there.
    Same(String),
    /// Nothing is started.
    Refused(String),
    /// It changes nothing, and that is said.
    Ignored(String),
}

const fn official(name: &'static str, rule: Rule) -> Variable {
    Variable { name, of: Of::Official, rule }
}

const fn supabase(name: &'static str, rule: Rule) -> Variable {
    Variable { name, of: Of::Supabase, rule }
}

use Rule::{As, Ignored, Only, Place, Refused, Same};

const GATEWAY: Rule = Ignored("there is no gateway here yet: PostgREST answers at SUPAFLY_POSTGREST_LISTEN");
const GOTRUE: Rule = Ignored("GoTrue is not part of this image");
const ADMIN: Rule = Ignored("there is no admin API here: `supafly status` and `supafly keys` answer");
const LOGFLARE: Rule = Ignored("nothing is shipped from here: all logs are on the container's output");
const ROLE: Rule =
    Ignored("no program here logs in as this role: give it a password by `alter role … password`");
const FETCHED: Rule =
    Refused("nothing is fetched and run as root: give JWT_SECRET, ANON_KEY, … by their variables");
const FILE: Rule = Refused("give the value by the variable without _FILE: it is no secret");
const IDLE: Rule = Ignored("nothing here stops an idle machine yet");

/// All of them.
pub const VARIABLES: &[Variable] = &[
    official("POSTGRES_PASSWORD", Same("password of the database role postgres, and all that must be given")),
    official("POSTGRES_PASSWORD_FILE", Same("the file that holds it")),
    official(
        "POSTGRES_USER",
        Only(&["postgres"], "the superuser is postgres; make another by `create role … superuser login`"),
    ),
    official("POSTGRES_USER_FILE", FILE),
    official(
        "POSTGRES_DB",
        Only(
            &["postgres"],
            "REST, GraphQL, the pooler's look-up and set-up are in the database postgres; make a \
             further one by `create database …`",
        ),
    ),
    official("POSTGRES_DB_FILE", FILE),
    official(
        "POSTGRES_INITDB_ARGS",
        Same(
            "further arguments of initdb for a new cluster: locale, text search, size of WAL segments; others are refused",
        ),
    ),
    official("POSTGRES_INITDB_ARGS_FILE", FILE),
    official(
        "POSTGRES_INITDB_WALDIR",
        Refused("WAL lies with its data on the volume and is archived from there: leave it out"),
    ),
    official(
        "POSTGRES_HOST_AUTH_METHOD",
        Only(
            &["scram-sha-256"],
            "nobody is let in without a SCRAM password over the network (over the socket the kernel vouches): leave it out \
             and give POSTGRES_PASSWORD",
        ),
    ),
    official("PGDATA", Place("data", "/pgdata")),
    supabase("POSTGRES_HOST", Ignored("our own services know the socket")),
    supabase("POSTGRES_PORT", As("pg_port")),
    supabase("SUPABASE_ADMIN_PASSWORD", Same("password of the role supabase_admin")),
    supabase("AUTHENTICATOR_PASSWORD", Same("password of the role authenticator")),
    supabase("PGBOUNCER_PASSWORD", Same("password of the role pgbouncer")),
    supabase("SUPABASE_AUTH_ADMIN_PASSWORD", ROLE),
    supabase("SUPABASE_STORAGE_ADMIN_PASSWORD", ROLE),
    supabase("SUPABASE_REPLICATION_ADMIN_PASSWORD", ROLE),
    supabase("SUPABASE_READ_ONLY_USER_PASSWORD", ROLE),
    supabase("DATA_VOLUME_MOUNTPOINT", Place("data", "")),
    supabase(
        "CONFIGURED_FLAG_PATH",
        Ignored("what was done is known by the volume and the database themselves"),
    ),
    supabase("PGDATA_REAL", Place("data", "/pgdata")),
    supabase("INIT_PAYLOAD_PRESIGNED_URL", FETCHED),
    supabase("INIT_PAYLOAD_PATH", FETCHED),
    supabase("DELEGATED_INIT_LOCATION", FETCHED),
    supabase(
        "PGSODIUM_ROOT_KEY",
        Refused("pgsodium is not part of this image, so nothing could be read with that key"),
    ),
    supabase("JWT_SECRET", Same("signs tokens; made once and kept when it is not given")),
    supabase("ANON_KEY", Same("made from JWT_SECRET when it is not given")),
    supabase("SERVICE_ROLE_KEY", Same("made from JWT_SECRET when it is not given")),
    supabase("ADMIN_API_KEY", ADMIN),
    supabase(
        "POSTGRES_ONLY",
        Ignored(
            "services are left out one by one: SUPAFLY_POOLER=off, or a directory of SUPAFLY_SERVICES without them",
        ),
    ),
    supabase("AUTOSHUTDOWN_ENABLED", IDLE),
    supabase("MAX_IDLE_TIME_MINUTES", IDLE),
    supabase("CONFIG_FILE_PATH", IDLE),
    supabase(
        "PLATFORM_DEPLOYMENT",
        Ignored("nothing depends on it: WAL is archived wherever SUPAFLY_STORE is set"),
    ),
    supabase("SWAP_DISABLED", Ignored("no swap is made here")),
    supabase("FAIL2BAN_DISABLED", Ignored("there is no fail2ban here")),
    supabase("GOTRUE_DISABLED", GOTRUE),
    supabase("ENVOY_ENABLED", GATEWAY),
    supabase("PGRST_SERVER_PORT", As("postgrest_port")),
    supabase("PGRST_ADMIN_SERVER_PORT", As("postgrest_admin_port")),
    supabase("PGRST_DB_SCHEMAS", As("postgrest_schemas")),
    supabase("PGRST_DB_ANON_ROLE", Only(&["anon"], "ANON_KEY and every grant of set-up say `anon`")),
    supabase("GOTRUE_API_PORT", GOTRUE),
    supabase("GOTRUE_API_HOST", GOTRUE),
    supabase("GOTRUE_SITE_URL", GOTRUE),
    supabase("API_EXTERNAL_URL", GOTRUE),
    supabase("KONG_HTTP_PORT", GATEWAY),
    supabase("KONG_HTTPS_PORT", GATEWAY),
    supabase("ENVOY_HTTP_PORT", GATEWAY),
    supabase("ENVOY_HTTPS_PORT", GATEWAY),
    supabase("ADMIN_API_PORT", ADMIN),
    supabase("ADMIN_API_CERT_DIR", ADMIN),
    supabase("REPORTING_TOKEN", ADMIN),
    supabase("SUPABASE_URL", ADMIN),
    supabase("PROJECT_REF", As("project")),
    supabase("PGBOUNCER_PORT", As("pooler_port")),
    supabase("PGEXPORTER_PORT", Ignored("metrics are at SUPAFLY_WEB_PRIVATE")),
    supabase("VECTOR_API_PORT", LOGFLARE),
    supabase("LOGFLARE_HOST", LOGFLARE),
    supabase("LOGFLARE_API_KEY", LOGFLARE),
    supabase("LOGFLARE_DB_SOURCE", LOGFLARE),
    supabase("LOGFLARE_GOTRUE_SOURCE", LOGFLARE),
    supabase("LOGFLARE_POSTGREST_SOURCE", LOGFLARE),
    supabase("LOGFLARE_PGBOUNCER_SOURCE", LOGFLARE),
    supabase("LOGFLARE_PITR_ERRORS_SOURCE", LOGFLARE),
    supabase("MACHINE_TYPE", Ignored("sizes follow the memory that is there")),
];

/// What becomes of each of them that is set, in the order of [`VARIABLES`].
#[must_use]
pub fn fates(settings: &Settings, env: &BTreeMap<String, String>) -> Vec<(&'static str, Fate)> {
    let shown: BTreeMap<&str, String> = settings.shown().collect();
    let set = |v: &&Variable| env.get(v.name).is_some_and(|value| !value.is_empty());
    VARIABLES
        .iter()
        .filter(set)
        .map(|v| (v.name, v.rule.fate(env.get(v.name).map_or("", |s| s), &shown)))
        .collect()
}

/// The variable of a setting.
fn variable(key: &str) -> &'static str {
    super::TABLE.iter().find(|row| row.key == key).map_or("", |row| row.variable)
}

impl Rule {
    fn fate(self, value: &str, settings: &BTreeMap<&str, String>) -> Fate {
        let of = |key: &str| settings.get(key).map_or("", String::as_str);
        match self {
            Same(what) => Fate::Same(what.to_owned()),
            Refused(why) => Fate::Refused(why.to_owned()),
            Ignored(why) => Fate::Ignored(why.to_owned()),
            Only(values, _) if values.contains(&value) => Fate::Same("so it is anyway".to_owned()),
            Only(_, why) => Fate::Refused(why.to_owned()),
            As(key) if of(key) == value => Fate::Same("so it is anyway".to_owned()),
            As(key) => Fate::Ignored(format!("it is {} here: set {}", of(key), variable(key))),
            Place(key, ending) => {
                let place = format!("{}{ending}", of(key));
                let value = value.trim_end_matches('/');
                if value == place {
                    Fate::Same("so it is anyway".to_owned())
                } else if value == of("adopt").trim_end_matches('/') {
                    Fate::Same("it names what is adopted".to_owned())
                } else {
                    Fate::Refused(format!(
                        "the cluster is in {place}: mount the volume at {}, or set {}; a cluster in {value} is adopted by \
                         SUPAFLY_ADOPT={value}",
                        of(key),
                        variable(key)
                    ))
                }
            }
        }
    }

    /// For the page: the word, and the sentence.
    pub(super) fn in_general(self) -> (&'static str, String) {
        match self {
            Same(what) => ("same", what.to_owned()),
            Refused(why) => ("refused", why.to_owned()),
            Ignored(why) => ("ignored with warning", why.to_owned()),
            Only(values, why) => {
                let values: Vec<_> = values.iter().map(|v| format!("`{v}`")).collect();
                ("same or refused", format!("same with {}; else refused: {why}", values.join(" or ")))
            }
            As(key) => (
                "same or ignored with warning",
                format!("same when it says what holds; set it by `{}`", variable(key)),
            ),
            Place(key, ending) => (
                "same or refused",
                format!(
                    "same with `<{key}>{ending}` or what `SUPAFLY_ADOPT` names; else refused: set `{}` and mount the volume there",
                    variable(key)
                ),
            ),
        }
    }
}

impl Variable {
    pub(super) fn in_general(&self) -> (&'static str, String) {
        self.rule.in_general()
    }
}

impl Fate {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Fate::Same(_) => "same",
            Fate::Refused(_) => "refused",
            Fate::Ignored(_) => "ignored",
        }
    }

    /// The sentence.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Fate::Same(why) | Fate::Refused(why) | Fate::Ignored(why) => why,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(pairs: &[(&str, &str)], name: &str) -> Fate {
        let env = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings::read(None, &env).unwrap();
        fates(&settings, &env).into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    #[test]
    fn every_variable_has_one_entry() {
        let mut names: Vec<_> = VARIABLES.iter().map(|v| v.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn trust_and_whatever_would_be_lost_is_refused_with_the_reason() {
        for (name, value, word) in [
            ("POSTGRES_HOST_AUTH_METHOD", "trust", "SCRAM"),
            ("POSTGRES_HOST_AUTH_METHOD", "md5", "SCRAM"),
            ("POSTGRES_USER", "boss", "create role"),
            ("POSTGRES_DB", "shop", "create database"),
            ("POSTGRES_INITDB_WALDIR", "/wal", "archived"),
            ("PGDATA", "/var/lib/postgresql/data", "SUPAFLY_ADOPT=/var/lib/postgresql/data"),
            ("DATA_VOLUME_MOUNTPOINT", "/vol", "SUPAFLY_DATA"),
            ("DELEGATED_INIT_LOCATION", "https://x", "as root"),
        ] {
            let fate = fate(&[(name, value)], name);
            assert!(matches!(&fate, Fate::Refused(why) if why.contains(word)), "{name}: {fate}");
        }
    }

    #[test]
    fn what_asks_for_what_is_so_anyway_is_the_same() {
        for (pairs, name) in [
            (&[("POSTGRES_HOST_AUTH_METHOD", "scram-sha-256")][..], "POSTGRES_HOST_AUTH_METHOD"),
            (&[("POSTGRES_DB", "postgres")], "POSTGRES_DB"),
            (&[("PGDATA", "/data/pgdata/")], "PGDATA"),
            (&[("PGDATA", "/data/old"), ("SUPAFLY_ADOPT", "/data/old")], "PGDATA"),
            (&[("POSTGRES_PORT", "6000"), ("SUPAFLY_PG_PORT", "6000")], "POSTGRES_PORT"),
        ] {
            assert_eq!(fate(pairs, name).word(), "same", "{name}");
        }
        let other = fate(&[("POSTGRES_PORT", "6000")], "POSTGRES_PORT");
        assert_eq!(other.to_string(), "ignored: it is 5432 here: set SUPAFLY_PG_PORT");
    }
}
