//! Requests over the control socket: who may ask what, and the answers.

use super::driver::Driver;
use crate::control::client::Report;
use crate::control::server::{self, Call, Peer, Verb, Wanted};
use crate::os::procfs;
use crate::spec::ServiceName;
use crate::state::{Answer, Event, Run, Service, State, Whole};
use crate::status;
use std::time::Instant;
use tokio::sync::oneshot;

impl Driver {
    /// Answers one request. A client that has gone meanwhile changes nothing.
    pub(super) fn called(&mut self, call: Call) {
        let Call { peer, verb, answer } = call;
        let service = self.service_of(peer.pid);
        let supervised = service.is_some() || has_gone(peer);
        if verb == Verb::Freeze && refusal(peer, &verb, supervised).is_none() {
            return self.freeze_for(peer, answer);
        }
        let reply = match refusal(peer, &verb, supervised) {
            Some(because) => server::Answer::Rejected(because),
            None => self.answer(peer, verb, service),
        };
        let _ = answer.send(reply);
    }

    fn answer(&mut self, peer: Peer, verb: Verb, service: Option<(ServiceName, Run)>) -> server::Answer {
        let named = |name: &str| {
            ServiceName::new(name)
                .ok_or_else(|| server::Answer::Rejected(format!("`{name}` is no service's name")))
        };
        match verb {
            Verb::Status => self.status(),
            Verb::Report(report) => match service {
                Some((name, _)) => self.report(&name, *report),
                None => server::Answer::Rejected("only a service of this supervisor can report".to_owned()),
            },
            Verb::StopAll => {
                tracing::info!(uid = peer.uid, pid = peer.pid, "asked to stop over the control socket");
                told(self.feed(Event::Stop("asked over the control socket".to_owned())))
            }
            Verb::Stop(name, dependents) => match named(&name) {
                Ok(name) => self.wish(peer, "stop", Event::StopOne { name, dependents, by: by(peer) }),
                Err(rejected) => rejected,
            },
            Verb::Restart(name, dependents) => match named(&name) {
                Ok(name) => self.wish(peer, "restart", Event::RestartOne { name, dependents, by: by(peer) }),
                Err(rejected) => rejected,
            },
            Verb::Start(name) => match named(&name) {
                Ok(name) => self.wish(peer, "start", Event::Start(name)),
                Err(rejected) => rejected,
            },
            Verb::Retry => {
                let failed: Vec<_> = self
                    .machine
                    .services()
                    .filter(|s| s.given_up().is_some())
                    .map(|s| s.spec().name.clone())
                    .collect();
                if failed.is_empty() {
                    return server::Answer::NothingToDo("no service is held or has failed".to_owned());
                }
                failed.into_iter().for_each(|name| drop(self.feed(Event::Start(name))));
                server::Answer::Accepted
            }
            Verb::Logs(wanted) => self.logs(wanted),
            Verb::Thaw => self.wish(peer, "thaw", Event::Thaw(by(peer))),
            // Answered when it is proved, by `freeze_for`.
            Verb::Freeze => server::Answer::Rejected("not answered here".to_owned()),
        }
    }

    /// Somebody's wish, and its answer in the log.
    fn wish(&mut self, peer: Peer, verb: &'static str, event: Event) -> server::Answer {
        let what = match &event {
            Event::Start(name) | Event::StopOne { name, .. } | Event::RestartOne { name, .. } => {
                name.to_string()
            }
            Event::Freeze(_)
            | Event::Thaw(_)
            | Event::Stop(_)
            | Event::Fence { .. }
            | Event::Service { .. }
            | Event::Looked { .. }
            | Event::Tick
            | Event::Overslept(_) => "everything".to_owned(),
        };
        let answer = self.feed(event);
        match &answer {
            Answer::Accepted => tracing::info!(uid = peer.uid, pid = peer.pid, "asked to {verb} {what}"),
            Answer::Nothing(why) | Answer::Rejected(why) => {
                tracing::info!(uid = peer.uid, pid = peer.pid, "asked to {verb} {what}: {why}");
            }
        }
        told(answer)
    }

    fn freeze_for(&mut self, peer: Peer, waits: oneshot::Sender<server::Answer>) {
        let answer = self.wish(peer, "freeze", Event::Freeze(by(peer)));
        // Who asks while it is under way is answered with it: that it is on its way is no proof.
        if matches!(answer, server::Answer::Accepted)
            || matches!(self.machine.whole(), Whole::Freezing { .. })
        {
            self.freezers.retain(|freezer| freezer.as_ref().is_none_or(|freezer| !freezer.is_closed()));
            self.freezers.push(Some(waits));
            self.tell_freezers();
        } else {
            // Who has gone meanwhile need not be told.
            let _ = waits.send(answer);
        }
    }

