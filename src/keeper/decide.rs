//! What keeper does next, as pure functions of what is known. `now` and every other time is a `Duration` since keeper
//! began (its own monotonic clock), so that no decision compares clocks of two machines and every one can be tested.

use crate::archive::{AHEAD, window};
use crate::exit::Exit;
use crate::postgres::lsn::{Segment, SegmentSize, WalFile};
use std::collections::BTreeSet;
use std::time::Duration;

/// The order in which Postgres asks: histories first, then by name.
#[must_use]
pub fn in_order(files: &[WalFile]) -> Vec<WalFile> {
    let mut files = files.to_vec();
    files.sort_by_key(|f| (!matches!(f, WalFile::History(_)), f.name()));
    files.dedup();
    files
}

/// Which files to archive ahead of being asked. Never further than [`AHEAD`] from the oldest that is not archived, and
/// nothing but histories while one of them is not: segments of a timeline that nobody can find would be lost. Nothing
/// behind a file that waits for a person (`alarms`): the archive may hold another history there, and must not get a
/// mixture. What is `busy` is under way; at most `room` more are begun.
#[must_use]
pub fn ahead(
    ready: &[WalFile],
    settled: &BTreeSet<WalFile>,
    alarms: &BTreeSet<WalFile>,
    busy: &BTreeSet<WalFile>,
    room: usize,
) -> Vec<WalFile> {
    let files = in_order(ready);
    let open: Vec<&WalFile> = files
        .iter()
        .skip_while(|f| settled.contains(*f))
        .take(AHEAD)
        .take_while(|f| !alarms.contains(*f))
        .collect();
    let history = open.iter().any(|f| matches!(f, WalFile::History(_)) && !settled.contains(*f));
    open.into_iter()
        .filter(|f| !settled.contains(*f) && !busy.contains(*f))
        .filter(|f| !history || matches!(f, WalFile::History(_)))
        .take(room)
        .cloned()
        .collect()
}

/// Which segments to fetch ahead after Postgres was given `last`.
#[must_use]
pub fn prefetch(last: Segment, size: SegmentSize) -> Vec<Segment> {
    let mut next = last;
    (0..window(size))
        .map(|_| {
            next = next.next();
            next
        })
        .collect()
}

/// Where keeper is in its life. A stop only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Everything is done as asked.
    Serving,
    /// The whole stop has begun: requests are still served, but all of them together may wait no longer than `left`.
    Stopping {
        /// Of the share for waiting.
        left: Duration,
    },
    /// Nothing is taken on any more.
    Draining,
}

impl Life {
    /// How long one request may wait for the store now.
    #[must_use]
    pub fn allowance(self, usual: Duration) -> Duration {
        match self {
            Life::Serving => usual,
            // Postgres asks three times in a stop, a second apart, before it goes without; each gets its part.
            Life::Stopping { left } => (left / 3).min(usual),
            Life::Draining => Duration::ZERO,
        }
    }

    /// After a request has waited.
    #[must_use]
    pub fn spent(self, waited: Duration) -> Life {
        match self {
            Life::Stopping { left } => Life::Stopping { left: left.saturating_sub(waited) },
            Life::Serving | Life::Draining => self,
        }
    }

    /// After the announcement of the whole stop.
    #[must_use]
    pub fn announced(self, share: Duration) -> Life {
        match self {
            Life::Serving => Life::Stopping { left: share },
            Life::Stopping { .. } | Life::Draining => self,
        }
    }
}

/// How Postgres had ended when the drain began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There is no data directory.
    NoData,
    /// In order: what was not archived is closed and marked as ready.
    InOrder,
    /// Not in order, or it is not known; in words.
    Not(String),
}

/// How the drain ended. A Postgres that was killed leaves its last segment open and without a mark, so that nothing in
/// `pg_wal` shows it: only the control file says that there is more.
#[must_use]
pub fn drained(unarchived: usize, stopped: &Stopped) -> Exit {
    match stopped {
        Stopped::NoData | Stopped::InOrder if unarchived == 0 => Exit::Clean,
        Stopped::NoData | Stopped::InOrder | Stopped::Not(_) => Exit::NotArchived,
    }
}

/// What the watch on Postgres saw last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing listens, and nothing says that it should.
    Down,
    /// It should answer and does not.
    Silent(String),
    /// It takes nobody in because all its connections are taken: it serves those who have them, and cannot be asked more.
    Full,
    /// It answers, and replays WAL.
    Recovering,
    /// It answers and takes writes; its WAL position.
    Writing {
        /// `pg_current_wal_lsn()`
        lsn: crate::postgres::lsn::Lsn,
    },
}

