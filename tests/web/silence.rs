//! When PID 1 says nothing, and when nobody asks.

use crate::client::get;
use crate::harness::{World, until};
use crate::started;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

#[test]
fn a_supervisor_that_hangs_is_not_live_within_seconds_and_live_again_when_it_goes_on() {
    let (world, open, private) = started(World::new());
    until("live", || (get(open, "/health/live").code == 200).then_some(()));
    world.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let dead = until("the verdict", || {
        let asked = Instant::now();
        let answer = get(open, "/health/live");
        assert!(asked.elapsed() < Duration::from_secs(10), "an answer took {:?}", asked.elapsed());
        (answer.code == 503).then_some(answer)
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(dead.json()["state"], "unknown");
    assert!(dead.json()["reason"].as_str().unwrap().contains("has not answered for"), "{dead:?}");
    assert!(dead.json()["facts_age_ms"].as_u64().unwrap() > 5_000);
    assert_eq!(get(open, "/health/ready").code, 503);
    assert!(get(private, "/metrics").body.contains("supafly_up 0\n"));
    let status = get(private, "/status");
    assert_eq!((status.code, &status.json()["last"]["version"]), (503, &1.into()));
    world.signal(Signal::SIGCONT);
    until("live again", || (get(open, "/health/live").code == 200).then_some(()));
    assert!(get(private, "/metrics").body.contains("supafly_up 1\n"));
}

/// How often every thread of it has gone to sleep by itself, and how many threads there are.
fn sleeps(pid: i64) -> (u64, usize) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let each: Vec<u64> = tasks
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
        })
        .collect();
    (each.iter().sum(), each.len())
}

#[test]
fn nobody_asking_wakes_it_up_never() {
    let (world, open, private) = started(World::new());
    assert_eq!(get(open, "/health/live").code, 200);
    assert_eq!(get(private, "/metrics").code, 200);
    let pid = world.state_of("web").unwrap()["pid"].as_i64().unwrap();
    until("the threads of what was asked to end", || (sleeps(pid).1 == 1).then_some(()));
    let (before, begun) = (sleeps(pid).0, Instant::now());
    until("five seconds to pass", || (begun.elapsed() > Duration::from_secs(5)).then_some(()));
    let (after, threads) = sleeps(pid);
    assert!(after - before <= 1 && threads == 1, "{} wake-ups in 5 s", after - before);
}
