//! The secrets of the stack: what is given wins, what is on the volume is kept, the rest is made. Pure.
//!
//! `keys.json` is the one truth; each consumer's file is made from it at every boot, so that a kill between two of them
//! is mended by the next one. Passwords of database roles are set by `setup` on each of its runs from its file: a
//! machine that restored a cluster has new ones, and nothing needs those that the cluster had.

use super::{jwt, known};
use crate::exit::Failure;
use serde_json::{Map, Value, json};

/// What a JWT secret must have at least; PostgREST refuses to start with less.
const LEAST: usize = 32;
/// How long a user's token is good for, in seconds, as Supabase's own default.
const EXPIRY: u64 = 3600;
/// How far clocks may be apart, in seconds, for PostgREST to take a key.
const SKEW: u64 = 30;
/// Database roles with a password of their own, and the variables by which it can be given.
pub(super) const PASSWORDS: &[(&str, &str)] = &[
    ("authenticator", "AUTHENTICATOR_PASSWORD"),
    ("pgbouncer", "PGBOUNCER_PASSWORD"),
    ("supabase_admin", "SUPABASE_ADMIN_PASSWORD"),
    ("supavisor_admin", "SUPAVISOR_ADMIN_PASSWORD"),
];
/// What only Supavisor knows, and its length in characters: 64 is the least that its web framework accepts. Nobody else
/// needs them, so they cannot be given.
const SUPAVISOR: &[(&str, usize)] =
    &[("secret_key_base", 64), (VAULT, VAULT_LENGTH), ("api_jwt_secret", 64), ("metrics_jwt_secret", 64)];
/// What it encrypts passwords with. With any other length it starts, says that it is well, and cuts every client.
const VAULT: &str = "vault_enc_key";
const VAULT_LENGTH: usize = 32;
/// API keys: their name in the file, their variable, the database role that they stand for.
const API_KEYS: &[(&str, &str, &str)] =
    &[("anon_key", "ANON_KEY", "anon"), ("service_role_key", "SERVICE_ROLE_KEY", "service_role")];

/// Where the machine stands: in the open, what everybody knows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On Fly, or with data in a bucket.
    Open,
    /// On somebody's desk.
    Desk,
}

/// What the world has, for a decision that is pure.
pub(super) struct World<'a> {
    /// What the operator gave by that variable.
    pub(super) given: &'a dyn Fn(&str) -> Result<Option<String>, Failure>,
    /// A text of that many letters and digits that nobody can guess.
    pub(super) random: &'a dyn Fn(usize) -> String,
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) place: Place,
}

/// What was found out on the way, for the log; never with a value.
pub(super) type Warnings = Vec<String>;

/// All secrets by name: those of `kept`, with what is given in its place, and what was missing made. Names that this
/// release does not know stay.
pub(super) fn settle(
    mut kept: Map<String, Value>,
    world: &World<'_>,
) -> Result<(Map<String, Value>, Warnings), Failure> {
    let mut warnings = Warnings::new();
    let was_there = kept.contains_key("jwt_secret");
    let secret = match (world.given)("JWT_SECRET")? {
        Some(given) => given,
        None => match text(&kept, "jwt_secret")? {
            Some(kept) => kept,
            None => {
                if world.place == Place::Open {
                    warnings.push(
                        "JWT_SECRET was not given, so one was made; it is on this volume only, and a machine that takes over \
                         without it makes another, which no key of today fits: `supafly keys` shows it, keep it as JWT_SECRET"
                            .to_owned(),
                    );
                }
                (world.random)(48)
            }
        },
    };
    fits(&secret)?;
    if known::is_jwt_secret(&secret) {
        published("JWT_SECRET", world.place, &mut warnings)?;
    }
    for (name, variable, role) in API_KEYS {
        let key = match (world.given)(variable)? {
            Some(key) => {
                if known::is_key(&key) {
                    published(variable, world.place, &mut warnings)?;
                }
                if !was_there && (world.given)("JWT_SECRET")?.is_none() {
                    return Err(Failure::config(format!(
                        "{variable} is given without the secret that it is signed with: give JWT_SECRET too, or neither"
                    )));
                }
                given_key(&key, &secret, variable, role, world.now, &mut warnings)?;
                key
            }
            None => match text(&kept, name)?.filter(|key| still_good(key, &secret, role, world.now)) {
                Some(key) => key,
                None => jwt::api_key(&secret, role, world.now),
            },
        };
        kept.insert((*name).to_owned(), Value::String(key));
    }
    kept.insert("jwt_secret".to_owned(), Value::String(secret));
    for (name, variable) in PASSWORDS {
        let password = match (world.given)(variable)? {
            Some(given) => given,
            None => text(&kept, name)?.unwrap_or_else(|| (world.random)(32)),
        };
        password_fits(variable, &password, world.place, &mut warnings)?;
        kept.insert((*name).to_owned(), Value::String(password));
    }
    for (name, length) in SUPAVISOR {
        let value = text(&kept, name)?.unwrap_or_else(|| (world.random)(*length));
        if *name == VAULT && value.len() != VAULT_LENGTH {
            return Err(Failure::config(format!(
                "keys.json: `{VAULT}` should have {VAULT_LENGTH} characters and has {}: mend it, or remove the line and a \
                 new one is made",
                value.len()
            )));
        }
        kept.insert((*name).to_owned(), Value::String(value));
    }
    let expiry =
        match (world.given)("JWT_EXPIRY")? {
            Some(given) => given.parse().ok().filter(|s| (1..=31_536_000).contains(s)).ok_or_else(|| {
                Failure::config("JWT_EXPIRY should be a number of seconds from 1 to 31536000")
            })?,
            None => kept.get("jwt_expiry").and_then(Value::as_u64).unwrap_or(EXPIRY),
        };
    kept.insert("jwt_expiry".to_owned(), json!(expiry));
    Ok((kept, warnings))
}

