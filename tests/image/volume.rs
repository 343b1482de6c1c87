//! The volume: shared by mistake, kept, lost, and handed to another image.

use super::container::{Container, INITS, Plan, Volume};
use super::engine::{Image, engine};
use crate::support::S3;
use crate::support::machine::open_directory;
use crate::support::ports::free_port;

#[test]
fn a_second_container_on_a_volume_waits_then_refuses_and_names_the_holder() {
    for init in INITS {
        let volume = Volume::new();
        let plan = || Plan::new(&Image::slim()).under(init).on(&volume);
        let first = plan().option("--hostname=the-holder").ready();
        first.sql("create table public.kept (n int)").unwrap();
        let second = plan().env("SUPAFLY_STOP_BUDGET", "3s").start();
        assert_eq!(second.wait_end(), 77, "refused");
        let log = second.log();
        let said = log.lines().find(|l| l.contains("/data/supafly/lock is locked by")).unwrap_or_default();
        assert!(said.contains("the-holder"), "it does not name the holder: {said}");
        assert_eq!(first.sql("select count(*) from public.kept").unwrap(), "0", "the first one serves on");
        // One that comes while the first stops takes over as soon as that is down.
        let third = plan().start();
        assert_eq!(first.stop().0, 0);
        third.wait_ready();
        assert_eq!(third.sql("select count(*) from public.kept").unwrap(), "0");
    }
}

#[test]
fn a_container_that_is_started_again_has_its_data_its_keys_and_its_password() {
    let container = Plan::new(&Image::slim()).with_clients().ready();
    container.sql("create table public.kept as select 7 as n").unwrap();
    let keys = container.said(&["supafly", "keys", "--json"]);
    assert_eq!(container.stop().0, 0);
    engine().said(&["start", container.name()]);
    container.wait_ready();
    assert_eq!(container.by_port(6543, "select n from public.kept").unwrap(), "7");
    assert_eq!(container.said(&["supafly", "keys", "--json"]), keys);
}

#[test]
fn another_container_on_the_same_volume_has_the_data() {
    let volume = Volume::new();
    let container = Plan::new(&Image::slim()).on(&volume).with_clients().ready();
    container.sql("create table public.kept as select 7 as n").unwrap();
    assert_eq!(container.stop().0, 0);
    drop(container);
    let container = Plan::new(&Image::slim()).on(&volume).with_clients().ready();
    assert_eq!(container.by_port(6543, "select n from public.kept").unwrap(), "7");
}

/// In the host's network, where the S3 server is: every port is a free one.
fn beside(s3: &S3) -> (Plan, u16) {
    let port = free_port();
    let mut plan = Plan::new(&Image::slim()).options(&["--network", "host"]).env("POSTGRES_PASSWORD", "x");
    for (name, value) in s3.environment(s3.endpoint()) {
        plan = plan.env(&name, &value);
    }
    for name in ["POOLER_PORT", "POOLER_SESSION_PORT", "POSTGREST_PORT", "POSTGREST_ADMIN_PORT"] {
        plan = plan.env(&format!("SUPAFLY_{name}"), &free_port().to_string());
    }
    let plan = plan.env("SUPAFLY_PG_PORT", &port.to_string()).env("PGPORT", &port.to_string());
    let plan = plan.env("SUPAFLY_PG_LISTEN", "127.0.0.1").env("SUPAFLY_WEB_LISTEN", "127.0.0.1:0");
    (plan.env("SUPAFLY_WEB_PRIVATE", "127.0.0.1:0").env("SUPAFLY_STORE", &s3.url()), port)
}

fn row(container: &Container, name: &str) -> Option<serde_json::Value> {
    let keeper = container.service("keeper")?;
    let rows = keeper["rows"].as_array()?.clone();
    rows.into_iter().find(|r| r["name"].as_str().is_some_and(|n| n.split(' ').next() == Some(name)))
}

