//! Starting, readiness, restarting, giving up.

use crate::harness::{scenario, until};

#[path = "../support/ports.rs"]
mod ports;

scenario!(services_start_in_the_order_of_their_edges_and_stop_in_reverse, |w| {
    let marks = w.file("marks");
    w.service(
        "db",
        &["mark", &marks, "started db", "sleep", "100", "ready", "serve", &marks, "db"],
        "ready = { notify = true }",
    );
    w.service(
        "api",
        &["mark", &marks, "started api", "ready", "serve", &marks, "api"],
        "requires = [\"db\"]\nready = { notify = true }",
    );
    w.service(
        "web",
        &["mark", &marks, "started web", "ready", "serve", &marks, "web"],
        "after = [\"api\"]\nready = { notify = true }",
    );
    w.start();
    w.until_state("web", "ready");
    assert_eq!(w.says(&["health", "--ready"]), (0, "ready\n".to_owned()));
    assert_eq!(w.stop(), 0);
    assert_eq!(
        w.lines("marks"),
        ["started db", "started api", "started web", "stopped web", "stopped api", "stopped db"]
    );
    assert!(!w.path("run/control.sock").exists());
    let (code, reason) = w.says(&["health", "--live"]);
    assert_eq!(code, 1);
    assert!(reason.contains("no supervisor answers"), "{reason}");
});

scenario!(a_oneshot_is_done_when_it_has_exited_with_0_and_its_dependent_starts_then, |w| {
    let marks = w.file("marks");
    w.service("init", &["sleep", "50", "mark", &marks, "init"], "kind = \"oneshot\"");
    w.service("web", &["mark", &marks, "web", "wait"], "requires = [\"init\"]");
    w.start().until_marked("marks", "web");
    assert_eq!(w.lines("marks"), ["init", "web"]);
    w.until_state("init", "done");
    assert_eq!(w.stop(), 0);
});

scenario!(a_crashed_service_starts_again_and_its_group_is_cleared_first, |w| {
    let (child, marks, once) = (w.file("child"), w.file("marks"), w.file("once"));
    let script = format!("ignore-term,pid,{child},wait");
    w.service(
        "db",
        &["mark", &marks, "up", "ready", "child", &script, "sleep", "200", "once", &once, "3", "wait"],
        "ready = { notify = true }",
    );
    w.start();
    until("a second start", || (w.lines("marks").len() == 2).then_some(()));
    let first: i32 = w.lines("child")[0].parse().unwrap();
    assert!(!w.alive(first), "the former run's child lives on");
    let seen = until("a restart in the status", || w.state_of("db").filter(|s| s["restarts"] == 1));
    assert_eq!(seen["last"], "exit 3");
    assert_eq!(w.stop(), 0);
    for pid in w.lines("child") {
        assert!(!w.alive(pid.parse().unwrap()));
    }
});

scenario!(
    a_service_that_is_never_ready_fails_with_its_last_words_and_takes_all_down_when_it_must_not_fail,
    |w| {
        let marks = w.file("marks");
        w.service("web", &["mark", &marks, "up", "serve", &marks, "web"], "");
        w.service("db", &["say", "cannot find my keys", "wait"],
        "ready = { notify = true }\nstart_deadline = \"200ms\"\nrestart = { when = \"never\" }\ngives_up = \"stop-all\"");
        assert_eq!(w.start().ended().code(), Some(70), "{}", w.log());
        assert!(w.log().contains("not ready within its start deadline"), "{}", w.log());
        assert!(
            w.objects().iter().any(|o| o["fields"]["last_output"] == "cannot find my keys"),
            "{}",
            w.log()
        );
        assert!(w.lines("marks").contains(&"stopped web".to_owned()));
    }
);

scenario!(an_exit_code_that_is_passed_on_becomes_ours, |w| {
    w.service("claim", &["exit", "77"], "kind = \"oneshot\"\npass_exit = [77]\ngives_up = \"stop-all\"");
    assert_eq!(w.start().ended().code(), Some(77), "{}", w.log());
});

