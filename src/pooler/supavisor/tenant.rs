//! The one tenant: asked for first, put only on a difference, and proved by a login.
//!
//! A PUT throws every client out, even when nothing differs, so there is none on an ordinary start. A tenant that says
//! all that is wanted and lets nobody in was written with another vault key or another password (a volume restored
//! elsewhere): nobody is served by it, so it is deleted and made anew.

use super::api::{Answer, Api};
use super::environment;
use crate::config::Secret;
use crate::pooler::probe;
use serde_json::Value;
use std::time::Duration;

/// Every answer may take five seconds while the database is out of reach.
const GET: Duration = Duration::from_secs(8);
/// A wrong password is refused after ten seconds, and live clients hold a PUT up for five.
const PUT: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(2);
const LOGIN: Duration = Duration::from_secs(5);
/// Logins that must fail before a tenant that looks right is thrown away. Ten bad ones shut an address out.
const TRIES: u32 = 3;

/// What it should be.
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) tenant: Value,
    pub(super) password: Secret,
    /// The transaction port.
    pub(super) port: u16,
    /// Where Postgres is.
    pub(super) postgres: (String, u16),
}

/// Goes on until the tenant is there and lets us in.
pub(super) fn settle(api: &Api, wanted: &Wanted) {
    let path = format!("/api/tenants/{}", wanted.id);
    let mut said = String::new();
    loop {
        let attempt = match api.ask("GET", &path, None, GET) {
            Ok(Answer { status: 404, .. }) => put(api, &path, wanted, "made"),
            Ok(Answer { status: 200, body }) => {
                let there = body.get("data").unwrap_or(&Value::Null);
                if environment::agrees(there, &wanted.tenant) {
                    match proved(wanted) {
                        Ok(()) => return,
                        Err(why) => {
                            tracing::warn!(%why, "the tenant is there and lets nobody in: it is made anew");
                            api.ask("DELETE", &path, None, PUT)
                                .map_err(|e| e.to_string())
                                .and_then(|_| put(api, &path, wanted, "made anew"))
                        }
                    }
                } else {
                    put(api, &path, wanted, "changed")
                }
            }
            // Not there yet.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Err(String::new()),
            Ok(Answer { status, .. }) => Err(format!("its API answers {status}")),
            Err(e) => Err(format!("its API does not answer: {e}")),
        };
        let pause = match attempt {
            Ok(()) => PAUSE,
            Err(why) if why.is_empty() => PAUSE,
            Err(why) => {
                if why != said {
                    tracing::warn!("the tenant is not settled: {why}");
                }
                said = why;
                LONG_PAUSE
            }
        };
        std::thread::sleep(pause);
    }
}

fn put(api: &Api, path: &str, wanted: &Wanted, done: &str) -> Result<(), String> {
    let body = environment::put(&wanted.tenant, wanted.password.reveal());
    match api.ask("PUT", path, Some(&body), PUT) {
        Ok(Answer { status: 200 | 201, .. }) => {
            tracing::info!(tenant = %wanted.id, "the tenant is {done}");
            Ok(())
        }
        // It logs in before it says yes.
        Ok(Answer { status: 400, .. }) => {
            Err("it cannot log in to Postgres as the role pgbouncer (answer 400)".to_owned())
        }
        Ok(Answer { status, .. }) => Err(format!("it refuses the tenant (answer {status})")),
        Err(e) => Err(format!("it does not take the tenant: {e}")),
    }
}

/// Whether one gets in; bad only when Postgres itself lets the same role in.
fn proved(wanted: &Wanted) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no event loop: {e}"))?;
    let login = |host: &str, port, user: &str| {
        let login = probe::through(host, port, user, wanted.password.reveal());
        let answer = runtime.block_on(async { tokio::time::timeout(LOGIN, login).await });
        answer.unwrap_or_else(|_| Err(format!("no answer in {} s", LOGIN.as_secs())))
    };
    let user = format!("pgbouncer.{}", wanted.id);
    let mut bad = 0;
    loop {
        let Err(why) = login("127.0.0.1", wanted.port, &user) else { return Ok(()) };
        let (host, port) = &wanted.postgres;
        if login(host, *port, "pgbouncer").is_ok() {
            bad += 1;
        }
        if bad >= TRIES {
            return Err(why);
        }
        std::thread::sleep(LONG_PAUSE);
    }
}
