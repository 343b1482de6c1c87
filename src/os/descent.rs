//! Whose child is it? Groups, sessions and environment do not tell: every Postgres backend is a session of its own and
//! its environment reads empty. What is inherited over fork, exec and setsid and cannot be dropped without privilege is
//! a supplementary group, so each run carries one of its own, from a block of numbers that nobody uses. A process
//! without such a group (we may not give groups, or a root service changed them) belongs by its parents, else by the
//! marker in its environment. What remains belongs to nobody known and is killed at the whole stop only.
//!
//! A scan of `/proc` is not a snapshot, so nothing is believed before two scans agree; and nothing is believed at all
//! when `/proc` shows another namespace.

use super::procfs::{self, Process, Who};
use super::spawn::own;
use super::tags::Tags;
use nix::libc;
use nix::sys::signal::Signal;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd;

/// Name of the variable that marks a run's processes: `<instance>.<run>`.
pub const MARKER: &str = "SUPAFLY_RUN_ID";

/// What identifies the processes of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The run's number.
    pub number: u64,
    /// Its first process, while that is not reaped.
    pub leader: Option<i32>,
}

/// How we tell whose child a process is.
#[derive(Clone, Debug)]
pub struct Descent {
    /// Our block of groups, when we may give groups.
    pub tags: Option<Tags>,
    /// Our own number in the environment markers.
    pub instance: String,
    /// Our own pid.
    pub us: i32,
}

impl Descent {
    /// The value of [`MARKER`] for a run.
    #[must_use]
    pub fn marker(&self, run: u64) -> String {
        format!("{}.{run}", self.instance)
    }

    /// The run that a process belongs to, among those given. Looks at it and its parents only.
    #[must_use]
    pub fn run_of(&self, pid: i32, runs: &[Run]) -> Option<u64> {
        let mut table = HashMap::new();
        let mut next = pid;
        // Bounded, because what is read one by one may hold a circle.
        for _ in 0..1_024 {
            let Ok(Some(process)) = procfs::process(next) else { break };
            let parent = process.parent;
            if table.insert(next, process).is_some() || next == self.us || parent == 0 {
                break;
            }
            next = parent;
        }
        owner(self, table.get(&pid)?, &table, runs, &|pid| procfs::variable(pid, MARKER))
    }

    /// The living processes of a run at this moment, parents before children.
    ///
    /// # Errors
    /// We cannot look.
    pub fn members(&self, run: u64, runs: &[Run]) -> std::io::Result<Vec<Process>> {
        self.select(|process, table, variable| owner(self, process, table, runs, variable) == Some(run))
    }

    /// The living processes of several runs, in one look.
    ///
    /// # Errors
    /// We cannot look.
    pub fn members_of(&self, wanted: &BTreeSet<u64>, runs: &[Run]) -> std::io::Result<Vec<(u64, Process)>> {
        let table = self.look()?;
        let variable = |pid| procfs::variable(pid, MARKER);
        let living = table.values().filter(|p| !p.is_dead());
        Ok(living
            .filter_map(|p| {
                let run = owner(self, p, &table, runs, &variable)?;
                wanted.contains(&run).then(|| (run, p.clone()))
            })
            .collect())
    }

    /// Every living process below us, whatever it belongs to, and every one that carries a group of ours.
    ///
    /// # Errors
    /// We cannot look.
    pub fn everybody(&self) -> std::io::Result<Vec<Process>> {
        self.select(|process, table, _| {
            process.who.pid != self.us && (self.tagged(process).is_some() || below(process, table, self.us))
        })
    }

    fn look(&self) -> std::io::Result<HashMap<i32, Process>> {
        if !procfs::is_ours() {
            return Ok(HashMap::new());
        }
        Ok(procfs::table()?.into_iter().map(|p| (p.who.pid, p)).collect())
    }

    fn tagged(&self, process: &Process) -> Option<u32> {
        let tags = self.tags?;
        process.groups.iter().copied().find(|g| tags.contains(*g))
    }

    fn select(
        &self,
        wanted: impl Fn(&Process, &HashMap<i32, Process>, &dyn Fn(i32) -> Option<String>) -> bool,
    ) -> std::io::Result<Vec<Process>> {
        let table = self.look()?;
        let variable = |pid| procfs::variable(pid, MARKER);
        let mut found: Vec<Process> =
            table.values().filter(|p| !p.is_dead() && wanted(p, &table, &variable)).cloned().collect();
        found.sort_by_key(|p| (depth(p, &table), p.who));
        Ok(found)
    }
}

