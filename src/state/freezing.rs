//! Everything stands still, and goes on: what may be frozen, in which order, and what happens to deadlines meanwhile.
//!
//! ```text
//!  Up ─► Freezing(Quiescing) ─► Freezing(Standing) ─► Frozen ─► Up
//!   ▲            │ thaw                │ busy, late, thaw
//!   └────────────┴─────────────────────┘
//! ```
//!
//! A freeze is refused while something is under way that would be cut in the middle: a oneshot, a start, a stop, or (the
//! edge sees that, [`Happened::Busy`](super::Happened::Busy)) a short-lived child such as an archive command. What stands
//! for an hour has not been silent for an hour: on a thaw every deadline of it moves by the time that it stood.

use super::machine::{Answer, Machine, Whole};
use super::mutant::{self, Mutant};
use super::states::{Before, Held, Phase};
use super::{Action, Run, Service, State};
use crate::spec::{Freezing, Kind, ServiceName};
use std::time::{Duration, Instant};

/// How long processes may take to stand still: only one in the middle of a read from a dead disk takes longer.
const STANDING: Duration = Duration::from_secs(5);

/// How far a freeze is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A service that declared it is asked to make ready.
    Quiescing {
        /// Which.
        asked: ServiceName,
        /// Its run.
        run: Run,
    },
    /// Processes are being stopped.
    Standing,
}

impl Machine {
    pub(super) fn freeze(&mut self, by: String, now: Instant, actions: &mut Vec<Action>) -> Answer {
        match &self.whole {
            Whole::Stopping { .. } => return Answer::Rejected("everything is stopping".to_owned()),
            Whole::Ended(_) => return Answer::Rejected("everything has stopped".to_owned()),
            Whole::Freezing { .. } => return Answer::Nothing("it is being frozen already".to_owned()),
            Whole::Frozen { .. } => return Answer::Nothing("everything is frozen already".to_owned()),
            Whole::Up => {}
        }
        if let Some(why) = self.unsettled() {
            return Answer::Rejected(why);
        }
        if !self.services.values().any(stands) {
            return Answer::Nothing("nothing runs that could be frozen".to_owned());
        }
        self.refused = None;
        let handler = self.services.values().find_map(|s| match s.state() {
            State::Ready { run, .. } => Some((s.name().clone(), *run, s.spec().quiesces?)),
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => None,
        });
        match handler {
            Some((asked, run, within)) => {
                actions.push(Action::Quiesce { name: asked.clone(), run });
                let stage = Stage::Quiescing { asked, run };
                self.whole = Whole::Freezing { by, until: now + within, stage };
            }
            None => self.stand(by, now, actions),
        }
        Answer::Accepted
    }

    pub(super) fn thaw(&mut self, by: &str, now: Instant, actions: &mut Vec<Action>) -> Answer {
        match &self.whole {
            Whole::Up => Answer::Nothing("nothing is frozen".to_owned()),
            Whole::Stopping { .. } | Whole::Ended(_) => Answer::Nothing("everything is stopping".to_owned()),
            Whole::Freezing { .. } => {
                self.not_frozen(format!("thawed before it was frozen, by {by}"), now, actions);
                Answer::Accepted
            }
            Whole::Frozen { .. } => {
                self.whole = Whole::Up;
                self.go_on(now, actions);
                Answer::Accepted
            }
        }
    }

    /// The service that was asked to quiesce has done so.
    pub(super) fn quiesced(&mut self, name: &ServiceName, run: Run, now: Instant, actions: &mut Vec<Action>) {
        if let Whole::Freezing { by, stage: Stage::Quiescing { asked, run: its }, .. } = &self.whole
            && (asked, *its) == (name, run)
        {
            let by = by.clone();
            self.stand(by, now, actions);
        }
    }

    /// One of those that are to stand has work under way.
    pub(super) fn busy(&mut self, run: Run, why: &str, now: Instant, actions: &mut Vec<Action>) {
        let frozen = |s: &Service| matches!(s.state(), State::Frozen { run: its, .. } if *its == run);
        if matches!(self.whole, Whole::Freezing { .. }) && self.services.values().any(frozen) {
            self.not_frozen(why.to_owned(), now, actions);
        }
    }

    /// What follows by itself: proved, or too late.
    pub(super) fn freezing(&mut self, now: Instant, actions: &mut Vec<Action>) -> bool {
        let Whole::Freezing { by, until, stage } = &self.whole else { return false };
        let (by, late) = (by.clone(), *until <= now);
        match stage {
            Stage::Quiescing { .. } if late => self.stand(by, now, actions),
            Stage::Quiescing { .. } => return false,
            Stage::Standing => {
                let asked: Vec<String> =
                    self.services.values().filter(|s| is_asked(s)).map(|s| s.name().to_string()).collect();
                if asked.is_empty() {
                    self.whole = Whole::Frozen { by, at: now };
                } else if late {
                    let why = format!("not every process of {} could be stopped", asked.join(", "));
                    self.not_frozen(why, now, actions);
                } else {
                    return false;
                }
            }
        }
        true
    }

