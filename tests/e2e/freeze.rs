//! A whole machine stands still under load, for a quarter of a minute, and no transaction is lost or refused.

use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::{Machine, children, until};
use crate::support::programs::pg_bin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long everything stands.
const STANDS: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(60);

/// Every process below this one that runs `postgres`, with its state.
fn postgres(top: u32) -> Vec<(u32, char)> {
    let mut open = vec![top];
    let mut found = Vec::new();
    while let Some(pid) = open.pop() {
        open.extend(children(pid));
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, r)| r.rsplit_once(") ")) else {
            continue;
        };
        if name == "postgres" {
            found.push((pid, rest.chars().next().unwrap()));
        }
    }
    found
}

fn pgbench(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = Command::new(pg_bin().join("pgbench"));
    command
        .args(["-U", "postgres", "-h"])
        .arg(machine.run_dir().join("postgres"))
        .args(["-p", &machine.port.to_string()])
        .args(arguments)
        .arg("postgres")
        .stdin(Stdio::null());
    command
}

#[test]
fn fifteen_seconds_of_standing_still_under_load_cost_no_transaction() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    let made = pgbench(&machine, &["-i", "-q", "-s", "1"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let load = pgbench(&machine, &["-n", "-c", "4", "-j", "2", "-T", "25", "-P", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let busy =
        || machine.sql("select count(*) from pgbench_history").ok()?.first()?.first()?.parse::<u64>().ok();
    until("load", LONG, || busy().filter(|rows| *rows > 100).map(drop));
    let begun = Instant::now();
    // While an archive command is under way it is refused; who waits gets it.
    let frozen = machine.supafly(&["freeze", "--wait", "60s"]);
    let took = begun.elapsed();
    assert!(frozen.status.success(), "{}", String::from_utf8_lossy(&frozen.stdout));
    let top = u32::try_from(machine.pid().as_raw()).unwrap();
    let all = postgres(top);
    assert!(all.len() >= 8, "a postmaster, its workers and four clients: {all:?}");
    // One that had just ended is fetched by the postmaster when that goes on.
    let stand = |all: &[(u32, char)]| {
        all.iter().all(|(_, state)| matches!(state, 'T' | 'Z'))
            && all.iter().filter(|(_, s)| *s == 'T').count() >= 8
    };
    assert!(stand(&all), "{all:?}");
    let status = machine.status().unwrap();
    assert_eq!(status["state"], "frozen", "{status}");
    assert!(!machine.supafly(&["health", "--ready"]).status.success());
    assert!(machine.supafly(&["health", "--live"]).status.success());
    until("fifteen seconds", LONG, || (begun.elapsed() >= STANDS + took).then_some(()));
    assert!(stand(&postgres(top)), "it stood all the time: {:?}", postgres(top));
    assert_eq!(machine.row("owner").unwrap()["state"], "ok", "keeper goes on and owns the epoch");
    let begun = Instant::now();
    assert!(machine.supafly(&["thaw"]).status.success());
    eprintln!("frozen in {took:?} with {} processes, thawed in {:?}", all.len(), begun.elapsed());
    assert!(postgres(top).iter().all(|(_, state)| *state != 'T'));
    let done = load.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    assert!(out.contains("number of failed transactions: 0 "), "{out}");
    assert!(!err.contains("ERROR") && !err.contains("WARN"), "{err}");
    machine.wait_ready();
    // Frozen again, and told to stop: it stops as always.
    assert!(machine.supafly(&["freeze", "--wait", "60s"]).status.success());
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.wait_volume_free();
}

#[test]
fn an_archive_command_that_is_under_way_is_not_cut_in_the_middle() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    // keeper is stopped where it stands: the next archive command waits for it.
    let outer = leader(&machine, "keeper");
    nix::sys::signal::kill(outer, nix::sys::signal::Signal::SIGSTOP).unwrap();
    machine.sql("create table filled (i int)").unwrap();
    machine.sql("select pg_switch_wal()").unwrap();
    let said = until("a refusal", LONG, || {
        let out = machine.supafly(&["freeze"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            // It was faster than the archiver: once more.
            assert!(machine.supafly(&["thaw"]).status.success());
            return None;
        }
        Some(text)
    });
    assert!(said.contains("not frozen: `postgres` has work under way: "), "{said}");
    let top = u32::try_from(machine.pid().as_raw()).unwrap();
    assert!(postgres(top).iter().all(|(_, state)| *state != 'T'), "nothing of it stands");
    nix::sys::signal::kill(outer, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(machine.supafly(&["freeze", "--wait", "60s"]).status.success());
    assert!(machine.supafly(&["thaw"]).status.success());
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_postmaster_that_stands_still_alone_is_seen_although_those_who_are_in_are_served() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    let postmaster = leader(&machine, "postgres");
    let ready = |m: &Machine| {
        let out = m.supafly(&["health", "--ready"]);
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGSTOP).unwrap();
    // Keeper's own connection answers all the time.
    let words = "connections that stand still answer, but no new one is accepted";
    // On a loaded host it may be lost for another reason first.
    until("readiness to be lost for that", LONG, || {
        let (is, said) = ready(&machine);
        (!is && said.contains(words)).then_some(())
    });
    until("the row to say it", LONG, || (machine.row("postgres")?["state"] == "silent").then_some(()));
    nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGCONT).unwrap();
    until("readiness to return", LONG, || ready(&machine).0.then_some(()));
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// The leader of a service, by the number that it has here.
fn leader(machine: &Machine, service: &str) -> nix::unistd::Pid {
    let status = machine.status().unwrap();
    let row = status["services"].as_array().unwrap().iter().find(|s| s["name"] == service);
    outer(machine, row.and_then(|s| s["pid"].as_i64()).unwrap())
}

/// A process that PID 1 named, by the number that it has here.
fn outer(machine: &Machine, inner: i64) -> nix::unistd::Pid {
    let top = u32::try_from(machine.pid().as_raw()).unwrap();
    let mut open = vec![top];
    while let Some(pid) = open.pop() {
        open.extend(children(pid));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let last =
            status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        if last == Some(inner.to_string().as_str()) {
            return nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        }
    }
    panic!("no process {inner}");
}

/// The limit of a role is refused by the code of a server that is full, and needs no hundred clients.
#[test]
fn a_server_that_has_no_connection_left_for_keeper_stays_ready() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    machine.sql("alter role supafly connection limit 0").unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supafly'";
    machine.sql(end).unwrap();
    let out = machine.supafly(&["restart", "keeper"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let state =
        |m: &Machine| m.row("postgres").map(|row| row["state"].as_str().unwrap_or_default().to_owned());
    until("the row to say it", LONG, || (state(&machine)? == "full").then_some(()));
    until("keeper to be ready again", LONG, || {
        machine.supafly(&["health", "--ready"]).status.success().then_some(())
    });
    machine.sql("alter role supafly connection limit -1").unwrap();
    until("the row to say more", LONG, || (state(&machine)? == "ok").then_some(()));
    // Ended, and its place taken: what was seen last holds.
    machine.sql("alter role supafly connection limit 0").unwrap();
    machine.sql(end).unwrap();
    for _ in 0..20 {
        let out = machine.supafly(&["health", "--ready"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
