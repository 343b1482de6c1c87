//! Whose child is it, clean beginnings, nothing left behind.

use crate::harness::{World, alive, is_root, until};

#[test]
fn a_grandchild_in_its_own_session_is_ended_at_the_stop_although_it_ignores_term() {
    let mut w = World::new();
    let (pid, marks) = (w.file("pid"), w.file("marks"));
    let script = format!("ignore-term,pid,{pid},wait");
    w.service("db", &["orphan", &script, "serve", &marks, "db"], "");
    w.start();
    let orphan = w.pid_in("pid");
    until("the orphan to be adopted by us", || {
        let stat = std::fs::read_to_string(format!("/proc/{orphan}/stat")).ok()?;
        let parent: i32 = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        (parent == w.pid()).then_some(())
    });
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(!alive(orphan));
}

#[test]
fn thousands_of_orphans_are_buried_and_none_remains() {
    let mut w = World::new();
    let done = w.file("done");
    let script =
        format!("i=0; while [ $i -lt 2000 ]; do ( : & ); i=$((i+1)); done; echo done > {done}; sleep 3600");
    w.raw("forks", &format!("kind = \"daemon\"\nexec = [\"/bin/sh\", \"-c\", {script:?}]\n"));
    w.start().until_marked("done", "done");
    until("no zombie", || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", w.pid())).ok()?;
        (children.split_whitespace().count() == 1).then_some(())
    });
    assert_eq!(w.stop(), 0, "{}", w.log());
}

#[test]
fn a_child_begins_clean() {
    let mut w = World::new();
    let (seen, lock) = (w.file("seen"), w.file("volume/lock"));
    w.service("db", &["inspect", &seen, "wait"],
        &format!("lock = \"{lock}\"\ndirectory = \"/tmp\"\nno_new_privileges = true\nenv = {{ A = \"b\" }}\npass = [\"SUPAFLY_LOG*\"]"));
    w.start();
    w.until_marked("seen", "cwd");
    let seen = w.read("seen");
    assert!(seen.contains("SigBlk:\t0000000000000000"), "{seen}");
    // SIGPIPE is ignored by the stand-in's own runtime; nothing else may be.
    assert!(seen.contains("SigIgn:\t0000000000001000"), "{seen}");
    assert!(
        seen.contains("fd 0 /dev/null") && seen.contains("session own true") && seen.contains("cwd /tmp"),
        "{seen}"
    );
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    let fds: Vec<&str> =
        seen.lines().filter(|l| l.starts_with("fd ")).filter(|l| !l.contains("/proc/")).collect();
    assert_eq!(fds.len(), 4, "{fds:?}");
    assert!(fds[3].ends_with("/volume/lock"), "{fds:?}");
    let names: Vec<&str> = seen.lines().filter_map(|l| l.strip_prefix("env ")?.split('=').next()).collect();
    assert_eq!(
        names,
        [
            "A",
            "HOME",
            "LANG",
            "NOTIFY_SOCKET",
            "PATH",
            "SUPAFLY_LOG_FORMAT",
            "SUPAFLY_RUN_ID",
            "SUPAFLY_STOP_MS"
        ]
    );
    assert_eq!(w.stop(), 0);
}

#[test]
fn a_user_of_its_own_loses_every_group_of_root() {
    if !is_root() {
        eprintln!("not root: users cannot be changed, nothing to test");
        return;
    }
    let mut w = World::new();
    let seen = w.file("seen");
    // The stand-in lies below a home that the other user cannot enter: a copy beside the test's files can be run.
    let copy = w.path("fakesvc");
    std::fs::copy(crate::harness::fakesvc(), &copy).unwrap();
    w.raw(
        "db",
        &format!(
            "kind = \"daemon\"\nexec = [{copy:?}, \"inspect\", {seen:?}, \"wait\"]\nuser = \"nobody\"\n"
        ),
    );
    w.start();
    w.until_marked("seen", "cwd");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let text = w.read("seen");
    let line = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(line("Gid:"), vec![nobody.gid.to_string(); 4]);
    // Its own group, and the run's.
    assert_eq!(line("Groups:").len(), 2, "{text}");
    assert_eq!(w.stop(), 0);
}

#[test]
fn when_the_supervisor_is_killed_its_services_die_and_the_next_one_ends_the_rest() {
    let mut w = World::new();
    let (leader, orphan, marks) = (w.file("leader"), w.file("orphan"), w.file("marks"));
    let script = format!("ignore-term,pid,{orphan},wait");
    w.service(
        "db",
        &["pid", &leader, "orphan", &script, "mark", &marks, "up", "wait"],
        "parent_death = \"SIGQUIT\"",
    );
    w.start().until_marked("marks", "up");
    let (leader, orphan) = (w.pid_in("leader"), w.pid_in("orphan"));
    w.signal(nix::sys::signal::Signal::SIGKILL);
    until("the leader to die with us", || (!alive(leader)).then_some(()));
    w.forget();
    assert!(alive(orphan), "the orphan was not ours to lose by parent death");
    w.start();
    until("the orphan to be ended", || (!alive(orphan)).then_some(()));
    until("a second life", || (w.lines("marks").len() == 2).then_some(()));
    assert_eq!(w.stop(), 0);
}
