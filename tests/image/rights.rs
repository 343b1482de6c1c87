//! Less than a container is usually given, in the ways that docs/image.md names: a root file system that cannot be written,
//! another user, fewer capabilities.

use super::container::{Container, INITS, Plan, Volume};
use super::engine::Image;
use crate::support::machine::open_directory;

/// What docs/image.md names, in its words.
const CAPABILITIES: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"];

fn works(container: &Container) {
    container.sql("create table public.kept (n int)").unwrap();
    container.sql("insert into public.kept values (1)").unwrap();
    assert_eq!(container.by_port(6543, "select n from public.kept").unwrap(), "1");
    let (code, _) = container.stop();
    assert_eq!(code, 0);
    assert!(container.log().contains("database system is shut down"));
}

#[test]
fn a_read_only_root_is_enough_with_run_and_tmp_in_memory() {
    for init in INITS {
        let plan = Plan::new(&Image::slim()).under(init).with_clients();
        let container = plan.options(&["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"]).ready();
        assert!(!container.exec(&["touch", "/etc/x"]).status.success(), "its root can be written");
        works(&container);
    }
}

#[test]
fn the_documented_capabilities_are_enough_and_nobody_keeps_one_but_root() {
    for init in INITS {
        let mut plan = Plan::new(&Image::slim()).under(init).with_clients().options(&["--cap-drop", "ALL"]);
        for capability in CAPABILITIES {
            plan = plan.options(&["--cap-add", capability]);
        }
        let container = plan.ready();
        for service in ["keeper", "pooler", "postgres", "postgrest", "web"] {
            let pid = container.pid(service).unwrap();
            let status = container.said(&["cat", &format!("/proc/{pid}/status")]);
            let line =
                |name: &str| status.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
            assert_eq!(line("CapEff:"), "CapEff:\t0000000000000000", "{service}");
            assert_eq!(line("CapBnd:"), "CapBnd:\t0000000000000000", "{service}");
            assert!(!line("Uid:").contains("\t0\t"), "{service} runs as root");
        }
        works(&container);
    }
}

#[test]
fn the_page_of_the_image_names_these_capabilities() {
    let page = include_str!("../../docs/image.md").replace('\n', " ");
    let (_, rest) = page.split_once("--cap-drop ALL --cap-add").expect("docs/image.md names capabilities");
    let mut named: Vec<&str> = rest.trim_start().split(['`', ' ']).next().unwrap().split(',').collect();
    named.sort_unstable();
    assert_eq!(named, CAPABILITIES);
}

#[test]
fn without_any_capability_it_ends_and_says_what_lacks() {
    let container = Plan::new(&Image::slim()).options(&["--cap-drop", "ALL"]).start();
    assert_ne!(container.wait_end(), 0);
    let log = container.log();
    assert!(log.contains("cannot give it to its user"), "{log}");
    assert!(log.contains("not privileged"), "{log}");
}

/// Everything in it is of one user, which is said, and it serves.
fn is_of(container: &Container, uid: &str) {
    for process in container.processes() {
        let owner = container.exec(&["stat", "-c", "%u", &format!("/proc/{}", process.pid)]);
        let owner = String::from_utf8_lossy(&owner.stdout).trim().to_owned();
        assert!(owner.is_empty() || owner == uid, "{process:?} is of {owner}");
    }
    assert!(container.log().contains("everything runs as one user"), "it is not said");
    works(container);
}

#[test]
fn as_another_user_everything_is_that_user_on_a_new_volume() {
    let volume = Volume::new();
    let plan = Plan::new(&Image::slim()).with_clients().on(&volume).options(&["--user", "postgres"]);
    is_of(&plan.ready(), "999");
    // And again, with what the first start left there.
    let plan = Plan::new(&Image::slim()).with_clients().on(&volume).options(&["--user", "postgres"]);
    let container = plan.ready();
    assert_eq!(container.sql("select n from public.kept").unwrap(), "1");
}

#[test]
fn as_another_user_everything_is_that_user_in_a_directory_of_its_own() {
    let dir = open_directory();
    std::os::unix::fs::chown(dir.path(), Some(999), Some(999)).unwrap();
    let mount = format!("{}:/data", dir.path().display());
    let plan = Plan::new(&Image::slim()).with_clients().options(&["--user", "postgres", "--volume", &mount]);
    is_of(&plan.ready(), "999");
}

#[test]
fn a_user_that_may_not_write_the_run_directory_is_told_how_to_get_one() {
    let plan =
        Plan::new(&Image::slim()).options(&["--user", "postgres", "--env", "SUPAFLY_RUN=/etc/nowhere"]);
    let container = plan.start();
    assert_eq!(container.wait_end(), 78);
    let log = container.log();
    assert!(log.contains("set SUPAFLY_RUN to a place that can be written"), "{log}");
}
