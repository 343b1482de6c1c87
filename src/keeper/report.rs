//! What keeper tells PID 1: the rows of the status and the health fact. Pure; `resident.rs` gathers the facts.

use super::decide::{self, Protection, Seen};
use super::inbox::Waiting;
use super::outbox::Refused;
use super::ownership::Standing;
use crate::config::Mode;
use crate::control::client::{Health, Report, Row};
use crate::owner::Epoch;
use std::time::Duration;

/// Everything known at one moment.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) now: Duration,
    pub(super) boottime: Duration,
    pub(super) seen: Seen,
    pub(super) store: Option<StoreFacts>,
}

/// What is known of the store's side; absent when there is no store.
#[derive(Clone, Debug)]
pub(super) struct StoreFacts {
    pub(super) epoch: Epoch,
    pub(super) mode: Mode,
    pub(super) ttl: Duration,
    pub(super) standing: Standing,
    /// Name, age and the end of the last archived file.
    pub(super) last: Option<(String, Duration, Option<u64>)>,
    pub(super) ready: Result<usize, String>,
    pub(super) trouble: Option<Refused>,
    /// The oldest waiting restore: name, for how long, why.
    pub(super) waiting: Option<(String, Duration, String)>,
    pub(super) protection: Protection,
    pub(super) engine: Option<String>,
}

pub(super) fn waiting(waiting: Waiting) -> (String, Duration, String) {
    (waiting.name, waiting.since.elapsed(), waiting.why)
}

fn row(name: impl Into<String>, state: &str, detail: impl Into<String>) -> Row {
    Row { name: name.into(), state: state.to_owned(), detail: detail.into() }
}

/// An age as people say it.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s @ 172_800.. => format!("{} days", s / 86_400),
    }
}

/// The whole report.
pub(super) fn report(facts: &Facts) -> Report {
    let lost = facts.store.as_ref().and_then(|s| match &s.standing {
        Standing::Lost { by } => Some(by.0),
        Standing::Unconfirmed { .. } | Standing::Confirmed { .. } => None,
    });
    let (ok, reason) = decide::health(&facts.seen, lost);
    let mut rows = vec![postgres(&facts.seen)];
    let mut values = serde_json::Map::new();
    match &facts.store {
        None => {
            rows.push(row("archive", "unprotected", "UNPROTECTED: no store is configured (SUPAFLY_STORE)"));
            rows.push(row("backup", "unprotected", "UNPROTECTED: no store"));
            // An alarm on it must not be silent just here.
            values.insert("protected".to_owned(), false.into());
        }
        Some(store) => {
            rows.push(owner(store, facts.boottime));
            rows.push(archive(store, &facts.seen));
            rows.push(backup(store, facts.now));
            values.insert("epoch".to_owned(), store.epoch.0.into());
            if let Ok(ready) = store.ready {
                values.insert("archive_ready".to_owned(), ready.into());
            }
            if let Some(lag) = lag(store, &facts.seen) {
                values.insert("archive_lag_bytes".to_owned(), lag.into());
            }
            if let Some((name, age, end)) = &store.last {
                values.insert("archive_last".to_owned(), name.clone().into());
                values.insert("archive_last_age_seconds".to_owned(), age.as_secs().into());
                if let Some(end) = end {
                    values.insert("archive_last_lsn_bytes".to_owned(), (*end).into());
                }
            }
            if let Standing::Confirmed { at, .. } = &store.standing {
                let age = facts.boottime.saturating_sub(*at).as_secs();
                values.insert("owner_confirmed_age_seconds".to_owned(), age.into());
            }
            if let Protection::Verified { since, aged, .. } = &store.protection {
                let age = (*aged + facts.now.saturating_sub(*since)).as_secs();
                values.insert("backup_age_seconds".to_owned(), age.into());
            }
            let protected = matches!(
                store.protection,
                Protection::Verified { .. } | Protection::Running { protected: true, .. }
            );
            values.insert("protected".to_owned(), protected.into());
        }
    }
    let fence = facts.store.as_ref().zip(lost).map(|(store, by)| {
        format!("epoch {} lost its ownership to epoch {by}: another machine is the writer now", store.epoch.0)
    });
    let fence =
        fence.or_else(|| facts.store.as_ref().and_then(|store| silent_too_long(store, facts.boottime)));
    Report { rows, health: Some(Health { ok, reason }), fence, values }
}

