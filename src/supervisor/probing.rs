//! Asking services whether they are ready: never more than one question in flight per service, all aligned to the
//! same tick, so that ten services with the same period cost one wake-up, not ten. Only who is starting is asked sooner:
//! at once, and then ever less often, so that what takes 60 ms is not known after a whole period.

use super::words::Words;
use crate::probe::{self, ProbeError};
use crate::spec::{Check, Probe};
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

/// How often a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Once a period, on the common tick.
    Steady(Duration),
    /// After a part of the time that it has been asked for, until that is a period.
    Eager(Duration, Haste),
}

/// How eagerly one is asked who starts. A command costs milliseconds of the processor that the starting one needs itself, a
/// connection next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// By a command.
    Command,
    /// By a connection.
    Connection,
}

impl Haste {
    /// How long after an answer, when it has been asked `since` the first question.
    fn wait(self, since: Duration) -> Duration {
        let (part, soonest) = match self {
            Haste::Command => (4, Duration::from_millis(40)),
            Haste::Connection => (16, Duration::from_millis(5)),
        };
        (since / part).max(soonest)
    }
}

impl Pace {
    /// For who starts.
    pub(super) fn eager(probe: &Probe) -> Pace {
        let haste = match probe.check {
            Check::Exec { .. } => Haste::Command,
            Check::Http { .. } | Check::Tcp { .. } | Check::Unix { .. } => Haste::Connection,
        };
        Pace::Eager(probe.every, haste)
    }

    /// How long the first question waits. Nobody is ready before a command has found out that he is not.
    fn before(self) -> Duration {
        match self {
            Pace::Eager(every, haste @ Haste::Command) => haste.wait(Duration::ZERO).min(every),
            Pace::Eager(_, Haste::Connection) | Pace::Steady(_) => Duration::ZERO,
        }
    }

    /// How long after an answer the next question waits: `since` the first question, and since the supervisor `begun`.
    fn wait(self, since: Duration, begun: Duration) -> Duration {
        let tick = |every: Duration| {
            let every_ns = every.as_nanos().max(1);
            Duration::from_nanos(u64::try_from(every_ns - begun.as_nanos() % every_ns).unwrap_or(u64::MAX))
        };
        match self {
            Pace::Eager(every, haste) if haste.wait(since) < every => haste.wait(since),
            Pace::Eager(every, _) | Pace::Steady(every) => tick(every),
        }
    }
}

/// A question that is being asked.
#[derive(Debug)]
struct Standing {
    asking: Asking,
    pace: Pace,
    since: Instant,
}

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
    asking: BTreeMap<Question, Standing>,
    answers: JoinSet<(Question, Result<(), ProbeError>)>,
    /// Who reads what commands print, and what that is.
    readers: BTreeMap<Question, (Vec<AbortHandle>, Vec<Arc<Words>>)>,
}

impl Probes {
    pub(super) fn new(begun: Instant) -> Probes {
        Probes { begun, asking: BTreeMap::new(), answers: JoinSet::new(), readers: BTreeMap::new() }
    }

    /// Keeps exactly the questions to these runs; a new one is due at once, or as its pace says. One that is under way stays until its answer:
    /// who is frozen meanwhile is not asked twice at once after the thaw, and its command keeps its deadline.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<Question, Pace>, now: Instant) {
        let waits = |asking: &Asking| !matches!(asking, Asking::At(_));
        self.asking.retain(|question, asked| wanted.contains_key(question) || waits(&asked.asking));
        for (question, pace) in wanted {
            let new = Standing { asking: Asking::At(now + pace.before()), pace: *pace, since: now };
            let asked = self.asking.entry(*question).or_insert(new);
            if asked.pace != *pace {
                asked.pace = *pace;
                if let Asking::At(at) = &mut asked.asking {
                    *at = now
                        + pace.wait(
                            now.saturating_duration_since(asked.since),
                            now.saturating_duration_since(self.begun),
                        );
                }
            }
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asking
            .values()
            .filter_map(|asked| match asked.asking {
                Asking::At(at) | Asking::Command { until: at, .. } => Some(at),
                Asking::Asked => None,
            })
            .min()
    }

