//! What is said once at the start, and by `check`: what was chosen where nobody said anything, and what becomes of the
//! variables that other images know.

use crate::config::{Fate, Settings, StoreUrl, fates};
use crate::exit::Failure;
use crate::pooler::choice::{self, Kind};
use crate::postgrest;
use crate::supervisor::Notice;
use std::collections::BTreeMap;

/// Refuses what cannot be had.
///
/// # Errors
/// 78 with every variable that is refused, at once.
pub(super) fn refuse(settings: &Settings, env: &BTreeMap<String, String>) -> Result<(), Failure> {
    let mut refused: Vec<String> = fates(settings, env)
        .into_iter()
        .filter(|(_, fate)| matches!(fate, Fate::Refused(_)))
        .map(|(name, fate)| format!("{name} is {fate} (docs/configuration.md)"))
        .collect();
    // No service is given these, so that none would refuse them: backups would be unencrypted although somebody asked.
    refused.extend(crate::walg::no_crypto(env).err().map(|failure| failure.message));
    if refused.is_empty() { Ok(()) } else { Err(Failure::config(refused.join("\n"))) }
}

/// What is said at the start. Without Postgres among the services only the variables are.
pub(super) fn notices(
    settings: &Settings,
    env: &BTreeMap<String, String>,
    postgres_alone: bool,
) -> Vec<Notice> {
    let mut all = Vec::new();
    if settings.services.join("postgres.toml").exists() {
        all.push(Notice::News(chosen(settings, env)));
        if postgres_alone {
            all.push(Notice::News(
                "`postgres` as the first word: its arguments are server settings, and all services are started with it"
                    .to_owned(),
            ));
        }
        if settings.pg_settings.iter().next().is_some() {
            all.push(Notice::News(format!(
                "server settings that were given: {}",
                settings.pg_settings.names()
            )));
        }
    }
    // A volume that has its cluster needs neither, and starts; for one that has none `claim` and `datadir` decide.
    all.extend(settings.contradiction().map(Notice::Warning));
    let mut same = Vec::new();
    for (name, fate) in fates(settings, env) {
        match fate {
            Fate::Ignored(why) => all.push(Notice::Warning(format!("{name} is set and ignored: {why}"))),
            Fate::Same(_) => same.push(name),
            Fate::Refused(_) => {}
        }
    }
    if !same.is_empty() {
        all.push(Notice::News(format!("set, and as in other images: {}", same.join(", "))));
    }
    all
}

