//! Postgres goes away and comes back: PostgREST says so meanwhile, is not shot for it, and serves again without a hand,
//! whether it finds back by itself or has to be started again.

use crate::support::machine::{Machine, PATIENCE, children, open_directory, until};
use crate::support::programs::pg_bin;
use crate::support::rest::{Ports, call, leader, service, try_call, wait_state, with_rest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Postgres's programs by another way, which can be taken away.
struct Programs {
    dir: tempfile::TempDir,
}

impl Programs {
    fn new() -> Programs {
        let dir = open_directory();
        for entry in std::fs::read_dir(pg_bin()).unwrap() {
            let entry = entry.unwrap();
            symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        Programs { dir }
    }

    fn postgres(&self) -> PathBuf {
        self.dir.path().join("postgres")
    }

    fn take_away(&self) {
        std::fs::rename(self.postgres(), self.dir.path().join("away")).unwrap();
    }

    fn bring_back(&self) {
        std::fs::rename(self.dir.path().join("away"), self.postgres()).unwrap();
    }
}

fn state(machine: &Machine, name: &str) -> String {
    service(machine, name).map_or_else(String::new, |s| s["state"].as_str().unwrap_or_default().to_owned())
}

fn postmaster(machine: &Machine) -> Pid {
    let file = machine.data().join("pgdata/postmaster.pid");
    assert!(Path::new(&file).exists(), "Postgres runs");
    Pid::from_raw(leader(machine, "postgres").unwrap().try_into().unwrap())
}

/// `select` through the API; the code, or none when nobody answers.
fn select(ports: Ports) -> Option<u16> {
    try_call(ports.api, "GET", "/kept", &[], None).map(|a| a.code)
}

fn up(env: &[(&str, String)]) -> (Machine, Ports) {
    let (mut machine, ports) = with_rest(env);
    machine.boot();
    machine.wait_ready();
    machine
        .sql("create table public.kept (id int); grant select on public.kept to anon; insert into kept values (1)")
        .unwrap();
    until("the new table", PATIENCE, || (select(ports) == Some(200)).then_some(()));
    (machine, ports)
}

/// How long after Postgres was ready again.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed")]
struct Back {
    out: Duration,
    answered: Duration,
    ready: Duration,
    restarts: u64,
}

/// Waits until all is well again after Postgres was seen away at `since`.
fn back(machine: &mut Machine, ports: Ports, since: Instant) -> Back {
    machine.wait("Postgres to be back", |m| (state(m, "postgres") == "ready").then_some(()));
    let returned = Instant::now();
    until("an answer of the API", PATIENCE, || (select(ports) == Some(200)).then_some(()));
    let answered = returned.elapsed();
    let row = wait_state(machine, "postgrest", &["ready"]);
    let ready = returned.elapsed();
    // Ready for good, and it reads the schema anew by itself as before.
    machine.sql("create table public.fresh (id int); grant select on public.fresh to anon").unwrap();
    until("a table that came after the outage", PATIENCE, || {
        (try_call(ports.api, "GET", "/fresh", &[], None)?.code == 200).then_some(())
    });
    machine.sql("drop table public.fresh").unwrap();
    machine.wait_ready();
    Back { out: returned - since, answered, ready, restarts: row["restarts"].as_u64().unwrap() }
}

/// Postgres is killed and cannot be started for so long.
fn outage(machine: &mut Machine, ports: Ports, programs: &Programs, long: Duration) -> Back {
    let before = service(machine, "postgrest").unwrap()["restarts"].as_u64().unwrap();
    programs.take_away();
    kill(postmaster(machine), Signal::SIGKILL).unwrap();
    machine.wait("Postgres to be away", |m| (state(m, "postgres") == "backoff").then_some(()));
    let since = Instant::now();
    let (mut refused, mut told) = (0, 0);
    until("the end of the outage", PATIENCE, || {
        // It answers all the time, and says that it is the database.
        match select(ports) {
            Some(503) => told += 1,
            Some(_) | None => refused += 1,
        }
        std::thread::park_timeout(Duration::from_millis(200));
        (since.elapsed() >= long).then_some(())
    });
    assert!(told > 0, "{refused} answers were none of 503");
    let row = service(machine, "postgrest").unwrap();
    assert_eq!(row["restarts"], before, "it is not shot for an outage of Postgres: {row}");
    if long > Duration::from_secs(6) {
        assert_eq!(row["state"], "unready", "{row}");
        assert!(row["detail"].as_str().unwrap().contains("/ready"), "{row}");
        let table = String::from_utf8(machine.supafly(&["status"]).stdout).unwrap();
        assert!(table.contains("postgrest is not ready") && table.contains("postgres is down"), "{table}");
    }
    programs.bring_back();
    let started = machine.supafly(&["start", "postgres"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    back(machine, ports, since)
}

#[test]
fn after_a_restart_of_postgres_it_serves_again_by_itself() {
    let (mut machine, ports) = up(&[]);
    let since = Instant::now();
    let restarted = machine.supafly(&["restart", "postgres"]);
    assert!(restarted.status.success(), "{}", String::from_utf8_lossy(&restarted.stderr));
    let back = back(&mut machine, ports, since);
    eprintln!("a restart of Postgres: {back:?}");
    // After more than eight seconds it may be started again by design. The supervisor has seen less of it than we have.
    let short = back.out < Duration::from_secs(8);
    assert!(back.restarts == 0 || !short, "a short outage is its own affair: {back:?}");
    // A crash of one backend restarts all of them, and Postgres stays ready.
    machine
        .sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'PostgREST%'",
        )
        .unwrap();
    until("an answer after its connections were cut", PATIENCE, || {
        (select(ports) == Some(200)).then_some(())
    });
    assert_eq!(service(&machine, "postgrest").unwrap()["restarts"], back.restarts);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn an_outage_of_five_or_of_twenty_seconds_ends_without_a_hand() {
    let programs = Programs::new();
    let (mut machine, ports) = up(&[("SUPAFLY_PG_BIN", programs.dir.path().display().to_string())]);
    let short = outage(&mut machine, ports, &programs, Duration::from_secs(5));
    eprintln!("five seconds: {short:?}");
    let long = outage(&mut machine, ports, &programs, Duration::from_secs(20));
    eprintln!("twenty seconds: {long:?}");
    // By itself it would have come back after up to 32 s; started again it is there in a few.
    assert!(long.restarts <= short.restarts + 1, "{short:?} {long:?}");
    // What it says of it is read for what it is.
    let line = |words: &str| {
        let log = machine.log();
        let found = log.lines().find(|l| l.contains("\"service\":\"postgrest\"") && l.contains(words));
        let line: serde_json::Value = serde_json::from_str(found.expect(words)).unwrap();
        (line["level"].as_str().unwrap().to_owned(), line["stream"].as_str().unwrap().to_owned())
    };
    assert_eq!(line("Database connection error."), ("error".into(), "stderr".into()));
    assert_eq!(line("Attempting to reconnect"), ("warn".into(), "stderr".into()));
    assert_eq!(line("\\\" 503 "), ("error".into(), "stdout".into()));
    let again = service(&machine, "postgrest").unwrap();
    // How a version ends on SIGTERM: the older by SIGINT.
    let ended = again["last"].as_str().unwrap_or("");
    assert!(long.restarts == short.restarts || ["SIGINT", "exit 0"].contains(&ended), "{again}");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn frozen_and_thawed_it_goes_on_as_the_same_process() {
    let (mut machine, ports) = up(&[]);
    let before = service(&machine, "postgrest").unwrap();
    let frozen = machine.supafly(&["freeze", "--wait", "60s"]);
    assert!(frozen.status.success(), "{}", String::from_utf8_lossy(&frozen.stdout));
    assert_eq!(state(&machine, "postgrest"), "frozen");
    let since = Instant::now();
    // Longer than liveness would have had patience.
    until("twenty seconds", PATIENCE, || (since.elapsed() > Duration::from_secs(20)).then_some(()));
    assert!(machine.supafly(&["thaw"]).status.success());
    until("an answer after the thaw", PATIENCE, || (select(ports) == Some(200)).then_some(()));
    machine.wait_ready();
    let after = service(&machine, "postgrest").unwrap();
    assert_eq!((&after["pid"], &after["restarts"]), (&before["pid"], &before["restarts"]));
    assert_eq!(call(ports.api, "GET", "/kept", None, None).json()[0]["id"], 1);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_postgres_that_hangs_does_not_get_it_shot_and_both_go_on() {
    let (mut machine, ports) = up(&[]);
    let before = service(&machine, "postgrest").unwrap();
    let top = postmaster(&machine);
    let all = |signal| {
        // Backends come and go meanwhile: the postmaster must be there, who of them is gone is gone.
        kill(top, signal).unwrap();
        for child in children(top.as_raw().unsigned_abs()) {
            let _ = kill(Pid::from_raw(child.try_into().unwrap()), signal);
        }
    };
    all(Signal::SIGSTOP);
    // Longer than liveness has patience.
    let since = Instant::now();
    until("half a minute", PATIENCE, || (since.elapsed() > Duration::from_secs(30)).then_some(()));
    let meanwhile = service(&machine, "postgrest").unwrap();
    assert_eq!(meanwhile["restarts"], before["restarts"], "{meanwhile}");
    all(Signal::SIGCONT);
    until("an answer after it hung", PATIENCE, || (select(ports) == Some(200)).then_some(()));
    machine.wait_ready();
    let after = service(&machine, "postgrest").unwrap();
    assert_eq!((&after["pid"], &after["restarts"]), (&before["pid"], &before["restarts"]));
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
