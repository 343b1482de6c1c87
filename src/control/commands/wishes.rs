//! `supafly start`, `stop`, `restart`, `freeze`, `thaw`: a wish is handed on, and what became of it is waited for, so that
//! who comes back from the command finds what it says.

use super::{ask, print};
use crate::control::client::{self, ClientError};
use crate::exit::{Exit, Failure};
use crate::spec::duration;
use crate::status::{ServiceStatus, Status};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is wished of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Everything {
    /// It stands still.
    Freeze,
    /// It goes on.
    Thaw,
}

/// What is wished of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One that is down comes up.
    Start,
    /// It goes down.
    Stop,
    /// It goes down and comes up again.
    Restart,
}

impl Change {
    const fn verb(self) -> &'static str {
        match self {
            Change::Start => "start",
            Change::Stop => "stop",
            Change::Restart => "restart",
        }
    }
}

/// How long the outcome is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: that it was accepted is enough.
    None,
    /// So long.
    For(Duration),
}

/// How often the outcome is looked for.
const EVERY: Duration = Duration::from_millis(50);
/// How often a freeze that is refused because of work under way is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Hands on a wish for everything and says what became of it: 0 when it came true, else 1 with the reason.
///
/// # Errors
/// There is no supervisor, or it does not answer.
pub fn everything(run: &Path, wish: Everything, patience: Patience) -> Result<Exit, Failure> {
    match wish {
        Everything::Freeze => freeze(run, patience),
        Everything::Thaw => match told(client::request(run, "thaw", &[]))? {
            Told::Done => say(Exit::Clean, "thawed"),
            Told::Nothing(why) => say(Exit::Clean, &why),
            Told::No(why) => say(Exit::No, &why),
        },
    }
}

fn freeze(run: &Path, patience: Patience) -> Result<Exit, Failure> {
    let until = now() + wait(patience);
    loop {
        // Answered when it is proved; a service may take its time to quiesce.
        match told(client::request_within(run, "freeze", &[], Duration::from_secs(120)))? {
            Told::Done => return say(Exit::Clean, "frozen; `supafly thaw` lets everything go on"),
            Told::Nothing(why) => return say(Exit::Clean, &why),
            Told::No(why) if now() >= until => return say(Exit::No, &format!("not frozen: {why}")),
            Told::No(_) => std::thread::sleep(AGAIN),
        }
    }
}

/// Hands on a wish for one service (`dependents`: and those who come after it) and says what became of it, as
/// [`everything`] does.
///
/// # Errors
/// There is no supervisor, or it does not answer.
pub fn one(
    run: &Path,
    change: Change,
    name: &str,
    dependents: bool,
    patience: Patience,
) -> Result<Exit, Failure> {
    let (before, _) = ask(run).map_err(|e| Failure::gave_up(e.to_string()))?;
    let arguments = [("service", name.into()), ("with_dependents", dependents.into())];
    match told(client::request(run, change.verb(), &arguments))? {
        Told::Nothing(why) => return say(Exit::Clean, &why),
        Told::No(why) => return say(Exit::No, &why),
        Told::Done => {}
    }
    let Patience::For(long) = patience else { return say(Exit::Clean, "accepted") };
    let until = now() + long;
    loop {
        let (after, _) = ask(run).map_err(|e| Failure::gave_up(e.to_string()))?;
        match outcome(change, name, &before, &after) {
            Outcome::True(text) => return say(Exit::Clean, &text),
            Outcome::Failed(text) => return say(Exit::No, &text),
            Outcome::NotYet(text) if now() >= until => {
                let long = duration::show(long);
                return say(
                    Exit::No,
                    &format!("{text}; not waiting longer than {long}, it goes on without us"),
                );
            }
            Outcome::NotYet(_) => std::thread::sleep(EVERY),
        }
    }
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    True(String),
    Failed(String),
    NotYet(String),
}

/// Pure: compares the status before and after a wish for one service.
fn outcome(change: Change, name: &str, before: &Status, after: &Status) -> Outcome {
    let find = |status: &Status| status.services.iter().find(|s| s.name == name).cloned();
    let Some(now) = find(after) else { return Outcome::Failed(format!("{name}: there is no such service")) };
    let text = described(&now);
    let state = now.state.as_str();
    match change {
        Change::Stop => match state {
            "stopped" | "failed" | "held" | "done" | "absent" => Outcome::True(text),
            _ => Outcome::NotYet(text),
        },
        Change::Start | Change::Restart => {
            let former = find(before);
            // What was accepted to start and is ready may never have gone; a restart shows another life of it.
            let another = change == Change::Start
                || former.is_none_or(|former| {
                    let runs = now.run.is_some() && now.run != former.run;
                    runs || now.restarts > former.restarts || (former.run.is_none() && former.state != state)
                });
            match state {
                // Not as it was before: with the answer that was over.
                "failed" | "held" | "absent" | "blocked" | "stopped" | "no-room" => {
                    Outcome::Failed([text, now.output.join("\n")].join("\n").trim_end().to_owned())
                }
                "ready" | "done" if another => Outcome::True(text),
                _ => Outcome::NotYet(text),
            }
        }
    }
}

