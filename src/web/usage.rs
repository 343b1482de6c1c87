//! What the services use, from `/proc`, at the moment of a scrape and only then.
//!
//! A service is its leader and the leader's descent by parent: Postgres and its backends, keeper and its engine. What
//! has left that tree (a daemon that forked away) belongs to PID 1 by parent and is not counted here.

use super::cache::boottime;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::Mutex;

/// Scrapes closer together than this share one look.
const PAUSE: Duration = Duration::from_secs(1);

/// What one service uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory; pages that several processes share are counted once a process.
    pub(super) resident: u64,
    /// Processor time of the processes that are there now.
    pub(super) cpu: Duration,
    /// How many processes.
    pub(super) processes: u64,
}

/// By service.
pub(super) type Usages = BTreeMap<String, Usage>;

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: i32,
    parent: Option<i32>,
    resident: u64,
    cpu: Duration,
}

/// The last look, and who is looking.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Option<(Duration, Usages)>>);

impl Meter {
    /// What each service uses; `leaders` are service and pid.
    pub(super) async fn read(&self, leaders: Vec<(String, i32)>) -> Usages {
        let mut last = self.0.lock().await;
        if let Some((at, usages)) = last.as_ref()
            && boottime().saturating_sub(*at) < PAUSE
        {
            return usages.clone();
        }
        match tokio::task::spawn_blocking(move || sum(&processes(), &leaders)).await {
            Ok(usages) => {
                *last = Some((boottime(), usages.clone()));
                usages
            }
            Err(e) => {
                tracing::error!(error = %e, "what the services use cannot be read");
                Usages::new()
            }
        }
    }
}

fn processes() -> Vec<Process> {
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let pid = |pid: sysinfo::Pid| i32::try_from(pid.as_u32()).unwrap_or(0);
    system
        .processes()
        .values()
        .map(|p| Process {
            pid: pid(p.pid()),
            parent: p.parent().map(pid),
            resident: p.memory(),
            cpu: Duration::from_millis(p.accumulated_cpu_time()),
        })
        .collect()
}

/// Pure: each leader with its descent. What is seen changes while it is read, so a pid may occur in a circle.
fn sum(processes: &[Process], leaders: &[(String, i32)]) -> Usages {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in processes {
        if let Some(parent) = process.parent {
            children.entry(parent).or_default().push(process);
        }
    }
    let of = |leader: i32| {
        let mut usage = Usage::default();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&Process> = processes.iter().filter(|p| p.pid == leader).collect();
        while let Some(process) = todo.pop() {
            if seen.insert(process.pid) {
                usage.resident += process.resident;
                usage.cpu += process.cpu;
                usage.processes += 1;
                todo.extend(children.get(&process.pid).into_iter().flatten());
            }
        }
        usage
    };
    leaders.iter().map(|(name, leader)| (name.clone(), of(*leader))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent: Some(parent), resident: 10, cpu: Duration::from_millis(5) }
    }

    #[test]
    fn a_service_is_its_leader_and_the_leaders_descent() {
        let processes = [process(10, 1), process(11, 10), process(12, 11), process(20, 1), process(30, 7)];
        let leaders = [("a".to_owned(), 10), ("b".to_owned(), 20), ("gone".to_owned(), 99)];
        let usages = sum(&processes, &leaders);
        assert_eq!(usages["a"], Usage { resident: 30, cpu: Duration::from_millis(15), processes: 3 });
        assert_eq!(usages["b"].processes, 1);
        assert_eq!(usages["gone"], Usage::default());
    }

    #[test]
    fn a_circle_ends() {
        let usages = sum(&[process(10, 11), process(11, 10)], &[("a".to_owned(), 10)]);
        assert_eq!(usages["a"].processes, 2);
    }

    #[tokio::test]
    async fn we_ourselves_use_something() {
        let us = i32::try_from(std::process::id()).unwrap();
        let usages = Meter::default().read(vec![("us".to_owned(), us)]).await;
        assert!(usages["us"].resident > 100_000 && usages["us"].processes >= 1, "{usages:?}");
    }
}
