//! The `secrets` role: directories and secrets, one file a consumer, made once and kept.
//!
//! It runs first and as root, so that nothing after it needs to. What the operator gives (`NAME` or `NAME_FILE`) wins;
//! else what is on the volume is kept; else it is made from the kernel's random numbers. A file is written whole
//! (temporary file, fsync, rename, fsync of the directory) with owner and mode set before it has its name, so that a
//! kill at any moment leaves the old file or the new one, and never one that others can read.
//!
//! The store's credentials go from the environment of PID 1 into one file that only `supafly` reads: no other service
//! has them in its environment, and Postgres's user cannot open the file (`docs/adr/0003`).
//!
//! The secrets of the stack (JWT secret, API keys, passwords of database roles) are in `keys.json` for root, and each
//! consumer's part of them in a file of its own ([`keys`]).

mod files;
pub mod jwt;
mod keys;
mod known;
mod readers;

pub use known::PASSWORDS as KNOWN_PASSWORDS;
pub use readers::{ForPostgrest, Keys, keys, postgrest, superuser};

use crate::config::{Secret, Settings, StoreUrl};
use crate::exit::{Exit, Failure};
use crate::pooler::choice;
use crate::store::credentials;
use files::{Owner, all_ours, directory, given, no_links, ours, random_text, unusable, user, write};
use keys::{Place, World};
use nix::unistd::Uid;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The user that holds the store's keys.
const KEEPER: &str = "supafly";
/// The user that runs Postgres.
const POSTGRES: &str = "postgres";
/// The user that answers over HTTP.
const WEB: &str = "supafly-web";
/// The user that runs PostgREST.
const REST: &str = "supafly-rest";
/// The user that runs the pooler.
const POOL: &str = "supafly-pool";
/// Runs the role.
///
/// # Errors
/// 78 when a setting cannot be used, 70 when the volume cannot be written.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    let env = crate::facts::environment();
    let root = Uid::effective().is_root();
    let own = settings.own();
    let us = Owner::us();
    let keeper = if root { user(KEEPER)? } else { us };
    let postgres = if root { user(POSTGRES)? } else { us };

    crate::postgres::asked(settings)?;
    crate::postgres::opened(settings)?;
    directory(&settings.data, 0o755, None)?;
    directory(&own, 0o755, None)?;
    no_links(&own)?;
    directory(&own.join("journal"), 0o755, None)?;
    // Nobody else writes there.
    all_ours(&own.join("journal"))?;
    if own.join("identity.json").exists() {
        ours(&own.join("identity.json"))?;
    }
    crate::postgres::remembered(settings)?;
    crate::postgres::fits(settings)?;
    directory(&own.join("secrets"), 0o711, None)?;
    no_links(&own.join("secrets"))?;
    // Sockets of many users lie side by side here; each file has its own mode.
    directory(&settings.run, 0o711, None)?;
    directory(&settings.pg_socket_dir(), 0o2755, Some(postgres))?;
    further_sockets(settings, postgres, root);
    // Keeper makes its socket by temporary name and rename in a directory of its own.
    directory(&settings.run.join("keeper"), 0o750, Some(Owner { uid: keeper.uid, gid: postgres.gid }))?;
    if let StoreUrl::File { dir } = &settings.store {
        store_directory(dir, settings, keeper)?;
    }

    let credentials = store_file(&env)?;
    if credentials.is_empty()
        && matches!(settings.store, StoreUrl::S3 { .. })
        && !settings.store_credentials().exists()
    {
        return Err(Failure::config(
            "SUPAFLY_STORE is s3://… but no credentials are given: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             (or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN)",
        ));
    }
    if !credentials.is_empty() || !settings.store_credentials().exists() {
        write(&settings.store_credentials(), credentials.as_bytes(), 0o400, keeper)?;
    }
    // Before anything is written: what is refused must not be kept.
    stack(settings, &env, postgres, root)?;
    let password = own.join("secrets").join("postgres-password");
    // Where none is given, one is made with the cluster (`made_password`): a machine that restores a cluster does not
    // know its password, and a file that says another one would lie.
    if let Some(value) = given(&env, "POSTGRES_PASSWORD")? {
        write(&password, value.as_bytes(), 0o400, us)?;
    }
    // A machine whose service files know no `web` need not have its user.
    match if root { user(WEB) } else { Ok(us) } {
        Ok(web) => web_token(&settings.web_token(), given(&env, "WEB_TOKEN")?, web)?,
        Err(e) => tracing::warn!("no token for the private routes of `web`: {e}"),
    }
    if !root {
        tracing::warn!("not root: every service runs as one user, so Postgres could read the store's keys");
    }
    Ok(Exit::Clean)
}

