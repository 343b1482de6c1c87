//! One service started, stopped and started again by hand; and what `logs` and `status --watch` show.

use crate::harness::{World, scenario, until};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// `db`, and `api` that requires it, and `web` after that; each marks when it comes and goes.
fn three(w: &mut World) {
    let marks = w.file("marks");
    for (name, keys) in [("db", ""), ("api", "requires = [\"db\"]"), ("web", "after = [\"api\"]")] {
        let up = format!("up {name}");
        w.service(name, &["mark", &marks, &up, "serve", &marks, name], keys);
    }
    w.start();
    w.until_state("web", "ready");
    until("three", || (w.lines("marks").len() == 3).then_some(()));
}

scenario!(a_stop_with_active_dependents_is_refused_by_name_unless_they_stop_too, |w| {
    three(w);
    let (code, why) = w.says(&["stop", "db"]);
    assert_eq!(code, 1);
    assert_eq!(why, "`api`, `web` run and come after `db`: stop that first, or add --with-dependents\n");
    let (code, text) = w.says(&["stop", "--with-dependents", "db"]);
    assert!(
        code == 0 && text.starts_with("db: stopped, asked by uid 0") || !crate::harness::is_root(),
        "{text}"
    );
    assert_eq!(w.lines("marks")[3..], ["stopped web", "stopped api", "stopped db"]);
    assert_eq!(w.says(&["stop", "db"]), (0, "`db` is down already\n".to_owned()));
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.contains("db is stopped"), "{reason}");
    // Wished down, they stay down; wished up, in any order, they come when they may.
    let (code, text) = w.says(&["start", "--no-wait", "api"]);
    assert_eq!((code, text.as_str()), (0, "accepted\n"));
    assert_eq!(w.until_state("api", "blocked")["detail"], "for db");
    assert_eq!(w.says(&["start", "db"]).0, 0);
    w.until_state("api", "ready");
    assert_eq!(w.says(&["start", "api"]), (0, "`api` runs already\n".to_owned()));
    assert_eq!(w.stop(), 0);
});

scenario!(a_restart_restarts_no_dependent_and_with_them_all_in_order, |w| {
    three(w);
    let (code, text) = w.says(&["restart", "db"]);
    assert_eq!(code, 0, "{text}");
    until("its mark", || (w.lines("marks").len() == 5).then_some(()));
    assert_eq!(w.lines("marks")[3..], ["stopped db", "up db"]);
    let (code, text) = w.says(&["restart", "--with-dependents", "db"]);
    assert_eq!(code, 0, "{text}");
    until("all to be back", || (w.lines("marks").len() == 11).then_some(()));
    assert_eq!(
        w.lines("marks")[5..],
        ["stopped web", "stopped api", "stopped db", "up db", "up api", "up web"]
    );
    assert_eq!(w.seen("db")["restarts"], 2);
    assert_eq!(w.stop(), 0);
});

