//! Which request gets which answer. Pure: the edge hands in what was asked and what is known.
//!
//! Three faces. The open one tells anybody whether to send traffic here, and nothing that helps an attacker: states and
//! reasons, no details. The private one tells operators what the status says. The scraper's gives numbers alone, to
//! whoever reaches it, because some scrapers can show no token (Fly's). What services printed reaches none of them: the
//! cache does not keep it.

use super::cache::Snapshot;
use super::usage::Usages;
use super::{metrics, page};
use crate::spec::duration;
use crate::status::{Overall, Readiness, ServiceStatus, Status};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

/// Which listener was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    /// The one for everybody.
    Open,
    /// The one for operators.
    Private,
    /// The one for a scraper that can show no token: metrics and nothing else. Off unless it is asked for.
    Scraper,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Does PID 1 answer, and has it not ended?
    Live,
    /// Can clients be served?
    Ready,
    /// Each service in one word.
    Services,
    /// The status as JSON.
    Status,
    /// For Prometheus.
    Metrics,
    /// For people.
    Page,
}

impl Route {
    const ALL: [Route; 6] =
        [Route::Live, Route::Ready, Route::Services, Route::Status, Route::Metrics, Route::Page];

    const fn path(self) -> &'static str {
        match self {
            Route::Live => "/health/live",
            Route::Ready => "/health/ready",
            Route::Services => "/health/services",
            Route::Status => "/status",
            Route::Metrics => "/metrics",
            Route::Page => "/",
        }
    }

    /// Whether only operators may ask it.
    pub(super) const fn is_private(self) -> bool {
        match self {
            Route::Live | Route::Ready | Route::Services => false,
            Route::Status | Route::Metrics | Route::Page => true,
        }
    }

    const fn is_on(self, face: Face) -> bool {
        match face {
            Face::Open => !self.is_private(),
            Face::Private => true,
            Face::Scraper => match self {
                Route::Metrics => true,
                Route::Live | Route::Ready | Route::Services | Route::Status | Route::Page => false,
            },
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// HTTP's number.
    pub(super) code: u16,
    /// `Content-Type`.
    pub(super) kind: &'static str,
    /// One more header that this answer needs.
    pub(super) header: Option<(&'static str, &'static str)>,
    /// What is said.
    pub(super) body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

impl Response {
    fn new(code: u16, kind: &'static str, body: String) -> Response {
        Response { code, kind, header: None, body }
    }

    fn json(good: bool, value: &Value) -> Response {
        Response::new(if good { 200 } else { 503 }, JSON, format!("{value}\n"))
    }
}

/// The route, or the answer that says why there is none.
pub(super) fn find(face: Face, method: &str, path: &str) -> Result<Route, Response> {
    let Some(route) = Route::ALL.into_iter().find(|r| r.is_on(face) && r.path() == path) else {
        let paths: Vec<_> = Route::ALL.into_iter().filter(|r| r.is_on(face)).map(Route::path).collect();
        return Err(Response::new(404, TEXT, format!("there are only:\n{}\n", paths.join("\n"))));
    };
    if method != "GET" && method != "HEAD" {
        let refused = Response::new(405, TEXT, "only GET and HEAD are answered here\n".to_owned());
        return Err(Response { header: Some(("allow", "GET, HEAD")), ..refused });
    }
    Ok(route)
}

/// Whether this `Authorization` header shows the token. Where no token is known nobody can show it. The comparison
/// takes as long for a wrong token as for the right one.
pub(super) fn shows_token(header: Option<&[u8]>, token: Option<&[u8]>) -> bool {
    let (Some(header), Some(token)) = (header, token.filter(|t| !t.is_empty())) else { return false };
    let Some((scheme, shown)) = header.split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(shown.ct_eq(token))
}

/// What somebody without the token gets.
pub(super) fn unauthorized() -> Response {
    let body =
        "a token is needed: Authorization: Bearer <contents of the file web-token among the secrets>\n";
    let refused = Response::new(401, TEXT, body.to_owned());
    Response { header: Some(("www-authenticate", "Bearer")), ..refused }
}

/// The answer to a route, from what is known.
pub(super) fn answer(route: Route, snapshot: &Snapshot, usages: &Usages) -> Response {
    let fresh = snapshot.fresh();
    let (word, reason) = overall(snapshot);
    let health =
        |good| Response::json(good, &json!({"state": word, "reason": reason, "facts_age_ms": age(snapshot)}));
    match route {
        Route::Live => health(fresh.is_some_and(|(status, _)| status.state != Overall::Stopped)),
        Route::Ready => health(fresh.is_some_and(|(status, _)| status.readiness == Readiness::Ready)),
        Route::Services => {
            let rows: Vec<Value> = snapshot.last.iter().flat_map(|(status, _)| services(status)).collect();
            let good = fresh.is_some() && rows.iter().all(|row| row.get("ok") == Some(&Value::Bool(true)));
            Response::json(good, &rows.into())
        }
        Route::Status => match fresh {
            Some((status, _)) => Response::json(true, &shown(status, age(snapshot))),
            None => {
                let last = snapshot.last.as_ref().map(|(status, _)| shown(status, age(snapshot)));
                let unknown =
                    json!({"state": word, "reason": reason, "facts_age_ms": age(snapshot), "last": last});
                Response::json(false, &unknown)
            }
        },
        Route::Metrics => {
            Response::new(200, "text/plain; version=0.0.4; charset=utf-8", metrics::render(snapshot, usages))
        }
        Route::Page => {
            let page = page::render(word, &reason, snapshot.last.as_ref().map(|(status, _)| status.as_ref()));
            let shown = Response::new(200, HTML, page);
            // Whatever a detail might contain, a browser runs and loads nothing.
            Response { header: Some(("content-security-policy", page::POLICY)), ..shown }
        }
    }
}

/// The word and the reason; silence of PID 1 is a state of its own.
fn overall(snapshot: &Snapshot) -> (&'static str, String) {
    match (snapshot.fresh(), &snapshot.last) {
        (Some((status, _)), _) => (status.state.word(), status.reason.clone()),
        (None, Some((_, age))) => {
            ("unknown", format!("the supervisor has not answered for {}", duration::show(*age)))
        }
        (None, None) => ("unknown", "the supervisor has not answered yet".to_owned()),
    }
}

fn age(snapshot: &Snapshot) -> Option<u64> {
    snapshot.last.as_ref().map(|(_, age)| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

fn shown(status: &Status, age: Option<u64>) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("facts_age_ms".to_owned(), age.into());
    }
    value
}

/// Each service, and after it what it reports in rows of its own.
fn services(status: &Status) -> Vec<Value> {
    let of = |service: &ServiceStatus| {
        let ok = matches!(service.state.as_str(), "ready" | "done" | "absent");
        let own = json!({"name": service.name, "state": service.state, "ok": ok});
        // As with services: what is not installed is said, and is no error.
        let row = |row: &crate::status::Row| {
            let ok = matches!(row.state.as_str(), "ok" | "absent");
            json!({"name": row.name, "state": row.state, "ok": ok, "of": service.name})
        };
        std::iter::once(own).chain(service.rows.iter().map(row)).collect::<Vec<_>>()
    };
    status.services.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testkit;
    use std::sync::Arc;
    use std::time::Duration;

    fn snapshot(state: Overall, age_ms: u64) -> Snapshot {
        let mut status = testkit::status();
        status.state = state;
        status.reason = if state == Overall::Ready { String::new() } else { "because".to_owned() };
        Snapshot { last: Some((Arc::new(status), Duration::from_millis(age_ms))) }
    }

    fn ask(route: Route, snapshot: &Snapshot) -> (u16, Value) {
        let response = answer(route, snapshot, &Usages::new());
        (response.code, serde_json::from_str(&response.body).unwrap_or_default())
    }

    #[test]
    fn live_and_ready_follow_the_state() {
        let not = || Readiness::Not { because: "because".to_owned() };
        for (state, readiness, live, ready) in [
            (Overall::Starting, not(), 200, 503),
            // The pooler is still on its way.
            (Overall::Starting, Readiness::Ready, 200, 200),
            (Overall::Ready, Readiness::Ready, 200, 200),
            (Overall::Degraded, not(), 200, 503),
            // The API is down, and the database must not be taken from its clients for that.
            (Overall::Degraded, Readiness::Ready, 200, 200),
            (Overall::Frozen, not(), 200, 503),
            (Overall::Stopping, not(), 200, 503),
            (Overall::Stopped, not(), 503, 503),
        ] {
            let mut snapshot = snapshot(state, 3);
            let (status, _) = snapshot.last.as_mut().unwrap();
            Arc::make_mut(status).readiness = readiness;
            assert_eq!(ask(Route::Live, &snapshot).0, live, "{state:?}");
            let (code, body) = ask(Route::Ready, &snapshot);
            assert_eq!((code, body["state"].as_str()), (ready, Some(state.word())));
            assert_eq!(body["reason"], if state == Overall::Ready { "" } else { "because" });
            assert_eq!(body["facts_age_ms"], 3);
        }
    }

    #[test]
    fn a_supervisor_that_does_not_answer_is_neither_live_nor_ready() {
        let silent = snapshot(Overall::Ready, 5_001);
        let nothing = Snapshot { last: None };
        for (snapshot, reason) in [(&silent, "has not answered for 5s"), (&nothing, "has not answered yet")] {
            for route in [Route::Live, Route::Ready, Route::Status] {
                let (code, body) = ask(route, snapshot);
                assert_eq!((code, body["state"].as_str()), (503, Some("unknown")), "{route:?}");
                assert!(body["reason"].as_str().unwrap().contains(reason), "{body}");
            }
            assert_eq!(ask(Route::Services, snapshot).0, 503);
        }
        assert_eq!(ask(Route::Status, &silent).1["last"]["state"], "ready");
        assert_eq!(ask(Route::Live, &snapshot(Overall::Ready, 5_000)).0, 200);
    }

    #[test]
    fn services_are_listed_with_their_rows_and_without_details() {
        let (code, body) = ask(Route::Services, &snapshot(Overall::Ready, 0));
        assert_eq!(code, 503, "the backup row is not ok");
        assert_eq!(
            body,
            json!([
                {"name": "keeper", "state": "ready", "ok": true},
                {"name": "archive", "state": "ok", "ok": true, "of": "keeper"},
                {"name": "backup (wal-x 1)", "state": "unprotected", "ok": false, "of": "keeper"},
                {"name": "setup", "state": "done", "ok": true},
            ])
        );
        let mut status = testkit::status();
        status.services[0].rows.clear();
        status.services[0].rows.push(crate::status::Row {
            name: "graphql".into(),
            state: "absent".into(),
            detail: String::new(),
        });
        let fine = Snapshot { last: Some((Arc::new(status), Duration::ZERO)) };
        assert_eq!(ask(Route::Services, &fine).0, 200);
    }

    #[test]
    fn the_status_is_given_whole_with_the_age_of_its_facts() {
        let (code, status) = ask(Route::Status, &snapshot(Overall::Degraded, 7));
        assert_eq!((code, status["services"][0].get("output")), (200, None));
        assert_eq!(
            (&status["services"][0]["values"]["epoch"], &status["facts_age_ms"]),
            (&json!(3), &json!(7))
        );
    }

    #[test]
    fn the_open_face_has_the_health_routes_only() {
        for route in Route::ALL {
            assert_eq!(find(Face::Private, "GET", route.path()), Ok(route));
            let open = find(Face::Open, "HEAD", route.path());
            match open {
                Ok(found) => assert!(found == route && !route.is_private()),
                Err(response) => {
                    assert!(route.is_private() && response.code == 404, "{route:?}");
                    assert!(response.body.contains("/health/live") && !response.body.contains("/metrics"));
                }
            }
        }
        assert_eq!(find(Face::Private, "GET", "/health/live/").unwrap_err().code, 404);
    }

    #[test]
    fn the_scraper_gets_metrics_and_nothing_else() {
        for route in Route::ALL {
            let found = find(Face::Scraper, "GET", route.path());
            if route == Route::Metrics {
                assert_eq!(found, Ok(route));
            } else {
                let refused = found.unwrap_err();
                assert_eq!((refused.code, refused.body.as_str()), (404, "there are only:\n/metrics\n"));
            }
        }
    }

    #[test]
    fn nothing_is_changed_here() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
            let refused = find(Face::Open, method, "/health/ready").unwrap_err();
            assert_eq!((refused.code, refused.header), (405, Some(("allow", "GET, HEAD"))));
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token: Option<&[u8]> = Some(b"s3cret");
        assert!(shows_token(Some(b"Bearer s3cret"), token) && shows_token(Some(b"bearer s3cret"), token));
        for wrong in [&b"Bearer s3cre"[..], b"Bearer s3cretx", b"Bearer ", b"s3cret", b"Basic s3cret", b""] {
            assert!(!shows_token(Some(wrong), token), "{wrong:?}");
        }
        assert!(!shows_token(None, token));
        assert!(!shows_token(Some(b"Bearer "), None) && !shows_token(Some(b"Bearer "), Some(b"")));
        assert_eq!(unauthorized().code, 401);
    }
}
