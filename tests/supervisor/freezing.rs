//! Everything stands still, proved, and goes on. On real Postgres: `tests/e2e/freeze.rs`.

use crate::harness::{World, scenario, until};
use crate::procs;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// The state letters of these processes, which services named.
fn states(w: &World, pids: &[i32]) -> String {
    let letter = |pid: &i32| w.outer(*pid).and_then(procs::stat).map_or('-', |s| s.state);
    pids.iter().map(letter).collect()
}

fn until_frozen(w: &World) {
    let proved = |reason: &str| reason.starts_with("frozen for");
    until("everything to stand", || proved(w.status()?["reason"].as_str()?).then_some(()));
}

scenario!(a_whole_descent_stands_and_goes_on_and_a_stop_needs_no_thaw, |w| {
    let (pids, marks) = (w.file("pids"), w.file("marks"));
    let child = format!("ignore-term,pid,{pids},wait");
    w.service("db", &["pid", &pids, "child", &child, "orphan", &child, "serve", &marks, "db"], "");
    w.start();
    until("three of it", || (w.pids_in("pids").len() == 3).then_some(()));
    let all = w.pids_in("pids");
    assert_eq!(w.says(&["freeze"]), (0, "frozen; `supafly thaw` lets everything go on\n".to_owned()));
    assert_eq!(states(w, &all), "TTT", "when the answer comes it is so");
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.starts_with("frozen: frozen for"), "{reason}");
    assert_eq!(w.says(&["health", "--live"]).0, 0);
    assert_eq!(w.seen("db")["state"], "frozen");
    assert_eq!(w.says(&["freeze"]), (0, "everything is frozen already\n".to_owned()));
    assert_eq!(w.says(&["thaw"]), (0, "thawed\n".to_owned()));
    assert!(!states(w, &all).contains('T'));
    assert_eq!(w.says(&["thaw"]), (0, "nothing is frozen\n".to_owned()));
    assert_eq!(w.says(&["health", "--ready"]).0, 0);
    assert_eq!(w.says(&["freeze"]).0, 0);
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert_eq!(w.lines("marks"), ["stopped db"], "it ended in order, not by SIGKILL");
});

scenario!(usr1_freezes_and_usr2_thaws, |w| {
    let pid = w.file("pid");
    w.service("db", &["pid", &pid, "wait"], "");
    w.start().until_state("db", "ready");
    let db = w.pid_in("pid");
    w.signal(Signal::SIGUSR1);
    until_frozen(w);
    assert_eq!(states(w, &[db]), "T");
    w.signal(Signal::SIGUSR2);
    w.until_state("db", "ready");
    assert!(!states(w, &[db]).contains('T'));
    assert_eq!(w.stop(), 0);
});

scenario!(nothing_is_frozen_while_a_short_lived_child_works, |w| {
    let (pids, go) = (w.file("pids"), w.file("go"));
    // A child that runs another program than its service: as an archive command does.
    let work = format!("echo $$ >> {pids}; while [ ! -e {go} ]; do sleep 0.02; done");
    w.shell(
        "db",
        &format!("{} pid {pids} until {go} & wait $!; exec {} wait", w.fake(), w.fake()),
        "helpers = \"short-lived\"",
    );
    w.shell("other", &work, "freezes = false\nrestart = { when = \"never\" }");
    w.start();
    until("both", || (w.pids_in("pids").len() == 2).then_some(()));
    let db = w.pids_in("pids");
    let (code, why) = w.says(&["freeze"]);
    assert!(code == 1 && why.contains("not frozen: `db` has work under way: fakesvc, pid"), "{why}");
    assert!(!states(w, &db).contains('T'), "nothing of it stands");
    assert_eq!(w.answer()["state"], "ready");
    // Who waits is served when the work is done.
    let mut freeze = w.command(&["freeze", "--wait", "30s"]).spawn().unwrap();
    std::fs::write(&go, "").unwrap();
    assert!(until("the freeze", || freeze.try_wait().unwrap()).success());
    assert_eq!(w.answer()["state"], "frozen");
    assert_eq!(w.stop(), 0);
});

