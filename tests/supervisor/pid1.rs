//! The same as PID 1, in a pid namespace of its own.

use crate::harness::{World, alive, is_root, until};
use std::process::Command;

/// `unshare` around the binary; its child is PID 1 there and gets our signals by its outer pid.
fn as_pid_1(w: &mut World) -> Option<i32> {
    if !is_root() {
        eprintln!("not root: no pid namespace, nothing to test");
        return None;
    }
    let mut command = Command::new("unshare");
    w.settings(&mut command);
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_supafly"), "run"]);
    w.start_as(command);
    let unshare = w.pid();
    Some(until("PID 1", || {
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }))
}

fn term(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
}

#[test]
fn as_pid_1_services_start_notify_and_stop_in_order() {
    let mut w = World::new();
    let marks = w.file("marks");
    w.service(
        "db",
        &["mark", &marks, "started db", "ready", "serve", &marks, "db"],
        "ready = { notify = true }",
    );
    w.service("web", &["mark", &marks, "started web", "serve", &marks, "web"], "requires = [\"db\"]");
    let Some(pid) = as_pid_1(&mut w) else { return };
    w.until_marked("marks", "started web");
    term(pid);
    assert_eq!(w.ended().code(), Some(0), "{}", w.log());
    assert_eq!(w.lines("marks"), ["started db", "started web", "stopped web", "stopped db"]);
}

#[test]
fn as_pid_1_orphans_are_buried_and_sessions_of_their_own_are_ended() {
    let mut w = World::new();
    let (pid, marks, done) = (w.file("pid"), w.file("marks"), w.file("done"));
    let script = format!("ignore-term,mark,{pid},up,wait");
    w.service("db", &["orphan", &script, "serve", &marks, "db"], "");
    let forks =
        format!("i=0; while [ $i -lt 500 ]; do ( : & ); i=$((i+1)); done; echo done > {done}; sleep 3600");
    w.raw("forks", &format!("kind = \"daemon\"\nexec = [\"/bin/sh\", \"-c\", {forks:?}]\n"));
    let Some(one) = as_pid_1(&mut w) else { return };
    w.until_marked("done", "done");
    w.until_marked("pid", "up");
    until("no zombie", || {
        let children = std::fs::read_to_string(format!("/proc/{one}/task/{one}/children")).ok()?;
        (children.split_whitespace().count() == 3).then_some(())
    });
    term(one);
    assert_eq!(w.ended().code(), Some(0), "{}", w.log());
    assert!(!alive(one));
}
