//! What Supavisor gets: its environment and its one tenant, from facts. Pure. The values are those that were measured on
//! the real one: 77 MB instead of 169, no distribution port, no files in `/tmp`, INT ignored.

use crate::config::SupavisorPorts;
use serde_json::{Value, json};

/// Where it keeps its tenants.
pub(crate) const DATABASE: &str = "_supabase";
/// The role that owns that database.
pub(crate) const ROLE: &str = "supavisor_admin";

/// Everything that the environment depends on.
pub(super) struct Facts<'a> {
    pub(super) pg_host: &'a str,
    pub(super) pg_port: u16,
    pub(super) own: SupavisorPorts,
    pub(super) transaction: u16,
    pub(super) session: u16,
    pub(super) db_password: &'a str,
    pub(super) secret_key_base: &'a str,
    pub(super) vault_enc_key: &'a str,
    pub(super) api_jwt_secret: &'a str,
    pub(super) metrics_jwt_secret: &'a str,
}

/// The whole environment, but for PATH and HOME.
pub(super) fn environment(facts: &Facts<'_>) -> Vec<(&'static str, String)> {
    let host =
        if facts.pg_host.contains(':') { format!("[{}]", facts.pg_host) } else { facts.pg_host.to_owned() };
    let database =
        format!("ecto://{ROLE}:{}@{host}:{}/{DATABASE}", escaped(facts.db_password), facts.pg_port);
    let fixed = |text: &str| text.to_owned();
    let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let (sessions, transactions) = facts.own.inner.split_at(4);
    vec![
        ("DATABASE_URL", database),
        ("SECRET_KEY_BASE", fixed(facts.secret_key_base)),
        ("VAULT_ENC_KEY", fixed(facts.vault_enc_key)),
        ("API_JWT_SECRET", fixed(facts.api_jwt_secret)),
        ("METRICS_JWT_SECRET", fixed(facts.metrics_jwt_secret)),
        ("PORT", facts.own.api.to_string()),
        ("ADDR_TYPE", fixed("inet")),
        ("PROXY_PORT_TRANSACTION", facts.transaction.to_string()),
        // Its own default is Postgres's port.
        ("PROXY_PORT_SESSION", facts.session.to_string()),
        ("PROXY_PORT", facts.own.proxy.to_string()),
        ("SESSION_PROXY_PORTS", list(sessions)),
        ("TRANSACTION_PROXY_PORTS", list(transactions)),
        ("NODE_IP", fixed("127.0.0.1")),
        ("REGION", fixed("local")),
        ("DB_POOL_SIZE", fixed("2")),
        ("NAMED_PREPARED_STATEMENTS_ENABLED", fixed("true")),
        ("SUPAVISOR_LOG_FORMAT", fixed("json")),
        ("LANG", fixed("C.UTF-8")),
        ("RELEASE_MODE", fixed("interactive")),
        ("NUM_ACCEPTORS", fixed("2")),
        ("ERL_CRASH_DUMP_BYTES", fixed("0")),
        ("ELIXIR_ERL_OPTIONS", fixed("+fnu +S 1:1 +SDio 1 +sbwt none +sbwtdcpu none +sbwtdio none")),
        // The last word: the release's own flags ask for files in /tmp that nobody deletes.
        ("ERL_ZFLAGS", fixed("+Bi +JPperf false +JMsingle true -dist_listen false -start_epmd false")),
    ]
}

fn escaped(password: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    password.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What the tenant should be, without the password: whether that fits is not asked of the API ([`super::vault`]).
pub(super) fn tenant(pg_host: &str, pg_port: u16, pool: u64, clients: u64) -> Value {
    json!({
        "db_host": pg_host,
        "db_port": pg_port,
        "db_database": "postgres",
        "ip_version": if pg_host.contains(':') { "v6" } else { "v4" },
        "require_user": false,
        "auth_query": "SELECT * FROM pgbouncer.get_auth($1)",
        "upstream_ssl": false,
        "enforce_ssl": false,
        "default_pool_size": pool,
        "default_max_clients": clients,
        "users": [{
            "db_user": "pgbouncer",
            "pool_size": pool,
            "mode_type": "transaction",
            "is_manager": true,
        }],
    })
}

/// The body of a PUT.
pub(super) fn put(tenant: &Value, password: &str) -> Value {
    let mut tenant = tenant.clone();
    if let Some(user) = tenant.pointer_mut("/users/0").and_then(Value::as_object_mut) {
        user.insert("db_password".to_owned(), Value::String(password.to_owned()));
    }
    json!({ "tenant": tenant })
}

/// What is wanted and said otherwise there, by name; what it says beyond that is its own. A PUT shuts every pool of the
/// tenant, even when nothing differs, so this is asked first.
pub(super) fn differences(there: &Value, wanted: &Value) -> Vec<String> {
    let Value::Object(wanted) = wanted else { return Vec::new() };
    let differs = |(key, value): &(&String, &Value)| !there.get(key).is_some_and(|t| agrees(t, value));
    wanted.iter().filter(differs).map(|(key, _)| key.clone()).collect()
}

fn agrees(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(_), Value::Object(_)) => differences(there, wanted).is_empty(),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(t, w)| agrees(t, w))
        }
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_differs_only_in_what_supavisor_adds_is_left_alone() {
        let wanted = tenant("127.0.0.1", 5432, 10, 200);
        let mut there = wanted.clone();
        there["id"] = json!("0a");
        there["users"][0]["max_clients"] = json!(null);
        assert_eq!(differences(&there, &wanted), Vec::<String>::new());
        there["users"][0]["pool_size"] = json!(11);
        there["db_port"] = json!("5432");
        assert_eq!(differences(&there, &wanted), ["db_port", "users"]);
        assert_eq!(differences(&Value::Null, &wanted).len(), wanted.as_object().unwrap().len());
        assert!(!wanted.to_string().contains("password"));
        assert_eq!(put(&wanted, "pw").pointer("/tenant/users/0/db_password"), Some(&json!("pw")));
    }

    #[test]
    fn the_environment_is_the_small_one_and_leaves_no_default_that_hurts() {
        let facts = Facts {
            pg_host: "127.0.0.1",
            pg_port: 5432,
            own: SupavisorPorts { api: 4000, proxy: 5412, inner: [1, 2, 3, 4, 5, 6, 7, 8] },
            transaction: 6543,
            session: 6544,
            db_password: "p/w@1",
            secret_key_base: "k",
            vault_enc_key: "v",
            api_jwt_secret: "a",
            metrics_jwt_secret: "m",
        };
        let env = environment(&facts);
        let of = |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()).unwrap();
        assert_eq!(of("DATABASE_URL"), "ecto://supavisor_admin:p%2Fw%401@127.0.0.1:5432/_supabase");
        assert_eq!((of("PORT"), of("PROXY_PORT_SESSION"), of("PROXY_PORT")), ("4000", "6544", "5412"));
        assert_eq!((of("SESSION_PROXY_PORTS"), of("TRANSACTION_PROXY_PORTS")), ("1,2,3,4", "5,6,7,8"));
        assert!(of("ERL_ZFLAGS").contains("+Bi") && of("ERL_ZFLAGS").contains("-start_epmd false"));
        for absent in ["CLUSTER_POSTGRES", "CLUSTER_NODES", "DNS_POLL", "ERL_FLAGS"] {
            assert!(env.iter().all(|(n, _)| *n != absent));
        }
    }
}