scenario!(what_stands_is_not_late_and_a_service_that_goes_on_is_supervised, |w| {
    let marks = w.file("marks");
    // Its watchdog is short, and it says that it lives only when it moves. (Whoever notifies lives for a moment after
    // that: the kernel says who it was only while it is there.)
    let beat =
        format!("echo up >> {marks}; while true; do {} ready notify WATCHDOG=1 sleep 100; done", w.fake());
    w.shell("db", &beat, "ready = { notify = true }\nwatchdog = \"5s\"\nhelpers = \"resident\"");
    let (pid, go) = (w.file("web"), w.file("ups"));
    w.service("web", &["mark", &go, "up", "pid", &pid, "wait"], "freezes = false");
    w.start();
    w.until_state("db", "ready");
    let (code, why) = w.says(&["freeze"]);
    assert_eq!(code, 0, "{why}{}", w.log());
    let frozen = Instant::now();
    let web = w.pid_in("web");
    assert!(!states(w, &[web]).contains('T'));
    w.signal_to(web, Signal::SIGKILL);
    until("web to be back while the others stand", || (w.lines("ups").len() == 2).then_some(()));
    until("longer than the watchdog", || (frozen.elapsed() > Duration::from_secs(6)).then_some(()));
    let (code, why) = w.says(&["restart", "web"]);
    assert!(code == 1 && why.contains("everything is frozen"), "{why}");
    assert_eq!(w.says(&["thaw"]).0, 0);
    w.until_state("db", "ready");
    assert_eq!(w.lines("marks").len(), 1, "it was not restarted: {}", w.log());
    assert_eq!(w.stop(), 0);
});

scenario!(who_quiesces_is_asked_first_answers_and_is_told_when_it_goes_on, |w| {
    let marks = w.file("marks");
    let script = format!(
        "trap 'echo asked >> {marks}; {fake} notify X_SUPAFLY_QUIESCED=1 sleep 300' USR1; \
         trap 'echo resumed >> {marks}' USR2; trap 'exit 0' TERM; echo up >> {marks}; \
         while true; do sleep 0.02; done",
        fake = w.fake()
    );
    w.shell("suspend", &script, "handles = \"quiesce\"\nquiesce_deadline = \"20s\"\nfreezes = false");
    w.service("db", &["wait"], "");
    w.start();
    w.until_marked("marks", "up");
    w.until_state("db", "ready");
    assert_eq!(w.says(&["freeze"]).0, 0, "{}", w.log());
    assert_eq!(w.lines("marks"), ["up", "asked"]);
    assert_eq!(w.says(&["thaw"]).0, 0);
    w.until_marked("marks", "resumed");
    assert_eq!(w.stop(), 0);
});

scenario!(who_does_not_answer_the_question_to_quiesce_delays_a_freeze_no_longer_than_its_deadline, |w| {
    w.service(
        "suspend",
        &["on", "SIGUSR1", "3", "wait"],
        "handles = \"quiesce\"\nquiesce_deadline = \"300ms\"\nfreezes = false\nrestart = { when = \"never\" }",
    );
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    assert_eq!(w.says(&["freeze"]).0, 0, "{}", w.log());
    assert_eq!(w.seen("db")["state"], "frozen");
    assert_eq!(w.stop(), 0);
});

scenario!(a_frozen_service_that_is_killed_is_cleared_and_comes_back_after_the_thaw, |w| {
    let (pids, ups) = (w.file("pids"), w.file("ups"));
    let child = format!("pid,{pids},wait");
    w.service("db", &["mark", &ups, "up", "pid", &pids, "child", &child, "wait"], "");
    w.start();
    until("both", || (w.pids_in("pids").len() == 2).then_some(()));
    let [leader, child] = w.pids_in("pids")[..] else { panic!("two") };
    assert_eq!(w.says(&["freeze"]).0, 0);
    w.signal_to(leader, Signal::SIGKILL);
    until("its child to be cleared", || (!w.alive(child)).then_some(()));
    assert_eq!(w.lines("ups").len(), 1, "nothing joins what stands");
    assert_eq!(w.says(&["thaw"]).0, 0);
    until("it to be back", || (w.lines("ups").len() == 2).then_some(()));
    assert_eq!(w.stop(), 0);
});

