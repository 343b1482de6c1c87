//! `supafly health`: 0 or 1, and one line why.

use super::{ask, print};
use crate::exit::{Exit, Failure};
use crate::status::{Overall, Readiness, Status};
use std::path::Path;

/// Which health is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The supervisor lives and has not given up.
    Live,
    /// Clients can be served.
    Ready,
    /// This one service is ready, or done.
    Service(String),
}

/// 0 or 1, and the reason on stdout. No supervisor is a no, not an error.
///
/// # Errors
/// The reason cannot be written.
pub fn health(run: &Path, which: &Which) -> Result<Exit, Failure> {
    let (good, reason) = match ask(run) {
        Err(error) => (false, error.to_string()),
        Ok((status, _)) => judge(&status, which),
    };
    print(&format!("{reason}\n"))?;
    Ok(if good { Exit::Clean } else { Exit::No })
}

/// Pure: the answer and its reason.
fn judge(status: &Status, which: &Which) -> (bool, String) {
    let with = |word: &str, detail: &str| match detail {
        "" => word.to_owned(),
        detail => format!("{word}: {detail}"),
    };
    let whole = with(status.state.word(), &status.reason);
    match which {
        Which::Live => match status.state {
            Overall::Starting | Overall::Ready | Overall::Degraded | Overall::Frozen | Overall::Stopping => {
                (true, whole)
            }
            Overall::Stopped => (false, whole),
        },
        Which::Ready => match &status.readiness {
            Readiness::Ready if status.state == Overall::Ready => (true, whole),
            Readiness::Ready => (true, format!("ready; {whole}")),
            Readiness::Not { because } => (false, because.clone()),
        },
        Which::Service(name) => match status.services.iter().find(|s| s.name == *name) {
            None => {
                let all: Vec<&str> = status.services.iter().map(|s| s.name.as_str()).collect();
                (false, format!("there is no service `{name}`; there are {}", all.join(", ")))
            }
            Some(s) => (matches!(s.state.as_str(), "ready" | "done"), with(&s.state, &s.detail)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_lives_and_is_not_ready() {
        let mut status: Status = serde_json::from_value(serde_json::json!({
            "version": 1, "state": "frozen", "reason": "frozen for 3s, asked by SIGUSR1", "up_ms": 1, "services":
            [{"name": "db", "state": "frozen", "detail": "", "for_ms": 1, "run": 1, "pid": 2, "restarts": 0, "last": null}]
        }))
        .unwrap();
        let (live, why) = judge(&status, &Which::Live);
        assert!(live && why.starts_with("frozen: frozen for 3s"), "{why}");
        assert!(!judge(&status, &Which::Ready).0);
        assert_eq!(judge(&status, &Which::Service("db".to_owned())), (false, "frozen".to_owned()));
        let (_, unknown) = judge(&status, &Which::Service("x".to_owned()));
        assert_eq!(unknown, "there is no service `x`; there are db");
        status.readiness = Readiness::Ready;
        status.state = Overall::Degraded;
        status.reason = "api gave up: exit 3".to_owned();
        let degraded = "ready; degraded: api gave up: exit 3".to_owned();
        assert_eq!(judge(&status, &Which::Ready), (true, degraded));
        status.state = Overall::Ready;
        status.reason.clear();
        assert_eq!(judge(&status, &Which::Ready), (true, "ready".to_owned()));
    }
}
