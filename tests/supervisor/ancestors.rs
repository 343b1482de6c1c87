//! The defects of our ancestors that concern starting, stopping and supervising: each is told by the name of a test.

use crate::harness::{World, scenario, until};
use crate::procs;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// A stand-in that has its handler of TERM.
fn until_it_listens(w: &World, service: &str) {
    until("its handler", || {
        let pid = i32::try_from(w.state_of(service)?["pid"].as_i64()?).ok()?;
        let caught = u64::from_str_radix(&procs::status(w.outer(pid)?, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    });
}

// The all-in-one image.

scenario!(sigterm_is_not_a_power_cut, |w| {
    let marks = w.file("marks");
    w.service("db", &["slow", "300", &marks, "db"], "");
    w.start();
    until_it_listens(w, "db");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(w.lines("marks"), ["stopping db", "stopped db"]);
});

scenario!(nothing_is_signalled_last_because_others_stop_slowly, |w| {
    let marks = w.file("marks");
    w.service("db", &["slow", "0", &marks, "db"], "");
    w.service("kong", &["slow", "800", &marks, "kong"], "");
    w.service("gotrue", &["slow", "800", &marks, "gotrue"], "");
    w.start();
    ["db", "kong", "gotrue"].into_iter().for_each(|s| until_it_listens(w, s));
    assert_eq!(w.stop(), 0, "{}", w.log());
    let lines = w.lines("marks");
    let at = |text: &str| lines.iter().position(|l| l == text).unwrap();
    assert!(at("stopped db") < at("stopped kong") && at("stopped db") < at("stopped gotrue"), "{lines:?}");
});

scenario!(a_forced_stop_is_not_exit_0, |w| {
    w.set_budget("500ms");
    let marks = w.file("marks");
    w.service("db", &["ignore-term", "mark", &marks, "up", "wait"], "");
    w.start().until_marked("marks", "up");
    assert_eq!(w.stop(), 75, "{}", w.log());
});

scenario!(a_database_that_needs_most_of_the_budget_gets_it_and_is_not_killed, |w| {
    w.set_budget("4s");
    let marks = w.file("marks");
    w.service("db", &["slow", "2200", &marks, "db"], "");
    w.start();
    until_it_listens(w, "db");
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert_eq!(w.lines("marks"), ["stopping db", "stopped db"]);
});

/// As PID 1 the kernel kills everything with us, and no signal can be had; the next start recovers.
#[test]
fn the_supervisors_own_death_does_not_kill_the_database_without_its_signal() {
    let mut w = World::new();
    let marks = w.file("marks");
    w.service("db", &["signals", &marks], "parent_death = \"SIGQUIT\"");
    w.start().until_marked("marks", "up");
    w.signal(Signal::SIGKILL);
    w.forget();
    w.until_marked("marks", "SIGQUIT");
}

scenario!(a_failed_first_init_is_not_masked_as_running, |w| {
    let (left, marks) = (w.file("left"), w.file("marks"));
    // It dies in the middle and leaves its temporary postmaster behind.
    let postmaster = format!("ignore-term,pid,{left},wait");
    w.service(
        "init",
        &["orphan", &postmaster, "child", &postmaster, "until", &left, "exit", "1"],
        "kind = \"oneshot\"\nrestart = { when = \"on-failure\", delay = \"50ms\", max_delay = \"50ms\", max = 2 }\ngives_up = \"hold\"",
    );
    w.service("db", &["mark", &marks, "up", "wait"], "requires = [\"init\"]");
    w.start();
    w.until_state("init", "held");
    w.until_state("db", "blocked");
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.contains("init gave up"), "{reason}");
    assert!(!w.pids_in("left").into_iter().any(|pid| w.alive(pid)), "the temporary postmaster lives on");
    assert_eq!(w.stop(), 0);
    assert!(w.lines("marks").is_empty());
});

scenario!(a_password_with_a_quote_breaks_no_configuration, |w| {
    let (seen, password) = (w.file("seen"), "p\"a'ss%w0rd`$(x)\\");
    w.env("POSTGRES_PASSWORD", password);
    w.service("db", &["inspect", &seen, "wait"], "pass = [\"POSTGRES_PASSWORD\"]");
    w.start().until_marked("seen", "cwd");
    assert!(w.read("seen").contains(&format!("env POSTGRES_PASSWORD={password}\n")), "{}", w.read("seen"));
    assert_eq!(w.stop(), 0);
});

scenario!(an_idle_supervisor_does_not_wake_and_is_small, |w| {
    for i in 0..6 {
        w.service(&format!("s{i}"), &["ready", "wait"], "ready = { notify = true }");
    }
    w.start();
    w.until_all("ready");
    let wakes = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", w.pid())).unwrap().flatten();
        let count = |t: std::fs::DirEntry| -> u64 {
            let text = std::fs::read_to_string(t.path().join("status")).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap_or("0");
            line.trim().parse().unwrap()
        };
        tasks.map(count).sum::<u64>()
    };
    // Two seconds after the last change memory is given back, by a thread that ends with that.
    let ready = Instant::now();
    let gives_back = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", w.pid())).unwrap().flatten();
        let name = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("comm")).ok();
        tasks.filter_map(name).any(|name| name == "memory\n")
    };
    until("memory to be given back", || {
        (ready.elapsed() > Duration::from_secs(5) && !gives_back()).then_some(())
    });
    // The last question has its own end.
    let mut before = wakes();
    until("a quiet moment", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = wakes();
        let quiet = now == before;
        before = now;
        quiet.then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert!(wakes() - before <= 1, "{} wake-ups in an idle second", wakes() - before);
    let rss = procs::rss(w.pid());
    assert!(rss < 31 << 10, "{rss} kB; supervisord idled at 31 MB");
    assert_eq!(w.stop(), 0);
});