scenario!(two_restarts_at_once_and_a_start_while_it_stops_leave_one_of_it, |w| {
    let marks = w.file("marks");
    w.service("db", &["mark", &marks, "up", "slow", "2500", &marks, "db"], "");
    w.start().until_state("db", "ready");
    let restart = |_| w.command(&["restart", "db"]).stdout(Stdio::null()).spawn().unwrap();
    let both: Vec<_> = (0..2).map(restart).collect();
    for mut one in both {
        assert!(until("a restart", || one.try_wait().unwrap()).success());
    }
    // Ready is said when it runs; its own mark comes a moment later.
    let ups = || w.lines("marks").iter().filter(|l| *l == "up").count();
    until("a second life", || (ups() >= 2).then_some(()));
    assert!(ups() <= 3, "{:?}", w.lines("marks"));
    // Before it has its handler TERM would end it at once, and nobody would see it stop.
    until("its handler", || {
        let pid = i32::try_from(w.state_of("db")?["pid"].as_i64()?).ok()?;
        let caught = u64::from_str_radix(&crate::procs::status(w.outer(pid)?, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    });
    assert_eq!(w.says(&["stop", "--no-wait", "db"]).0, 0);
    w.until_state("db", "stopping");
    assert_eq!(w.says(&["start", "db"]).0, 0, "{}", w.log());
    let seen = w.until_state("db", "ready");
    assert!(seen["run"].as_u64() > Some(2));
    assert_eq!(w.stop(), 0);
});

scenario!(a_wish_that_fails_says_why_with_the_last_words, |w| {
    let never = "restart = { when = \"never\" }\nready = { notify = true }";
    w.service("db", &["say", "cannot find my keys", "exit", "3"], never);
    w.start();
    w.until_state("db", "failed");
    let (code, text) = w.says(&["start", "db"]);
    assert!(code == 1 && text.contains("exit 3") && text.contains("cannot find my keys"), "{text}");
    let (code, text) = w.says(&["restart", "nothing"]);
    assert_eq!((code, text.as_str()), (1, "there is no service `nothing`\n"));
    let (code, text) = w.says(&["health", "--service", "db"]);
    assert!(code == 1 && text.starts_with("failed: "), "{text}");
    assert_eq!(w.stop(), 0);
});

scenario!(logs_show_recent_lines_of_one_or_all_and_follow, |w| {
    let go = w.file("go");
    w.service("db", &["say", "first", "say", "second", "until", &go, "say", "third", "wait"], "");
    w.service("web", &["say", "hello", "wait"], "");
    w.start();
    until("both to have spoken", || {
        let (_, text) = w.says(&["logs"]);
        (text.contains("second") && text.contains("hello")).then_some(())
    });
    let (code, text) = w.says(&["logs", "db"]);
    let words: Vec<&str> = text.lines().map(|l| l.rsplit(' ').next().unwrap()).collect();
    assert_eq!((code, words), (0, vec!["first", "second"]), "{text}");
    let (_, last) = w.says(&["logs", "-n", "1", "--json", "db"]);
    let last: serde_json::Value = serde_json::from_str(last.trim()).unwrap();
    assert_eq!((&last["message"], &last["service"]), (&"second".into(), &"db".into()));
    let (_, own) = w.says(&["logs", "supafly"]);
    assert!(own.contains("web is ready"), "{own}");
    let mut follow = w.command(&["logs", "-f", "db"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("first"));
    assert!(lines.next().unwrap().unwrap().ends_with("second"));
    std::fs::write(&go, "").unwrap();
    assert!(lines.next().unwrap().unwrap().ends_with("third"));
    let (code, why) = w.says(&["logs", "nobody"]);
    assert!(code == 1 && why.contains("there is no service `nobody`"), "{why}");
    // Who follows does not keep it from stopping, and ends with it.
    assert_eq!(w.stop(), 0);
    assert!(until("the follower's end", || follow.try_wait().unwrap()).success());
});

scenario!(a_watched_status_tells_each_change_once, |w| {
    let once = w.file("once");
    w.service(
        "db",
        &["once", &once, "3", "ready", "wait"],
        "ready = { notify = true }\nrestart = { delay = \"1s\" }",
    );
    w.start();
    w.until_state("db", "ready");
    let mut watch = w.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["state"], "ready");
    assert_eq!(w.says(&["stop", "db"]).0, 0);
    let changed = next();
    assert!(changed["state"] == "degraded", "{changed}");
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(w.stop(), 0);
});

scenario!(who_waits_for_its_lock_can_be_stopped_and_ends_nobody_then, |w| {
    w.set_budget("1s");
    let lock = std::fs::File::create(w.path("lock")).unwrap();
    lock.lock().unwrap();
    w.service("db", &["wait"], &format!("lock = \"{}\"", w.file("lock")));
    w.service("web", &["wait"], "");
    w.start();
    w.until_marked("out", "the lock is busy");
    let (code, text) = w.says(&["stop", "db"]);
    assert!(code == 0 && text.starts_with("db: stopped"), "{text}");
    drop(lock);
    assert_eq!(w.says(&["start", "db"]).0, 0);
    assert_eq!(w.stop(), 0, "{}", w.log());
});