/// The names of those that only Supavisor knows.
pub(super) fn of_supavisor() -> Vec<&'static str> {
    SUPAVISOR.iter().map(|(name, _)| *name).collect()
}

/// The part of the secrets that one consumer gets.
pub(super) fn part(all: &Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|n| Some(((*n).to_owned(), all.get(*n)?.clone()))).collect()
}

fn text(kept: &Map<String, Value>, name: &str) -> Result<Option<String>, Failure> {
    match kept.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Failure::config(format!(
            "keys.json: `{name}` is not a text: mend it, or remove the line and a new one is made"
        ))),
    }
}

fn fits(secret: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::config(format!("JWT_SECRET {why}")));
    if secret.chars().count() < LEAST {
        return wrong("is too short: give at least 32 characters (`openssl rand -base64 48` makes one)");
    }
    if secret.chars().any(char::is_control) {
        return wrong("holds a line break or another control character: give one line of text");
    }
    // PostgREST would take it as a set of public keys, and nothing that we sign would fit.
    if secret.trim_start().starts_with('{') {
        return wrong("is a JSON Web Key: only a shared secret (HS256) is supported");
    }
    Ok(())
}

/// Whether a password can be used at all, and is not one that everybody knows.
pub(super) fn password_fits(
    variable: &str,
    password: &str,
    place: Place,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    // Not all who read it mean the same by more than one line: initdb takes the first.
    if password.chars().any(char::is_control) {
        return Err(Failure::config(format!(
            "{variable} holds a line break or another control character: give one line of text"
        )));
    }
    if known::is_password(password) { published(variable, place, warnings) } else { Ok(()) }
}

fn published(variable: &str, place: Place, warnings: &mut Warnings) -> Result<(), Failure> {
    let what =
        format!("{variable} is a well-known one, published with development set-ups: anybody can use it");
    match place {
        Place::Open => Err(Failure::config(format!(
            "{what}; give another as {variable} (it takes the place of one that this volume keeps)"
        ))),
        Place::Desk => {
            warnings.push(format!("{what}; it is refused on Fly and with a store in s3://"));
            Ok(())
        }
    }
}

fn given_key(
    key: &str,
    secret: &str,
    variable: &str,
    role: &str,
    now: u64,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let claims = jwt::verify(secret, key)
        .map_err(|why| Failure::config(format!("{variable} does not match JWT_SECRET: {why}")))?;
    if claims.get("role").and_then(Value::as_str) != Some(role) {
        return Err(Failure::config(format!(
            "{variable} is a key for another role: its claim `role` should be `{role}`"
        )));
    }
    if claims.get("exp").is_some_and(|exp| exp.as_f64().is_none_or(|exp| exp <= seconds(now))) {
        warnings.push(format!("{variable} has expired: nobody can use it"));
    }
    Ok(())
}

fn still_good(key: &str, secret: &str, role: &str, now: u64) -> bool {
    let Ok(claims) = jwt::verify(secret, key) else { return false };
    let time = |name: &str| claims.get(name).map(|at| at.as_f64().unwrap_or(f64::NAN));
    claims.get("role").and_then(Value::as_str) == Some(role)
        && time("exp").is_none_or(|exp| exp > seconds(now))
        // Made while the clock was ahead, it would be refused until then.
        && time("iat").is_none_or(|iat| iat <= seconds(now.saturating_add(SKEW)))
}

#[allow(clippy::cast_precision_loss, reason = "a time of this century fits exactly")]
fn seconds(now: u64) -> f64 {
    now as f64
}

#[cfg(test)]
mod tests;
