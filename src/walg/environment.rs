//! The engine's environment: settings and credentials under its own names. Pure; secrets stay [`Secret`] until the
//! child is made, and are in no argument.

use crate::config::{Secret, Settings, StoreUrl};
use crate::exit::Failure;
use crate::owner::Epoch;
use crate::store::credentials::Credentials;
use std::collections::BTreeMap;

/// Variables of WAL-G's client-side encryption. Our half writes WAL without it, so the two would not match.
const CRYPTO: &[&str] = &[
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_PGP_KEY",
    "WALG_PGP_KEY_PATH",
    "WALG_PGP_KEY_PASSPHRASE",
    "WALG_GPG_KEY_ID",
    "WALG_CSE_KMS_ID",
    "YC_CSE_KMS_KEY_ID",
    "WALG_ENVELOPE_PGP_KEY",
    "WALG_ENVELOPE_PGP_KEY_PATH",
];

/// Refuses client-side encryption by its variables, for `check` and for whoever starts the engine.
///
/// # Errors
/// 78 with the variables that are set.
pub fn no_crypto(env: &BTreeMap<String, String>) -> Result<(), Failure> {
    let set: Vec<_> =
        CRYPTO.iter().copied().filter(|name| env.get(*name).is_some_and(|v| !v.is_empty())).collect();
    if set.is_empty() {
        return Ok(());
    }
    Err(Failure::config(format!(
        "{}: the backup engine's client-side encryption is not supported, because the WAL that we write would not match; use the \
         store's own (S3_SSE)",
        set.join(", ")
    )))
}

/// What the engine is started with, and nothing else.
pub(super) fn environment(
    settings: &Settings,
    credentials: &Credentials,
    epoch: Epoch,
) -> Vec<(String, Secret)> {
    let mut env: BTreeMap<String, Secret> = credentials.engine_environment().into_iter().collect();
    let mut set = |name: &str, value: String| {
        env.insert(name.to_owned(), Secret::new(value));
    };
    match &settings.store {
        StoreUrl::None => {}
        StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => {
            set("WALG_S3_PREFIX", format!("s3://{bucket}/{}", epoch.dir()));
        }
        StoreUrl::S3 { bucket, prefix } => {
            set("WALG_S3_PREFIX", format!("s3://{bucket}/{prefix}/{}", epoch.dir()))
        }
        StoreUrl::File { dir } => set("WALG_FILE_PREFIX", dir.join(epoch.dir()).display().to_string()),
    }
    let fixed = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LANG", "C.UTF-8"),
        ("NO_COLOR", "1"),
        ("RUST_LOG", "info"),
        ("WALG_COMPRESSION_METHOD", "zstd"),
        ("WALG_PREVENT_WAL_OVERWRITE", "true"),
        ("WALG_UPLOAD_CONCURRENCY", "2"),
        ("WALG_DOWNLOAD_CONCURRENCY", "2"),
        ("WALG_DOWNLOAD_FILE_RETRIES", "1"),
        ("WALG_DELTA_MAX_STEPS", "0"),
        ("WALG_STOP_BACKUP_TIMEOUT", "5m"),
        ("S3_MAX_RETRIES", "3"),
        ("PGUSER", "supafly"),
        ("PGDATABASE", "postgres"),
    ];
    for (name, value) in fixed {
        set(name, value.to_owned());
    }
    set("PGHOST", settings.pg_socket_dir().display().to_string());
    set("PGPORT", settings.pg_port.to_string());
    set("PGDATA", settings.pgdata().display().to_string());
    // The engine keeps a cache below its home; keeper's own directory is writable to the user that runs it.
    set("HOME", settings.run.join("keeper").display().to_string());
    env.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn each_epoch_is_a_prefix_of_its_own_in_the_engines_words() {
        let given = env(&[
            ("SUPAFLY_STORE", "s3://bucket/shop"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"),
        ]);
        let settings = Settings::read(None, &given).unwrap();
        let made = environment(&settings, &Credentials::from_environment(&given), Epoch(7));
        let get = |name: &str| made.iter().find(|(n, _)| n == name).map(|(_, v)| v.reveal().to_owned());
        assert_eq!(get("WALG_S3_PREFIX").as_deref(), Some("s3://bucket/shop/e0000000007"));
        assert_eq!(get("AWS_ENDPOINT").as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(get("AWS_S3_FORCE_PATH_STYLE").as_deref(), Some("true"));
        assert!(!format!("{made:?}").contains("hunter2"));
    }

    #[test]
    fn client_side_encryption_is_refused_by_name() {
        let said = no_crypto(&env(&[("WALG_PGP_KEY_PATH", "/k"), ("WALG_CSE_KMS_ID", "")])).unwrap_err();
        assert!(
            said.exit == crate::exit::Exit::Config && said.message.starts_with("WALG_PGP_KEY_PATH: "),
            "{said}"
        );
        assert!(no_crypto(&env(&[("WALG_PGP_KEY_PATH", "")])).is_ok());
    }
}