scenario!(a_held_service_keeps_its_dependents_down_until_it_is_tried_again, |w| {
    let (once, marks) = (w.file("once"), w.file("marks"));
    w.service("claim", &["once", &once, "9"], "kind = \"oneshot\"\ngives_up = \"hold\"");
    w.service("db", &["mark", &marks, "up", "wait"], "requires = [\"claim\"]");
    w.start();
    w.until_state("claim", "held");
    w.until_state("db", "blocked");
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.contains("claim"), "{reason}");
    assert_eq!(w.says(&["health", "--live"]).0, 0);
    w.request("retry", Some("claim")).unwrap();
    w.until_marked("marks", "up");
    assert_eq!(w.stop(), 0);
});

scenario!(a_missing_program_is_absent_unless_it_is_required, |w| {
    let marks = w.file("marks");
    w.raw("pooler", "kind = \"daemon\"\nexec = [\"/no/such/pooler\"]\n");
    w.service("web", &["mark", &marks, "up", "wait"], "after = [\"pooler\"]");
    w.start().until_marked("marks", "up");
    assert!(w.until_state("pooler", "absent")["detail"].as_str().unwrap().contains("/no/such/pooler"));
    assert_eq!(w.stop(), 0);
    w.raw("pooler", "kind = \"daemon\"\nexec = [\"/no/such/pooler\"]\nrequired = true\ngives_up = \"stop-all\"\nrestart = { when = \"never\" }\n");
    assert_eq!(w.start().ended().code(), Some(70), "{}", w.log());
    assert!(w.log().contains("there is no program `/no/such/pooler`"), "{}", w.log());
});

scenario!(endings_are_shown_as_what_they_were, |w| {
    let never = "restart = { when = \"never\" }";
    w.service("code", &["exit", "3"], never);
    w.service("abort", &["abort"], never);
    w.start();
    assert_eq!(w.until_state("code", "failed")["last"], "exit 3");
    let last = w.until_state("abort", "failed")["last"].as_str().unwrap().to_owned();
    assert!(last.starts_with("SIGABRT"), "{last}");
    assert_eq!(w.stop(), 0);
});

scenario!(two_hundred_services_that_end_at_once_are_all_noticed, |w| {
    for i in 0..200 {
        w.raw(&format!("s{i}"), "kind = \"oneshot\"\nexec = [\"/bin/true\"]\n");
    }
    w.start();
    until("all to be done", || {
        let status = w.status()?;
        status["services"].as_array()?.iter().all(|s| s["state"] == "done").then_some(())
    });
    assert_eq!(w.stop(), 0);
});

scenario!(a_probe_command_that_hangs_is_ended_and_asked_again, |w| {
    let (once, tries, fake) = (w.file("once"), w.file("tries"), w.fake().to_owned());
    let probe = format!(
        "sh -c 'echo t >> {tries}; test -e {once} || {{ touch {once}; exec {fake} child wait wait; }}'"
    );
    let argv: Vec<&str> =
        vec!["/bin/sh", "-c", probe.strip_prefix("sh -c '").unwrap().strip_suffix('\'').unwrap()];
    w.service(
        "db",
        &["wait"],
        &format!("ready = {{ exec = {argv:?}, every = \"200ms\", timeout = \"100ms\" }}"),
    );
    w.start();
    w.until_state("db", "ready");
    assert!(w.lines("tries").len() >= 2);
    assert_eq!(w.stop(), 0);
});

scenario!(a_tcp_probe_sees_the_port_open, |w| {
    let port = ports::free_port();
    w.service(
        "db",
        &["wait"],
        &format!("ready = {{ tcp = {{ port = {port} }}, every = \"50ms\", timeout = \"40ms\" }}"),
    );
    w.start();
    w.until_state("db", "starting");
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(a_service_that_stops_saying_that_it_lives_is_started_again, |w| {
    let marks = w.file("marks");
    w.service(
        "keeper",
        &["mark", &marks, "up", "ready", "wait"],
        "ready = { notify = true }\nwatchdog = \"200ms\"",
    );
    w.start();
    until("a second start", || (w.lines("marks").len() >= 2).then_some(()));
    until("the reason", || w.log().contains("hung").then_some(()));
    assert_eq!(w.stop(), 0);
});
