//! kill -9 of each service: it comes back, and the others do not notice.

use super::container::{Container, INITS, Plan};
use super::engine::Image;
use std::collections::BTreeMap;

/// Every daemon that runs, by its name, with its process.
fn daemons(container: &Container) -> BTreeMap<String, u64> {
    let status = container.status().unwrap();
    let services = status["services"].as_array().unwrap().iter();
    services.filter_map(|s| Some((s["name"].as_str()?.to_owned(), s["pid"].as_u64()?))).collect()
}

fn kill_each(container: &Container, least: &[&str]) {
    let all = daemons(container);
    for name in least {
        assert!(all.contains_key(*name), "{name} does not run: {all:?}");
    }
    for victim in all.keys() {
        let before = daemons(container);
        let pid = before[victim];
        container.said(&["sh", "-c", &format!("kill -9 {pid}")]);
        container.wait(&format!("{victim} to be back"), || {
            let row = container.service(victim)?;
            (row["state"] == "ready" && row["pid"].as_u64()? != pid).then_some(())
        });
        container.wait_ready();
        let after = daemons(container);
        for (other, pid) in before.iter().filter(|(name, _)| *name != victim) {
            assert_eq!(after.get(other), Some(pid), "{other} did not go on when {victim} was killed");
        }
        assert_eq!(container.service(victim).unwrap()["last"], "SIGKILL", "{victim}");
    }
    assert_eq!(container.sql("select 1").unwrap(), "1");
    assert!(container.runs());
}

#[test]
fn each_service_of_the_slim_image_comes_back_from_kill_9_and_the_others_go_on() {
    for init in INITS {
        let container = Plan::new(&Image::slim()).under(init).ready();
        kill_each(&container, &["keeper", "pooler", "pooler-session", "postgres", "postgrest", "web"]);
    }
}

#[test]
fn each_service_of_the_full_image_comes_back_from_kill_9_and_the_others_go_on() {
    let container = Plan::new(&Image::full()).ready();
    kill_each(&container, &["keeper", "pooler", "postgres", "postgrest", "web"]);
}

#[test]
fn no_zombie_stays_of_what_loses_its_parent() {
    for init in INITS {
        let container = Plan::new(&Image::slim()).under(init).ready();
        // One that a user leaves behind, one that a superuser starts from the database: both lose their parents.
        container.said(&["sh", "-c", "setsid sleep 3.101 >/dev/null 2>&1 & exit 0"]);
        container.sql("copy (select 1) to program 'setsid sleep 3.202 >/dev/null 2>&1 & exit 0'").unwrap();
        let orphans = |all: &[super::container::Process]| {
            all.iter().filter(|p| p.command.starts_with("sleep 3.") && p.parent == 1).count()
        };
        // Under another init, those of the database come to us, who are a subreaper.
        let least = if init == super::container::Init::Ourselves { 2 } else { 1 };
        container.wait("orphans", || (orphans(&container.processes()) >= least).then_some(()));
        let last = container.wait("the orphans' end", || {
            let all = container.processes();
            (!all.iter().any(|p| p.command.starts_with("sleep 3.") || p.state == 'Z')).then_some(all)
        });
        assert!(last.len() > 6, "{init:?}: hardly anything runs: {last:?}");
        assert!(last.iter().any(|p| p.pid == 1), "{last:?}");
    }
}
