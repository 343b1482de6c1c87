//! Too little of something: memory for a backend, room on the volume.

use super::container::{Container, Plan};
use super::engine::Image;

#[test]
fn a_backend_that_takes_all_memory_is_killed_and_the_rest_serves_on() {
    let container = Plan::new(&Image::slim()).options(&["--memory", "320m", "--memory-swap", "320m"]).ready();
    container.sql("create table public.kept (n int)").unwrap();
    container.sql("insert into public.kept select generate_series(1, 1000)").unwrap();
    let pids = ["keeper", "pooler", "postgres", "web"].map(|name| (name, container.pid(name).unwrap()));
    // It takes up to 900 MB of its own.
    let greedy = "select length(string_agg(repeat('x', 1000000), '')) from generate_series(1, 900)";
    let error = container.sql(greedy).unwrap_err();
    assert!(error.contains("server closed the connection unexpectedly"), "{error}");
    // Readiness may lag behind such a crash by the age that keeper's news may have; a client does not.
    let count =
        container.wait("Postgres to be back", || container.sql("select count(*) from public.kept").ok());
    assert_eq!(count, "1000");
    container.wait_ready();
    let log = container.log();
    assert!(log.contains("was terminated by signal 9: Killed"), "no backend was killed: did the limit hold?");
    for (name, pid) in pids {
        assert_eq!(container.pid(name), Some(pid), "{name} did not survive what another one took");
    }
}

/// A volume of 300 MB in memory. Looked at from inside before anything fills it: a mistake here would fill the host.
fn small_volume() -> Container {
    let mount = "type=tmpfs,destination=/data,tmpfs-size=314572800";
    let container = Plan::new(&Image::slim()).options(&["--mount", mount]).ready();
    let kilobytes: u64 =
        container.said(&["sh", "-c", "df -Pk /data | awk 'END { print $2 }'"]).parse().unwrap();
    assert!(kilobytes <= 310_000, "/data is not the small volume: {kilobytes} kB");
    container
}

/// Takes all room that is left, of 300 MB at most.
fn fill(container: &Container) {
    container.exec(&["sh", "-c", "dd if=/dev/zero of=/data/filler bs=64k count=4800 2>/dev/null"]);
    let left: u64 = container.said(&["sh", "-c", "df -Pk /data | awk 'END { print $4 }'"]).parse().unwrap();
    assert!(left < 1000, "{left} kB are left");
}

#[test]
fn a_full_volume_refuses_writes_says_why_and_everything_goes_on_when_there_is_room() {
    let container = small_volume();
    container.sql("create table public.kept (n int, t text)").unwrap();
    container.sql("insert into public.kept values (1, 'before')").unwrap();
    container.sql("checkpoint").unwrap();
    fill(&container);
    let big = "insert into public.kept select g, repeat('x', 900) from generate_series(2, 60000) g";
    let error = container.sql(big).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    // What was there is served on.
    assert_eq!(container.sql("select t from public.kept").unwrap(), "before");
    container.said(&["rm", "/data/filler"]);
    container.sql("insert into public.kept values (2, 'after')").unwrap();
    container.wait_ready();
}

#[test]
fn postgres_that_finds_no_room_for_its_wal_comes_back_by_itself_with_every_row_when_there_is_room() {
    let container = small_volume();
    container.sql("create table public.kept (n int)").unwrap();
    container.sql("insert into public.kept select generate_series(1, 500)").unwrap();
    fill(&container);
    // The next segment has no room: Postgres ends itself by a PANIC.
    container.wait("Postgres to find no room", || {
        let _ = container.sql("select pg_switch_wal()");
        let _ = container.sql("insert into public.kept values (501)");
        let log = container.log();
        log.lines().any(|l| l.contains("No space left on device") && l.contains("pg_wal")).then_some(())
    });
    container.wait("readiness to be lost", || {
        (!container.exec(&["supafly", "health", "--ready"]).status.success()).then_some(())
    });
    let postgres = || {
        let out = container.exec(&["supafly", "status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        status["services"].as_array()?.iter().find(|s| s["name"] == "postgres").cloned()
    };
    let waits = |ms: u64| postgres().filter(|s| s["state"] == "no-room" && s["for_ms"].as_u64() > Some(ms));
    let said = container.wait("the status to say why", || waits(0));
    let detail = said["detail"].as_str().unwrap();
    assert!(detail.starts_with("no room on /data: "), "{detail}");
    assert!(detail.contains("32 MB are needed: make room or grow the volume"), "{detail}");
    // It is not started in vain meanwhile.
    let later = container.wait("it to wait", || waits(10_000));
    assert_eq!(later["restarts"], said["restarts"]);
    assert!(container.runs());
    assert!(
        container.exec(&["supafly", "health", "--live"]).status.success(),
        "it lives, whatever Postgres does"
    );
    container.said(&["rm", "/data/filler"]);
    container.wait_ready();
    let count: u32 =
        container.sql("select count(*) from public.kept where n <= 500").unwrap().parse().unwrap();
    assert_eq!(count, 500, "acknowledged rows");
}
