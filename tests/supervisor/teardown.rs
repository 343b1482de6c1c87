//! Stopping in the middle of something, in order, in time, and with nothing held below the volume.

use crate::harness::{World, is_root, scenario, skip, until, within};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// The supervisor has its handlers. Before that a TERM ends a child by itself, and the kernel keeps it from a PID 1.
fn until_it_listens(w: &World) {
    let term = 1_u64 << (Signal::SIGTERM as i32 - 1);
    until("the handler of TERM", || {
        let caught = u64::from_str_radix(&crate::procs::status(w.pid(), "SigCgt")?, 16).ok()?;
        (caught & term != 0).then_some(())
    });
}

scenario!(a_term_30_ms_after_our_exec_is_not_lost, |w| {
    for name in ["a", "b", "c"] {
        w.service(name, &["wait"], "");
    }
    for _ in 0..3 {
        w.start().pid();
        // The time is the scenario; a machine too busy to have started us by then gets a little more.
        std::thread::sleep(Duration::from_millis(30));
        until_it_listens(w);
        assert_eq!(w.stop(), 0, "{}", w.log());
    }
});

scenario!(a_term_at_any_moment_of_the_start_leaves_nobody, |w| {
    for i in 0..12 {
        let after = if i == 0 { String::new() } else { format!("after = [\"s{}\"]", (i - 1) / 3) };
        w.service(&format!("s{i}"), &["wait"], &after);
    }
    // Between fork and exec of one of them, more likely than not.
    for moment in [0, 1, 3, 6, 10, 15, 22, 30] {
        w.start();
        until_it_listens(w);
        std::thread::sleep(Duration::from_millis(moment));
        assert_eq!(w.stop(), 0, "{}", w.log());
    }
});

#[test]
fn a_term_while_pid_1_still_reads_its_configuration_is_not_lost() {
    let Some(mut w) = World::pid_1() else { return };
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "up", "wait"], "");
    let slow = w.path("services/slow.toml");
    nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::S_IRWXU).unwrap();
    w.start();
    // The disk is slow: it waits in the middle of its files.
    let mut disk = until("the reader of slow.toml", || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(&slow).ok()
    });
    w.term();
    let text = format!("kind = \"daemon\"\nexec = [\"{}\", \"wait\"]\n", w.fake());
    std::io::Write::write_all(&mut disk, text.as_bytes()).unwrap();
    drop(disk);
    assert_eq!(w.ended().code(), Some(0), "{}", w.log());
}

scenario!(a_term_while_a_oneshot_runs_ends_it_and_starts_nothing_after_it, |w| {
    let marks = w.file("marks");
    w.service("init", &["mark", &marks, "init", "serve", &marks, "init"], "kind = \"oneshot\"");
    w.service("db", &["mark", &marks, "db", "wait"], "requires = [\"init\"]");
    w.service("web", &["mark", &marks, "web", "wait"], "after = [\"init\"]");
    w.start().until_marked("marks", "init");
    // `serve` has its handler a moment after its mark.
    let pid = w.until_state("init", "starting")["pid"].as_i64().unwrap();
    let outer = w.outer(i32::try_from(pid).unwrap()).unwrap();
    until("its handler", || {
        let caught = u64::from_str_radix(&crate::procs::status(outer, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    });
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert_eq!(w.lines("marks"), ["init", "stopped init"]);
});

scenario!(a_stop_during_a_start_that_takes_for_ever_is_orderly, |w| {
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "up", "signals", &marks], "ready = { notify = true }\nstop = [{ signal = \"SIGINT\", wait = \"2s\" }, { signal = \"SIGQUIT\", wait = \"2s\" }]");
    w.service("web", &["mark", &marks, "web", "wait"], "requires = [\"db\"]");
    w.start();
    until("its handlers", || (w.lines("marks").len() == 2).then_some(()));
    w.until_state("db", "starting");
    assert_eq!(w.stop(), 75, "{}", w.log());
    let names: Vec<String> =
        w.lines("marks").iter().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["up", "up", "SIGINT", "SIGQUIT"]);
});

scenario!(a_stop_while_it_waits_for_a_busy_volume_is_prompt, |w| {
    // Who waits for it takes far longer than a busy machine does.
    w.set_budget("60s");
    let (lock, marks) = (w.file("lock"), w.file("marks"));
    let busy = std::fs::File::create(&lock).unwrap();
    busy.lock().unwrap();
    w.service("db", &["mark", &marks, "up", "wait"], &format!("lock = \"{lock}\""));
    w.service("other", &["wait"], "");
    w.start().until_marked("out", "the lock is busy");
    w.until_state("other", "ready");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(w.lines("marks").is_empty());
});

scenario!(every_signal_that_means_stop_is_an_orderly_stop, |w| {
    let marks = w.file("marks");
    w.service("db", &["ready", "serve", &marks, "db"], "");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        w.start();
        w.until_state("db", "ready");
        until_served(w, "db");
        w.signal(signal);
        assert_eq!(w.ended().code(), Some(0), "{signal}: {}", w.log());
    }
    assert_eq!(w.lines("marks"), ["stopped db"; 3]);
});

