//! The wait for room (`room`). A service that fails because its file system is full fails again until somebody makes room:
//! that takes as long as it takes, and no number of attempts says anything. So when one has failed that names the room it
//! needs, its file system is looked at; while there is too little, it waits here, outside of its restart policy.
//!
//! ```text
//!  failed ─► First ─┬─ enough, or nothing to be seen ─► what its policy says
//!                   └─ too little ─► Rests ⇄ Again ─ enough, or long enough ─► Waiting
//! ```
//!
//! That there is little room does not prove that a start needs it: Postgres removes temporary files and recycles segments when
//! it starts. So what was ready, or was killed, is started as ever, and only a start that came to nothing by itself waits; and
//! who waits is tried all the same, ever less often.
//!
//! A look may hang as long as the file system does: it has a number and a deadline, and what comes after that changes nothing.

use super::mutant::{self, Mutant};
use super::states::State;
use super::{Action, Ending, Service, Why};
use crate::plan::Plan;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// Whoever was ready for so long had room to start.
pub(super) const USEFUL: Duration = Duration::from_secs(10);
/// After so long it is started although there is too little room; each further time after twice as long.
pub(super) const DESPITE: Duration = Duration::from_secs(30);
/// But never after more than this.
const DESPITE_MOST: Duration = Duration::from_secs(600);

/// A service that has failed and may have too little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cramped {
    /// How it ended.
    pub last: Ending,
    /// Why it had failed, where that was said by us.
    pub(super) why: Option<Why>,
    /// How long the run had been ready.
    pub(super) ready_for: Option<Duration>,
    /// What is known of the room.
    pub look: Look,
}

/// Where the looking is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is looked at for the first time after the end: what follows depends on it.
    First {
        /// Which look.
        number: u64,
        /// When it is given up.
        until: Instant,
    },
    /// There was too little; the next look is due then.
    Rests {
        /// When.
        until: Instant,
        /// What is lacking.
        lack: Lack,
        /// From when on it is started all the same.
        despite: Instant,
    },
    /// There was too little, and it is being looked at again.
    Again {
        /// Which look.
        number: u64,
        /// When it is given up.
        until: Instant,
        /// What was lacking before.
        lack: Lack,
        /// From when on it is started all the same.
        despite: Instant,
    },
}

impl Look {
    pub(super) fn until(&self) -> Instant {
        match self {
            Look::First { until, .. } | Look::Rests { until, .. } | Look::Again { until, .. } => *until,
        }
    }

    pub(super) fn postpone(&mut self, by: Duration) {
        match self {
            Look::First { until, .. } => *until += by,
            Look::Rests { until, despite, .. } | Look::Again { until, despite, .. } => {
                *until += by;
                *despite += by;
            }
        }
    }

    /// What is lacking, where that is known.
    #[must_use]
    pub fn lack(&self) -> Option<&Lack> {
        match self {
            Look::First { .. } => None,
            Look::Rests { lack, .. } | Look::Again { lack, .. } => Some(lack),
        }
    }
}

/// Too little room, of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Of what could be looked at.
    Seen(Seen),
    /// The service says so itself, and nothing is to be seen of it.
    Said {
        /// Where it needs room.
        path: PathBuf,
        /// By this exit code.
        code: u8,
    },
}

/// Too little room, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Of bytes.
    Bytes {
        /// Where.
        path: PathBuf,
        /// How many are free.
        free: u64,
        /// How many must be.
        needed: u64,
    },
    /// Of inodes.
    Files {
        /// Where.
        path: PathBuf,
        /// How many more there can be.
        free: u64,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::spec::room::show;
        match self {
            Lack::Seen(Seen::Bytes { path, free, needed }) => write!(
                f,
                "no room on {}: {} are free, {} are needed: make room or grow the volume",
                path.display(),
                show(*free),
                show(
                    needed
                        .checked_next_multiple_of(1 << 20)
                        .filter(|_| *needed > 10 << 20)
                        .unwrap_or(*needed)
                )
            ),
            Lack::Seen(Seen::Files { path, free }) => write!(
                f,
                "no room on {}: there can be {free} more files (inodes): remove some, or grow the volume",
                path.display()
            ),
            Lack::Said { path, code } => write!(
                f,
                "it found no room (exit {code}; its last lines say where, and it needs it on {}): make room, grow the volume, or raise \
                 its quota",
                path.display()
            ),
        }
    }
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Enough.
    Enough,
    /// Too little.
    Lacking(Seen),
    /// Nothing, and why.
    Unknown(String),
}

impl Service {
    /// It has failed: first of all, whether it had room, where it says what it needs. What is final is final with any room.
    pub(super) fn failed(
        &mut self,
        ending: Ending,
        why: Option<Why>,
        ready_for: Option<Duration>,
        plan: &Plan,
        now: Instant,
    ) -> Vec<Action> {
        if self.spec.room.is_none() || self.is_final(&ending) {
            self.again_or_give_up(ending, why, ready_for, plan, now);
            return Vec::new();
        }
        let (number, look) = self.next_look();
        let look_for = Look::First { number, until: now + PATIENCE };
        self.set(State::Cramped(Cramped { last: ending, why, ready_for, look: look_for }), now);
        vec![look]
    }

