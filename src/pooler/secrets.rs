//! What the pooler's file of secrets holds: one JSON object, made once and kept. Pure; the `secrets` role writes it.

use crate::config::Secret;
use serde_json::{Map, Value};

/// Each secret and its length in characters. Supavisor takes a vault key of any other length than 32 without a word and
/// then cuts every client; 64 is the shortest key that its web framework accepts.
const WANTED: &[(&str, usize)] = &[
    ("pgbouncer", 32),
    ("db_password", 32),
    ("secret_key_base", 64),
    ("vault_enc_key", 32),
    ("api_jwt_secret", 64),
    ("metrics_jwt_secret", 64),
];

/// The file's text with everything that lacks made by `random` (a text of that many characters).
///
/// # Errors
/// The kept text is no JSON object, or the vault key in it has another length: a new one would make what is stored
/// unreadable, so it is not replaced.
pub fn completed(kept: Option<&str>, random: impl Fn(usize) -> String) -> Result<String, String> {
    let mut secrets = match kept.filter(|text| !text.trim().is_empty()) {
        None => Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(map)) => map,
            // The error would quote the text.
            Ok(_) | Err(_) => return Err("is not one JSON object".to_owned()),
        },
    };
    for (name, length) in WANTED {
        match secrets.get(*name).map(|v| v.as_str().unwrap_or_default().len()) {
            Some(there) if *name == "vault_enc_key" && there != *length => {
                return Err(format!("`{name}` should have {length} characters and has {there}"));
            }
            Some(there) if there > 0 => {}
            Some(_) | None => {
                secrets.insert((*name).to_owned(), Value::String(random(*length)));
            }
        }
    }
    Ok(format!("{}\n", Value::Object(secrets)))
}

/// The secrets, as the launcher reads them.
#[derive(Debug)]
pub struct Secrets(Vec<(String, Secret)>);

impl Secrets {
    /// Reads the file's text.
    ///
    /// # Errors
    /// It is no JSON object of texts.
    pub fn parse(text: &str) -> Result<Secrets, String> {
        let Ok(Value::Object(map)) = serde_json::from_str(text) else {
            return Err("is not one JSON object".to_owned());
        };
        let text_of = |(name, value): (String, Value)| match value {
            Value::String(secret) => Ok((name, Secret::new(secret))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(format!("`{name}` should be a text"))
            }
        };
        map.into_iter().map(text_of).collect::<Result<_, _>>().map(Secrets)
    }

    /// One of them.
    ///
    /// # Errors
    /// It is not there or empty.
    pub fn get(&self, name: &str) -> Result<&Secret, String> {
        let found = self.0.iter().find(|(n, s)| n == name && !s.reveal().is_empty());
        found.map(|(_, secret)| secret).ok_or_else(|| format!("`{name}` is not in it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_and_what_lacks_is_made_in_the_right_length() {
        let made = completed(Some(r#"{"pgbouncer":"kept"}"#), |n| "x".repeat(n)).unwrap();
        let secrets = Secrets::parse(&made).unwrap();
        assert_eq!(secrets.get("pgbouncer").unwrap().reveal(), "kept");
        assert_eq!(secrets.get("vault_enc_key").unwrap().reveal().len(), 32);
        assert!(secrets.get("secret_key_base").unwrap().reveal().len() >= 64);
        assert_eq!(completed(Some(&made), |_| unreachable!()).unwrap(), made);
        assert!(!format!("{secrets:?}").contains("kept"));
    }

    #[test]
    fn a_file_that_cannot_be_is_refused_without_being_shown() {
        for text in ["[\"hunter2\"]", "hunter2", r#"{"vault_enc_key":"hunter2"}"#] {
            let why = completed(Some(text), |n| "x".repeat(n)).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
        assert!(Secrets::parse(r#"{"a":""}"#).unwrap().get("a").is_err());
    }
}