fn chosen(settings: &Settings, env: &BTreeMap<String, String>) -> String {
    let given = |name: &str| env.get(name).is_some_and(|v| !v.is_empty());
    let either = |name: &str| given(name) || given(&format!("{name}_FILE"));
    let password = if either("POSTGRES_PASSWORD") {
        "the password of postgres as given"
    } else {
        "no POSTGRES_PASSWORD is given: the volume's is kept, a new cluster gets one that is made"
    };
    let made: Vec<_> =
        ["JWT_SECRET", "ANON_KEY", "SERVICE_ROLE_KEY"].into_iter().filter(|name| !either(name)).collect();
    let keys = match made.as_slice() {
        [] => "JWT secret and keys as given".to_owned(),
        made => format!("{} made at the first boot and kept", made.join(", ")),
    };
    let store = match &settings.store {
        StoreUrl::None => {
            "no store, so this volume is the only copy (UNPROTECTED; set SUPAFLY_STORE)".to_owned()
        }
        StoreUrl::S3 { .. } | StoreUrl::File { .. } => format!("WAL and backups in {}", settings.store),
    };
    let pooler = match choice::chosen(settings) {
        None => "no pooler".to_owned(),
        Some(chosen) => format!(
            "pooler {} on {}:{} (transactions) and {} (sessions)",
            match chosen.kind {
                Kind::Supavisor => "Supavisor",
                Kind::PgBouncer => "PgBouncer",
            },
            settings.pooler_listen,
            settings.pooler_port,
            settings.pooler_session_port
        ),
    };
    let rest = if which::which(postgrest::program(settings)).is_ok() {
        format!("REST on {}:{}", settings.rest.listen, settings.rest.port)
    } else {
        "no REST (PostgREST is not installed)".to_owned()
    };
    let defaults = settings.sources.values().filter(|s| **s == crate::config::Source::Default).count();
    format!(
        "chosen: data in {}; {store}; project {}; Postgres on {}:{}; {pooler}; {rest}; health on {}; the whole stop \
         within {}; {password}; {keys}: `supafly keys` shows them. {defaults} of {} settings are defaults: `supafly check` \
         shows all",
        settings.pgdata().display(),
        settings.project,
        settings.pg_listen,
        settings.pg_port,
        settings.web_listen,
        crate::spec::duration::show(settings.stop_budget),
        settings.sources.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Settings, BTreeMap<String, String>) {
        let env: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (Settings::read(None, &env).unwrap(), env)
    }

    #[test]
    fn what_was_chosen_is_said_without_a_secret() {
        let (settings, env) = of(&[
            ("POSTGRES_PASSWORD", "hunter2hunter2"),
            ("JWT_SECRET", "s3cr3t"),
            ("SUPAFLY_POOLER", "off"),
        ]);
        let said = chosen(&settings, &env);
        for word in [
            "/data/pgdata",
            "UNPROTECTED",
            "*:5432",
            "no pooler",
            "as given",
            "ANON_KEY, SERVICE_ROLE_KEY made",
            "9s",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!said.contains("hunter2") && !said.contains("s3cr3t"), "{said}");
        let (settings, env) = of(&[("BUCKET_NAME", "shop-bucket")]);
        assert!(chosen(&settings, &env).contains("s3://shop-bucket/local"));
    }

    #[test]
    fn of_the_server_settings_only_the_names_are_said() {
        let services = tempfile::tempdir().unwrap();
        std::fs::write(services.path().join("postgres.toml"), "").unwrap();
        let (settings, env) = of(&[
            ("SUPAFLY_PG_SETTINGS", "work_mem=8MB\napp.key=geheim"),
            ("SUPAFLY_SERVICES", services.path().to_str().unwrap()),
        ]);
        let all = format!("{:?}", notices(&settings, &env, false));
        assert!(all.contains("given: work_mem, app.key"), "{all}");
        let shown: Vec<_> = settings.shown().collect();
        assert!(
            !all.contains("geheim") && !format!("{shown:?} {settings:?}").contains("geheim"),
            "{shown:?}"
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_said_and_do_not_keep_a_settled_volume_down() {
        let (settings, env) = of(&[
            ("SUPAFLY_ADOPT", "/data/old"),
            ("SUPAFLY_TAKEOVER", "3"),
            ("SUPAFLY_STORE", "s3://shop/p"),
            ("SUPAFLY_SERVICES", "/nowhere"),
        ]);
        assert!(refuse(&settings, &env).is_ok());
        let all = notices(&settings, &env, false);
        assert!(
            matches!(all.as_slice(), [Notice::Warning(w)] if w.contains("contradict each other")),
            "{all:?}"
        );
    }

    #[test]
    fn encryption_that_nobody_would_do_is_refused_at_the_start() {
        let (settings, env) = of(&[("WALG_LIBSODIUM_KEY", "of somebody"), ("SUPAFLY_SERVICES", "/nowhere")]);
        let said = refuse(&settings, &env).unwrap_err();
        assert_eq!(said.exit, crate::exit::Exit::Config);
        assert!(
            said.message.starts_with("WALG_LIBSODIUM_KEY: ") && said.message.contains("S3_SSE"),
            "{said}"
        );
        assert!(!said.message.contains("of somebody"), "{said}");
    }

    #[test]
    fn all_that_is_refused_is_said_at_once() {
        let (settings, env) =
            of(&[("POSTGRES_HOST_AUTH_METHOD", "trust"), ("POSTGRES_DB", "shop"), ("SWAP_DISABLED", "true")]);
        let said = refuse(&settings, &env).unwrap_err().message;
        assert!(
            said.contains("POSTGRES_HOST_AUTH_METHOD is refused") && said.contains("POSTGRES_DB is refused"),
            "{said}"
        );
        assert!(!said.contains("SWAP_DISABLED"));
        let all = notices(&settings, &env, false);
        assert!(matches!(all.as_slice(), [Notice::Warning(w)] if w.contains("SWAP_DISABLED")), "{all:?}");
    }
}
