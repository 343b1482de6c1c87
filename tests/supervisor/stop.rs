//! The ladder, the budget, hurry.

use crate::harness::{World, scenario, until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

scenario!(a_service_that_ignores_term_is_killed_within_the_budget_and_it_is_said, |w| {
    w.set_budget("1s");
    let marks = w.file("marks");
    w.service("db", &["ignore-term", "mark", &marks, "up", "wait"], "");
    w.start().until_marked("marks", "up");
    let begun = Instant::now();
    assert_eq!(w.stop(), 75, "{}", w.log());
    assert!(begun.elapsed() >= Duration::from_millis(900));
    // By its own budget, not by the 9 s that are usual.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
});

scenario!(a_second_signal_makes_it_faster, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    w.service("db", &["ignore-term", "mark", &marks, "up", "wait"], "");
    w.start().until_marked("marks", "up");
    let begun = Instant::now();
    w.term();
    w.until_state("db", "stopping");
    w.signal(Signal::SIGINT);
    assert_eq!(w.ended().code(), Some(75), "{}", w.log());
    assert!(begun.elapsed() < Duration::from_secs(20));
});

scenario!(hangup_and_the_signals_of_a_freeze_end_nothing, |w| {
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "up", "serve", &marks, "db"], "");
    w.start().until_marked("marks", "up");
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        w.signal(signal);
    }
    w.until_state("db", "ready");
    w.signal(Signal::SIGQUIT);
    assert_eq!(w.ended().code(), Some(0));
    assert_eq!(w.lines("marks"), ["up", "stopped db"]);
});

scenario!(a_stopped_process_is_woken_to_see_its_signal, |w| {
    w.set_budget("60s");
    let (marks, pid) = (w.file("marks"), w.file("pid"));
    w.service("db", &["pid", &pid, "serve", &marks, "db"], "");
    w.start();
    let pid = w.pid_in("pid");
    w.signal_to(pid, Signal::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(w.lines("marks"), ["stopped db"]);
});

#[test]
fn a_signal_right_after_our_start_is_not_lost() {
    for _ in 0..5 {
        let mut w = World::new();
        w.service("db", &["wait"], "");
        w.start();
        until("the first sign of life", || (!w.read("out").is_empty()).then_some(()));
        assert_eq!(w.stop(), 0, "{}", w.log());
    }
}

scenario!(a_reader_of_our_output_that_does_not_read_delays_no_stop, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    w.service("loud", &["flood", "100000", "mark", &marks, "up", "serve", &marks, "loud"], "");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = w.runner();
    command.stdout(writer).stderr(std::process::Stdio::null());
    let child = command.spawn().unwrap();
    drop(command);
    w.adopt(child);
    // The child got through a flood although nobody reads.
    w.until_marked("marks", "up");
    let begun = Instant::now();
    assert_eq!(w.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(w.lines("marks"), ["up", "stopped loud"]);
    drop(reader);
});

scenario!(a_grandchild_that_holds_the_pipe_delays_neither_restart_nor_stop, |w| {
    w.set_budget("60s");
    let (held, marks, once) = (w.file("held"), w.file("marks"), w.file("once"));
    let script = format!("ignore-term,pid,{held},wait");
    w.service(
        "db",
        &["orphan", &script, "sleep", "100", "once", &once, "1", "mark", &marks, "again", "wait"],
        "restart = { when = \"always\", delay = \"10ms\" }",
    );
    w.start().until_marked("marks", "again");
    let begun = Instant::now();
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(begun.elapsed() < Duration::from_secs(20));
    for pid in w.lines("held") {
        assert!(!w.alive(pid.parse().unwrap()));
    }
});
