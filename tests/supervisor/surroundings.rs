//! Containers as they are: read-only, without privilege, with another init above, with half a `/proc` or none.

use crate::harness::{Place, World, is_root, scenario, skip, until};
use crate::procs;
use nix::sys::signal::Signal;

/// One service whose orphan in a session of its own does not know TERM, and one that depends on it.
fn orphan(w: &World) {
    let pid = w.file("pid");
    let script = format!("ignore-term,pid,{pid},wait");
    w.service("db", &["orphan", &script, "ready", "wait"], "ready = { notify = true }");
    w.service("web", &["wait"], "requires = [\"db\"]");
}

/// They start, one crashes and its orphan is cleared, everything stops.
fn lives(w: &mut World) {
    orphan(w);
    w.start();
    w.until_all("ready");
    let first = w.pid_in("pid");
    let leader = i32::try_from(w.seen("db")["pid"].as_i64().unwrap()).unwrap();
    w.signal_to(leader, Signal::SIGKILL);
    until("a second life", || (w.pids_in("pid").len() == 2).then_some(()));
    assert!(!w.alive(first), "the former run is cleared before the next begins");
    w.until_all("ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
}

scenario!(on_a_read_only_root_everything_works, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    let dir = w.file("");
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro / && ! touch /supafly-was-here 2>/dev/null && exec \"$@\"";
    w.outside(&["unshare", "--mount", "sh", "-c", script, dir.trim_end_matches('/')]);
    lives(w);
});

scenario!(a_run_directory_that_is_not_there_is_made, |w| {
    let run = w.path("not/there/yet");
    w.env("SUPAFLY_RUN", &run);
    w.service("db", &["wait"], "");
    w.start();
    until("an answer", || supafly::control::client::request(&run, "status", &[]).ok());
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_run_directory_that_cannot_be_made_is_told_with_what_to_do, |w| {
    w.env("SUPAFLY_RUN", "/proc/no/such/place");
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "up", "wait"], "");
    assert_eq!(w.start().ended().code(), Some(78), "{}", w.log());
    assert!(w.log().contains("/proc/no/such/place: cannot make the run directory"), "{}", w.log());
    assert!(w.log().contains("set SUPAFLY_RUN"), "{}", w.log());
    assert!(w.lines("marks").is_empty());
});

scenario!(without_any_privilege_everything_works, |w| {
    if w.unprivileged() {
        lives(w);
        assert!(!w.log().contains("left behind"), "{}", w.log());
    }
});

#[test]
fn without_privilege_users_are_ignored_and_it_is_said() {
    let mut w = World::new();
    assert!(w.unprivileged());
    let seen = w.file("seen");
    w.service("db", &["inspect", &seen, "wait"], "user = \"nobody\"");
    w.start().until_marked("seen", "cwd");
    assert!(w.log().contains("not privileged"), "{}", w.log());
    assert_eq!(w.stop(), 0);
}

scenario!(below_another_init_everything_works_and_its_signal_reaches_us, |w| {
    let Some(tini) = crate::oracle::tini() else { return };
    w.inside(&[&tini, "--"]);
    let marks = w.file("marks");
    w.service("db", &["orphan", "ignore-term,wait", "ready", "serve", &marks, "db"], "");
    w.start();
    w.until_state("db", "ready");
    let above = procs::stat(w.pid()).unwrap().parent;
    if w.place() == Place::Pid1 {
        assert_eq!(procs::inner(above), Some(1));
    }
    until("the stand-in's handler", || {
        let pid = i32::try_from(w.state_of("db")?["pid"].as_i64()?).ok()?;
        let caught = u64::from_str_radix(&procs::status(w.outer(pid)?, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    });
    procs::kill(above, Signal::SIGTERM);
    assert_eq!(w.ended().code(), Some(0), "{}", w.log());
    assert_eq!(w.lines("marks"), ["stopped db"]);
});

scenario!(where_others_processes_are_hidden_ours_are_found, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    let script = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
    w.inside(&["unshare", "--mount", "sh", "-c", script, "sh"]);
    if w.unprivileged() {
        lives(w);
    }
});

/// Without `/proc` a group is all that is known of a service.
fn group_only(w: &mut World) {
    let (child, pids) = (w.file("child"), w.file("pids"));
    let script = format!("ignore-term,pid,{child},wait");
    w.service("db", &["child", &script, "pid", &pids, "wait"], "");
    w.start();
    let first = w.pid_in("child");
    w.until_state("db", "ready");
    w.signal_to(w.pid_in("pids"), Signal::SIGKILL);
    until("a second life", || (w.pids_in("child").len() == 2).then_some(()));
    assert!(!w.alive(first), "the former run's group is cleared first");
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(w.log().contains("/proc does not show our processes"), "{}", w.log());
}

scenario!(without_proc_services_and_their_groups_are_ended, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    w.inside(&["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
    group_only(w);
});

#[test]
fn with_the_proc_of_another_namespace_no_stranger_is_touched() {
    if !is_root() {
        return skip("not root: no pid namespace can be made");
    }
    let mut w = World::new();
    // A namespace of its own and the `/proc` of ours: the same numbers mean others there.
    w.outside(&["unshare", "--pid", "--fork", "--kill-child", "--"]);
    group_only(&mut w);
}
