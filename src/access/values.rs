//! The values, by name, in the order in which they are shown. Pure.

use super::endpoints::{Endpoint, Endpoints};
use crate::config::{Secret, UNRESERVED};
use crate::exit::Failure;
use crate::secrets::Keys;
use percent_encoding::utf8_percent_encode;

/// By the names that Supabase's tool has for them, where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    DbUrl,
    PoolerUrl,
    PoolerSessionUrl,
    RestUrl,
    AnonKey,
    ServiceRoleKey,
    JwtSecret,
}

impl Name {
    pub(super) const ALL: &[Name] = &[
        Name::DbUrl,
        Name::PoolerUrl,
        Name::PoolerSessionUrl,
        Name::RestUrl,
        Name::AnonKey,
        Name::ServiceRoleKey,
        Name::JwtSecret,
    ];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Name::DbUrl => "DB_URL",
            Name::PoolerUrl => "POOLER_URL",
            Name::PoolerSessionUrl => "POOLER_SESSION_URL",
            Name::RestUrl => "REST_URL",
            Name::AnonKey => "ANON_KEY",
            Name::ServiceRoleKey => "SERVICE_ROLE_KEY",
            Name::JwtSecret => "JWT_SECRET",
        }
    }

    /// How Supabase's tool calls it when it is to be renamed.
    const fn dotted(self) -> &'static str {
        match self {
            Name::DbUrl => "db.url",
            Name::PoolerUrl => "db.pooler_url",
            Name::PoolerSessionUrl => "db.pooler_session_url",
            Name::RestUrl => "api.rest_url",
            Name::AnonKey => "auth.anon_key",
            Name::ServiceRoleKey => "auth.service_role_key",
            Name::JwtSecret => "auth.jwt_secret",
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Name::DbUrl => "Database",
            Name::PoolerUrl => "Pooler, transaction mode",
            Name::PoolerSessionUrl => "Pooler, session mode",
            Name::RestUrl => "REST (PostgREST)",
            Name::AnonKey => "Key of role anon: for browsers and apps; row security holds",
            Name::ServiceRoleKey => "Key of role service_role: SECRET; row security does not hold",
            Name::JwtSecret => "JWT secret: SECRET; whoever has it can make every key",
        }
    }
}

/// One value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) name: Name,
    /// By which it is shown to programs.
    pub(super) shown: String,
    pub(super) value: String,
}

/// What is read from where `secrets` keeps it.
pub(super) struct Secrets {
    pub(super) keys: Keys,
    /// Of the database role postgres, where this machine knows it.
    pub(super) password: Option<Secret>,
}

fn url(user: &str, password: Option<&Secret>, at: &Endpoint, host: Option<&str>) -> String {
    let user = utf8_percent_encode(user, UNRESERVED);
    let password =
        password.map_or_else(String::new, |p| format!(":{}", utf8_percent_encode(p.reveal(), UNRESERVED)));
    format!("postgresql://{user}{password}@{}/postgres", authority(at, host))
}

fn authority(at: &Endpoint, host: Option<&str>) -> String {
    let host = host.unwrap_or(&at.host);
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{}", at.port)
    } else {
        format!("{host}:{}", at.port)
    }
}

/// Everything that there is; `host` in the place of this machine's own addresses.
pub(super) fn values(endpoints: &Endpoints, secrets: &Secrets, host: Option<&str>) -> Vec<Value> {
    let password = secrets.password.as_ref();
    let pooler = endpoints.pooler.as_ref();
    let through = |at: fn(&super::endpoints::Pooler) -> &Endpoint| {
        pooler.map(|pooler| {
            let user = match &pooler.tenant {
                Some(tenant) => format!("postgres.{tenant}"),
                None => "postgres".to_owned(),
            };
            url(&user, password, at(pooler), host)
        })
    };
    let value = |name: Name| match name {
        Name::DbUrl => endpoints.database.as_ref().map(|at| url("postgres", password, at, host)),
        Name::PoolerUrl => through(|p| &p.transaction),
        Name::PoolerSessionUrl => through(|p| &p.session),
        Name::RestUrl => endpoints.rest.as_ref().map(|at| format!("http://{}", authority(at, host))),
        Name::AnonKey => Some(secrets.keys.anon_key.reveal().to_owned()),
        Name::ServiceRoleKey => Some(secrets.keys.service_role_key.reveal().to_owned()),
        Name::JwtSecret => Some(secrets.keys.jwt_secret.reveal().to_owned()),
    };
    let named =
        |name: &Name| Some(Value { name: *name, shown: name.text().to_owned(), value: value(*name)? });
    Name::ALL.iter().filter_map(named).collect()
}

