//! What a load balancer and Prometheus see of a whole machine.

#[allow(dead_code, reason = "this target uses a part of it")]
#[path = "../web/client.rs"]
mod client;

use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::{Machine, root};
use client::get;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

fn web(machine: &Machine) -> Option<serde_json::Value> {
    machine.status()?["services"].as_array()?.iter().find(|s| s["name"] == "web").cloned()
}

fn address(machine: &mut Machine, key: &str) -> SocketAddr {
    machine.wait("web's address", |m| web(m)?["values"][key].as_str()?.parse().ok())
}

#[test]
fn web_runs_as_its_own_user_and_shows_what_keeper_reports() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    // From the first moment: before Postgres can be ready.
    let open = address(&mut machine, "health_address");
    let private = address(&mut machine, "private_address");
    assert_eq!(get(open, "/health/live").code, 200);
    machine.wait("ready for a load balancer", |_| (get(open, "/health/ready").code == 200).then_some(()));
    machine.wait_ready();
    machine.sql("create table t as select 1; select pg_switch_wal()").unwrap();
    machine.wait_protected();
    let metrics = machine.wait("keeper's facts in the metrics", |_| {
        let text = get(private, "/metrics").body;
        let all =
            ["supafly_protected 1\n", "supafly_archive_last_info{file=\"", "supafly_archive_lag_bytes "];
        all.iter().all(|word| text.contains(word)).then_some(text)
    });
    for word in [
        "supafly_ready 1\n",
        "supafly_epoch 1\n",
        "supafly_archive_ready ",
        "supafly_archive_last_age_seconds ",
        "supafly_archive_last_lsn_bytes ",
        "supafly_backup_age_seconds ",
        "supafly_owner_confirmed_age_seconds ",
    ] {
        assert!(metrics.contains(word), "{word}:\n{metrics}");
    }
    let count =
        metrics.lines().find_map(|l| l.strip_prefix("supafly_service_processes{service=\"postgres\"} "));
    assert!(count.unwrap().parse::<u32>().unwrap() > 4, "backends are counted:\n{metrics}");
    let services = get(open, "/health/services");
    assert_eq!(services.code, 200, "{services:?}");
    for name in ["archive", "owner", "postgres", "web"] {
        assert!(services.json().as_array().unwrap().iter().any(|r| r["name"] == name), "{services:?}");
    }
    let token = std::fs::metadata(machine.data().join("supafly/secrets/web-token")).unwrap();
    assert_eq!((token.mode() & 0o777, token.len()), (0o400, 32));
    if root() {
        let user = nix::unistd::User::from_name("supafly-web").unwrap().expect("run `make test`");
        assert_eq!(token.uid(), user.uid.as_raw());
        // Its pid is one of its own namespace: found from outside by what it runs.
        let pid = of_user(user.uid.as_raw(), machine.pid().as_raw());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let pss = memory.lines().find(|l| l.starts_with("Pss:")).unwrap();
        eprintln!("web: {pss}");
    }
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// The child of this supervisor that runs as this user.
fn of_user(uid: u32, supervisor: i32) -> u32 {
    let children = crate::support::machine::children(supervisor.try_into().unwrap());
    let runs_as = |pid: &u32| std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == uid);
    children.into_iter().find(runs_as).expect("no process of supafly-web")
}

#[test]
fn a_machine_that_is_held_is_live_and_says_why_it_is_not_ready() {
    // Without credentials `secrets` refuses; on Fly that holds the machine instead of ending it.
    let env = [("FLY_MACHINE_ID", "e2e".to_owned()), ("SUPAFLY_STORE", "s3://no-such-bucket/x".to_owned())];
    let mut machine = Machine::new(&env);
    machine.boot();
    let open = address(&mut machine, "health_address");
    let ready = machine.wait("the hold", |_| {
        let answer = get(open, "/health/ready");
        (answer.json()["state"] == "degraded").then_some(answer)
    });
    assert_eq!(ready.code, 503);
    assert!(ready.json()["reason"].as_str().unwrap().contains("secrets"), "{ready:?}");
    assert_eq!(get(open, "/health/live").code, 200);
    machine.stop();
}
