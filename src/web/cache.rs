//! What is known of the whole, and how old it is. PID 1 is asked only when somebody asks us: nobody asking costs nobody
//! a wake-up, and a crowd asking costs PID 1 one request a second.
//!
//! When PID 1 hangs, the answer must still come soon and must be no: so a request waits for a refresh only briefly, and
//! facts that could not be renewed for [`STALE`] are no facts any more. Ages are taken on the clock that goes on while
//! the machine sleeps: after a resume nothing old is taken for new.

use crate::control::client;
use crate::status::{Readiness, Status};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// PID 1 is asked no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a request waits for the refresh when it has something to fall back on, or expects nothing of it.
const BRIEFLY: Duration = Duration::from_millis(250);
/// How long it waits when the facts are old only because nobody asked: a wrong "it hangs" is worse than a slow answer.
const FIRST: Duration = Duration::from_secs(1);
/// Facts older than this mean that PID 1 does not answer.
pub(super) const STALE: Duration = Duration::from_secs(5);

/// What a request works on.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The last status that PID 1 gave, and its age.
    pub(super) last: Option<(Arc<Status>, Duration)>,
}

impl Snapshot {
    /// The status and its age, when it is young enough to say something about now.
    pub(super) fn fresh(&self) -> Option<(&Status, Duration)> {
        self.last.as_ref().filter(|(_, age)| *age <= STALE).map(|(status, age)| (status.as_ref(), *age))
    }
}

/// How the last refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    Never,
    Running,
    Good,
    Failed,
}

/// Pure: the facts and when they were asked for.
#[derive(Clone, Debug)]
struct Known {
    status: Option<(Arc<Status>, Duration)>,
    refresh: Refresh,
    /// How the one before the running one ended.
    before: Refresh,
    asked: Option<Duration>,
}

impl Known {
    fn due(&self, now: Duration) -> bool {
        self.refresh != Refresh::Running && self.asked.is_none_or(|asked| now.saturating_sub(asked) >= PAUSE)
    }

    fn begin(&mut self, now: Duration) {
        self.before = self.refresh;
        self.refresh = Refresh::Running;
        self.asked = Some(now);
    }

    fn end(&mut self, answer: Option<Status>) {
        self.refresh = if answer.is_some() { Refresh::Good } else { Refresh::Failed };
        if let (Some(status), Some(asked)) = (answer, self.asked) {
            // True when it was asked for; how long the answer took must not make it look younger.
            self.status = Some((Arc::new(status), asked));
        }
    }

    fn patience(&self, now: Duration) -> Duration {
        let fresh = self.status.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) <= STALE);
        if fresh || self.before == Refresh::Failed { BRIEFLY } else { FIRST }
    }

    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            last: self.status.as_ref().map(|(status, at)| (Arc::clone(status), now.saturating_sub(*at))),
        }
    }
}

/// The one cache of the role.
#[derive(Debug)]
pub(super) struct Cache {
    run: PathBuf,
    known: watch::Sender<Known>,
}

impl Cache {
    /// Knows nothing yet; `run` is the run directory.
    pub(super) fn new(run: PathBuf) -> Cache {
        let known = Known { status: None, refresh: Refresh::Never, before: Refresh::Never, asked: None };
        Cache { run, known: watch::Sender::new(known) }
    }

    /// The facts, renewed where that is due and quick.
    pub(super) async fn look(self: &Arc<Cache>) -> Snapshot {
        let now = boottime();
        let begun = self.known.send_if_modified(|known| {
            let due = known.due(now);
            if due {
                known.begin(now);
            }
            due
        });
        if begun {
            drop(tokio::spawn(Arc::clone(self).refresh()));
        }
        let patience = self.known.borrow().patience(now);
        let mut known = self.known.subscribe();
        let renewed = known.wait_for(|known| known.refresh != Refresh::Running);
        // Late, or no sender left: what is known now is the answer.
        let _ = tokio::time::timeout(patience, renewed).await;
        self.known.borrow().snapshot(boottime())
    }

    /// One request to PID 1. Not cancelled with the request that began it: others wait for it, too.
    async fn refresh(self: Arc<Cache>) {
        let answer = ask(self.run.clone()).await;
        self.known.send_modify(|known| known.end(answer));
    }
}

