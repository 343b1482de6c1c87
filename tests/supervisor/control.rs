//! The control socket in bad company, and files that come while it runs.

use crate::harness::{World, is_root, own_uid, scenario, skip, until};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const STATUS: &[u8] = b"{\"v\":1,\"verb\":\"status\"}\n";

scenario!(clients_that_vanish_cost_nothing, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let path = w.path("run/control.sock");
    let before = crate::procs::descriptors(w.pid());
    for i in 0..300 {
        let mut client = UnixStream::connect(&path).unwrap();
        match i % 3 {
            0 => {}
            1 => client.write_all(b"{\"v\":1,\"ve").unwrap(),
            _ => client.write_all(STATUS).unwrap(),
        }
    }
    until("its descriptors to come down", || (crate::procs::descriptors(w.pid()) <= before).then_some(()));
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(a_client_that_never_reads_its_answers_delays_nobody, |w| {
    for i in 0..20 {
        w.service(&format!("s{i}"), &["wait"], "");
    }
    w.set_budget("60s");
    w.start();
    w.until_all("ready");
    let mut deaf = UnixStream::connect(w.path("run/control.sock")).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    while deaf.write_all(STATUS).is_ok() {}
    w.until_all("ready");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0);
    // The server itself is patient with it for ten.
    assert!(took < Duration::from_secs(9), "{took:?}");
});

scenario!(a_request_in_two_halves_is_one_request, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let mut client = UnixStream::connect(w.path("run/control.sock")).unwrap();
    let (first, second) = STATUS.split_at(9);
    client.write_all(first).unwrap();
    w.until_state("db", "ready");
    client.write_all(second).unwrap();
    let mut answer = [0; 16];
    client.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"{\"v\":1,\"answer\""), "{answer:?}");
    assert_eq!(w.stop(), 0);
});

scenario!(the_sockets_of_a_killed_instance_are_in_nobodys_way, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    w.signal(Signal::SIGKILL);
    w.forget();
    for name in ["control.sock", "notify.sock"] {
        assert!(w.path("run").join(name).exists(), "a killed one cannot clear up");
    }
    let (code, reason) = w.says(&["health", "--live"]);
    assert!(code == 1 && reason.contains("no supervisor answers"), "{reason}");
    w.start();
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
    assert!(!w.path("run/control.sock").exists());
});

scenario!(who_may_not_enter_is_told_so, |w| {
    w.reachable().service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let mode = |name: &str| w.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        [mode("run"), mode("run/control.sock"), mode("run/notify.sock")].map(|m| format!("{m:o}")),
        ["711", "660", "666"]
    );
    if !is_root() {
        return skip("not root: no second user");
    }
    let mut other = std::process::Command::new("setpriv");
    w.settings(&mut other);
    let uid = own_uid();
    other.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--"]);
    let out = other.arg(w.binary()).arg("status").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("Permission denied"), "{said}");
    assert_eq!(w.stop(), 0);
});

scenario!(a_service_may_look_but_not_touch, |w| {
    let (said, ask) = (w.file("said"), format!("{} status", w.binary().display()));
    w.shell(
        "web",
        &format!("until {ask} > {said}.new; do sleep 0.05; done; mv {said}.new {said}; sleep 3600"),
        "pass = [\"SUPAFLY_*\"]",
    );
    w.start();
    until("what the service saw", || w.path("said").exists().then_some(()));
    assert!(w.read("said").contains("web"), "{}", w.read("said"));
    assert_eq!(w.stop(), 0);
});

scenario!(one_broken_file_among_good_ones_starts_nothing, |w| {
    let marks = w.file("marks");
    for name in ["a", "b", "c"] {
        w.service(name, &["mark", &marks, name, "wait"], "");
    }
    for broken in ["kind = \"daemon\"\nexec = [\"/bin/true\"", "kind = 3\nexec = [\"/bin/true\"]\n", "\u{0}"]
    {
        w.raw("broken", broken);
        let (code, text) = w.says(&["check"]);
        assert!(code == 78 && text.contains("broken.toml:"), "{text}");
        assert_eq!(w.start().ended().code(), Some(78), "{}", w.log());
    }
    assert!(w.log().contains("broken.toml:"), "{}", w.log());
    assert!(w.lines("marks").is_empty());
});

scenario!(files_that_come_or_break_while_it_runs_change_nothing_until_the_next_start, |w| {
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "db", "wait"], "");
    w.start().until_marked("marks", "db");
    w.raw("db", "nonsense").service("late", &["mark", &marks, "late", "wait"], "");
    w.signal(Signal::SIGHUP);
    w.until_marked("out", "SIGHUP is ignored");
    let status = w.answer();
    assert_eq!(status["services"].as_array().unwrap().len(), 1, "{status}");
    // It can be restarted from what was read at the start.
    let pid = i32::try_from(w.until_state("db", "ready")["pid"].as_i64().unwrap()).unwrap();
    w.signal_to(pid, Signal::SIGKILL);
    until("a second life", || (w.lines("marks").len() == 2).then_some(()));
    assert_eq!(w.stop(), 0);
    assert_eq!(w.lines("marks"), ["db", "db"]);
});

/// The next life reads what is there then.
#[test]
fn a_new_life_reads_the_files_anew() {
    let mut w = World::new();
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
    w.raw("db", "nonsense");
    assert_eq!(w.start().ended().code(), Some(78));
}
