//! Asking services whether they are ready: never more than one question in flight per service, all aligned to the
//! same tick, so that ten services with the same period cost one wake-up, not ten.

use super::words::Words;
use crate::probe::{self, ProbeError};
use crate::spec::Check;
use crate::state::Run;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, JoinSet};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Is it ready?
    Ready,
    /// Does it live?
    Live,
}

/// A question: to whom, and what.
pub(super) type Question = (Run, Topic);

/// Where the question to a run is.
#[derive(Debug)]
enum Asking {
    /// Due then.
    At(Instant),
    /// A network question is under way; it has its own deadline.
    Asked,
    /// A command runs.
    Command { pid: i32, until: Instant },
}

/// Every question.
#[derive(Debug)]
pub(super) struct Probes {
    begun: Instant,
    asking: BTreeMap<Question, (Asking, Duration)>,
    answers: JoinSet<(Question, Result<(), ProbeError>)>,
    /// Who reads what commands print, and what that is.
    readers: BTreeMap<Question, (Vec<AbortHandle>, Vec<Arc<Words>>)>,
}

impl Probes {
    pub(super) fn new(begun: Instant) -> Probes {
        Probes { begun, asking: BTreeMap::new(), answers: JoinSet::new(), readers: BTreeMap::new() }
    }

    /// Keeps exactly the questions to these runs; a new one is due at once. One that is under way stays until its answer:
    /// who is frozen meanwhile is not asked twice at once after the thaw, and its command keeps its deadline.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<Question, Duration>, now: Instant) {
        let waits = |asking: &Asking| !matches!(asking, Asking::At(_));
        self.asking.retain(|question, (asking, _)| wanted.contains_key(question) || waits(asking));
        for (question, every) in wanted {
            self.asking.entry(*question).or_insert((Asking::At(now), *every));
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asking
            .values()
            .filter_map(|(asking, _)| match asking {
                Asking::At(at) | Asking::Command { until: at, .. } => Some(*at),
                Asking::Asked => None,
            })
            .min()
    }

    /// The runs to be asked now.
    pub(super) fn due(&self, now: Instant) -> Vec<Question> {
        let due = |asking: &Asking| matches!(asking, Asking::At(at) if *at <= now);
        self.asking.iter().filter(|(_, (a, _))| due(a)).map(|(question, _)| *question).collect()
    }

    /// Commands whose time is up.
    pub(super) fn overdue(&self, now: Instant) -> Vec<(Question, i32)> {
        self.asking
            .iter()
            .filter_map(|(question, (asking, _))| match asking {
                Asking::Command { pid, until } if *until <= now => Some((*question, *pid)),
                Asking::Command { .. } | Asking::At(_) | Asking::Asked => None,
            })
            .collect()
    }

    /// Asks over the network.
    pub(super) fn ask(&mut self, asked: Question, check: Check, timeout: Duration) {
        let Some((asking, _)) = self.asking.get_mut(&asked) else { return };
        *asking = Asking::Asked;
        self.answers.spawn(async move {
            let question = async {
                match &check {
                    Check::Http { port, path } => probe::http(*port, path).await,
                    Check::Tcp { port } => probe::tcp(*port).await,
                    Check::Unix { path } => probe::unix(path).await,
                    // Commands are started by the supervisor's own hand.
                    Check::Exec { .. } => Err(ProbeError::Command("is not asked here".to_owned())),
                }
            };
            let late = || Err(ProbeError::TimedOut(crate::spec::duration::show(timeout)));
            (asked, tokio::time::timeout(timeout, question).await.unwrap_or_else(|_| late()))
        });
    }

    /// A command was started.
    pub(super) fn command(&mut self, question: Question, pid: i32, until: Instant) {
        if let Some((asking, _)) = self.asking.get_mut(&question) {
            *asking = Asking::Command { pid, until };
        }
    }

    /// These read what the command prints. They end with it: whoever it leaves behind would keep them, and their
    /// descriptors, for ever.
    pub(super) fn reads(&mut self, question: Question, readers: Vec<AbortHandle>, words: Vec<Arc<Words>>) {
        self.readers.insert(question, (readers, words));
    }

    /// The last line that a command has printed, of its errors first.
    pub(super) fn last_words(&self, question: Question) -> Option<String> {
        self.readers.get(&question)?.1.iter().find_map(|words| words.last_line())
    }

    /// An answer came: the next question is due at the next tick of its period.
    pub(super) fn answered(&mut self, question: Question, now: Instant) {
        let readers = self.readers.remove(&question).map(|(readers, _)| readers);
        readers.into_iter().flatten().for_each(|reader| reader.abort());
        let begun = self.begun;
        if let Some((asking, every)) = self.asking.get_mut(&question) {
            let every_ns = every.as_nanos().max(1);
            let past = now.saturating_duration_since(begun).as_nanos();
            let wait = every_ns - past % every_ns;
            *asking = Asking::At(now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
    }

    /// The next network answer; pending for ever while nothing is asked.
    pub(super) async fn answer(&mut self) -> (Question, Result<(), ProbeError>) {
        loop {
            match self.answers.join_next().await {
                Some(Ok(answer)) => return answer,
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_asked_one_at_a_time_and_on_a_common_tick() {
        let begun = Instant::now();
        let mut probes = Probes::new(begun);
        let second = Duration::from_secs(1);
        let at = |ms| begun + Duration::from_millis(ms);
        let (one, two) = ((Run(1), Topic::Ready), (Run(1), Topic::Live));
        probes.keep(&BTreeMap::from([(one, second)]), at(300));
        probes.keep(&BTreeMap::from([(one, second), (two, second)]), at(700));
        assert_eq!(probes.due(at(700)), [one, two]);
        probes.command(one, 7, at(900));
        assert_eq!(probes.due(at(5_000)), [two]);
        assert_eq!(probes.overdue(at(900)), [(one, 7)]);
        probes.answered(one, at(950));
        probes.answered(two, at(999));
        assert_eq!(probes.next(), Some(at(1_000)));
        assert_eq!(probes.due(at(1_000)), [one, two]);
        probes.keep(&BTreeMap::new(), at(1_000));
        assert_eq!(probes.next(), None);
    }

    #[test]
    fn a_command_under_way_is_neither_forgotten_nor_asked_beside_itself() {
        let begun = Instant::now();
        let mut probes = Probes::new(begun);
        let (one, wanted) =
            ((Run(1), Topic::Live), BTreeMap::from([((Run(1), Topic::Live), Duration::from_secs(1))]));
        probes.keep(&wanted, begun);
        probes.command(one, 7, begun + Duration::from_millis(500));
        probes.keep(&BTreeMap::new(), begun);
        probes.keep(&wanted, begun);
        assert_eq!(probes.due(begun + Duration::from_secs(9)), []);
        probes.keep(&BTreeMap::new(), begun);
        assert_eq!(probes.overdue(begun + Duration::from_millis(500)), [(one, 7)]);
        probes.answered(one, begun);
        probes.keep(&BTreeMap::new(), begun);
        assert_eq!(probes.next(), None);
    }
}