/// A strict owner that could not confirm for its TTL must not serve: its taker counts on that.
fn silent_too_long(store: &StoreFacts, boottime: Duration) -> Option<String> {
    let Standing::Confirmed { at, .. } = &store.standing else { return None };
    let silent = boottime.saturating_sub(*at);
    crate::owner::protocol::must_freeze(store.mode, silent, store.ttl).then(|| {
        format!(
            "mode is strict and epoch {} could not be confirmed for {}: restart this machine when the store answers",
            store.epoch.0,
            age(silent)
        )
    })
}

fn postgres(seen: &Seen) -> Row {
    match seen {
        Seen::Down => row("postgres", "down", "nothing listens on its socket"),
        Seen::Silent(why) => row("postgres", "silent", why.clone()),
        Seen::Full => row("postgres", "full", "all its connections are taken (max_connections)"),
        Seen::Recovering => row("postgres", "recovery", "it replays WAL and takes no writes"),
        Seen::Writing { lsn } => row("postgres", "ok", format!("it takes writes, at {lsn}")),
    }
}

fn owner(store: &StoreFacts, boottime: Duration) -> Row {
    let mode = match store.mode {
        Mode::Available => "available",
        Mode::Strict => "strict",
    };
    let head = format!("epoch {}, {mode}", store.epoch.0);
    match &store.standing {
        Standing::Lost { by } => row("owner", "lost", format!("{head}; epoch {} is the owner", by.0)),
        Standing::Unconfirmed { why: None } => row("owner", "unconfirmed", format!("{head}; being asked")),
        Standing::Unconfirmed { why: Some(why) } => row("owner", "unconfirmed", format!("{head}; {why}")),
        Standing::Confirmed { at, failing } => {
            let since = boottime.saturating_sub(*at);
            let mut detail = format!("{head}; confirmed {} ago", age(since));
            if let Some(why) = failing {
                detail = format!("{detail}; {why}");
            }
            let state = if since < store.ttl { "ok" } else { "unconfirmed" };
            row("owner", state, detail)
        }
    }
}

fn lag(store: &StoreFacts, seen: &Seen) -> Option<u64> {
    let (_, _, end) = store.last.as_ref()?;
    match seen {
        Seen::Writing { lsn } => Some(lsn.0.saturating_sub((*end)?)),
        Seen::Down | Seen::Silent(_) | Seen::Full | Seen::Recovering => None,
    }
}

fn archive(store: &StoreFacts, seen: &Seen) -> Row {
    let mut parts = Vec::new();
    match &store.last {
        Some((name, since, _)) => parts.push(format!("{name} {} ago", age(*since))),
        None => parts.push("nothing archived since keeper began".to_owned()),
    }
    match &store.ready {
        Ok(ready) => parts.push(format!("{ready} waiting")),
        Err(why) => parts.push(format!("what waits cannot be counted: {why}")),
    }
    if let Some(lag) = lag(store, seen) {
        parts.push(format!("{} KiB behind", lag / 1024));
    }
    let state = match (&store.trouble, &store.waiting) {
        (Some(Refused::Alarm(why)), _) => {
            parts.insert(0, format!("ALARM: {why}"));
            "alarm"
        }
        (_, Some((name, since, why))) => {
            parts.insert(0, format!("restore waits for the store, {} ({name}): {why}", age(*since)));
            "degraded"
        }
        (Some(Refused::Again(why)), None) => {
            parts.insert(0, why.clone());
            "degraded"
        }
        (None, None) => "ok",
    };
    row("archive", state, parts.join("; "))
}

fn backup(store: &StoreFacts, now: Duration) -> Row {
    let name =
        store.engine.as_ref().map_or_else(|| "backup".to_owned(), |engine| format!("backup ({engine})"));
    match &store.protection {
        Protection::Unknown => {
            row(name, "unknown", "the store has not told yet whether there is a base backup")
        }
        Protection::None { why, failures, next } => {
            let mut detail = format!("UNPROTECTED: {why}");
            if *failures > 0 {
                detail =
                    format!("{detail}; failed {failures} times, again in {}", age(next.saturating_sub(now)));
            }
            row(name, "unprotected", detail)
        }
        Protection::Running { at, protected: true } => {
            row(name, "ok", format!("a new one is being taken: {at}"))
        }
        Protection::Running { at, protected: false } => {
            row(name, "unprotected", format!("UNPROTECTED until the first one is verified: {at}"))
        }
        Protection::Verified { name: last, since, aged } => {
            row(name, "ok", format!("{last}, verified, {} old", age(*aged + now.saturating_sub(*since))))
        }
    }
}
