//! Liveness, a readiness that turns red, and who does not come back after an outage.

use crate::harness::{scenario, until};

scenario!(a_service_that_does_not_answer_the_question_whether_it_lives_is_started_again, |w| {
    let (marks, sick) = (w.file("marks"), w.file("sick"));
    let ask = ["/bin/sh", "-c", &format!("rm {sick} 2>/dev/null && exit 1; test ! -e {marks}.always")];
    w.service(
        "api",
        &["mark", &marks, "up", "ready", "wait"],
        // Time enough: an answer that comes too late would be another reason.
        &format!(
            "ready = {{ notify = true }}\n\
             live = {{ exec = {ask:?}, every = \"2s\", timeout = \"1900ms\", failures = 2 }}"
        ),
    );
    w.start().until_state("api", "ready");
    std::fs::write(&sick, "").unwrap();
    until("one bad answer", || (!w.path("sick").exists()).then_some(()));
    std::fs::write(format!("{marks}.always"), "").unwrap();
    until("a second start", || (w.lines("marks").len() >= 2).then_some(()));
    std::fs::remove_file(format!("{marks}.always")).unwrap();
    w.until_marked("out", "not live: the probe command ended with exit 1");
    w.until_state("api", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(a_readiness_that_is_red_because_a_dependency_is_down_restarts_nothing, |w| {
    let (db, marks) = (w.file("db"), w.file("marks"));
    let ask = ["/bin/sh", "-c", &format!("test -e {db}.up")];
    w.shell(
        "db",
        &format!(
            "touch {db}.up; echo $$ > {db}; trap 'rm {db}.up; exit 0' TERM; while true; do sleep 0.02; done"
        ),
        "",
    );
    w.service(
        "api",
        &["mark", &marks, "up", "wait"],
        &format!(
            "requires = [\"db\"]\nready = {{ exec = {ask:?}, every = \"50ms\", failures = 2 }}\n\
             live = {{ exec = {ask:?}, every = \"50ms\", failures = 2 }}"
        ),
    );
    let run = w.start().until_state("api", "ready")["run"].clone();
    // Down by hand, over the head of those who run on it: the only way to have it away for long.
    let arguments = [("service", "api".into())];
    assert!(supafly::control::client::request(&w.path("run"), "stop", &arguments).is_ok());
    w.until_state("api", "stopped");
    assert_eq!(w.says(&["start", "api"]).0, 0);
    let run_now = w.until_state("api", "ready")["run"].clone();
    assert_ne!(run, run_now);
    // Its answer goes, and it itself stays.
    std::fs::remove_file(format!("{db}.up")).unwrap();
    // The ground still serves, so the question whether it lives counts: it must be a question of its own.
    until("a restart because of `live`", || (w.state_of("api")?["run"] != run_now).then_some(()));
    std::fs::write(format!("{db}.up"), "").unwrap();
    w.until_state("api", "ready");
    assert_eq!(w.stop(), 0);
});

scenario!(an_unready_service_is_said_and_left_alone, |w| {
    let (good, marks) = (w.file("good"), w.file("marks"));
    std::fs::write(&good, "").unwrap();
    let ask = ["/bin/sh", "-c", &format!("echo asked; test -e {good} || {{ echo it is gone >&2; false; }}")];
    w.service(
        "api",
        &["mark", &marks, "up", "wait"],
        &format!("ready = {{ exec = {ask:?}, every = \"50ms\", failures = 2 }}"),
    );
    w.start().until_state("api", "ready");
    std::fs::remove_file(&good).unwrap();
    w.until_state("api", "unready");
    // On a busy machine an answer may be late, and the next one says it.
    let detail = "the probe command ended with exit 1\n  | it is gone";
    until("its last words", || (w.state_of("api")?["detail"] == detail).then_some(()));
    // What it printed may hold anything, and the reason is what everybody may read.
    let reason = until("the reason", || {
        let (code, reason) = w.says(&["health", "--ready"]);
        let said = reason.contains("api is not ready: the probe command ended with exit 1");
        (code == 1 && said).then_some(reason)
    });
    assert!(!reason.contains("it is gone"), "{reason}");
    std::fs::write(&good, "").unwrap();
    w.until_state("api", "ready");
    assert_eq!(w.lines("marks"), ["up"]);
    assert_eq!(w.stop(), 0);
});

scenario!(who_wants_to_know_of_an_outage_is_told_and_nobody_else, |w| {
    let told = w.file("told");
    w.service("db", &["pid", &w.file("db"), "wait"], "");
    w.service(
        "pool",
        &["signals", &told],
        &format!(
            "requires = [\"db\"]\nready = {{ exec = [\"/bin/sh\", \"-c\", \"test -s {told}\"], every = \"50ms\" }}\n\
             outage_signals = {{ of = \"db\", begins = \"SIGUSR1\", ends = \"SIGUSR2\" }}"
        ),
    );
    w.start().until_state("pool", "ready");
    assert_eq!(w.says(&["restart", "db"]).0, 0);
    let told = || -> Vec<String> {
        let lines = w.lines("told");
        lines.iter().map(|l| l.split(' ').next().unwrap().to_owned()).collect()
    };
    until("both", || (told() == ["up", "SIGUSR1", "SIGUSR2"]).then_some(()));
    w.signal_to(w.pid_in("db"), nix::sys::signal::Signal::SIGKILL);
    until("both again", || (told() == ["up", "SIGUSR1", "SIGUSR2", "SIGUSR1", "SIGUSR2"]).then_some(()));
    w.stop();
});

scenario!(who_is_not_back_soon_after_a_long_outage_is_started_again, |w| {
    let (up, marks, db) = (w.file("up"), w.file("marks"), w.file("db"));
    // `api` is well as long as `up` is there; only its own start makes it again.
    let ask = ["/bin/sh", "-c", &format!("test -e {up}")];
    w.service(
        "db",
        &["pid", &db, "wait"],
        "restart = { delay = \"5s\", max_delay = \"5s\" }\n\
         ready = { exec = [\"/bin/true\"], every = \"1s\", timeout = \"900ms\" }",
    );
    w.shell(
        "api",
        &format!("echo up >> {marks}; touch {up}; exec {} wait", w.fake()),
        &format!(
            "requires = [\"db\"]\n\
             ready = {{ exec = {ask:?}, every = \"1s\", timeout = \"900ms\", failures = 2 }}\n\
             after_outage = {{ of = \"db\", longer_than = \"3s\", ready_within = \"1s\" }}"
        ),
    );
    w.start().until_state("api", "ready");
    assert_eq!(w.says(&["restart", "db"]).0, 0);
    w.until_state("api", "ready");
    assert_eq!(w.lines("marks").len(), 1, "a short outage is none");
    std::fs::remove_file(&up).unwrap();
    w.until_state("api", "unready");
    // Killed twice, it is away for its delay.
    for _ in 0..2 {
        let pid = w.pid_in("db");
        w.signal_to(pid, nix::sys::signal::Signal::SIGKILL);
        until("another db", || (w.pid_in("db") != pid).then_some(()));
    }
    until("api to be started again", || (w.lines("marks").len() == 2).then_some(()));
    w.until_marked("out", "not ready again after the outage of db");
    w.until_state("api", "ready");
    assert_eq!(w.stop(), 0);
});
