//! Starts that fail, dependents that wait, graphs that cannot be.

use crate::harness::{World, is_root, scenario, skip, until};
use std::os::unix::fs::PermissionsExt;

const THREE: &str =
    "restart = { when = \"on-failure\", delay = \"20ms\", max_delay = \"20ms\", max = 2 }\nrequired = true";

/// Three attempts, and then given up; the log and the status have the reason.
#[track_caller]
fn failed_three_times(w: &World, service: &str, reason: &str) {
    let seen = w.until_state(service, "failed");
    let last = seen["last"].as_str().unwrap();
    assert!(last.contains(reason), "{service}: {last}");
    assert_eq!(seen["restarts"], 2, "{service}: {seen}");
    let given = until("its last word", || w.told(service, "gave up").pop());
    let again = w.told(service, "will be started again");
    assert!(again.len() <= 2, "{service}: {}", w.log());
    // Where its end and its next start fall into one turn of a supervisor that got no time, the end alone is told.
    let told = [again, w.told(service, "ended unasked")].concat();
    assert!(!told.is_empty(), "{service}: {}", w.log());
    for line in told.iter().chain(std::iter::once(&given)) {
        assert!(line["fields"]["detail"].as_str().unwrap().contains(reason), "{service}: {line}");
    }
}

scenario!(a_start_that_fails_is_told_at_each_attempt, |w| {
    w.service("place", &["wait"], &format!("{THREE}\ndirectory = \"/no/such/place\""));
    w.start();
    w.until_state("place", "failed");
    until("its last word", || w.told("place", "gave up").pop());
    // Twice; once where the supervisor got no time between two starts.
    let told = w.told("place", "will be started again").len();
    assert!((1..=2).contains(&told), "{}", w.log());
    assert_eq!(w.stop(), 0);
});

scenario!(a_file_that_is_no_program_is_not_run_by_a_shell, |w| {
    let garbage = w.path("garbage");
    std::fs::write(&garbage, "\u{7f}ELF and nothing more").unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o755)).unwrap();
    w.exec("format", &[garbage.display().to_string()], THREE);
    w.start();
    failed_three_times(w, "format", "could not be started: cannot run the program: Exec format error");
    assert_eq!(w.stop(), 0);
});

scenario!(each_way_of_not_being_started_is_told_with_its_reason, |w| {
    w.service("place", &["wait"], &format!("{THREE}\ndirectory = \"/no/such/place\""));
    w.exec("missing", &["/no/such/program".to_owned()], THREE);
    // The service's own words, which shells use for the same.
    w.service("code126", &["exit", "126"], THREE);
    w.service("code127", &["exit", "127"], THREE);
    if is_root() {
        w.service("user", &["wait"], &format!("{THREE}\nuser = \"no-such-user-here\""));
    }
    w.start();
    failed_three_times(w, "place", "could not be started: cannot enter the working directory: No such file");
    failed_three_times(w, "missing", "could not be started: there is no program `/no/such/program`");
    failed_three_times(w, "code126", "exit 126");
    failed_three_times(w, "code127", "exit 127");
    if is_root() {
        failed_three_times(w, "user", "could not be started: there is no user `no-such-user-here`");
    }
    assert_eq!(w.stop(), 0, "{}", w.log());
});

#[test]
fn a_missing_user_is_refused_by_check() {
    if !is_root() {
        return skip("not root: users are ignored");
    }
    let w = World::new();
    w.service("user", &["wait"], "user = \"no-such-user-here\"");
    let (code, text) = w.says(&["check"]);
    assert!(code == 78 && text.contains("no-such-user-here"), "{text}");
}

#[test]
fn who_is_absent_needs_no_user_and_is_said_once() {
    let mut w = World::new();
    for (name, program) in [("none", ""), ("nowhere", "/no/such/program")] {
        w.service(name, &["wait"], &format!("user = \"no-such-user-here\"\nprogram = \"{program}\""));
    }
    w.service("web", &["wait"], "after = [\"none\", \"nowhere\"]");
    let (code, text) = w.says(&["check"]);
    assert_eq!(code, 0, "{text}");
    for said in ["absent: switched off, or not installed", "absent: /no/such/program is not installed"] {
        assert_eq!(text.matches(said).count(), 1, "{text}");
    }
    w.start().until_state("web", "ready");
    assert_eq!(w.until_state("none", "absent")["detail"], "switched off, or not installed");
    assert_eq!(w.until_state("nowhere", "absent")["detail"], "/no/such/program is not installed");
    let (code, said) = w.says(&["start", "none"]);
    assert!(code != 0 && said.contains("`none` is absent: switched off, or not installed"), "{said}");
    let log = w.log();
    let of_it = log.lines().filter(|l| l.contains("\"service\":\"none\"")).count();
    assert!(of_it == 1 && log.contains("\"message\":\"absent: switched off"), "{log}");
    assert_eq!(w.stop(), 0, "{}", w.log());
}