/// Pure: the run that `process` belongs to.
fn owner(
    descent: &Descent,
    process: &Process,
    table: &HashMap<i32, Process>,
    runs: &[Run],
    variable: &dyn Fn(i32) -> Option<String>,
) -> Option<u64> {
    if process.who.pid == descent.us {
        return None;
    }
    let by_tag = |p: &Process| {
        let (tag, tags) = (descent.tagged(p)?, descent.tags?);
        runs.iter().find(|r| tags.of(r.number) == tag).map(|r| r.number)
    };
    let by_leader = |pid: i32| runs.iter().find(|r| r.leader == Some(pid)).map(|r| r.number);
    if descent.tagged(process).is_some() {
        return by_tag(process);
    }
    // Up the parents: the first that is known decides. Bounded, because a table read in pieces may hold a circle.
    let mut at = process;
    for _ in 0..table.len() + 1 {
        if let Some(run) = by_leader(at.who.pid).or_else(|| by_tag(at)) {
            return Some(run);
        }
        match table.get(&at.parent) {
            Some(parent) if parent.who.pid != descent.us => at = parent,
            Some(_) | None => break,
        }
    }
    if !below(process, table, descent.us) {
        return None;
    }
    let marker = variable(process.who.pid)?;
    let (instance, run) = marker.rsplit_once('.')?;
    let run = run.parse().ok()?;
    (instance == descent.instance && runs.iter().any(|r| r.number == run)).then_some(run)
}