/// With other names, as whoever asks wants them.
///
/// # Errors
/// A name that nothing has, one that no shell takes, or one for two values.
pub(super) fn renamed(mut values: Vec<Value>, wanted: &[(String, String)]) -> Result<Vec<Value>, Failure> {
    for (old, new) in wanted {
        let of = |name: &&Name| name.text() == old || name.dotted() == old;
        let Some(name) = Name::ALL.iter().find(of) else {
            let known: Vec<&str> = Name::ALL.iter().map(|n| n.text()).collect();
            return Err(Failure::new(
                crate::exit::Exit::Usage,
                format!("--override-name: there is no value `{old}`; there are {}", known.join(", ")),
            ));
        };
        let fits = new.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && new.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !fits {
            return Err(Failure::new(
                crate::exit::Exit::Usage,
                format!("--override-name: `{new}` is no name: letters, digits and `_`, no digit first"),
            ));
        }
        if let Some(value) = values.iter_mut().find(|v| v.name == *name) {
            value.shown.clone_from(new);
        }
    }
    let mut names = std::collections::BTreeSet::new();
    match values.iter().find(|value| !names.insert(value.shown.as_str())) {
        None => Ok(values),
        Some(twice) => Err(Failure::new(
            crate::exit::Exit::Usage,
            format!("--override-name: two values would have the name `{}`", twice.shown),
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Settings;

    pub(crate) fn secrets(password: Option<&str>) -> Secrets {
        let keys = serde_json::json!({"jwt_secret": "s$cret", "anon_key": "a.b.c", "service_role_key": "d.e.f", "jwt_expiry": 3600});
        Secrets { keys: serde_json::from_value(keys).unwrap(), password: password.map(Secret::new) }
    }

    pub(crate) fn endpoints() -> Endpoints {
        let env = [("SUPAFLY_POOLER".to_owned(), "off".to_owned())].into();
        let mut all = Endpoints::of(&Settings::read(None, &env).unwrap());
        let at = |port| Endpoint { host: "127.0.0.1".into(), port };
        all.pooler = Some(super::super::endpoints::Pooler {
            program: "supavisor".into(),
            transaction: at(6543),
            session: at(6544),
            tenant: Some("shop".into()),
        });
        all.rest = Some(at(3000));
        all
    }

    fn of(values: &[Value], name: Name) -> &str {
        &values.iter().find(|v| v.name == name).unwrap().value
    }

    #[test]
    fn a_password_of_any_letters_stands_in_a_url_as_it_must() {
        let all = values(&endpoints(), &secrets(Some("p@ss/w:rd %ü")), None);
        assert_eq!(
            of(&all, Name::DbUrl),
            "postgresql://postgres:p%40ss%2Fw%3Ard%20%25%C3%BC@127.0.0.1:5432/postgres"
        );
        let none = values(&endpoints(), &secrets(None), Some("db.example"));
        assert_eq!(of(&none, Name::DbUrl), "postgresql://postgres@db.example:5432/postgres");
        let six = values(&endpoints(), &secrets(None), Some("fdaa::3"));
        assert_eq!(of(&six, Name::RestUrl), "http://[fdaa::3]:3000");
    }

    #[test]
    fn supavisor_wants_its_tenant_behind_the_user_and_pgbouncer_does_not() {
        let mut endpoints = endpoints();
        let all = values(&endpoints, &secrets(Some("p")), None);
        assert_eq!(of(&all, Name::PoolerUrl), "postgresql://postgres.shop:p@127.0.0.1:6543/postgres");
        assert_eq!(of(&all, Name::PoolerSessionUrl), "postgresql://postgres.shop:p@127.0.0.1:6544/postgres");
        endpoints.pooler.as_mut().unwrap().tenant = None;
        let all = values(&endpoints, &secrets(Some("p")), None);
        assert_eq!(of(&all, Name::PoolerUrl), "postgresql://postgres:p@127.0.0.1:6543/postgres");
    }

    #[test]
    fn a_value_takes_the_name_that_is_wanted_by_either_of_its_own() {
        let all = || values(&endpoints(), &secrets(Some("p")), None);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let wanted = [pair("DB_URL", "DATABASE_URL"), pair("auth.anon_key", "NEXT_PUBLIC_SUPABASE_ANON_KEY")];
        let shown: Vec<String> = renamed(all(), &wanted).unwrap().into_iter().map(|v| v.shown).collect();
        assert_eq!(shown[0], "DATABASE_URL");
        assert!(shown.contains(&"NEXT_PUBLIC_SUPABASE_ANON_KEY".to_owned()));
        // Two values by one name: the second would hide the first.
        let one_name = [pair("DB_URL", "X"), pair("POOLER_URL", "X")];
        assert_eq!(renamed(all(), &one_name).err().unwrap().exit, crate::exit::Exit::Usage);
        assert_eq!(
            renamed(all(), &[pair("DB_URL", "ANON_KEY")]).err().unwrap().exit,
            crate::exit::Exit::Usage
        );
        let swapped = [pair("DB_URL", "POOLER_URL"), pair("POOLER_URL", "DB_URL")];
        assert!(renamed(all(), &swapped).is_ok());
        for wrong in
            [pair("STUDIO_URL", "X"), pair("DB_URL", "A B"), pair("DB_URL", "1A"), pair("DB_URL", "")]
        {
            assert_eq!(renamed(all(), &[wrong]).err().unwrap().exit, crate::exit::Exit::Usage);
        }
    }
}