scenario!(order_alone_is_not_readiness, |w| {
    let (go, marks) = (w.file("go"), w.file("marks"));
    w.service(
        "db",
        &["mark", &marks, "db runs", "until", &go, "mark", &marks, "db ready", "ready", "wait"],
        "ready = { notify = true }",
    );
    w.service("rest", &["mark", &marks, "rest", "wait"], "after = [\"db\"]");
    w.start().until_marked("marks", "db runs");
    assert_eq!(w.until_state("rest", "waiting")["detail"], "for db");
    std::fs::write(go, "").unwrap();
    w.until_marked("marks", "rest");
    assert_eq!(w.lines("marks"), ["db runs", "db ready", "rest"]);
    assert_eq!(w.stop(), 0);
});

scenario!(a_crash_loop_has_an_end_and_everybody_can_see_it, |w| {
    w.service(
        "db",
        &["say", "cannot open pg_control", "exit", "1"],
        "restart = { delay = \"10ms\", max_delay = \"10ms\", max = 3 }\ngives_up = \"degrade\"",
    );
    w.service("rest", &["wait"], "");
    w.start();
    w.until_state("db", "failed");
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.contains("db gave up: 3 restarts within"), "{reason}");
    assert!(w.says(&["status"]).1.contains("cannot open pg_control"), "{}", w.says(&["status"]).1);
    assert_eq!(w.stop(), 0);
});

scenario!(a_service_that_must_not_fail_is_the_exit_of_the_container, |w| {
    w.service(
        "db",
        &["exit", "1"],
        "restart = { delay = \"10ms\", max_delay = \"10ms\", max = 1 }\ngives_up = \"stop-all\"",
    );
    w.service("rest", &["wait"], "");
    assert_eq!(w.start().ended().code(), Some(70), "{}", w.log());
});

scenario!(a_pipeline_of_a_service_leaves_no_orphan, |w| {
    let pids = w.file("pids");
    let fake = w.fake().to_owned();
    let script = format!("{fake} ignore-term pid {pids} wait | {fake} ignore-term pid {pids} wait");
    w.shell("egress", &script, "");
    w.start();
    until("both ends", || (w.pids_in("pids").len() == 2).then_some(()));
    let pids = w.pids_in("pids");
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(!pids.into_iter().any(|pid| w.alive(pid)));
});

// The nearest living peer.

scenario!(a_service_that_cannot_be_spawned_is_not_starting_for_ever, |w| {
    w.service(
        "db",
        &["wait"],
        "directory = \"/no/such/place\"\nrestart = { when = \"never\" }\nready = { notify = true }",
    );
    w.service("web", &["wait"], "requires = [\"db\"]");
    w.start();
    let seen = w.until_state("db", "failed");
    assert!(seen["detail"].as_str().unwrap().contains("No such file or directory"), "{seen}");
    w.until_state("web", "blocked");
    assert_eq!(w.stop(), 0);
});