/// How long one connection may stand for all: a postmaster that stands still (SIGSTOP, out of memory to fork with) takes
/// nobody in any more, and those who are in notice nothing.
pub const RENEW: Duration = Duration::from_secs(15);

/// How the attempt ended to make a new connection beside one that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It stands.
    Made,
    /// The server has answered otherwise.
    Refused {
        /// By this SQLSTATE.
        code: String,
        /// In these words.
        said: String,
    },
    /// There was no answer, and what there was instead.
    Failed(String),
}

/// What that says of Postgres: `None` while it takes new connections. Whoever answers has taken the connection: that all of
/// them are taken (53300), or that a role may not log in, is no fault of a server that serves those who are in. But one that
/// says that it takes nobody now (57P03: it shuts down and waits for its clients) takes nobody. No answer at all counts from
/// the second time on (`failed`, with this one): on a loaded host a single fork may be slow.
#[must_use]
pub fn closed(attempt: &Attempt, failed: u32) -> Option<Seen> {
    let why = match attempt {
        Attempt::Made => return None,
        Attempt::Refused { code, .. } if code != "57P03" => return None,
        Attempt::Failed(_) if failed < 2 => return None,
        Attempt::Refused { said: why, .. } | Attempt::Failed(why) => why,
    };
    Some(Seen::Silent(format!("connections that stand still answer, but no new one is accepted: {why}")))
}

/// Whether the whole is fit to serve, and why (not).
#[must_use]
pub fn health(seen: &Seen, lost: Option<u32>) -> (bool, String) {
    if let Some(by) = lost {
        return (false, format!("ownership was lost to epoch {by}"));
    }
    match seen {
        Seen::Down => (false, "Postgres is not running".to_owned()),
        Seen::Silent(why) => (false, format!("Postgres does not answer: {why}")),
        // Ours is a hot standby at no time, so it takes writes of those who are in.
        Seen::Full => (true, "Postgres answers that all its connections are taken".to_owned()),
        Seen::Recovering => (false, "Postgres is in recovery".to_owned()),
        Seen::Writing { .. } => (true, "Postgres answers and takes writes".to_owned()),
    }
}

/// How well the data is protected by a base backup of our own epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The store has not been asked yet.
    Unknown,
    /// There is none.
    None {
        /// Why, or what went wrong the last time.
        why: String,
        /// How often it has failed.
        failures: u32,
        /// Not before.
        next: Duration,
    },
    /// One is being taken.
    Running {
        /// What it is at.
        at: String,
        /// Whether one was there before.
        protected: bool,
    },
    /// There is one.
    Verified {
        /// The name.
        name: String,
        /// When it was seen verified.
        since: Duration,
        /// How old it was then: it may be of a former life of ours.
        aged: Duration,
    },
}

/// Whether a base backup must be taken now by itself: at once in a new epoch, as soon as Postgres takes writes.
#[must_use]
pub fn backup_due(protection: &Protection, seen: &Seen, life: Life, lost: bool, now: Duration) -> bool {
    let writing = matches!(seen, Seen::Writing { .. });
    match protection {
        Protection::None { next, .. } => writing && !lost && life == Life::Serving && now >= *next,
        Protection::Unknown | Protection::Running { .. } | Protection::Verified { .. } => false,
    }
}