/// A `serve` or `slow` that has its handler.
fn until_served(w: &World, service: &str) {
    until("its handler", || {
        let pid = w.state_of(service)?["pid"].as_i64()?;
        let outer = w.outer(i32::try_from(pid).ok()?)?;
        let caught = u64::from_str_radix(&crate::procs::status(outer, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    });
}

scenario!(each_further_term_is_one_rung_further_and_the_last_is_a_kill, |w| {
    w.set_budget("2m");
    let marks = w.file("marks");
    w.service("db", &["signals", &marks],
        "stop = [{ signal = \"SIGTERM\", wait = \"35s\" }, { signal = \"SIGINT\", wait = \"35s\" }, { signal = \"SIGQUIT\", wait = \"35s\" }]");
    w.start().until_marked("marks", "up");
    for (i, signal) in ["SIGTERM", "SIGINT", "SIGQUIT"].into_iter().enumerate() {
        w.term();
        // Long before it would come by itself.
        let next = || w.lines("marks").get(i + 1).map(|l| assert!(l.starts_with(signal), "{l}"));
        within(Duration::from_secs(20), signal, next);
    }
    assert!(w.runs());
    let (code, took) = w.timed_stop();
    assert_eq!(code, 75);
    assert!(took < Duration::from_secs(20), "{took:?}");
});

scenario!(rungs_follow_each_other_on_time, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    w.service("db", &["signals", &marks],
        "stop = [{ signal = \"SIGTERM\", wait = \"2s\" }, { signal = \"SIGINT\", wait = \"4s\" }, { signal = \"SIGQUIT\", wait = \"1s\" }]");
    w.start().until_marked("marks", "up");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 75);
    // Never sooner than their times, and by these, not by the budget.
    assert!(took >= Duration::from_millis(6_990) && took < Duration::from_secs(30), "{took:?}");
    let seen: Vec<(String, i64)> = w
        .lines("marks")
        .iter()
        .filter_map(|l| l.split_once(' ').map(|(s, t)| (s.to_owned(), t.parse().unwrap())))
        .collect();
    let names: Vec<&str> = seen.iter().map(|(s, _)| s.as_str()).collect();
    assert_eq!(names, ["SIGTERM", "SIGINT", "SIGQUIT"]);
    // A mark may come late on a busy machine, by less than a second.
    assert!(seen[1].1 - seen[0].1 >= 1_000 && seen[2].1 - seen[1].1 >= 3_000, "{seen:?}");
});

scenario!(a_slow_dependent_delays_what_it_needs_and_nobody_else, |w| {
    w.set_budget("60s");
    let marks = w.file("marks");
    for (base, top) in [("db", "api"), ("cache", "web")] {
        w.service(base, &["slow", "0", &marks, base], "");
        w.service(top, &["slow", "2000", &marks, top], &format!("requires = [\"{base}\"]"));
    }
    w.service("alone", &["slow", "0", &marks, "alone"], "");
    w.start();
    w.until_all("ready");
    for service in ["db", "api", "cache", "web", "alone"] {
        until_served(w, service);
    }
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let lines = w.lines("marks");
    let at = |text: &str| lines.iter().position(|l| l == text).unwrap();
    // Two branches side by side: neither begins only when the other has ended.
    assert!(at("stopping api") < at("stopped web") && at("stopping web") < at("stopped api"), "{lines:?}");
    assert!(at("stopping db") > at("stopped api") && at("stopping cache") > at("stopped web"), "{lines:?}");
    assert!(at("stopped alone") < at("stopped api"), "{lines:?}");
});

scenario!(a_dependent_that_does_not_go_cannot_eat_the_time_of_what_it_needs, |w| {
    w.set_budget("6s");
    let marks = w.file("marks");
    w.service("db", &["slow", "100", &marks, "db"], "stop = [{ signal = \"SIGTERM\", share = 2 }]");
    w.service("api", &["ignore-term", "mark", &marks, "up", "wait"], "requires = [\"db\"]");
    w.start().until_marked("marks", "up");
    until_served(w, "db");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 75, "{}", w.log());
    assert_eq!(w.lines("marks"), ["up", "stopping db", "stopped db"]);
    assert!(took < Duration::from_millis(8_500), "{took:?}");
});

scenario!(a_whole_row_of_those_that_do_not_go_ends_within_the_budget_by_a_sweep, |w| {
    w.set_budget("1500ms");
    let marks = w.file("marks");
    for (name, needs) in [("a", ""), ("b", "a"), ("c", "b")] {
        let keys = if needs.is_empty() { String::new() } else { format!("requires = [\"{needs}\"]") };
        w.service(name, &["ignore-term", "orphan", "ignore-term,wait", "mark", &marks, name, "wait"], &keys);
    }
    w.start().until_marked("marks", "c");
    let (code, took) = w.timed_stop();
    assert_eq!(code, 75, "{}", w.log());
    // By its own budget, not by the 9 s that are usual.
    assert!(took < Duration::from_secs(8), "{took:?}");
});

scenario!(after_our_end_nobody_holds_the_volume_and_it_can_be_unmounted_at_once, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    w.set_budget("60s");
    let (data, free, held) = (w.file("data"), w.file("free"), w.file("held"));
    std::fs::create_dir(&data).unwrap();
    let script = format!(
        "mount -t tmpfs none {data} || exit 1; \"$@\"; code=$?; umount {data} && echo free > {free}; exit $code"
    );
    w.outside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    let holds = format!("ignore-term,hold,{data}/file,mark,{held},held,wait");
    w.service(
        "db",
        &["hold", &format!("{data}/own"), "orphan", &holds, "child", &holds, "wait"],
        &format!("lock = \"{data}/lock\"\ndirectory = \"{data}\""),
    );
    w.start();
    until("both to hold it", || (w.lines("held").len() == 2).then_some(()));
    let begun = Instant::now();
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(w.read("free"), "free\n");
});
