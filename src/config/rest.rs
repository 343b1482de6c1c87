//! The settings of PostgREST.

use super::Getter;
use core::net::IpAddr;

/// How PostgREST answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented by its row in TABLE")]
pub struct Rest {
    /// An address of ours, or `*`.
    pub listen: String,
    pub port: u16,
    pub admin_port: u16,
    pub schemas: Vec<String>,
    pub search_path: Vec<String>,
    /// None: as many as there are.
    pub max_rows: Option<u32>,
    /// None: by what Postgres has.
    pub pool: Option<u32>,
}

impl Rest {
    pub(super) fn read(get: &mut Getter<'_>) -> Rest {
        let port =
            |s: &str| s.parse().ok().filter(|p| *p != 0).ok_or_else(|| "a port from 1 to 65535".to_owned());
        let default = |get: &Getter<'_>, key| get.default(key);
        Rest {
            listen: get.text("postgrest_listen", default(get, "postgrest_listen"), |s| {
                let fits = s == "*" || s.parse::<IpAddr>().is_ok();
                if fits {
                    Ok(s.to_owned())
                } else {
                    Err("an address such as 127.0.0.1 or ::, or `*`".to_owned())
                }
            }),
            port: get.text("postgrest_port", default(get, "postgrest_port"), port),
            admin_port: get.text("postgrest_admin_port", default(get, "postgrest_admin_port"), port),
            schemas: get.text("postgrest_schemas", default(get, "postgrest_schemas"), names),
            search_path: get.text("postgrest_search_path", default(get, "postgrest_search_path"), names),
            max_rows: get.text("postgrest_max_rows", default(get, "postgrest_max_rows"), |s| match s {
                "off" => Ok(None),
                n => {
                    number(n, 1_000_000_000).ok_or_else(|| "a number of rows from 1 on, or `off`".to_owned())
                }
            }),
            pool: get.text("postgrest_pool", default(get, "postgrest_pool"), |s| match s {
                "auto" => Ok(None),
                n => number(n, 1_000)
                    .ok_or_else(|| "a number of connections from 1 to 1000, or `auto`".to_owned()),
            }),
        }
    }

    /// As text, in the order of their rows.
    pub(super) fn shown(&self) -> [(&'static str, String); 7] {
        let or = |n: Option<u32>, word: &str| n.map_or_else(|| word.to_owned(), |n| n.to_string());
        [
            ("postgrest_listen", self.listen.clone()),
            ("postgrest_port", self.port.to_string()),
            ("postgrest_admin_port", self.admin_port.to_string()),
            ("postgrest_schemas", self.schemas.join(",")),
            ("postgrest_search_path", self.search_path.join(",")),
            ("postgrest_max_rows", or(self.max_rows, "off")),
            ("postgrest_pool", or(self.pool, "auto")),
        ]
    }
}

fn number(text: &str, most: u32) -> Option<Option<u32>> {
    text.parse().ok().filter(|n| (1..=most).contains(n)).map(Some)
}

/// Names of schemas between commas.
fn names(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|n| n.trim().to_owned()).collect();
    // Newer versions refuse the catalogue, and an older one would show it to everybody.
    let fits = |n: &String| {
        !n.is_empty()
            && n.len() <= 63
            && !n.contains(|c: char| c.is_control() || c == '"')
            && !matches!(n.as_str(), "pg_catalog" | "information_schema")
    };
    if names.iter().all(fits) {
        Ok(names)
    } else {
        Err("names of schemas between commas, without quotes, and none of Postgres's own".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use std::collections::BTreeMap;

    fn read(pairs: &[(&str, &str)]) -> Result<super::Rest, String> {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| (format!("SUPAFLY_POSTGREST_{k}"), (*v).to_owned())).collect();
        Settings::read(None, &env).map(|s| s.rest).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_set_is_as_supabase_has_it() {
        let rest = read(&[]).unwrap();
        assert_eq!((rest.listen.as_str(), rest.port, rest.admin_port), ("127.0.0.1", 3000, 3001));
        assert_eq!(rest.schemas, ["public", "graphql_public"]);
        assert_eq!(rest.search_path, ["public", "extensions"]);
        assert_eq!((rest.max_rows, rest.pool), (Some(1000), None));
    }

    #[test]
    fn lists_and_numbers_are_read_and_what_cannot_be_is_said() {
        let rest = read(&[
            ("SCHEMAS", " api , Mein Schema"),
            ("MAX_ROWS", "off"),
            ("POOL", "7"),
            ("LISTEN", "::1"),
            ("PORT", "80"),
        ])
        .unwrap();
        assert_eq!(rest.schemas, ["api", "Mein Schema"]);
        assert_eq!((rest.max_rows, rest.pool, rest.port), (None, Some(7), 80));
        for (key, value) in [
            ("SCHEMAS", "a,,b"),
            ("SCHEMAS", "public,pg_catalog"),
            ("SEARCH_PATH", "a\"b"),
            ("MAX_ROWS", "0"),
            ("POOL", "many"),
            ("LISTEN", "localhost"),
            ("ADMIN_PORT", "0"),
        ] {
            let said = read(&[(key, value)]).unwrap_err();
            assert!(said.contains(&format!("SUPAFLY_POSTGREST_{key}")), "{key}={value}: {said}");
        }
    }
}
