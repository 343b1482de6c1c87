//! What services say comes out whole, marked and in order.

use crate::harness::World;

fn said(w: &World, service: &str) -> Vec<serde_json::Value> {
    w.objects().into_iter().filter(|o| o["service"] == service).collect()
}

#[test]
fn the_last_line_without_a_newline_is_kept_and_comes_before_the_news_of_the_end() {
    let mut w = World::new();
    w.service(
        "db",
        &["say", "first", "tail", "why I died", "exit", "4"],
        "restart = { when = \"never\" }\ngives_up = \"stop-all\"",
    );
    assert_eq!(w.start().ended().code(), Some(70));
    let lines = said(&w, "db");
    let texts: Vec<&str> = lines.iter().map(|o| o["message"].as_str().unwrap()).collect();
    assert_eq!(texts, ["first", "why I died"]);
    for key in ["time", "level", "run", "stream"] {
        assert!(!lines[0][key].is_null(), "{key} is missing: {}", lines[0]);
    }
    let log = w.read("out");
    assert!(log.find("why I died").unwrap() < log.find("exit 4").unwrap(), "{log}");
}

#[test]
fn a_megabyte_without_a_newline_comes_out_in_parts_that_fit() {
    let mut w = World::new();
    w.service("db", &["long", "1000000", "say", "after"], "kind = \"oneshot\"");
    w.start();
    w.until_marked("out", "\"after\"");
    assert_eq!(w.stop(), 0);
    assert!(w.read("out").lines().all(|l| l.len() <= 8_192));
    let lines = said(&w, "db");
    let (last, parts) = lines.split_last().unwrap();
    assert_eq!(last["message"], "after");
    assert_eq!(parts.iter().map(|o| o["message"].as_str().unwrap().len()).sum::<usize>(), 1_000_000);
    for (i, part) in parts.iter().enumerate() {
        assert_eq!(part["part"], i + 1);
        assert_eq!(part["more"].as_bool().unwrap_or(false), i + 1 < parts.len());
    }
}

#[test]
fn a_closed_stdout_ends_nothing() {
    let mut w = World::new();
    let marks = w.file("marks");
    w.service("loud", &["flood", "20000", "mark", &marks, "up", "serve", &marks, "loud"], "");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = w.command(&["run"]);
    command.stdout(writer).stderr(std::process::Stdio::null());
    let child = command.spawn().unwrap();
    w.adopt(child);
    w.until_marked("marks", "up");
    assert_eq!(w.stop(), 0);
    assert_eq!(w.lines("marks"), ["up", "stopped loud"]);
}
