//! Numbers that come again, visitors from other namespaces, and processes that somebody else holds.

use crate::harness::{World, is_root, scenario, skip, until};
use crate::procs;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process of the test's own; it dies with the test.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn visit(w: &World, script: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &w.pid().to_string(), "--pid", "--", "sh", "-c", script]);
    command.stdin(Stdio::null());
    command
}

/// A visitor from outside that has exactly this number in the supervisor's namespace.
fn visitor(w: &World, number: i32, file: &str) -> Own {
    let fake = w.fake();
    for _ in 0..50 {
        // The number given next is one more than the last.
        let script = format!(
            "echo {} > /proc/sys/kernel/ns_last_pid; {fake} pid {} wait & wait $!",
            number - 1,
            w.file(file)
        );
        let before = w.pids_in(file).len();
        let own = Own(visit(w, &script).spawn().unwrap());
        let got = until("the visitor", || w.pids_in(file).get(before).copied());
        if got == number {
            return own;
        }
        procs::kill(w.outer(got).unwrap(), Signal::SIGKILL);
    }
    panic!("the number {number} cannot be had again");
}

/// In a pid namespace, where numbers can be chosen: those of a dead grandchild and of a dead leader are a visitor's now.
fn numbers_come_again(w: &mut World) {
    let (leaders, orphans) = (w.file("leaders"), w.file("orphans"));
    w.service(
        "db",
        &["pid", &leaders, "orphan", &format!("pid,{orphans},wait"), "wait"],
        "restart = { delay = \"10ms\", max_delay = \"10ms\", max = 100 }",
    );
    w.start();
    let (leader, orphan) = (w.pid_in("leaders"), w.pid_in("orphans"));
    w.signal_to(orphan, Signal::SIGKILL);
    until("the grandchild's burial", || w.outer(orphan).is_none().then_some(()));
    let first = visitor(w, orphan, "first");
    let kept = w.outer(orphan).unwrap();
    w.signal_to(leader, Signal::SIGKILL);
    until("a second life", || (w.pids_in("orphans").len() == 2).then_some(()));
    assert!(procs::alive(kept), "a visitor with a grandchild's number was taken for it");
    let second = visitor(w, leader, "second");
    let keeps = w.outer(leader).unwrap();
    w.signal_to(*w.pids_in("leaders").get(1).unwrap(), Signal::SIGKILL);
    until("a third life", || (w.pids_in("orphans").len() == 3).then_some(()));
    assert!(procs::alive(kept) && procs::alive(keeps), "a visitor with a leader's number was taken for it");
    let supervisor = w.pid();
    w.term();
    if procs::inner(supervisor) == Some(1) {
        // The kernel ends the rest of a namespace with its PID 1.
        assert_eq!(w.ended().code(), Some(0), "{}", w.log());
    } else {
        until("the supervisor's end", || (!procs::alive(supervisor)).then_some(()));
        assert!(procs::alive(kept) && procs::alive(keeps), "visitors are none of the supervisor's");
        std::fs::write(w.path("over"), "").unwrap();
        assert_eq!(w.ended().code(), Some(0), "{}", w.log());
    }
    drop((first, second));
}

#[test]
fn a_stranger_with_the_number_of_a_dead_process_is_not_signalled_by_pid_1() {
    if let Some(mut w) = World::pid_1() {
        numbers_come_again(&mut w);
    }
}

#[test]
fn a_stranger_with_the_number_of_a_dead_process_is_not_signalled_by_a_child() {
    if let Some(mut w) = World::pid_1() {
        let script =
            format!("\"$@\"; code=$?; until [ -e {} ]; do sleep 0.05; done; exit $code", w.file("over"));
        w.inside(&["sh", "-c", &script, "sh"]);
        numbers_come_again(&mut w);
    }
}

#[test]
fn a_visitor_that_dies_as_a_child_of_pid_1_is_buried_and_is_no_service() {
    let Some(mut w) = World::pid_1() else { return };
    w.service("db", &["wait"], "");
    w.start();
    let pid = w.until_state("db", "ready")["pid"].clone();
    for i in 0..10 {
        // Its parent leaves first, so that PID 1 inherits it, as after `docker exec`.
        let status =
            visit(&w, &format!("( sleep 0.0{i}; exit 77 ) & ( sleep 0.0{i}; kill -9 $$ ) & exit 0")).status();
        assert!(status.unwrap().success());
    }
    until("everybody to be buried", || (w.children().len() == 1).then_some(()));
    let seen = w.until_state("db", "ready");
    assert_eq!((&seen["pid"], &seen["restarts"]), (&pid, &0.into()));
    assert_eq!(w.stop(), 0, "{}", w.log());
}

scenario!(a_process_that_a_debugger_holds_is_killed_at_the_end_of_the_budget, |w| {
    if !is_root() {
        return skip("not root: whether we may trace is not ours to say");
    }
    w.set_budget("1s");
    let pid = w.file("pid");
    w.service("db", &["pid", &pid, "wait"], "");
    w.start();
    let outer = w.outer(w.pid_in("pid")).unwrap();
    let mut debugger = Command::new(w.fake());
    debugger.args(["trace", &outer.to_string()]).stdin(Stdio::null());
    let _debugger = Own(debugger.spawn().unwrap());
    until("the debugger's stop", || (procs::stat(outer)?.state == 't').then_some(()));
    let (code, took) = w.timed_stop();
    assert_eq!(code, 75, "{}", w.log());
    // By its own budget, not by the 9 s that are usual.
    assert!(took < Duration::from_secs(8), "{took:?}");
});

/// A cgroup of the old freezer: what is in it cannot even be killed, as in a disk's uninterruptible sleep.
struct Ice(PathBuf);

impl Ice {
    fn new() -> Option<Ice> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = PathBuf::from(format!("/sys/fs/cgroup/freezer/supafly-test-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        Some(Ice(dir))
    }
    fn set(&self, state: &str) {
        std::fs::write(self.0.join("freezer.state"), state).unwrap();
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

scenario!(a_process_that_cannot_even_be_killed_is_waited_for_and_said_to_be_stopping, |w| {
    let Some(ice) = is_root().then(Ice::new).flatten() else {
        return skip("no freezer of cgroup v1: an unkillable process cannot be made");
    };
    w.set_budget("500ms");
    let (pid, marks) = (w.file("pid"), w.file("marks"));
    w.service("db", &["pid", &pid, "wait"], "");
    w.service("other", &["serve", &marks, "other"], "");
    w.start();
    let outer = w.outer(w.pid_in("pid")).unwrap();
    w.until_all("ready");
    std::fs::write(ice.0.join("cgroup.procs"), outer.to_string()).unwrap();
    ice.set("FROZEN");
    until("the uninterruptible sleep", || (procs::stat(outer)?.state == 'D').then_some(()));
    w.term();
    until("SIGKILL in the status", || {
        let seen = w.state_of("db")?;
        seen["detail"].as_str()?.contains("SIGKILL sent").then_some(())
    });
    // Who can go has gone; `stopped` is not claimed of who has not; requests are answered.
    until("the other one to be stopped", || (w.state_of("other")?["state"] == "stopped").then_some(()));
    assert!(w.runs() && w.seen("db")["state"] == "stopping");
    let before = procs::stat(w.pid()).unwrap().cpu;
    std::thread::sleep(Duration::from_millis(300));
    assert!(procs::stat(w.pid()).unwrap().cpu - before < Duration::from_millis(150), "it waits busily");
    ice.set("THAWED");
    assert_eq!(w.ended().code(), Some(75), "{}", w.log());
});