/// Where `psql` looks for the socket, made as Debian has it where it is not there; one that is there is not ours to set.
fn further_sockets(settings: &Settings, postgres: Owner, root: bool) {
    let Some(path) = settings.pg_sockets.as_ref().filter(|path| root && !path.exists()) else { return };
    if let Err(e) = directory(path, 0o2775, Some(postgres)) {
        tracing::info!("no second socket for `psql`: {e}");
    }
}

/// The secrets of the stack, and each consumer's part of them.
fn stack(
    settings: &Settings,
    env: &BTreeMap<String, String>,
    postgres: Owner,
    root: bool,
) -> Result<(), Failure> {
    let path = settings.secret("keys.json");
    let kept = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| {
            Failure::config(format!(
                "{}: not what `secrets` writes (line {}): mend it, or remove it and new secrets are made",
                path.display(),
                e.line()
            ))
        })?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(e) => return Err(unusable(&path, "read this file", &e)),
    };
    let fly = env.get("FLY_APP_NAME").is_some_and(|v| !v.is_empty());
    let place = if fly || matches!(settings.store, StoreUrl::S3 { .. }) { Place::Open } else { Place::Desk };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let world = World { given: &|name| given(env, name), random: &random_text, now, place };
    let (all, mut warnings) = keys::settle(kept, &world)?;
    let believed = given(env, "POSTGRES_PASSWORD")?
        .map(Secret::new)
        .map_or_else(|| superuser(&settings.data), |p| Ok(Some(p)))?;
    if let Some(password) = &believed {
        keys::password_fits("POSTGRES_PASSWORD", password.reveal(), place, &mut warnings)?;
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let save = |name: &str, part: &serde_json::Map<String, serde_json::Value>, owner| {
        let text = serde_json::to_string_pretty(part).unwrap_or_default() + "\n";
        write(&settings.secret(name), text.as_bytes(), 0o400, owner)
    };
    save("keys.json", &all, Owner::us())?;
    // Not what signs tokens: a superuser of the database can read this file, and no service of the database needs it.
    let mut of_setup = keys::part(&all, &["authenticator", "pgbouncer", "supabase_admin", "supavisor_admin"]);
    if let Some(password) = &believed {
        of_setup.insert(POSTGRES.to_owned(), password.reveal().into());
    }
    save("setup.json", &of_setup, postgres)?;
    // A machine whose service files know no such role need not have its user.
    match if root { user(REST) } else { Ok(Owner::us()) } {
        Ok(rest) => {
            directory(&settings.run.join("postgrest"), 0o700, Some(rest))?;
            save("postgrest.json", &keys::part(&all, &["authenticator", "jwt_secret", "jwt_expiry"]), rest)?;
        }
        Err(e) => tracing::warn!("no secrets for `postgrest`: {e}"),
    }
    // Nor its user, nor a word about that, where there is no pooler.
    match if root { user(POOL) } else { Ok(Owner::us()) } {
        Ok(pool) => {
            directory(&settings.pooler_dir(), 0o700, Some(pool))?;
            let of_pooler = [&["pgbouncer", "supavisor_admin"][..], &keys::of_supavisor()].concat();
            save("pooler.json", &keys::part(&all, &of_pooler), pool)?;
        }
        Err(e) if choice::chosen(settings).is_some() => tracing::warn!("no secrets for `pooler`: {e}"),
        Err(_) => {}
    }
    Ok(())
}

