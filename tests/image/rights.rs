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
    assert_eq!(container.from_outside(6543, "select n from public.kept").unwrap(), "1");
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
fn the_image_and_its_page_name_the_same_capabilities() {
    let page = include_str!("../../docs/image.md");
    for capability in CAPABILITIES {
        assert!(
            page.contains(&format!("--cap-add {capability}")),
            "docs/image.md does not name {capability}"
        );
    }
}

#[test]
fn without_any_capability_it_ends_and_says_what_lacks() {
    let container = Plan::new(&Image::slim()).options(&["--cap-drop", "ALL"]).start();
    assert_ne!(container.wait_end(), 0);
    let log = container.log();
    assert!(log.contains("cannot give it to its user"), "{log}");
    assert!(log.contains("not privileged"), "{log}");
}

#[test]
fn any_other_user_that_owns_the_volume_runs_everything_as_itself() {
    // Without root the volume must be the user's already.
    let dir = open_directory();
    std::os::unix::fs::chown(dir.path(), Some(999), Some(999)).unwrap();
    let mount = format!("{}:/data", dir.path().display());
    let plan = Plan::new(&Image::slim()).with_clients().options(&["--user", "postgres", "--volume", &mount]);
    let container = plan.env("SUPAFLY_RUN", "/tmp/supafly").ready();
    for process in container.processes() {
        let owner = container.exec(&["stat", "-c", "%u", &format!("/proc/{}", process.pid)]);
        let owner = String::from_utf8_lossy(&owner.stdout).trim().to_owned();
        assert!(owner.is_empty() || owner == "999", "{process:?} is of {owner}");
    }
    let log = container.log();
    assert!(log.contains("everything runs as one user"), "it is not said");
    assert_eq!(container.from_outside(6543, "select 41 + 1").unwrap(), "42");
    assert_eq!(container.stop().0, 0);
}

#[test]
fn a_user_that_may_not_write_the_run_directory_is_told_how_to_get_one() {
    let volume = Volume::new();
    let container = Plan::new(&Image::slim()).on(&volume).options(&["--user", "postgres"]).start();
    assert_eq!(container.wait_end(), 78);
    let log = container.log();
    assert!(log.contains("set SUPAFLY_RUN to a place that can be written"), "{log}");
}
