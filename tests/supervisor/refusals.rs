//! What is refused before anything starts, and how it is said.

use crate::harness::{World, scenario};

#[test]
fn a_cycle_starts_nothing_and_is_named() {
    let w = World::new();
    let marks = w.file("marks");
    w.service("a", &["mark", &marks, "a"], "requires = [\"b\"]");
    w.service("b", &["mark", &marks, "b"], "after = [\"a\"]");
    w.service("c", &["mark", &marks, "c"], "");
    for verb in ["run", "check"] {
        let (code, text) = w.says(&[verb]);
        assert_eq!(code, 78, "{text}");
        assert!(text.contains("a → b → a"), "{text}");
    }
    assert!(w.lines("marks").is_empty());
}

#[test]
fn every_problem_of_every_file_is_told_with_its_place() {
    let w = World::new();
    w.raw("one", "kind = \"daemon\"\nexec = [\"/bin/true\"]\nafer = [\"two\"]\n");
    w.raw("two", "kind = \"demon\"\nexec = [\"/bin/true\"]\n");
    w.service("three", &["wait"], "");
    let (code, text) = w.says(&["run"]);
    assert_eq!(code, 78);
    assert!(text.contains("one.toml:3:1: ") && text.contains("afer"), "{text}");
    assert!(text.contains("two.toml:1:") && text.contains("daemon"), "{text}");
}

#[test]
fn an_empty_or_missing_directory_is_told() {
    let w = World::new();
    assert!(w.says(&["run"]).1.contains("there is no service file"));
    let (code, text) = w.says(&["run", "--services", "/no/such/place"]);
    assert!(code == 78 && text.contains("/no/such/place"), "{text}");
}

#[test]
fn check_prints_the_order_and_the_split_of_the_stop_budget() {
    let w = World::new();
    w.service(
        "db",
        &["wait"],
        "stop = [{ signal = \"SIGINT\", share = 3 }, { signal = \"SIGQUIT\", share = 1 }]",
    );
    w.service("web", &["wait"], "requires = [\"db\"]");
    let (code, text) = w.says(&["check"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("SIGQUIT") && text.contains("the whole stop: 9s"), "{text}");
    let row = text.lines().find(|l| l.starts_with("web ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["web", "daemon", "degrade", "db", "-"]);
    assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    let (code, json) = w.says(&["check", "--json"]);
    assert_eq!(code, 0, "{json}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["services"][1]["requires"][0], "db");
    assert_eq!(json["stop"]["ladders"][0]["service"], "web", "who came last goes first");
    let budget = json["settings"].as_array().unwrap().iter().find(|s| s["key"] == "stop_budget").unwrap();
    assert_eq!((&budget["value"], &budget["source"]), (&"9s".into(), &"SUPAFLY_STOP_BUDGET".into()));
}

scenario!(a_second_supervisor_in_the_same_place_is_refused_and_told_who_is_there, |w| {
    w.service("db", &["wait"], "");
    w.start();
    w.until_state("db", "ready");
    let (code, text) = w.says(&["run"]);
    assert_eq!(code, 77, "{text}");
    assert!(text.contains(&format!("pid {}", w.own_pid())), "{text}");
    assert_eq!(w.stop(), 0);
});

#[test]
fn a_volume_that_another_holds_is_refused_after_the_budget_and_its_holder_named() {
    let mut first = World::new();
    let (lock, marks) = (first.file("volume/lock"), first.file("marks"));
    let keys = format!("lock = \"{lock}\"");
    first.service("db", &["wait"], &keys);
    first.start();
    first.until_state("db", "ready");
    let mut second = World::new().budget("500ms");
    second.service("db", &["mark", &marks, "touched", "wait"], &keys);
    assert_eq!(second.start().ended().code(), Some(77), "{}", second.log());
    assert!(second.log().contains(&format!("pid {}", first.pid())), "{}", second.log());
    assert!(first.lines("marks").is_empty());
    assert_eq!(first.stop(), 0);
    second.service("db", &["mark", &marks, "touched", "wait"], &keys);
    second.start().until_state("db", "ready");
    assert_eq!(second.stop(), 0);
}