    /// Whether the answer to this look changes anything.
    pub(super) fn awaits_look(&self, number: u64) -> bool {
        let State::Cramped(Cramped { look, .. }) = &self.state else { return false };
        match look {
            Look::First { number: asked, .. } | Look::Again { number: asked, .. } => *asked == number,
            Look::Rests { .. } => false,
        }
    }

    fn next_look(&mut self) -> (u64, Action) {
        self.looks += 1;
        (self.looks, Action::Look { name: self.spec.name.clone(), number: self.looks })
    }

    /// What was found. Only the look that is under way counts.
    pub(super) fn looked(&mut self, number: u64, found: Found, plan: &Plan, now: Instant) {
        let State::Cramped(Cramped { look, .. }) = &self.state else { return };
        let known = match look {
            Look::First { number: asked, .. } if *asked == number => None,
            Look::Again { number: asked, lack, despite, .. } if *asked == number => {
                Some((lack.clone(), *despite))
            }
            Look::First { .. } if mutant::is(Mutant::StaleLooks) => None,
            Look::Again { lack, despite, .. } if mutant::is(Mutant::StaleLooks) => {
                Some((lack.clone(), *despite))
            }
            Look::First { .. } | Look::Again { .. } | Look::Rests { .. } => return,
        };
        match known {
            None => self.looked_first(found, plan, now),
            Some((lack, despite)) => self.looked_again(lack, despite, found, now),
        }
    }

    fn looked_first(&mut self, found: Found, plan: &Plan, now: Instant) {
        let State::Cramped(Cramped { last, why, ready_for, .. }) = self.state.clone() else { return };
        let said = self.spec.room.as_ref().and_then(|room| {
            let code = last.code().filter(|code| room.codes.contains(code))?;
            Some(Lack::Said { path: room.path.clone(), code })
        });
        // Of itself, and before it was of any use: only then was the room perhaps what it lacked.
        let by_itself = match last {
            Ending::Exited(_) | Ending::SpawnFailed(_) => why.is_none(),
            Ending::Signaled { .. } | Ending::OomKilled => false,
        };
        let vain = by_itself && ready_for.is_none_or(|d| d < USEFUL);
        let (lack, pause) = match (found, said) {
            (Found::Lacking(seen), said)
                if (vain || said.is_some()) && !mutant::is(Mutant::StartWithoutRoom) =>
            {
                (Lack::Seen(seen), PAUSE)
            }
            (Found::Enough | Found::Unknown(_), Some(said)) => (said, self.delay().max(PAUSE)),
            (Found::Enough | Found::Unknown(_) | Found::Lacking(_), _) => {
                self.again_or_give_up(last, why, ready_for, plan, now);
                return;
            }
        };
        self.forgive(ready_for, now);
        let despite = now + DESPITE.saturating_mul(1 << self.attempt.min(8)).min(DESPITE_MOST);
        self.attempt = self.attempt.saturating_add(1);
        if !mutant::is(Mutant::WantOfRoomCounts) {
            // The start that had no room was no attempt.
            self.starts.pop_back();
        }
        self.set_look(Look::Rests { until: now + pause, lack, despite });
    }

    fn looked_again(&mut self, lack: Lack, despite: Instant, found: Found, now: Instant) {
        let lack = match (found, lack) {
            (Found::Enough, _) | (Found::Unknown(_), Lack::Said { .. }) => {
                self.set(State::Waiting, now);
                return;
            }
            (Found::Lacking(seen), _) => Lack::Seen(seen),
            // A file system that does not answer has not more room than before.
            (Found::Unknown(_), lack @ Lack::Seen(_)) => lack,
        };
        if now >= despite {
            self.set(State::Waiting, now);
        } else {
            self.set_look(Look::Rests { until: now + PAUSE, lack, despite });
        }
    }

    /// The next look is due, or the one under way has no answer in time.
    pub(super) fn look_due(&mut self, plan: &Plan, now: Instant) -> Vec<Action> {
        let State::Cramped(Cramped { look, .. }) = &self.state else { return Vec::new() };
        match look.clone() {
            Look::First { number, .. } | Look::Again { number, .. } => {
                self.looked(number, Found::Unknown("no answer in time".to_owned()), plan, now);
                Vec::new()
            }
            Look::Rests { lack, despite, .. } => {
                let (number, look) = self.next_look();
                self.set_look(Look::Again { number, until: now + PATIENCE, lack, despite });
                vec![look]
            }
        }
    }

    /// Since when it waits does not change by looking.
    fn set_look(&mut self, look: Look) {
        if let State::Cramped(cramped) = &mut self.state {
            cramped.look = look;
        }
    }
}
