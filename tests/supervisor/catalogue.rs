//! `docs/scenarios.md` tells the truth: every test that it names is there and switched on, and enough rows have one.

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is between backquotes and names a test.
fn names(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|t| t.contains("::") && !t.contains('…') && *t != "::")
        .collect()
}

/// Whether a test runs (`Some(true)`), is ignored, or is not there at all.
fn runs(name: &str) -> Option<bool> {
    let (file, test) = name.rsplit_once("::").unwrap();
    let file = if file.contains('/') { format!("{file}.rs") } else { format!("tests/supervisor/{file}.rs") };
    let text = std::fs::read_to_string(root().join(file)).ok()?;
    // Whatever rustfmt made of its breaks.
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if text.contains(&format!("scenario!({test},")) {
        return Some(true);
    }
    let (before, _) = text.split_once(&format!("fn{test}()"))?;
    let (_, attributes) = before.rsplit_once("#[test]")?;
    Some(!attributes.contains("#[ignore"))
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/scenarios.md")).unwrap()
}

#[test]
fn every_test_that_the_document_names_is_there_and_switched_on() {
    let text = document();
    for name in names(&text) {
        assert_eq!(runs(name), Some(true), "{name} is missing or ignored");
    }
}

#[test]
fn every_scenario_has_a_row_and_at_least_34_have_a_test() {
    let text = document();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 3 && cells[0].parse::<u32>().is_ok())
        .collect();
    let numbers: Vec<u32> = rows.iter().map(|cells| cells[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=39).collect::<Vec<u32>>());
    let proved = rows.iter().filter(|cells| !names(cells[2]).is_empty()).count();
    assert!(proved >= 34, "{proved}");
    for cells in rows {
        assert!(cells[2].len() > 20, "{} has neither a test nor a reason", cells[0]);
    }
}