/// The password of a new cluster's superuser: the one given or kept, else a new one, which is kept.
///
/// # Errors
/// 70 when the volume cannot be read or written.
pub fn made_password(settings: &Settings) -> Result<Secret, Failure> {
    let path = settings.own().join("secrets").join("postgres-password");
    match fs::read_to_string(&path) {
        Ok(kept) => return Ok(Secret::new(kept)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(unusable(&path, "read this file", &e)),
    }
    let made = random_text(24);
    write(&path, made.as_bytes(), 0o400, Owner::us())?;
    tracing::info!(file = %path.display(), "made a password for the database role postgres");
    Ok(Secret::new(made))
}

/// The token of the private routes: the one given, else the one kept, else a new one.
fn web_token(path: &Path, given: Option<String>, web: Owner) -> Result<(), Failure> {
    let token = match given {
        // A header cannot carry it, so nobody could ever show it.
        Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            return Err(Failure::config(
                "WEB_TOKEN holds blanks or more than plain ASCII: give letters and digits",
            ));
        }
        Some(token) => token,
        None => match fs::read_to_string(path) {
            Ok(kept) if !kept.is_empty() => kept,
            Ok(_) => random_text(32),
            Err(e) if e.kind() == io::ErrorKind::NotFound => random_text(32),
            Err(e) => return Err(unusable(path, "read this file", &e)),
        },
    };
    write(path, token.as_bytes(), 0o400, web)
}

fn store_file(env: &BTreeMap<String, String>) -> Result<String, Failure> {
    let mut text = String::new();
    for name in credentials::NAMES {
        let value = match *name {
            "AWS_SECRET_ACCESS_KEY" | "AWS_ACCESS_KEY_ID" | "AWS_SESSION_TOKEN" | "S3_SSE_C" => {
                given(env, name)?
            }
            _ => env.get(*name).filter(|v| !v.is_empty()).cloned(),
        };
        let Some(value) = value else { continue };
        if value.contains(['\n', '\r', '\0']) {
            return Err(Failure::config(format!("{name} holds a line break: give the bare value")));
        }
        text.push_str(&format!("{name}={value}\n"));
    }
    Ok(text)
}

/// The store beside the data is made once, at the first boot; later its absence is an unmounted volume, not a new store.
fn store_directory(dir: &Path, settings: &Settings, keeper: Owner) -> Result<(), Failure> {
    let first = !settings.own().join("identity.json").exists();
    if !dir.is_dir() && !first {
        return Err(Failure::refused(format!(
            "SUPAFLY_STORE: {} is gone, but this volume has archived to it: mount it again (it is never made anew)",
            dir.display()
        )));
    }
    if !dir.is_dir() {
        directory(dir, 0o700, Some(keeper))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn whatever_the_store_reads_reaches_its_file() {
        let given: Vec<_> = credentials::NAMES.iter().map(|name| (*name, "x")).collect();
        let text = store_file(&env(&given)).unwrap();
        for name in credentials::NAMES {
            assert!(text.contains(&format!("{name}=x\n")), "{name} is lost on the way to the store");
        }
    }

    #[test]
    fn a_credential_with_a_line_break_is_refused_without_being_shown() {
        let e =
            store_file(&env(&[("AWS_ACCESS_KEY_ID", "AKIA\nAWS_ENDPOINT=evil")])).unwrap_err().to_string();
        assert!(e.contains("AWS_ACCESS_KEY_ID") && !e.contains("evil"), "{e}");
    }

    #[test]
    fn the_token_is_made_once_kept_and_replaced_by_one_that_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-token");
        let us = Owner::us();
        web_token(&path, None, us).unwrap();
        let made = fs::read_to_string(&path).unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400);
        web_token(&path, None, us).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), made);
        web_token(&path, Some("given".to_owned()), us).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "given");
        let wrong = web_token(&path, Some("two words".to_owned()), us).unwrap_err();
        assert!(wrong.exit == Exit::Config && !wrong.to_string().contains("two words"), "{wrong}");
    }
}