/// Asks PID 1 for its status on a thread, because the client blocks; it has a deadline of its own.
pub(super) async fn ask(run: PathBuf) -> Option<Status> {
    let asked = tokio::task::spawn_blocking(move || client::request(&run, "status", &[])).await;
    let answer = match asked {
        Ok(Ok(mut answer)) => answer.get_mut("status").map(serde_json::Value::take).unwrap_or_default(),
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "no status");
            return None;
        }
        Err(e) => {
            tracing::error!(error = %e, "the request for the status broke off");
            return None;
        }
    };
    match serde_json::from_value(answer) {
        Ok(status) => Some(discreet(status)),
        Err(e) => {
            tracing::error!(error = %e, "the status cannot be understood");
            None
        }
    }
}

/// Pure: the status without what services and programs printed, which may hold a statement with its values. None of it is
/// kept here, so no route can show it. A sentence of ours is one line; what follows it is quoted from an output.
fn discreet(mut status: Status) -> Status {
    let first_line = |text: &mut String| text.truncate(text.find(['\n', '\r']).unwrap_or(text.len()));
    first_line(&mut status.reason);
    if let Readiness::Not { because } = &mut status.readiness {
        first_line(because);
    }
    for service in &mut status.services {
        service.output.clear();
        first_line(&mut service.detail);
        service.rows.iter_mut().for_each(|row| first_line(&mut row.detail));
    }
    status
}

/// The clock that goes on while the machine sleeps.
pub(super) fn boottime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testkit;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn known() -> Known {
        Known { status: None, refresh: Refresh::Never, before: Refresh::Never, asked: None }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pid_1_is_asked_at_most_once_a_second_and_by_one_at_a_time() {
        let mut known = known();
        assert!(known.due(at(0)));
        known.begin(at(0));
        assert!(!known.due(at(60_000)), "one is under way");
        known.end(None);
        assert!(!known.due(at(999)) && known.due(at(1_000)));
    }

    #[test]
    fn facts_are_as_old_as_their_question_and_a_failed_refresh_keeps_them() {
        let mut known = known();
        assert!(known.snapshot(at(0)).last.is_none());
        known.begin(at(1_000));
        known.end(Some(testkit::status()));
        known.begin(at(3_000));
        known.end(None);
        let snapshot = known.snapshot(at(6_000));
        assert_eq!(snapshot.fresh().map(|(_, age)| age), Some(at(5_000)));
        let snapshot = known.snapshot(at(6_001));
        assert!(snapshot.fresh().is_none() && snapshot.last.is_some());
    }

    #[test]
    fn it_waits_longer_only_when_the_facts_are_old_because_nobody_asked() {
        let mut known = known();
        known.begin(at(0));
        assert_eq!(known.patience(at(0)), FIRST);
        known.end(Some(testkit::status()));
        known.begin(at(2_000));
        assert_eq!(known.patience(at(2_000)), BRIEFLY, "there is something to fall back on");
        known.end(Some(testkit::status()));
        known.begin(at(90_000));
        assert_eq!(known.patience(at(90_000)), FIRST, "nobody asked for long");
        known.end(None);
        known.begin(at(92_000));
        assert_eq!(known.patience(at(92_000)), BRIEFLY, "it did not answer the last time either");
    }

    #[test]
    fn what_was_printed_is_not_kept() {
        let mut status = testkit::status();
        status.reason = "keeper: no\nPRINTED".to_owned();
        status.readiness = Readiness::Not { because: "degraded: keeper: no\nPRINTED".to_owned() };
        status.services[0].output = vec!["PRINTED".to_owned()];
        status.services[0].detail = "failed\r\n  | PRINTED".to_owned();
        status.services[0].rows[0].detail =
            "UNPROTECTED: the engine failed (exit 1)\n  | PRINTED\n  | more".to_owned();
        let kept = discreet(status);
        assert!(!serde_json::to_string(&kept).unwrap().contains("PRINTED"), "{kept:?}");
        assert_eq!(kept.services[0].rows[0].detail, "UNPROTECTED: the engine failed (exit 1)");
        assert_eq!(discreet(testkit::status()), testkit::status(), "nothing else is touched");
    }

    #[tokio::test]
    async fn a_crowd_costs_one_request() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let status = serde_json::to_value(testkit::status()).unwrap();
                let answer = serde_json::json!({"v": 1, "answer": "status", "status": status});
                stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        });
        let cache = Arc::new(Cache::new(dir.path().to_path_buf()));
        let crowd = futures::future::join_all((0..50).map(|_| cache.look())).await;
        assert!(crowd.iter().all(|snapshot| snapshot.fresh().is_some()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn without_a_supervisor_the_answer_comes_at_once_and_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::new(dir.path().to_path_buf()));
        assert!(cache.look().await.last.is_none());
    }
}
