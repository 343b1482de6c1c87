//! The ancestor's image lost power at each `docker stop`: its init gave the signal to a shell that did not hand it on, and
//! Postgres was killed after ten seconds. Here Postgres is shut down in order, whatever clients do.

use super::container::{Container, INITS, Init, Plan, Volume};
use super::engine::Image;
use std::time::Duration;

/// Clients that would hold up a stop which waits for them.
fn busy(container: &Container) -> [super::container::Background; 3] {
    container.sql("create table public.kept (n int)").unwrap();
    container.sql("insert into public.kept select generate_series(1, 20000)").unwrap();
    let psql = |sql: &str| container.spawn(&["psql", "-XAtq", "-U", "postgres", "-c", sql]);
    let pooled =
        ["env", "PGPASSWORD=busy", "psql", "-XAtq", "-h", "127.0.0.1", "-p", "6543", "-U", "postgres"];
    let clients = [
        psql("select pg_sleep(600)"),
        psql("begin; insert into public.kept values (0); select pg_sleep(600)"),
        container.spawn(&[&pooled[..], &["-c", "select pg_sleep(600)"]].concat()),
    ];
    container.wait("three sleepers", || {
        let active = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
        (container.sql(active).ok()?.parse::<u32>().ok()? == 3).then_some(())
    });
    clients
}

/// Ends it by `end`, and proves that Postgres was not cut off.
fn stops_in_order(init: Init, end: impl Fn(&Container) -> (i32, Duration)) {
    let volume = Volume::new();
    let plan = || Plan::new(&Image::slim()).under(init).on(&volume).env("POSTGRES_PASSWORD", "busy");
    let container = plan().ready();
    let clients = busy(&container);
    let (code, took) = end(&container);
    let log = container.log();
    assert_eq!(code, 0, "{init:?}: a wanted stop");
    assert!(took < Duration::from_secs(10), "{init:?}: it took {took:?}, and docker kills after 10 s");
    assert!(log.contains("database system is shut down"), "{init:?}: Postgres did not end in order");
    eprintln!("{init:?}: stopped in {took:?}");
    drop((clients, container));
    let container = plan().ready();
    let log = container.log();
    assert!(
        log.contains("database system was shut down at"),
        "{init:?}: the next start does not know of a shutdown"
    );
    for sign in ["was not properly shut down", "was interrupted", "redo starts at"] {
        assert!(!log.contains(sign), "{init:?}: the next start recovers from a crash: {sign}");
    }
    assert_eq!(container.sql("select count(*), min(n) from public.kept").unwrap(), "20000|1", "{init:?}");
}

#[test]
fn docker_stop_shuts_postgres_down_within_ten_seconds_and_the_next_start_recovers_nothing() {
    for init in INITS {
        stops_in_order(init, Container::stop);
    }
}

#[test]
fn sigint_is_the_same_orderly_stop() {
    for init in INITS {
        stops_in_order(init, |container| {
            let begun = std::time::Instant::now();
            container.signal("INT");
            (container.wait_end(), begun.elapsed())
        });
    }
}

#[test]
fn a_power_cut_is_seen_as_one_by_the_next_start() {
    // What the tests above look for is there when it should be.
    let volume = Volume::new();
    let container = Plan::new(&Image::slim()).on(&volume).ready();
    container.sql("create table public.kept (n int)").unwrap();
    container.cut_power();
    let container = Plan::new(&Image::slim()).on(&volume).ready();
    assert!(container.log().contains("was not properly shut down"));
    assert_eq!(container.sql("select count(*) from public.kept").unwrap(), "0");
}