#[test]
fn a_container_without_its_volume_restores_every_row_from_s3() {
    let s3 = S3::start();
    let (plan, _) = beside(&s3);
    let container = plan.ready();
    container.wait("a verified base backup", || (row(&container, "backup")?["state"] == "ok").then_some(()));
    container.sql("create table public.kept (n int primary key, t text)").unwrap();
    container.sql("insert into public.kept select g, md5(g::text) from generate_series(1, 30000) g").unwrap();
    let sum = "select count(*), sum(hashtext(t)) from public.kept";
    let before = container.sql(sum).unwrap();
    // An orderly stop archives the last segment; exit 76 would say that it could not.
    assert_eq!(container.stop().0, 0);
    drop(container);
    let (plan, _) = beside(&s3);
    let container = plan.env("SUPAFLY_TAKEOVER", "auto").ready();
    assert_eq!(container.sql(sum).unwrap(), before);
    assert!(container.log().contains("restore"), "it does not say that it restored");
    container.sql("insert into public.kept values (30001, 'written after it')").unwrap();
}

#[test]
fn without_leave_to_take_over_a_container_without_its_volume_touches_nothing() {
    let s3 = S3::start();
    let (plan, _) = beside(&s3);
    let container = plan.ready();
    assert_eq!(container.stop().0, 0);
    drop(container);
    let (plan, _) = beside(&s3);
    let container = plan.start();
    assert_eq!(container.wait_end(), 77);
    let log = container.log();
    assert!(log.contains("SUPAFLY_TAKEOVER"), "it does not say how to allow it: {log}");
}

#[test]
fn a_system_without_certificates_is_named_as_the_reason_why_the_store_cannot_be_used() {
    let s3 = S3::start();
    let (plan, _) = beside(&s3);
    let nothing = open_directory();
    let mount = format!("{}:/etc/ssl/certs:ro", nothing.path().display());
    let container = plan.options(&["--volume", &mount]).start();
    assert_eq!(container.wait_end(), 78);
    let log = container.log();
    let said = log.lines().find(|l| l.contains("the store s3://")).unwrap_or_default();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

#[test]
fn the_image_has_the_certificates_of_public_stores() {
    for image in [Image::slim(), Image::full()] {
        let container = Plan::new(&image)
            .words(&["sh", "-c", "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt"])
            .start();
        assert_eq!(container.wait_end(), 0, "{image:?}: {}", container.log());
        let count: u32 = container.log().trim().parse().unwrap();
        assert!(count > 100, "{image:?}: {count} certificates");
    }
}

/// Data that the former image wrote, with every kind of thing that an upgrade could break, is served by the newer one.
fn upgrades(former: &Image, newer: &Image) {
    let volume = Volume::new();
    let container = Plan::new(former).on(&volume).with_clients().ready();
    container.sql("create table public.kept (n int primary key, t text collate \"en-x-icu\")").unwrap();
    container.sql("insert into public.kept select g, 'row ' || g from generate_series(1, 5000) g").unwrap();
    container.sql("create index on public.kept (t)").unwrap();
    let sum = "select count(*), sum(hashtext(t)), max(t) from public.kept";
    let before = container.sql(sum).unwrap();
    let keys = container.said(&["supafly", "keys", "--json"]);
    assert_eq!(container.stop().0, 0);
    drop(container);
    let container = Plan::new(newer).on(&volume).with_clients().env("SUPAFLY_POOLER", "pgbouncer").ready();
    assert_eq!(container.sql(sum).unwrap(), before);
    assert_eq!(container.said(&["supafly", "keys", "--json"]), keys);
    assert_eq!(container.by_port(6543, "select t from public.kept where n = 5000").unwrap(), "row 5000");
    assert_eq!(container.service("setup").unwrap()["state"], "done");
}

#[test]
fn the_volume_of_the_former_image_is_served_by_this_one() {
    let (former, older) = Image::former();
    if !older {
        eprintln!(
            "no release is older than this one: the same image stands in for the former one (SUPAFLY_TEST_IMAGE_FORMER names another)"
        );
    }
    upgrades(&former, &Image::slim());
}

#[test]
fn the_volume_of_the_slim_image_is_served_by_the_full_one() {
    upgrades(&Image::slim(), &Image::full());
}