/// How long to wait after the given number of failed backups: 5 s, doubling, at most 5 min.
#[must_use]
pub fn backup_pause(failures: u32) -> Duration {
    (Duration::from_secs(5) * 2u32.saturating_pow(failures.saturating_sub(1).min(6)))
        .min(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::lsn::{Lsn, Timeline};
    use proptest::prelude::*;

    fn file() -> impl Strategy<Value = WalFile> {
        prop_oneof![
            (1u32..4).prop_map(|t| WalFile::History(Timeline(t))),
            (1u32..3, 0u64..9).prop_map(|(t, number)| {
                WalFile::Segment(Segment { timeline: Timeline(t), number }.name(SegmentSize::DEFAULT))
            }),
        ]
    }

    proptest! {
        #[test]
        fn ahead_never_runs_further_than_the_window_from_the_oldest_that_is_not_archived(
            ready in prop::collection::vec(file(), 0..20), settled in prop::collection::btree_set(file(), 0..10),
            alarms in prop::collection::btree_set(file(), 0..3), busy in prop::collection::btree_set(file(), 0..4),
            room in 0usize..6,
        ) {
            let picked = ahead(&ready, &settled, &alarms, &busy, room);
            prop_assert!(picked.len() <= room);
            let order = in_order(&ready);
            let oldest = order.iter().position(|f| !settled.contains(f)).unwrap_or(order.len());
            let waits = order.iter().any(|f| matches!(f, WalFile::History(_)) && !settled.contains(f));
            for file in &picked {
                prop_assert!(ready.contains(file) && !settled.contains(file) && !busy.contains(file));
                let at = order.iter().position(|f| f == file).unwrap();
                prop_assert!(at < oldest + AHEAD);
                prop_assert!(!waits || matches!(file, WalFile::History(_)));
            }
            // Nothing at or behind what a person must look at first.
            if let Some(alarm) = order.iter().skip(oldest).position(|f| alarms.contains(f)) {
                let begun = |f: &WalFile| order.iter().position(|o| o == f).unwrap();
                prop_assert!(picked.iter().all(|f| begun(f) < oldest + alarm));
            }
            // The oldest is never passed over when it may be begun.
            let may = |f: &&WalFile| !busy.contains(*f) && !alarms.contains(*f) && room > 0;
            if let Some(first) = order.get(oldest).filter(may) {
                prop_assert!(picked.contains(first));
            }
        }

        #[test]
        fn in_a_stop_all_requests_together_never_wait_longer_than_the_share(
            share in 0u64..5000, waits in prop::collection::vec(0u64..3000, 0..20),
        ) {
            let share = Duration::from_millis(share);
            let mut life = Life::Serving.announced(share);
            let mut total = Duration::ZERO;
            for wait in waits {
                let waited = Duration::from_millis(wait).min(life.allowance(Duration::from_secs(60)));
                total += waited;
                life = life.spent(waited).announced(share);
            }
            prop_assert!(total <= share);
        }

        #[test]
        fn memory_for_segments_is_bounded(shift in 20u32..=30) {
            let size = SegmentSize::try_from(1u64 << shift).unwrap();
            let n = window(size);
            prop_assert!((1..=4).contains(&n));
            prop_assert!(n == 1 || n as u64 * size.bytes() <= 64 << 20);
            let last = Segment { timeline: Timeline(1), number: 5 };
            let numbers: Vec<_> = prefetch(last, size).iter().map(|s| s.number).collect();
            prop_assert_eq!(numbers, (6..6 + n as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_backup_is_due_only_when_none_is_verified_and_postgres_takes_writes() {
        let none =
            |next| Protection::None { why: String::new(), failures: 0, next: Duration::from_secs(next) };
        let writing = Seen::Writing { lsn: Lsn(1) };
        let now = Duration::from_secs(10);
        assert!(backup_due(&none(0), &writing, Life::Serving, false, now));
        assert!(!backup_due(&none(11), &writing, Life::Serving, false, now));
        assert!(!backup_due(&none(0), &Seen::Full, Life::Serving, false, now));
        assert!(!backup_due(&none(0), &Seen::Recovering, Life::Serving, false, now));
        assert!(!backup_due(&none(0), &writing, Life::Serving, true, now));
        assert!(!backup_due(&none(0), &writing, Life::Draining, false, now));
        assert!(!backup_due(&Protection::Unknown, &writing, Life::Serving, false, now));
        assert!(backup_pause(1) < backup_pause(2) && backup_pause(40) == Duration::from_secs(300));
    }

    #[test]
    fn only_a_postgres_that_serves_under_an_owner_is_healthy() {
        assert!(health(&Seen::Writing { lsn: Lsn(1) }, None).0);
        assert!(!health(&Seen::Writing { lsn: Lsn(1) }, Some(8)).0);
        assert!(health(&Seen::Full, None).0 && !health(&Seen::Full, Some(8)).0);
        for seen in [Seen::Down, Seen::Silent("x".into()), Seen::Recovering] {
            assert!(!health(&seen, None).0);
        }
    }

    #[test]
    fn a_drain_is_clean_only_when_nothing_is_left_and_postgres_had_stopped_in_order() {
        for (unarchived, stopped, exit) in [
            (0, Stopped::InOrder, Exit::Clean),
            (0, Stopped::NoData, Exit::Clean),
            (1, Stopped::InOrder, Exit::NotArchived),
            (1, Stopped::NoData, Exit::NotArchived),
            (0, Stopped::Not("in production".into()), Exit::NotArchived),
        ] {
            assert_eq!(drained(unarchived, &stopped), exit, "{unarchived} {stopped:?}");
        }
    }
}