fn described(s: &ServiceStatus) -> String {
    match s.detail.as_str() {
        "" => format!("{}: {}", s.name, s.state),
        detail => format!("{}: {}, {detail}", s.name, s.state),
    }
}

/// What the supervisor says to a wish.
enum Told {
    Done,
    Nothing(String),
    No(String),
}

fn told(answer: Result<serde_json::Value, ClientError>) -> Result<Told, Failure> {
    let text = |v: &serde_json::Value, key: &str| v.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    match answer {
        Ok(answer) if text(&answer, "answer").as_deref() == Some("nothing to do") => {
            Ok(Told::Nothing(text(&answer, "because").unwrap_or_default()))
        }
        Ok(_) => Ok(Told::Done),
        Err(ClientError::Rejected(why)) => Ok(Told::No(why)),
        Err(error @ (ClientError::Absent(_) | ClientError::Io { .. })) => {
            Err(Failure::gave_up(error.to_string()))
        }
    }
}

fn say(exit: Exit, text: &str) -> Result<Exit, Failure> {
    print(&format!("{text}\n"))?;
    Ok(exit)
}

fn wait(patience: Patience) -> Duration {
    match patience {
        Patience::None => Duration::ZERO,
        Patience::For(long) => long,
    }
}

#[allow(clippy::disallowed_methods, reason = "a deadline of this very command")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, run: Option<u64>, restarts: u64) -> Status {
        serde_json::from_value(serde_json::json!({
            "version": 1, "state": "ready", "reason": "", "up_ms": 1, "services":
            [{"name": "db", "state": state, "detail": "", "for_ms": 1, "run": run, "pid": null, "restarts": restarts, "last": null}]
        }))
        .unwrap()
    }

    #[test]
    fn a_restart_came_true_when_another_run_is_ready() {
        let wish = Change::Restart;
        let before = status("ready", Some(1), 0);
        let see = |after: &Status| outcome(wish, "db", &before, after);
        assert!(matches!(see(&before), Outcome::NotYet(_)), "the old run is no answer");
        assert!(matches!(see(&status("stopping", Some(1), 0)), Outcome::NotYet(_)));
        assert!(matches!(see(&status("starting", Some(2), 1)), Outcome::NotYet(_)));
        assert_eq!(see(&status("ready", Some(2), 1)), Outcome::True("db: ready".to_owned()));
        assert!(matches!(see(&status("failed", None, 1)), Outcome::Failed(_)));
        assert!(matches!(see(&status("done", None, 1)), Outcome::True(_)), "a oneshot that ran again");
    }

    #[test]
    fn a_start_came_true_or_failed_whatever_was_counted_before() {
        let wish = Change::Start;
        let never = status("stopped", None, 0);
        let see = |before: &Status, after: &Status| outcome(wish, "db", before, after);
        assert!(
            matches!(see(&never, &status("done", None, 0)), Outcome::True(_)),
            "its first life is over already"
        );
        assert!(matches!(see(&never, &status("failed", None, 0)), Outcome::Failed(_)));
        let ready = status("ready", Some(1), 0);
        assert!(matches!(see(&ready, &ready), Outcome::True(_)), "its stop was called off");
        let again = Change::Restart;
        assert!(
            matches!(outcome(again, "db", &ready, &status("held", None, 0)), Outcome::Failed(_)),
            "fenced"
        );
        assert!(matches!(outcome(again, "db", &never, &status("done", None, 0)), Outcome::True(_)));
    }

    #[test]
    fn a_stop_came_true_when_nothing_of_it_lives() {
        let wish = Change::Stop;
        let before = status("ready", Some(1), 0);
        assert!(matches!(outcome(wish, "db", &before, &status("stopping", Some(1), 0)), Outcome::NotYet(_)));
        assert!(matches!(outcome(wish, "db", &before, &status("stopped", None, 0)), Outcome::True(_)));
    }
}
