//! What `secrets` made, for those it was made for; the pooler reads its own (`pooler::secrets`). No value is ever part of
//! an error or of `Debug`.

use crate::config::{Secret, Settings};
use crate::exit::Failure;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// For PostgREST.
#[derive(Clone, Debug, Deserialize)]
pub struct ForPostgrest {
    /// The password of the database role of that name.
    pub authenticator: Secret,
    /// What tokens are signed with.
    pub jwt_secret: Secret,
    /// How long a user's token is good for, in seconds.
    pub jwt_expiry: u64,
}

/// For root: what people need.
#[derive(Clone, Debug, Deserialize)]
pub struct Keys {
    /// What tokens are signed with.
    pub jwt_secret: Secret,
    /// The API key of everybody.
    pub anon_key: Secret,
    /// The API key that passes row security.
    pub service_role_key: Secret,
    /// How long a user's token is good for, in seconds.
    pub jwt_expiry: u64,
}

/// The file of `postgrest`.
///
/// # Errors
/// 78 when it is missing, is not for us, or holds something else.
pub fn postgrest(settings: &Settings) -> Result<ForPostgrest, Failure> {
    read(&settings.secret("postgrest.json"))
}

/// The file of root, on the volume `data`.
///
/// # Errors
/// As [`postgrest`].
pub fn keys(data: &Path) -> Result<Keys, Failure> {
    read(&directory(data).join("keys.json"))
}

/// The password of the database's superuser, where this machine (its volume is `data`) knows it.
///
/// # Errors
/// 78 when it is there and cannot be read.
pub fn superuser(data: &Path) -> Result<Option<Secret>, Failure> {
    let path = directory(data).join("postgres-password");
    match std::fs::read_to_string(&path) {
        Ok(password) => Ok(Some(Secret::new(password))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::config(format!("{}: cannot be read: {e}; as root?", path.display()))),
    }
}

fn directory(data: &Path) -> std::path::PathBuf {
    data.join("supafly").join("secrets")
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read(path).map_err(|e| {
        let what_to_do = if e.kind() == std::io::ErrorKind::NotFound {
            "`supafly run` makes it at its first boot; is SUPAFLY_DATA the right one?"
        } else if e.kind() == std::io::ErrorKind::PermissionDenied {
            "only its consumer may read it; people: as root"
        } else {
            "check the volume (SUPAFLY_DATA)"
        };
        Failure::config(format!("{}: cannot be read: {e}; {what_to_do}", path.display()))
    })?;
    // The parser's own message could quote a value.
    serde_json::from_slice(&text).map_err(|e| {
        Failure::config(format!(
            "{}: not what `secrets` writes (line {}, column {}): restart the service `secrets`",
            path.display(),
            e.line(),
            e.column()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_release_is_read_and_a_broken_one_is_told_without_its_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgrest.json");
        std::fs::write(
            &path,
            r#"{"authenticator": "geheim", "jwt_secret": "x", "jwt_expiry": 60, "of_tomorrow": 1}"#,
        )
        .unwrap();
        let read_back: ForPostgrest = read(&path).unwrap();
        assert_eq!(read_back.authenticator.reveal(), "geheim");
        assert!(!format!("{read_back:?}").contains("geheim"));
        for broken in [r#"{"authenticator": 47110815}"#, r#"{"authenticator": "geheim""#, "47110815"] {
            std::fs::write(&path, broken).unwrap();
            let said = read::<ForPostgrest>(&path).unwrap_err().message;
            assert!(
                !said.contains("47110815") && !said.contains("geheim") && said.contains("postgrest.json"),
                "{said}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read::<ForPostgrest>(&path).unwrap_err().message.contains("first boot"));
    }
}