scenario!(a_program_on_a_noexec_mount_is_told_so, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    let place = w.file("noexec");
    std::fs::create_dir(&place).unwrap();
    let script = "mount -t tmpfs -o noexec none \"$0\" && cp /bin/true \"$0/program\" && exec \"$@\"";
    w.outside(&["unshare", "--mount", "sh", "-c", script, &place]);
    w.exec("db", &[format!("{place}/program")], THREE);
    w.start();
    failed_three_times(w, "db", "could not be started: cannot run the program: Permission denied");
    assert_eq!(w.stop(), 0);
});

scenario!(an_exit_with_0_is_what_the_policy_says, |w| {
    let marks = w.file("marks");
    w.service("always", &["mark", &marks, "up", "exit", "0"], "restart = { delay = \"10ms\" }");
    w.service("failure", &["exit", "0"], "restart = { when = \"on-failure\" }");
    w.service("never", &["exit", "0"], "restart = { when = \"never\" }");
    w.service("oneshot", &["exit", "0"], "kind = \"oneshot\"");
    w.start();
    until("three starts", || (w.lines("marks").len() >= 3).then_some(()));
    for done in ["failure", "never", "oneshot"] {
        assert_eq!(w.until_state(done, "done")["restarts"], 0);
    }
    assert_eq!(w.stop(), 0);
});

scenario!(what_is_never_ready_keeps_its_dependents_from_starting_and_the_stop_clean, |w| {
    let marks = w.file("marks");
    let never = "start_deadline = \"150ms\"\nrestart = { when = \"never\" }\ngives_up = \"hold\"";
    w.service("db", &["say", "no keys", "wait"], &format!("ready = {{ notify = true }}\n{never}"));
    w.service("web", &["mark", &marks, "web", "wait"], "requires = [\"db\"]");
    w.service("far", &["mark", &marks, "far", "wait"], "requires = [\"web\"]");
    w.start();
    let seen = w.until_state("db", "held");
    assert!(seen["detail"].as_str().unwrap().contains("not ready within its start deadline"), "{seen}");
    assert_eq!(seen["output"], serde_json::json!(["no keys"]));
    for blocked in ["web", "far"] {
        w.until_state(blocked, "blocked");
    }
    assert_eq!(w.stop(), 0, "{}", w.log());
    assert!(w.lines("marks").is_empty());
});

scenario!(a_dependency_that_dies_between_its_readiness_and_its_dependents_start_starts_nothing, |w| {
    let (die, go, marks) = (w.file("die"), w.file("go"), w.file("marks"));
    w.service(
        "db",
        &["ready", "until", &die, "exit", "1"],
        "ready = { notify = true }\nrestart = { when = \"never\" }",
    );
    w.service("slow", &["until", &go, "ready", "wait"], "ready = { notify = true }");
    w.service("web", &["mark", &marks, "web", "wait"], "requires = [\"db\", \"slow\"]");
    w.start();
    w.until_state("db", "ready");
    std::fs::write(&die, "").unwrap();
    w.until_state("db", "failed");
    std::fs::write(&go, "").unwrap();
    w.until_state("slow", "ready");
    let seen = w.until_state("web", "blocked");
    assert!(seen["detail"].as_str().unwrap().contains("db"), "{seen}");
    let (code, reason) = w.says(&["health", "--ready"]);
    assert!(code == 1 && reason.contains("db gave up: exit 1"), "{reason}");
    assert_eq!(w.stop(), 0);
    assert!(w.lines("marks").is_empty());
});

scenario!(a_dependency_that_fails_for_good_ends_all_with_its_exit_and_its_dependents_never_start, |w| {
    let marks = w.file("marks");
    w.service(
        "init",
        &["exit", "77"],
        "kind = \"oneshot\"\ngives_up = \"stop-all\"\npass_exit = [77]\nrestart = { when = \"never\" }",
    );
    w.service("db", &["mark", &marks, "db", "wait"], "requires = [\"init\"]");
    w.service("other", &["wait"], "");
    assert_eq!(w.start().ended().code(), Some(77), "{}", w.log());
    assert!(w.lines("marks").is_empty());
});

scenario!(a_graph_that_cannot_be_starts_nothing_and_is_named, |w| {
    let marks = w.file("marks");
    w.service("good", &["mark", &marks, "good", "wait"], "");
    for (keys, named) in [
        ("requires = [\"me\"]", "`me` cannot wait for itself"),
        ("after = [\"me\"]", "`me` cannot wait for itself"),
        ("requires = [\"ghost\"]", "ghost"),
        ("after = [\"god\"]", "good"),
        ("fence_by = \"ghost\"", "ghost"),
    ] {
        w.service("me", &["mark", &marks, "me", "wait"], keys);
        let (code, text) = w.says(&["check"]);
        assert!(code == 78 && text.contains(named), "{keys}: {text}");
        assert_eq!(w.start().ended().code(), Some(78), "{}", w.log());
        assert!(w.log().contains(named), "{}", w.log());
    }
    assert!(w.lines("marks").is_empty());
    assert!(!w.path("run/control.sock").exists());
});
