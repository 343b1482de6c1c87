//! The `secrets` role: directories and secrets, one file a consumer, made once and kept.
//!
//! It runs first and as root, so that nothing after it needs to. What the operator gives (`NAME` or `NAME_FILE`) wins;
//! else what is on the volume is kept; else it is made from the kernel's random numbers. A file is written whole
//! (temporary file, fsync, rename, fsync of the directory) with owner and mode set before it has its name, so that a
//! kill at any moment leaves the old file or the new one, and never one that others can read.
//!
//! The store's credentials go from the environment of PID 1 into one file that only `supafly` reads: no other service
//! has them in its environment, and Postgres's user cannot open the file (`docs/adr/0003`).

use crate::config::{Secret, Settings, StoreUrl};
use crate::exit::{Exit, Failure};
use crate::store::credentials;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User, chown};
use rand::RngCore;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The user that holds the store's keys.
const KEEPER: &str = "supafly";
/// The user that runs Postgres.
const POSTGRES: &str = "postgres";
/// The user that answers over HTTP.
const WEB: &str = "supafly-web";

/// Who a file or directory is for.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: Uid,
    gid: Gid,
}

/// Runs the role.
///
/// # Errors
/// 78 when a setting cannot be used, 70 when the volume cannot be written.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    let env = crate::facts::environment();
    let root = Uid::effective().is_root();
    let own = settings.own();
    let us = Owner { uid: Uid::effective(), gid: Gid::effective() };
    let keeper = if root { user(KEEPER)? } else { us };
    let postgres = if root { user(POSTGRES)? } else { us };

    directory(&settings.data, 0o755, None)?;
    directory(&own, 0o755, None)?;
    directory(&own.join("journal"), 0o755, None)?;
    directory(&own.join("secrets"), 0o711, None)?;
    // Sockets of many users lie side by side here; each file has its own mode.
    directory(&settings.run, 0o711, None)?;
    directory(&settings.pg_socket_dir(), 0o2755, Some(postgres))?;
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
    write(&path, made.as_bytes(), 0o400, Owner { uid: Uid::effective(), gid: Gid::effective() })?;
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

fn user(name: &str) -> Result<Owner, Failure> {
    match User::from_name(name) {
        Ok(Some(user)) => {
            // Postgres's group lets keeper read the data directory; the group of that name wins over the primary one.
            let gid = Group::from_name(name).ok().flatten().map_or(user.gid, |g| g.gid);
            Ok(Owner { uid: user.uid, gid })
        }
        Ok(None) => Err(Failure::config(format!(
            "user `{name}` does not exist: `useradd --system --no-create-home {name}` (the image and `make dev` have it)"
        ))),
        Err(e) => Err(Failure::config(format!("user `{name}` cannot be looked up: {e}"))),
    }
}

/// `NAME`, else the contents of the file that `NAME_FILE` names, without its final newline.
fn given(env: &BTreeMap<String, String>, name: &str) -> Result<Option<String>, Failure> {
    let file_name = format!("{name}_FILE");
    match (env.get(name).filter(|v| !v.is_empty()), env.get(&file_name).filter(|v| !v.is_empty())) {
        (Some(_), Some(_)) => {
            Err(Failure::config(format!("{name} and {file_name} are both set: give one of them")))
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|e| Failure::config(format!("{file_name}: `{path}` cannot be read: {e}")))?;
            let value = text.strip_suffix('\n').unwrap_or(&text);
            if value.is_empty() {
                return Err(Failure::config(format!("{file_name}: `{path}` is empty")));
            }
            Ok(Some(value.to_owned()))
        }
        (None, None) => Ok(None),
    }
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

/// 32 letters and digits carry about 190 bits; `length` is in characters.
fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut bytes = vec![0u8; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|b| char::from(ALPHABET[usize::from(b & 63)])).collect()
}

fn unusable(path: &Path, verb: &str, e: &io::Error) -> Failure {
    let what_to_do = match e.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EROFS) => "the file system is read-only: mount the volume writable",
        Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT) => {
            "the disk is full: make room or grow the volume"
        }
        Some(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => {
            "run as root, or set SUPAFLY_DATA and SUPAFLY_RUN to directories of this user"
        }
        _ => "check the volume (SUPAFLY_DATA) and SUPAFLY_RUN",
    };
    Failure::gave_up(format!("{}: cannot {verb}: {e}; {what_to_do}", path.display()))
}

fn directory(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), Failure> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(|e| unusable(path, "make this directory", &e))?;
        }
        Err(e) => return Err(unusable(path, "make this directory", &e)),
    }
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))
            .map_err(|e| unusable(path, "give it to its user", &e.into()))?;
    }
    // The volume itself may be somebody else's arrangement; only what is below it is ours to set.
    if owner.is_some() || path.file_name().is_some_and(|n| n == "supafly" || n == "secrets" || n == "journal")
    {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|e| unusable(path, "set its mode", &e))?;
    }
    sync_parent(path)
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

fn sync_parent(path: &Path) -> Result<(), Failure> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| unusable(parent, "sync this directory", &e))
}

fn write(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        let settle = || -> io::Result<()> {
            chown(path, Some(owner.uid), Some(owner.gid))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        return settle().map_err(|e| unusable(path, "set its owner and mode", &e));
    }
    let temporary = path.with_extension("new");
    let attempt = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        nix::unistd::fchown(&file, Some(owner.uid), Some(owner.gid))?;
        file.write_all(bytes)?;
        nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|e| unusable(path, "write this file", &e))?;
    sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_secret_comes_from_the_variable_or_from_its_file_but_not_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pw");
        fs::write(&path, "from the file\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(given(&env(&[("P", "x")]), "P").unwrap().as_deref(), Some("x"));
        assert_eq!(given(&env(&[("P_FILE", file)]), "P").unwrap().as_deref(), Some("from the file"));
        assert_eq!(given(&env(&[]), "P").unwrap(), None);
        let both = given(&env(&[("P", "hunter2"), ("P_FILE", file)]), "P").unwrap_err().to_string();
        assert!(both.contains("both set") && !both.contains("hunter2"), "{both}");
        let missing = given(&env(&[("P_FILE", "/nowhere/pw")]), "P").unwrap_err();
        assert_eq!(missing.exit, Exit::Config);
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
    fn a_file_is_replaced_whole_and_readable_by_its_consumer_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let us = Owner { uid: Uid::effective(), gid: Gid::effective() };
        fs::write(path.with_extension("new"), "left by a kill").unwrap();
        write(&path, b"one", 0o400, us).unwrap();
        write(&path, b"two", 0o400, us).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_token_is_made_once_kept_and_replaced_by_one_that_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-token");
        let us = Owner { uid: Uid::effective(), gid: Gid::effective() };
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

    #[test]
    fn two_random_texts_differ() {
        assert_ne!(random_text(24), random_text(24));
        assert_eq!(random_text(24).len(), 24);
    }
}
