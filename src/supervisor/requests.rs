//! Requests over the control socket: who may ask what, and the answers.

use super::driver::Driver;
use crate::control::client::Report;
use crate::control::server::{self, Call, Peer, Verb};
use crate::os::output::Tail;
use crate::spec::ServiceName;
use crate::state::{Answer, Event, Run, State};
use crate::status;
use std::time::Instant;

impl Driver {
    /// Answers one request. A client that has gone meanwhile changes nothing.
    pub(super) fn called(&mut self, call: Call) {
        let Call { peer, verb, answer } = call;
        let service = self.service_of(peer.pid);
        let reply = match refusal(peer, &verb, service.is_some()) {
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
            Verb::Stop(None) => {
                tracing::info!(uid = peer.uid, pid = peer.pid, "asked to stop over the control socket");
                told(self.feed(Event::Stop("asked over the control socket".to_owned())))
            }
            Verb::Stop(Some(_)) | Verb::Start(_) => server::Answer::Rejected(
                "not yet: only everything can be stopped; `retry` starts what failed".to_owned(),
            ),
            Verb::Retry(Some(name)) => match named(&name) {
                Ok(name) => told(self.feed(Event::Retry(name))),
                Err(rejected) => rejected,
            },
            Verb::Retry(None) => {
                let failed: Vec<_> = self
                    .machine
                    .services()
                    .filter(|s| matches!(s.state(), State::GaveUp(_)))
                    .map(|s| s.spec().name.clone())
                    .collect();
                if failed.is_empty() {
                    return server::Answer::NothingToDo("no service is held or has failed".to_owned());
                }
                failed.into_iter().for_each(|name| drop(self.feed(Event::Retry(name))));
                server::Answer::Accepted
            }
            Verb::Freeze | Verb::Thaw => {
                server::Answer::Rejected("not yet: freezing is not part of this release".to_owned())
            }
        }
    }

    fn status(&self) -> server::Answer {
        let output = self.tails.iter().map(|(name, tail)| (name.clone(), Tail::lines(tail))).collect();
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
        Verb::Stop(_) | Verb::Start(_) | Verb::Retry(_) | Verb::Freeze | Verb::Thaw => {
            !supervised && (peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw())
        }
    };
    (!allowed)
        .then(|| "only root, or the supervisor's own user, may ask that, and no service of it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_may_look_and_report_and_nothing_else() {
        let root = Peer { pid: 1, uid: 0 };
        let other = Peer { pid: 1, uid: 12_345 };
        assert_eq!(refusal(other, &Verb::Status, true), None);
        assert_eq!(refusal(other, &Verb::Report(Box::default()), true), None);
        for verb in
            [Verb::Stop(None), Verb::Retry(None), Verb::Freeze, Verb::Thaw, Verb::Start("x".to_owned())]
        {
            assert_eq!(refusal(root, &verb, false), None);
            assert!(refusal(root, &verb, true).is_some());
            assert!(refusal(other, &verb, false).is_some());
        }
    }
}