    /// The runs to be asked now.
    pub(super) fn due(&self, now: Instant) -> Vec<Question> {
        let due = |asked: &Standing| matches!(asked.asking, Asking::At(at) if at <= now);
        self.asking.iter().filter(|(_, asked)| due(asked)).map(|(question, _)| *question).collect()
    }

    /// Commands whose time is up.
    pub(super) fn overdue(&self, now: Instant) -> Vec<(Question, i32)> {
        self.asking
            .iter()
            .filter_map(|(question, asked)| match asked.asking {
                Asking::Command { pid, until } if until <= now => Some((*question, pid)),
                Asking::Command { .. } | Asking::At(_) | Asking::Asked => None,
            })
            .collect()
    }

    /// Asks over the network.
    pub(super) fn ask(&mut self, asked: Question, check: Check, timeout: Duration) {
        let Some(standing) = self.asking.get_mut(&asked) else { return };
        standing.asking = Asking::Asked;
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
        if let Some(standing) = self.asking.get_mut(&question) {
            standing.asking = Asking::Command { pid, until };
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

    /// An answer came: the next question is due when its pace says.
    pub(super) fn answered(&mut self, question: Question, now: Instant) {
        let readers = self.readers.remove(&question).map(|(readers, _)| readers);
        readers.into_iter().flatten().for_each(|reader| reader.abort());
        let begun = now.saturating_duration_since(self.begun);
        if let Some(asked) = self.asking.get_mut(&question) {
            let wait = asked.pace.wait(now.saturating_duration_since(asked.since), begun);
            asked.asking = Asking::At(now + wait);
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
        let second = Pace::Steady(Duration::from_secs(1));
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
        let (one, wanted) = (
            (Run(1), Topic::Live),
            BTreeMap::from([((Run(1), Topic::Live), Pace::Steady(Duration::from_secs(1)))]),
        );
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

    #[test]
    fn who_starts_is_asked_soon_and_ever_less_often_until_the_common_tick() {
        let (every, begun) = (Duration::from_secs(1), Instant::now());
        let question = (Run(1), Topic::Ready);
        for (haste, soonest, part, most) in [(Haste::Connection, 5, 16, 120), (Haste::Command, 40, 4, 40)] {
            let soonest = Duration::from_millis(soonest);
            let mut probes = Probes::new(begun);
            let eager = BTreeMap::from([(question, Pace::Eager(every, haste))]);
            probes.keep(&eager, begun);
            let (mut now, mut asked) = (begun, 0);
            while now < begun + Duration::from_secs(20) {
                now = probes.next().unwrap();
                assert_eq!(probes.due(now), [question]);
                probes.command(question, 7, now + every);
                probes.answered(question, now);
                asked += 1;
                // Nobody who takes long is known later than a part of that after he is ready, and never after a period.
                let wait = probes.next().unwrap() - now;
                assert!(
                    wait <= soonest.max((now - begun) / part).min(every),
                    "{wait:?} at {:?}",
                    now - begun
                );
                assert!(wait >= soonest || now - begun >= every, "{wait:?} at {:?}", now - begun);
            }
            assert!(asked < most, "{haste:?}: asked {asked} times");
        }
        // Once it is ready it is asked on the tick, and the question that was due sooner is not.
        let mut probes = Probes::new(begun);
        probes.keep(&BTreeMap::from([(question, Pace::Eager(every, Haste::Connection))]), begun);
        probes.command(question, 7, begun + every);
        let ready = begun + Duration::from_millis(60);
        probes.answered(question, ready);
        assert_eq!(probes.next(), Some(ready + Duration::from_millis(5)));
        probes.keep(&BTreeMap::from([(question, Pace::Steady(every))]), ready);
        assert_eq!(probes.next(), Some(begun + every));
    }
}