scenario!(what_is_never_healthy_does_not_run_for_ever, |w| {
    w.service("db", &["wait"],
        "ready = { exec = [\"/bin/false\"], every = \"40ms\", timeout = \"30ms\" }\nstart_deadline = \"200ms\"\nrestart = { when = \"never\" }");
    w.start();
    let seen = w.until_state("db", "failed");
    assert!(seen["detail"].as_str().unwrap().contains("not ready within its start deadline"), "{seen}");
    assert_eq!(w.stop(), 0);
});

scenario!(a_segfault_is_shown_as_sigsegv_and_not_as_143, |w| {
    let never = "restart = { when = \"never\" }";
    w.service("segv", &["raise", "SIGSEGV"], never);
    w.service("term", &["raise", "SIGTERM"], never);
    w.service("code", &["exit", "143"], never);
    w.start();
    for (service, wanted) in [("segv", "SIGSEGV"), ("term", "SIGTERM"), ("code", "exit 143")] {
        let last = w.until_state(service, "failed")["last"].as_str().unwrap().to_owned();
        assert!(last == wanted || last == format!("{wanted}, core dumped"), "{last}");
    }
    assert_eq!(w.stop(), 0);
});

scenario!(a_failure_is_no_stop_and_is_restarted_on_failure, |w| {
    let (once, marks) = (w.file("once"), w.file("marks"));
    w.service(
        "db",
        &["orphan", "wait", "once", &once, "3", "mark", &marks, "again", "wait"],
        "restart = { when = \"on-failure\", delay = \"10ms\" }",
    );
    w.start().until_marked("marks", "again");
    let seen = w.until_state("db", "ready");
    assert_eq!((&seen["last"], &seen["restarts"]), (&"exit 3".into(), &1.into()));
    assert_eq!(w.stop(), 0);
});

scenario!(a_setsid_grandchild_does_not_survive_the_stop, |w| {
    let pid = w.file("pid");
    w.service("db", &["orphan", &format!("ignore-term,setsid,pid,{pid},wait"), "wait"], "");
    w.start();
    let grandchild = w.pid_in("pid");
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(!w.alive(grandchild));
});

scenario!(a_stop_that_waits_for_a_client_goes_on_to_its_next_rung_in_time, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    // A smart shutdown waits for the client, a fast one does not.
    w.service(
        "db",
        &["mark", &marks, "up", "on", "SIGINT", "0"],
        "stop = [{ signal = \"SIGTERM\", wait = \"300ms\" }, { signal = \"SIGINT\", wait = \"45s\" }]",
    );
    w.start().until_marked("marks", "up");
    until_it_listens(w, "db");
    let (code, took) = w.timed_stop();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(20), "{took:?}");
    // The second rung was needed, and that is said.
    assert_eq!(code, 75, "{}", w.log());
});

scenario!(a_stop_signal_of_its_own_is_the_first_that_a_database_sees, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    w.service(
        "db",
        &["mark", &marks, "up", "on", "SIGINT", "0"],
        "stop = [{ signal = \"SIGINT\", share = 1 }]",
    );
    w.start().until_marked("marks", "up");
    until_it_listens(w, "db");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took < Duration::from_secs(20), "{took:?}");
});

scenario!(a_killed_service_is_back_without_a_second_of_waiting, |w| {
    let pids = w.file("pids");
    // Whatever its delay: that is for who fails again.
    w.service("db", &["pid", &pids, "wait"], "restart = { delay = \"5m\", max_delay = \"5m\" }");
    w.start();
    let first = w.pid_in("pids");
    let begun = Instant::now();
    w.signal_to(first, Signal::SIGKILL);
    until("a second life", || (w.pids_in("pids").len() == 2).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(w.stop(), 0);
});

scenario!(a_stop_never_waits_for_health, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    w.service(
        "db",
        &["mark", &marks, "up", "serve", &marks, "db"],
        "ready = { exec = [\"/bin/false\"], every = \"1m\", timeout = \"50s\" }\nstart_deadline = \"1h\"",
    );
    w.start().until_marked("marks", "up");
    until_it_listens(w, "db");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took < Duration::from_secs(20), "{took:?}");
});