    fn stand(&mut self, by: String, now: Instant, actions: &mut Vec<Action>) {
        // Since it was asked for, something may have begun.
        if let Some(why) = self.unsettled() {
            self.not_frozen(why, now, actions);
            return;
        }
        self.whole = Whole::Freezing { by, until: now + STANDING, stage: Stage::Standing };
        // Those who use a service stand before it does.
        for name in self.plan.order().to_vec().iter().rev() {
            if let Some(service) = self.services.get_mut(name).filter(|s| stands(s)) {
                actions.extend(service.freeze(now));
            }
        }
    }

    fn not_frozen(&mut self, why: String, now: Instant, actions: &mut Vec<Action>) {
        self.whole = Whole::Up;
        self.refused = Some(why);
        self.go_on(now, actions);
    }

    /// Everybody who stands goes on, dependencies first; whoever was asked to quiesce is told.
    pub(super) fn go_on(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for name in self.plan.order().to_vec() {
            let Some(service) = self.services.get_mut(&name) else { continue };
            actions.extend(service.thaw(now));
            if let (Some(_), State::Ready { run, .. }) = (service.spec.quiesces, &service.state) {
                actions.push(Action::Resume { name: name.clone(), run: *run });
            }
        }
    }

    /// Why a freeze now would cut something in the middle.
    fn unsettled(&self) -> Option<String> {
        self.services().filter(|s| s.spec.freezing == Freezing::Stands).find_map(|s| {
            let name = s.name();
            match (s.state().phase(), s.spec.kind) {
                (Phase::Spawning, _) => Some(format!("`{name}` is being started")),
                (Phase::Stopping | Phase::Clearing, _) => Some(format!("`{name}` is going down")),
                (Phase::Running, _) if self.leaving.contains_key(name) => {
                    Some(format!("`{name}` is going down"))
                }
                (Phase::Running, Kind::Oneshot) => Some(format!("`{name}` is at work, and ends by itself")),
                (Phase::Running, Kind::Daemon) | (Phase::Resting, _) => None,
            }
        })
    }

    /// Whether this service may be started now: what is to go does not come up first, and what stands is not joined by
    /// others.
    pub(super) fn may_start(&self, service: &Service) -> bool {
        match &self.whole {
            Whole::Up => !self.leaving.contains_key(service.name()),
            Whole::Freezing { .. } | Whole::Frozen { .. } => {
                service.spec.freezing == Freezing::GoesOn || mutant::is(Mutant::StartWhileFrozen)
            }
            Whole::Stopping { .. } | Whole::Ended(_) => mutant::is(Mutant::StartWhileStopping),
        }
    }
}

fn stands(service: &Service) -> bool {
    service.spec.freezing == Freezing::Stands && service.state().phase() == Phase::Running
}

fn is_asked(service: &Service) -> bool {
    matches!(service.state(), State::Frozen { held: Held::Asked, .. })
}

impl Service {
    fn freeze(&mut self, now: Instant) -> Vec<Action> {
        let (run, pid, before) = match &self.state {
            State::Starting { run, pid } => (*run, *pid, Before::Starting),
            State::Ready { run, pid, up } => (*run, *pid, Before::Ready(up.clone())),
            State::Waiting
            | State::Absent
            | State::Spawning { .. }
            | State::Frozen { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Cramped(_)
            | State::Done
            | State::Down(_)
            | State::GaveUp(_) => return Vec::new(),
        };
        // Not `set`: it is in the middle of what it was in, since when it was.
        self.state = State::Frozen { run, pid, at: now, held: Held::Asked, before };
        vec![Action::Freeze { name: self.spec.name.clone(), run }]
    }

    /// It goes on, and what it stood does not count.
    fn thaw(&mut self, now: Instant) -> Vec<Action> {
        let State::Frozen { run, pid, at, before, .. } = &self.state else { return Vec::new() };
        let (run, pid) = (*run, *pid);
        let stood = match mutant::is(Mutant::StandingCounts) {
            true => Duration::ZERO,
            false => now.saturating_duration_since(*at),
        };
        self.state = match before.clone() {
            Before::Starting => State::Starting { run, pid },
            Before::Ready(mut up) => {
                up.alive += stood;
                up.turned += stood;
                up.proof = up.proof.map(|by| by + stood);
                State::Ready { run, pid, up }
            }
        };
        self.since += stood;
        vec![Action::Thaw { name: self.spec.name.clone(), run }]
    }
}
