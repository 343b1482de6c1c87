//! What services get in their environment, and what nobody else sees of it.

use crate::harness::{World, scenario};
use std::os::unix::ffi::OsStringExt;

/// Every variable that the service wrote down, as text.
fn variable(w: &World, name: &str) -> Option<String> {
    w.until_marked("seen", "cwd");
    w.read("seen").lines().find_map(|l| l.strip_prefix(&format!("env {name}="))).map(str::to_owned)
}

scenario!(a_value_arrives_as_it_was_written, |w| {
    let seen = w.file("seen");
    let odd = "a=b \"c\" 'd' $HOME %s \\ ä ;|&<>{}*?#!`x`";
    w.env("PASSED", odd);
    let written = toml::Value::String(odd.to_owned());
    w.service(
        "db",
        &["inspect", &seen, "wait"],
        &format!("pass = [\"PASSED\"]\nenv = {{ WRITTEN = {written}, EMPTY = \"\" }}"),
    );
    w.start();
    assert_eq!(variable(w, "PASSED").as_deref(), Some(odd));
    assert_eq!(variable(w, "WRITTEN").as_deref(), Some(odd));
    assert_eq!(variable(w, "EMPTY").as_deref(), Some(""));
    assert_eq!(w.stop(), 0);
});

scenario!(the_longest_value_that_the_system_takes_arrives_and_a_longer_one_is_told, |w| {
    let seen = w.file("seen");
    // One string of the environment may have 128 KiB with its name and its NUL.
    let longest = (128 << 10) - "LONG=".len() - 1;
    w.service("db", &["inspect", &seen, "wait"], &format!("env = {{ LONG = \"{}\" }}", "x".repeat(longest)));
    w.service(
        "too",
        &["wait"],
        &format!("restart = {{ when = \"never\" }}\nenv = {{ LONG = \"{}\" }}", "x".repeat(128 << 10)),
    );
    w.start();
    assert_eq!(variable(w, "LONG").map(|v| v.len()), Some(longest));
    let last = w.until_state("too", "failed")["last"].as_str().unwrap().to_owned();
    assert!(last.contains("cannot run the program: Argument list too long"), "{last}");
    assert_eq!(w.stop(), 0);
});

scenario!(a_value_that_is_no_text_hurts_nobody, |w| {
    let seen = w.file("seen");
    w.env("ODD", std::ffi::OsString::from_vec(vec![b'a', 0xff, 0xfe, b'b'])).env("GOOD", "good");
    w.service("db", &["inspect", &seen, "wait"], "pass = [\"GOOD\"]");
    w.start();
    assert_eq!(variable(w, "GOOD").as_deref(), Some("good"));
    assert_eq!(w.stop(), 0);
});

scenario!(a_secret_is_seen_by_the_service_that_names_it_and_by_nobody_else, |w| {
    let (seen, other, secret) = (w.file("seen"), w.file("other"), "correct-horse-battery-staple");
    w.env("TOKEN", secret).env("SUPAFLY_LOG", "trace");
    w.service("db", &["inspect", &seen, "say", "up", "wait"], "pass = [\"TOKEN\"]");
    w.service("web", &["inspect", &other, "wait"], "");
    w.service("bad", &["exit", "1"], "pass = [\"TOKEN\"]\nrestart = { when = \"never\" }");
    w.start();
    assert_eq!(variable(w, "TOKEN").as_deref(), Some(secret));
    w.until_marked("other", "cwd");
    assert!(!w.read("other").contains(secret));
    w.until_state("bad", "failed");
    for told in [w.answer().to_string(), w.says(&["status"]).1, w.says(&["check"]).1] {
        assert!(!told.contains(secret), "{told}");
    }
    for pid in std::iter::once(w.pid()).chain(w.left()) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(secret));
    }
    assert_eq!(w.stop(), 0);
    assert!(!w.log().contains(secret), "{}", w.log());
});
