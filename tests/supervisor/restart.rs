//! Crash loops, retries, and clocks that jump.

use crate::harness::{World, scenario, skip, until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Times between the stamps of a service, in milliseconds.
fn gaps(w: &World) -> Vec<i64> {
    let stamps: Vec<i64> = w.lines("stamps").iter().map(|l| l.parse().unwrap()).collect();
    stamps.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

scenario!(the_gaps_of_a_crash_loop_double_up_to_the_cap_and_end_at_the_limit, |w| {
    let stamps = w.file("stamps");
    // Without the cap the last gap would be 16 s.
    w.service(
        "db",
        &["stamp", &stamps, "exit", "1"],
        "ready = { notify = true }\nrestart = { delay = \"250ms\", max_delay = \"1s\", max = 7 }\ngives_up = \"hold\"",
    );
    w.start();
    let seen = w.until_state("db", "held");
    assert!(seen["detail"].as_str().unwrap().contains("7 restarts within 10m"), "{seen}");
    assert_eq!(seen["restarts"], 7);
    let gaps = gaps(w);
    for (gap, wanted) in gaps.iter().zip([250, 500, 1_000, 1_000, 1_000, 1_000, 1_000]) {
        // Up to a tenth shorter on purpose; longer by what a busy machine takes.
        assert!(*gap >= wanted * 9 / 10 && *gap < wanted + 10_000, "{gaps:?}");
    }
    assert_eq!(gaps.len(), 7);
    assert_eq!(w.stop(), 0);
});

scenario!(a_service_that_was_ready_is_back_at_once_and_waits_only_when_it_fails_again, |w| {
    w.set_budget("60s");
    let pids = w.file("pids");
    w.service("db", &["pid", &pids, "wait"], "restart = { delay = \"5m\", max_delay = \"5m\" }");
    w.start();
    let first = w.pid_in("pids");
    let begun = Instant::now();
    w.signal_to(first, Signal::SIGKILL);
    until("a second life", || (w.pids_in("pids").len() == 2).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    w.signal_to(w.pid_in("pids"), Signal::SIGKILL);
    let seen = w.until_state("db", "backoff");
    assert_eq!((&seen["last"], &seen["restarts"]), (&"SIGKILL".into(), &1.into()));
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(20), "a stop waits for no backoff: {took:?}");
    assert_eq!(w.pids_in("pids").len(), 2);
});

scenario!(a_retry_ends_a_backoff, |w| {
    let (once, marks) = (w.file("once"), w.file("marks"));
    w.service(
        "db",
        &["once", &once, "3", "mark", &marks, "up", "wait"],
        "ready = { notify = true }\nrestart = { delay = \"5m\", max_delay = \"5m\" }",
    );
    w.start();
    w.until_state("db", "backoff");
    w.request("retry", Some("db")).unwrap();
    w.until_marked("marks", "up");
    assert_eq!(w.stop(), 0);
});

scenario!(a_retry_while_everything_stops_is_rejected_and_starts_nothing, |w| {
    let (once, marks) = (w.file("once"), w.file("marks"));
    w.service(
        "held",
        &["once", &once, "9", "mark", &marks, "again", "wait"],
        "restart = { when = \"never\" }\ngives_up = \"hold\"",
    );
    w.service("slow", &["mark", &marks, "up", "slow", "4000", &marks, "slow"], "");
    w.start();
    w.until_state("held", "held");
    w.until_marked("marks", "up");
    w.term();
    w.until_marked("marks", "stopping slow");
    let error = w.request("retry", Some("held")).unwrap_err();
    assert!(error.to_string().contains("everything is stopping"), "{error}");
    assert_eq!(w.ended().code(), Some(0));
    assert_eq!(w.lines("marks"), ["up", "stopping slow", "stopped slow"]);
});

scenario!(two_retries_at_once_start_it_once, |w| {
    let (once, marks) = (w.file("once"), w.file("marks"));
    w.service(
        "db",
        &["once", &once, "9", "mark", &marks, "up", "wait"],
        "restart = { when = \"never\" }\ngives_up = \"hold\"",
    );
    w.start();
    w.until_state("db", "held");
    let run = w.path("run");
    let ask = || supafly::control::client::request(&run, "retry", &[("service", "db".into())]).unwrap();
    let answers = std::thread::scope(|s| [s.spawn(ask), s.spawn(ask)].map(|t| t.join().unwrap()));
    let accepted = answers.iter().filter(|a| a["answer"] == "accepted").count();
    assert_eq!(accepted, 1, "{answers:?}");
    w.until_marked("marks", "up");
    assert_eq!(w.until_state("db", "ready")["restarts"], 1);
    assert_eq!(w.stop(), 0);
    assert_eq!(w.lines("marks"), ["up"]);
});

/// A library that moves the wall clock of whoever loads it by what a file says.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  long result = syscall(SYS_clock_gettime, clock, now);
  if (result != 0 || clock != CLOCK_REALTIME) return (int)result;
  char text[32] = {0};
  const char *file = getenv("WALL_CLOCK");
  int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    if (read(fd, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
    close(fd);
  }
  return 0;
}
"#;

scenario!(a_wall_clock_that_jumps_a_day_either_way_starts_and_ends_nothing, |w| {
    let (source, library) = (w.path("clock.c"), w.file("clock.so"));
    std::fs::write(&source, CLOCK).unwrap();
    let made =
        std::process::Command::new("cc").args(["-shared", "-fPIC", "-o", &library]).arg(&source).status();
    if !made.is_ok_and(|s| s.success()) {
        return skip("no C compiler");
    }
    let (clock, once) = (w.file("clock"), w.file("once"));
    w.env("LD_PRELOAD", &library).env("WALL_CLOCK", &clock);
    w.service("ready", &["wait"], "");
    w.service("starting", &["wait"], "ready = { notify = true }\nstart_deadline = \"1h\"");
    w.service(
        "pausing",
        &["once", &once, "1", "wait"],
        "ready = { notify = true }\nrestart = { delay = \"1h\", max_delay = \"1h\" }",
    );
    w.start();
    w.until_state("pausing", "backoff");
    w.until_state("ready", "ready");
    let before = jiff::Timestamp::now();
    for (turn, days) in [1_i64, -1].into_iter().enumerate() {
        std::fs::write(w.path("clock.new"), (days * 86_400).to_string()).unwrap();
        std::fs::rename(w.path("clock.new"), w.path("clock")).unwrap();
        // Something happens under the new clock, and it is dated by it.
        w.signal(Signal::SIGHUP);
        let line = until("a line of another day", || {
            w.objects().into_iter().filter(|o| o["message"] == "SIGHUP is ignored").nth(turn)
        });
        let dated: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let moved = dated.duration_since(before).as_hours();
        assert!((days * 24 - moved).abs() <= 1, "{line}");
        for (service, state) in [("ready", "ready"), ("starting", "starting"), ("pausing", "backoff")] {
            let seen = w.until_state(service, state);
            assert_eq!(seen["restarts"], 0, "{seen}");
        }
    }
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(in_a_machine_that_has_been_up_for_ten_days_more_than_its_parent_everything_is_the_same, |w| {
    if !crate::harness::is_root() {
        return skip("not root: no time namespace");
    }
    w.outside(&[
        "unshare",
        "--time",
        "--boottime",
        "864000",
        "--monotonic",
        "864000",
        "--fork",
        "--kill-child",
        "--",
    ]);
    let (pid, pids) = (w.file("pid"), w.file("pids"));
    let script = format!("ignore-term,pid,{pid},wait");
    w.service("db", &["orphan", &script, "pid", &pids, "wait"], "");
    w.start();
    let orphan = w.pid_in("pid");
    w.signal_to(w.pid_in("pids"), Signal::SIGKILL);
    until("a second life", || (w.pids_in("pids").len() == 2).then_some(()));
    assert!(!w.alive(orphan), "the former run is cleared first");
    assert_eq!(w.stop(), 0);
});

scenario!(a_supervisor_that_was_stopped_itself_takes_nobody_for_hung, |w| {
    w.service("keeper", &["ready", "alive", "30"], "ready = { notify = true }\nwatchdog = \"3s\"");
    w.start();
    w.until_state("keeper", "ready");
    for _ in 0..3 {
        // As a frozen container, or a host that gives us no time.
        w.signal(Signal::SIGSTOP);
        until("the pause", || (crate::procs::stat(w.pid())?.state == 'T').then_some(()));
        // Longer than the watchdog, and not so long that we must notice that we stood still.
        std::thread::sleep(Duration::from_millis(3_300));
        w.signal(Signal::SIGCONT);
        let seen = w.until_state("keeper", "ready");
        assert_eq!(seen["restarts"], 0, "{}", w.log());
    }
    assert_eq!(w.stop(), 0);
});