fn below(process: &Process, table: &HashMap<i32, Process>, us: i32) -> bool {
    let mut at = process;
    for _ in 0..table.len() + 1 {
        if at.parent == us {
            return true;
        }
        match table.get(&at.parent) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

fn depth(process: &Process, table: &HashMap<i32, Process>) -> usize {
    let mut at = process;
    for depth in 0..table.len() {
        match table.get(&at.parent) {
            Some(parent) => at = parent,
            None => return depth,
        }
    }
    table.len()
}

/// What a pass over a descent left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Two scans agree that nobody is left (or, for a freeze, that all are stopped).
    Proved,
    /// Some are still there, or we cannot look; come again.
    NotYet,
}

/// How often a pass looks: a fork bomb is outrun at the next call, and this one stays short.
const LOOKS: usize = 64;

/// Signals everybody that `scan` shows, again until two scans show nobody who was not signalled. Does not wait for
/// the dying: [`empty`] tells. How many were signalled.
pub fn signal_all(signal: Signal, scan: impl Fn() -> std::io::Result<Vec<Process>>) -> usize {
    let mut done: BTreeSet<Who> = BTreeSet::new();
    let mut quiet = 0;
    for _ in 0..LOOKS {
        // Blind, we signal nobody; whoever asks for proof afterwards is not told that nobody is left.
        let Ok(found) = scan() else { break };
        let fresh: Vec<Process> = found.into_iter().filter(|p| !done.contains(&p.who)).collect();
        if fresh.is_empty() {
            quiet += 1;
            if quiet == 2 {
                break;
            }
            continue;
        }
        quiet = 0;
        for process in fresh {
            signal_one(process.who, signal);
            done.insert(process.who);
        }
    }
    done.len()
}

/// Kills everybody that `scan` shows, and says of which runs somebody is left: a run that two scans in a row do not
/// show is proved gone.
///
/// # Errors
/// We cannot look: nobody is proved gone.
pub fn sweep(scan: impl Fn() -> std::io::Result<Vec<(u64, Process)>>) -> std::io::Result<BTreeSet<u64>> {
    let mut done: BTreeSet<Who> = BTreeSet::new();
    let mut former: Option<BTreeSet<u64>> = None;
    for look in 1.. {
        let found = scan()?;
        let fresh: Vec<Who> = found.iter().map(|(_, p)| p.who).filter(|who| !done.contains(who)).collect();
        for who in &fresh {
            signal_one(*who, Signal::SIGKILL);
            done.insert(*who);
        }
        let mut left: BTreeSet<u64> = found.iter().map(|(run, _)| *run).collect();
        let seen = left.clone();
        match former.replace(seen) {
            // Two looks in a row, and nobody new in the second.
            Some(before) if fresh.is_empty() || look >= LOOKS => {
                left.extend(before);
                return Ok(left);
            }
            Some(_) | None => {}
        }
    }
    Ok(BTreeSet::new())
}

/// Whether two scans agree that nobody is left.
pub fn empty(scan: impl Fn() -> std::io::Result<Vec<Process>>) -> Pass {
    for _ in 0..2 {
        if !scan().is_ok_and(|found| found.is_empty()) {
            return Pass::NotYet;
        }
    }
    Pass::Proved
}

/// Whether two scans agree that everybody is stopped.
pub fn stopped(scan: impl Fn() -> std::io::Result<Vec<Process>>) -> Pass {
    let look = || {
        let found = scan().ok()?;
        found
            .iter()
            .all(|p| procfs::stands(p.who.pid))
            .then(|| found.iter().map(|p| p.who).collect::<Vec<_>>())
    };
    match (look(), look()) {
        (Some(a), Some(b)) if a == b => Pass::Proved,
        _ => Pass::NotYet,
    }
}

/// Signals a process that is not a child of ours by descriptor, so that a reuse of its number cannot be hit.
pub fn signal_one(who: Who, signal: Signal) {
    #[allow(unsafe_code, reason = "nix has no pidfd calls")]
    // SAFETY: numbers only; the descriptor returned is given to an owner at once.
    // JUSTIFICATION: a pid may be reused between the scan and the signal; a pidfd cannot.
    let sent = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, who.pid, 0);
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => {
                let fd = own(fd);
                if procfs::start_of(who.pid) == Some(who.start) {
                    let none = std::ptr::null::<libc::siginfo_t>();
                    libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as i32, none, 0);
                }
                true
            }
            _ => nix::errno::Errno::last() == nix::errno::Errno::ESRCH,
        }
    };
    // A kernel (or a sandbox) without pidfds, or no descriptor left for one: compare, then signal.
    if !sent && procfs::start_of(who.pid) == Some(who.start) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(who.pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, groups: &[u32]) -> Process {
        Process { who: Who { pid, start: 1 }, parent, state: 'S', groups: groups.to_vec() }
    }

    fn find(table: &[Process], pid: i32, tags: Option<Tags>, marker: Option<&str>) -> Option<u64> {
        let descent = Descent { tags, instance: "me".to_owned(), us: 10 };
        let table: HashMap<i32, Process> = table.iter().map(|p| (p.who.pid, p.clone())).collect();
        let runs = [Run { number: 1, leader: Some(20) }, Run { number: 2, leader: None }];
        owner(&descent, &table[&pid], &table, &runs, &|_| marker.map(str::to_owned))
    }

    const TAGS: Tags = Tags { base: 1_000, size: 10 };

    #[test]
    fn the_group_decides_whoever_the_parent_is() {
        let table = [
            process(10, 1, &[]),
            process(20, 10, &[1_001]),
            process(30, 10, &[1_002]),
            process(40, 20, &[1_002]),
        ];
        assert_eq!(find(&table, 20, Some(TAGS), None), Some(1));
        assert_eq!(find(&table, 30, Some(TAGS), None), Some(2));
        assert_eq!(find(&table, 40, Some(TAGS), None), Some(2));
    }

    #[test]
    fn who_dropped_the_group_belongs_by_its_parents() {
        let table =
            [process(10, 1, &[]), process(20, 10, &[1_001]), process(30, 20, &[]), process(31, 30, &[])];
        assert_eq!(find(&table, 31, Some(TAGS), None), Some(1));
        assert_eq!(find(&table, 31, None, None), Some(1));
    }

    #[test]
    fn an_adopted_process_belongs_by_its_marker_and_a_stranger_to_nobody() {
        let table = [process(10, 1, &[]), process(30, 10, &[]), process(50, 1, &[])];
        assert_eq!(find(&table, 30, None, Some("me.2")), Some(2));
        assert_eq!(find(&table, 30, None, Some("other.2")), None);
        assert_eq!(find(&table, 30, None, None), None);
        assert_eq!(find(&table, 50, None, Some("me.2")), None, "not below us");
        assert_eq!(find(&table, 10, None, Some("me.2")), None, "we are nobody's");
    }

    #[test]
    fn a_circle_in_a_torn_table_ends() {
        let table = [process(10, 1, &[]), process(30, 31, &[]), process(31, 30, &[])];
        assert_eq!(find(&table, 30, None, None), None);
    }
}
