//! The pooler's file of secrets, which the `secrets` role writes: by name, because each pooler needs others of them. Pure.

use crate::config::Secret;
use serde_json::Value;

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
    fn a_secret_is_found_by_its_name_and_shown_to_nobody() {
        let secrets = Secrets::parse(r#"{"pgbouncer": "geheim", "of_tomorrow": "x"}"#).unwrap();
        assert_eq!(secrets.get("pgbouncer").unwrap().reveal(), "geheim");
        assert!(!format!("{secrets:?}").contains("geheim"));
        assert!(Secrets::parse(r#"{"a": ""}"#).unwrap().get("a").is_err());
        assert!(secrets.get("vault_enc_key").unwrap_err().contains("vault_enc_key"));
    }

    #[test]
    fn a_file_that_cannot_be_is_refused_without_being_shown() {
        for text in ["[\"hunter2\"]", "hunter2", r#"{"hunter": 4711"#, r#"{"pgbouncer": 4711}"#, ""] {
            let why = Secrets::parse(text).unwrap_err();
            assert!(!why.contains("hunter2") && !why.contains("4711"), "{why}");
        }
    }
}