scenario!(who_asks_while_a_freeze_is_under_way_is_answered_when_it_is_proved, |w| {
    let (marks, go) = (w.file("marks"), w.file("go"));
    let script = format!(
        "trap 'echo asked >> {marks}; while [ ! -e {go} ]; do sleep 0.02; done; \
         {fake} notify X_SUPAFLY_QUIESCED=1 sleep 300' USR1; trap 'exit 0' TERM; echo up >> {marks}; \
         while true; do sleep 0.02; done",
        fake = w.fake()
    );
    w.shell("suspend", &script, "handles = \"quiesce\"\nquiesce_deadline = \"20s\"\nfreezes = false");
    w.service("db", &["wait"], "");
    w.start();
    w.until_marked("marks", "up");
    w.until_state("db", "ready");
    w.signal(Signal::SIGUSR1);
    w.until_marked("marks", "asked");
    let mut second = w.command(&["freeze"]).spawn().unwrap();
    w.until_marked("out", "asked to freeze everything: it is being frozen already");
    assert!(second.try_wait().unwrap().is_none(), "nothing is proved yet");
    std::fs::write(&go, "").unwrap();
    assert!(until("the second", || second.try_wait().unwrap()).success());
    assert!(w.answer()["reason"].as_str().unwrap().starts_with("frozen for"));
    assert_eq!(w.stop(), 0);
});

scenario!(a_process_whose_first_thread_has_ended_stands_and_is_cleared_like_any, |w| {
    let (pids, ups) = (w.file("pids"), w.file("ups"));
    w.service("db", &["orphan", &format!("pid,{pids},headless"), "pid", &ups, "wait"], "");
    w.start();
    let (headless, leader) = (w.pid_in("pids"), w.pid_in("ups"));
    w.until_state("db", "ready");
    let outer = w.outer(headless).unwrap();
    until("its first thread's end", || (procs::stat(outer)?.state == 'Z').then_some(()));
    assert_eq!(w.says(&["freeze"]).0, 0);
    let threads = std::fs::read_dir(format!("/proc/{outer}/task")).unwrap().map(|t| t.unwrap().path());
    let states: String = threads
        .map(|t| std::fs::read_to_string(t.join("stat")).unwrap())
        .map(|stat| stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap())
        .collect();
    assert_eq!(states, "ZT");
    assert_eq!(w.says(&["thaw"]).0, 0);
    w.signal_to(leader, Signal::SIGKILL);
    until("a second life", || (w.pids_in("ups").len() == 2).then_some(()));
    assert_eq!(w.outer(headless), None, "a new run met the old one's process");
    assert_eq!(w.stop(), 0);
});

scenario!(a_debuggers_stop_is_no_proof, |w| {
    if !crate::harness::is_root() {
        crate::harness::skip("not root: a process of another session may not be traced");
        return;
    }
    let pid = w.file("pid");
    w.service("db", &["pid", &pid, "wait"], "");
    w.start();
    w.until_state("db", "ready");
    let db = w.outer(w.pid_in("pid")).unwrap();
    let mut tracer = std::process::Command::new(w.fake()).args(["trace", &db.to_string()]).spawn().unwrap();
    until("the debugger's stop", || (procs::stat(db)?.state == 't').then_some(()));
    let (code, why) = w.says(&["freeze"]);
    assert!(code == 1 && why.contains("not every process of db could be stopped"), "{why}");
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    until("it to move", || (procs::stat(db)?.state == 'S').then_some(()));
    assert_eq!(w.stop(), 0);
});
