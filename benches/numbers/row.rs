//! A row of the report: what is measured, what it shall reach, and what came out.

use super::goal::{Better, Goal, Unit, Verdict};
use super::peers::Who;
use super::stats::Samples;
use std::path::{Path, PathBuf};

/// One row. `run` measures; everything else is said here, so that a row that cannot run is in the report all the same.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is measured and how, in one sentence or two.
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    /// All must be reached; the first says which figures are the better ones.
    pub(crate) goals: &'static [Goal],
    /// A panic counts as an error. The error says why the row could not be run.
    pub(crate) run: fn(&Context) -> Result<Measured, String>,
    /// What we know of the reason, when a goal is missed. Empty: nothing.
    pub(crate) when_missed: &'static str,
}

/// What a row found.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) ours: Samples,
    pub(crate) peers: Vec<Peer>,
    /// What must be true besides, such as bytes stored or processes left.
    pub(crate) conditions: Vec<Condition>,
    /// What a reader should know of this run.
    pub(crate) notes: Vec<String>,
}

/// Somebody else's figures.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) standing: Standing,
    /// The error says why there are none.
    pub(crate) samples: Result<Samples, String>,
}

/// What a peer's figures are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Our goal is measured by the best of these.
    Rival,
    /// Shown, and nothing follows; the reason is shown with it.
    Reference(&'static str),
}

/// A further figure with a goal of its own, which is no comparison with peers.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
}

/// What all rows are given.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The binary that is measured: of the release build, or what `SUPAFLY_BENCH_BINARY` names.
    pub(crate) binary: PathBuf,
    /// Another build of ours that runs beside it as a reference, when `SUPAFLY_BENCH_BASELINE` names one.
    pub(crate) baseline: Option<PathBuf>,
    /// The program that plays services, writers and mothers of orphans (`actor.rs`).
    pub(crate) actor: PathBuf,
    /// In memory where there is such a place, entered by every user, gone at the end. Make directories of your own in it.
    pub(crate) scratch: PathBuf,
    /// On a disk, where syncing costs something; else as `scratch`.
    pub(crate) disk: PathBuf,
    pub(crate) depth: Depth,
    pub(crate) invited: Invited,
}

/// Who is measured beside us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invited {
    /// Every peer of a row.
    Peers,
    /// Only another build of ours.
    Baseline,
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What is published.
    Full,
    /// One small round, to see that it works. Its figures mean nothing.
    Quick,
}

impl Context {
    /// Who of these supervisors takes part.
    pub(crate) fn peers(&self, of: &[Who]) -> Vec<Who> {
        let peers = match self.invited {
            Invited::Peers => of,
            Invited::Baseline => &[],
        };
        peers.iter().copied().chain(self.baseline.is_some().then_some(Who::Baseline)).collect()
    }

    /// How often each contestant is measured.
    pub(crate) const fn rounds(&self, full: usize) -> usize {
        match self.depth {
            Depth::Full => full,
            Depth::Quick => 1,
        }
    }

    /// A size: what is published, or a small one.
    pub(crate) const fn size(&self, full: u64, quick: u64) -> u64 {
        match self.depth {
            Depth::Full => full,
            Depth::Quick => quick,
        }
    }

    /// A new empty directory that every user can enter, in memory; gone with the value.
    pub(crate) fn room(&self) -> tempfile::TempDir {
        room_in(&self.scratch)
    }

    /// The same on a disk.
    pub(crate) fn disk_room(&self) -> tempfile::TempDir {
        room_in(&self.disk)
    }
}

fn room_in(place: &Path) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir_in(place).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

impl Measured {
    /// The best of the rivals: its name and median.
    pub(crate) fn best(&self, better: Better) -> Option<(&str, f64)> {
        let rivals = self.peers.iter().filter(|p| p.standing == Standing::Rival);
        let medians = rivals.filter_map(|p| p.samples.as_ref().ok().map(|s| (p.name.as_str(), s.median())));
        match better {
            Better::Less => medians.min_by(|a, b| a.1.total_cmp(&b.1)),
            Better::More => medians.max_by(|a, b| a.1.total_cmp(&b.1)),
        }
    }
}

/// A row and what came of it: a line of the report.
pub(crate) struct Line<'a> {
    pub(crate) row: &'a Row,
    pub(crate) outcome: Result<Measured, String>,
}

impl Line<'_> {
    pub(crate) fn better(&self) -> Better {
        self.row.goals.first().map_or(Better::Less, |g| g.better())
    }

    /// All goals and conditions, as a person reads them.
    pub(crate) fn goal(&self) -> String {
        let mut goals: Vec<String> = self.row.goals.iter().map(|g| g.show(self.row.unit)).collect();
        if let Ok(measured) = &self.outcome {
            goals.extend(measured.conditions.iter().map(|c| format!("{} {}", c.what, c.goal.show(c.unit))));
        }
        goals.join("; ")
    }

    fn verdicts(&self, measured: &Measured) -> Vec<Verdict> {
        let best = measured.best(self.better()).map(|(_, median)| median);
        self.row.goals.iter().map(|g| g.judge(self.row.unit, measured.ours.median(), best)).collect()
    }

    /// Everything that keeps it from being met; empty when it is.
    pub(crate) fn failures(&self) -> Vec<String> {
        let measured = match &self.outcome {
            Ok(measured) => measured,
            Err(why) => return vec![format!("could not be run: {why}")],
        };
        let own = self.verdicts(measured).into_iter().filter_map(|verdict| match verdict {
            Verdict::Met => None,
            Verdict::Missed(why) => Some(why),
            Verdict::Unknown(why) => Some(format!("cannot be judged: {why}")),
        });
        // Who is better than the others that were measured is not thereby better than all.
        let absent = measured.peers.iter().filter(|p| p.standing == Standing::Rival && p.samples.is_err());
        let absent = absent.map(|p| format!("cannot be judged without {}", p.name));
        let conditions =
            measured.conditions.iter().filter_map(|c| match c.goal.judge(c.unit, c.value, None) {
                Verdict::Met => None,
                Verdict::Missed(why) | Verdict::Unknown(why) => Some(format!("{}: {why}", c.what)),
            });
        own.chain(absent).chain(conditions).collect()
    }

    pub(crate) fn met(&self) -> bool {
        self.failures().is_empty()
    }

    /// Why it is missed, and what else must be known: peers that were not measured, notes of the run.
    pub(crate) fn why(&self) -> String {
        let mut parts = self.failures();
        // The row's own reason is one for its goals, not for a condition that is broken.
        let missed = |m: &Measured| self.verdicts(m).iter().any(|v| matches!(v, Verdict::Missed(_)));
        if self.outcome.as_ref().is_ok_and(missed) && !self.row.when_missed.is_empty() {
            parts.push(self.row.when_missed.to_owned());
        }
        if let Ok(measured) = &self.outcome {
            let absent = measured.peers.iter().filter_map(|p| Some((&p.name, p.samples.as_ref().err()?)));
            parts.extend(absent.map(|(name, why)| format!("{name} was not measured: {why}")));
            parts.extend(measured.notes.iter().cloned());
        }
        parts.join("; ")
    }
}