    fn logs(&self, wanted: Wanted) -> server::Answer {
        if let Some(name) = &wanted.service {
            let known = name == "supafly"
                || ServiceName::new(name).is_some_and(|name| self.machine.service(&name).is_some());
            if !known {
                return server::Answer::Rejected(format!("there is no service `{name}`"));
            }
        }
        server::Answer::Lines(self.rings.clone(), wanted)
    }

    fn status(&self) -> server::Answer {
        // Last words only of those of whom they are shown.
        let failed =
            |s: &&Service| matches!(s.state(), State::GaveUp(_) | State::Backoff { .. } | State::Cramped(_));
        let words = |s: &Service| self.rings.ring(s.spec().name.as_str()).lines();
        let output =
            self.machine.services().filter(failed).map(|s| (s.spec().name.clone(), words(s))).collect();
        let status = status::status(&self.machine, &self.reported, &output, self.begun, Instant::now());
        match serde_json::to_value(status) {
            Ok(value) => server::Answer::Status(Box::new(value)),
            Err(error) => server::Answer::Rejected(format!("the status cannot be written: {error}")),
        }
    }

    fn report(&mut self, name: &ServiceName, report: Report) -> server::Answer {
        let facts = self.reported.entry(name.clone()).or_default();
        facts.rows = report.rows;
        facts.health = report.health.map(|h| (h.ok, h.reason, Instant::now()));
        facts.values = report.values;
        match report.fence {
            Some(why) => {
                tracing::error!(service = %name, why, "asks for a fence");
                told(self.feed(Event::Fence { by: name.clone(), why }))
            }
            None => server::Answer::Accepted,
        }
    }
}

/// Whether the process that connected has gone: whose it was is not known any more, and a service could hand its
/// connection to a child and hide so. (0 is one outside our namespace.)
fn has_gone(peer: Peer) -> bool {
    peer.pid != 0 && procfs::is_ours() && matches!(procfs::process(peer.pid), Ok(None))
}

fn by(peer: Peer) -> String {
    format!("uid {} over the control socket", peer.uid)
}

fn told(answer: Answer) -> server::Answer {
    match answer {
        Answer::Accepted => server::Answer::Accepted,
        Answer::Nothing(because) => server::Answer::NothingToDo(because),
        Answer::Rejected(because) => server::Answer::Rejected(because),
    }
}

/// Pure but for our own uid: why this peer may not ask this. A supervised process, whatever its uid, may read the
/// status and report; root and we ourselves may do everything else.
fn refusal(peer: Peer, verb: &Verb, supervised: bool) -> Option<String> {
    let allowed = match verb {
        Verb::Status | Verb::Report(_) => true,
        // Lines may hold what only their service should know.
        Verb::Logs(_)
        | Verb::StopAll
        | Verb::Stop(..)
        | Verb::Start(_)
        | Verb::Restart(..)
        | Verb::Retry
        | Verb::Freeze
        | Verb::Thaw => !supervised && (peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw()),
    };
    (!allowed)
        .then(|| "only root, or the supervisor's own user, may ask that, and no service of it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::server::Follow;
    use crate::state::Dependents;

    #[test]
    fn who_has_gone_is_known_to_nobody() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let peer = Peer { pid: i32::try_from(child.id()).unwrap(), uid: 0 };
        assert!(!has_gone(peer), "a zombie is still there");
        child.wait().unwrap();
        assert!(has_gone(peer));
        assert!(!has_gone(Peer { pid: 0, uid: 0 }), "outside our namespace");
    }

    #[test]
    fn a_service_may_look_and_report_and_nothing_else() {
        let root = Peer { pid: 1, uid: 0 };
        let other = Peer { pid: 1, uid: 12_345 };
        assert_eq!(refusal(other, &Verb::Status, true), None);
        assert_eq!(refusal(other, &Verb::Report(Box::default()), true), None);
        let all = Wanted { service: None, after: 0, follow: Follow::No };
        for verb in [
            Verb::StopAll,
            Verb::Retry,
            Verb::Freeze,
            Verb::Thaw,
            Verb::Logs(all),
            Verb::Start("x".to_owned()),
            Verb::Stop("x".to_owned(), Dependents::Too),
            Verb::Restart("x".to_owned(), Dependents::Too),
        ] {
            assert_eq!(refusal(root, &verb, false), None);
            assert!(refusal(root, &verb, true).is_some());
            assert!(refusal(other, &verb, false).is_some());
        }
    }
}
