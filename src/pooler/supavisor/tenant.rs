//! The one tenant: asked for first, put only when it lacks or differs, and then left alone.
//!
//! A PUT throws every client out, even when nothing differs, so there is none on an ordinary start, and never a second one
//! for a difference that the first did not mend. Whether one gets in is the question of `pooler-ready`.

use super::api::{Answer, Api};
use super::environment;
use crate::config::Secret;
use serde_json::Value;
use std::io::ErrorKind;
use std::time::Duration;

/// Every answer may take five seconds while the database is out of reach.
const GET: Duration = Duration::from_secs(8);
/// A wrong password is refused after ten seconds, and live clients hold a PUT up for five.
const PUT: Duration = Duration::from_secs(20);
/// Between two looks while it does not listen yet; each is a refused connection.
const SOON: Duration = Duration::from_millis(100);
/// Between two attempts that it answered.
const LATER: Duration = Duration::from_secs(2);

/// What it should be.
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) tenant: Value,
    pub(super) password: Secret,
}

/// What follows from an answer to GET.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is to be put; the word says what that makes of it.
    Put(&'static str),
    /// It is as it should be.
    Settled,
    /// It says otherwise what we have put, in these fields. Once more would only throw out clients.
    Stubborn(Vec<String>),
    /// Ask again: it does not listen yet.
    Soon,
    /// Ask again, and say why.
    Later(String),
}

/// Decides; `put` is whether it took a PUT of ours already.
fn next(answer: std::io::Result<Answer>, wanted: &Value, put: bool) -> Next {
    match answer {
        Ok(Answer { status: 404, .. }) if put => Next::Stubborn(vec!["all of it".to_owned()]),
        Ok(Answer { status: 404, .. }) => Next::Put("made"),
        Ok(Answer { status: 200, body }) => {
            let differs = environment::differences(body.get("data").unwrap_or(&Value::Null), wanted);
            match (differs.is_empty(), put) {
                (true, _) => Next::Settled,
                (false, false) => Next::Put("changed"),
                (false, true) => Next::Stubborn(differs),
            }
        }
        Ok(Answer { status, .. }) => Next::Later(format!("its API answers {status}")),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Next::Soon,
        Err(e) => Next::Later(format!("its API does not answer: {e}")),
    }
}

/// Goes on until the tenant is there; says what became of it.
pub(super) fn settle(api: &Api, wanted: &Wanted) -> String {
    let path = format!("/api/tenants/{}", wanted.id);
    let (mut said, mut done) = (String::new(), None);
    loop {
        let why = match next(api.ask("GET", &path, None, GET), &wanted.tenant, done.is_some()) {
            Next::Settled => return done.unwrap_or("as it was").to_owned(),
            Next::Stubborn(fields) => {
                let fields = fields.join(", ");
                tracing::warn!(fields, "Supavisor says otherwise what it was given; it is left so");
                return format!("not as it was given: {fields}");
            }
            Next::Soon => {
                std::thread::sleep(SOON);
                continue;
            }
            Next::Put(what) => match put(api, &path, wanted) {
                Ok(()) => {
                    tracing::info!(tenant = %wanted.id, "the tenant is {what}");
                    done = Some(what);
                    continue;
                }
                Err(why) => why,
            },
            Next::Later(why) => why,
        };
        if why != said {
            tracing::warn!("the tenant is not settled: {why}");
        }
        said = why;
        std::thread::sleep(LATER);
    }
}

fn put(api: &Api, path: &str, wanted: &Wanted) -> Result<(), String> {
    let body = environment::put(&wanted.tenant, wanted.password.reveal());
    match api.ask("PUT", path, Some(&body), PUT) {
        Ok(Answer { status: 200 | 201, .. }) => Ok(()),
        // It logs in before it says yes.
        Ok(Answer { status: 400, .. }) => {
            Err("it cannot log in to Postgres as the role pgbouncer (answer 400)".to_owned())
        }
        Ok(Answer { status, .. }) => Err(format!("it refuses the tenant (answer {status})")),
        Err(e) => Err(format!("it does not take the tenant: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_put_when_it_lacks_or_differs_and_never_twice_for_one_difference() {
        let wanted = json!({ "db_port": 5432 });
        let answer = |status, body| Ok(Answer { status, body });
        let there = |port| answer(200, json!({ "data": { "db_port": port, "id": 1 } }));
        assert_eq!(next(answer(404, Value::Null), &wanted, false), Next::Put("made"));
        assert!(matches!(next(answer(404, Value::Null), &wanted, true), Next::Stubborn(_)));
        assert_eq!(next(there(5432), &wanted, false), Next::Settled);
        assert_eq!(next(there(5432), &wanted, true), Next::Settled);
        assert_eq!(next(there(1), &wanted, false), Next::Put("changed"));
        assert_eq!(next(there(1), &wanted, true), Next::Stubborn(vec!["db_port".to_owned()]));
        assert_eq!(next(answer(200, Value::Null), &wanted, true), Next::Stubborn(vec!["db_port".to_owned()]));
        assert_eq!(next(Err(ErrorKind::ConnectionRefused.into()), &wanted, false), Next::Soon);
        for bad in [answer(500, Value::Null), answer(403, Value::Null), Err(ErrorKind::TimedOut.into())] {
            assert!(matches!(next(bad, &wanted, false), Next::Later(_)));
        }
    }
}
