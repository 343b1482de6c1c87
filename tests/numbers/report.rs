use super::numbers::goal::{Goal, Unit};
use super::numbers::machine::Facts;
use super::numbers::report;
use super::numbers::row::{Condition, Context, Line, Measured, Peer, Row, Standing};
use super::numbers::rows::ROWS;
use super::numbers::stats::Samples;
use serde_json::Value;

fn never(_: &Context) -> Result<Measured, String> {
    Err("never".to_owned())
}

const fn row(goals: &'static [Goal]) -> Row {
    Row {
        name: "x",
        what: "It is x.",
        unit: Unit::Milliseconds,
        goals,
        run: never,
        when_missed: "It is far.",
    }
}

static AT_MOST_PEER: Row = row(&[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }]);
static AT_LEAST_PEER: Row = row(&[Goal::AtLeastPeer { factor: 2.0 }]);

fn peer(name: &str, standing: Standing, value: f64) -> Peer {
    Peer { name: name.to_owned(), standing, samples: Samples::new(vec![value]) }
}

fn measured(ours: f64, peers: Vec<Peer>) -> Measured {
    Measured { ours: Samples::new(vec![ours]).unwrap(), peers, conditions: vec![], notes: vec![] }
}

fn json(line: Line<'_>) -> Value {
    let list: Value = serde_json::from_str(&report::json(&[line])).unwrap();
    list.as_array().unwrap()[0].clone()
}

#[test]
fn the_best_rival_is_the_measure_and_a_reference_is_not() {
    let peers = vec![
        peer("slow", Standing::Rival, 9.0),
        peer("fast", Standing::Rival, 4.0),
        peer("cheat", Standing::Reference("leaves them running"), 1.0),
    ];
    let line = json(Line { row: &AT_MOST_PEER, outcome: Ok(measured(3.0, peers.clone())) });
    assert_eq!((line["peer"].as_str(), line["best_peer"].as_f64()), (Some("fast"), Some(4.0)));
    assert_eq!(line["met"], true);
    let line = json(Line { row: &AT_LEAST_PEER, outcome: Ok(measured(17.0, peers)) });
    assert_eq!(line["peer"], "slow");
    assert_eq!(line["met"], false);
    assert_eq!(line["why"], "17.0 ms < 18.0 ms; It is far.");
}

#[test]
fn a_row_that_could_not_be_run_is_there_unmet_and_says_why() {
    let line = json(Line { row: &AT_MOST_PEER, outcome: Err("no Postgres".to_owned()) });
    assert_eq!(line["ours"], Value::Null);
    assert_eq!(line["met"], false);
    assert_eq!(line["why"], "could not be run: no Postgres");
}

#[test]
fn a_missing_rival_is_named_and_without_it_nothing_is_met() {
    let absent =
        Peer { name: "s6".to_owned(), standing: Standing::Rival, samples: Err("not installed".to_owned()) };
    let alone = json(Line { row: &AT_MOST_PEER, outcome: Ok(measured(1.0, vec![absent.clone()])) });
    assert_eq!(alone["met"], false);
    assert!(alone["why"].as_str().unwrap().contains("s6 was not measured: not installed"), "{alone}");
    let two = json(Line {
        row: &AT_MOST_PEER,
        outcome: Ok(measured(1.0, vec![absent, peer("tini", Standing::Rival, 2.0)])),
    });
    assert_eq!(two["met"], false, "who is better than tini is not thereby better than s6");
    assert_eq!(two["why"], "cannot be judged without s6; s6 was not measured: not installed");
}

#[test]
fn a_condition_that_is_not_kept_costs_the_row() {
    let mut all = measured(1.0, vec![peer("tini", Standing::Rival, 2.0)]);
    all.conditions.push(Condition {
        what: "zombies left".to_owned(),
        value: 3.0,
        unit: Unit::Count,
        goal: Goal::AtMost(0.0),
    });
    let line = json(Line { row: &AT_MOST_PEER, outcome: Ok(all) });
    assert_eq!(line["met"], false);
    assert_eq!(line["goal"], "≤ best peer; zombies left ≤ 0.000");
}

#[test]
fn the_page_shows_all_samples_and_where_they_were_taken() {
    let line = Line {
        row: &AT_MOST_PEER,
        outcome: Ok(measured(1.0, vec![peer("a|b", Standing::Reference("for the eye"), 2.0)])),
    };
    let mut facts = Facts::default();
    facts.say("kernel", "9.9");
    let page = report::page(&[line], &facts);
    for part in ["- kernel: 9.9", "for the eye", "| supafly | 1.00 ms | 1.00 ms … 1.00 ms | 1 |", "It is x."]
    {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
}

#[test]
fn a_row_that_is_measured_again_replaces_the_former_one_and_says_when() {
    static OTHER: Row = Row { name: "y", ..row(&[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }]) };
    let of = |row, ours| Line { row, outcome: Ok(measured(ours, vec![peer("s6", Standing::Rival, 2.0)])) };
    let facts = |commit: &str| Facts(vec![("commit".to_owned(), commit.to_owned())]);
    let whole = [of(&AT_MOST_PEER, 1.0), of(&OTHER, 3.0)];
    let (list, page) = (report::json(&whole), report::page(&whole, &facts("aaaa")));
    assert!(page.contains("1 of 2 goals are met."), "{page}");
    let again =
        |lines: &[Line<'_>], list: &str, page: &str| report::renewed((list, page), lines, &facts("bbbb"));
    for (row, other, met) in [(&OTHER, &AT_MOST_PEER, "2 of 2"), (&AT_MOST_PEER, &OTHER, "1 of 2")] {
        let (list, page) = again(&[of(row, 1.5)], &list, &page).unwrap();
        let rows: Vec<Value> = serde_json::from_str(&list).unwrap();
        let ours = |name: &str| rows.iter().find(|r| r["name"] == name).unwrap()["ours"].as_f64().unwrap();
        assert_eq!((rows.len(), ours(row.name)), (2, 1.5), "{list}");
        assert!(ours(other.name) != 1.5, "{list}");
        assert!(page.contains(&format!("{met} goals are met.")), "{page}");
        assert_eq!(page.matches("Measured again on ? at commit bbbb").count(), 1, "{page}");
        // Twice is not more than once.
        let (twice, page_twice) = again(&[of(row, 1.5)], &list, &page).unwrap();
        assert_eq!((twice, page_twice), (list, page));
    }
    let of_one = report::json(&whole[..1]);
    let why = again(&[of(&OTHER, 1.0)], &of_one, &page).unwrap_err();
    assert!(why.contains("`y` is not in the report"), "{why}");
}

#[test]
fn the_reason_of_a_row_is_none_for_its_conditions_nor_for_a_peer_that_is_not_there() {
    let mut kept = measured(1.0, vec![peer("s6", Standing::Rival, 2.0)]);
    kept.conditions.push(Condition {
        what: "left".to_owned(),
        value: 3.0,
        unit: Unit::Milliseconds,
        goal: Goal::AtMost(0.0),
    });
    let line = json(Line { row: &AT_MOST_PEER, outcome: Ok(kept) });
    assert!(!line["why"].as_str().unwrap().contains("It is far."), "{line}");
    let gone = Peer { name: "tini".to_owned(), standing: Standing::Rival, samples: Err("broke".to_owned()) };
    let line =
        Line { row: &AT_MOST_PEER, outcome: Ok(measured(1.0, vec![peer("s6", Standing::Rival, 2.0), gone])) };
    let line = json(line);
    assert_eq!(line["met"], false, "better than s6 is not better than tini");
    assert!(
        line["why"].as_str().unwrap().starts_with("cannot be judged without tini; tini was not"),
        "{line}"
    );
}

#[test]
fn no_row_of_the_issue_is_missing() {
    let names: Vec<_> = ROWS.iter().map(|r| r.name).collect();
    let wanted = "pss_idle_six pss_all_roles idle_cpu idle_wakeups start_six start_chain_six stop_child stop_pid1 \
                  stop_postgres_client restart_killed orphans_20k orphans_burst_5k log_json_blocks log_json_lines \
                  log_text_blocks log_stalled_rss boot_postgres boot_stack wal_out_0ms wal_out_50ms wal_in_0ms \
                  wal_in_50ms wal_client pgbench_archiving backup restore";
    assert_eq!(names.join(" "), wanted);
    assert!(ROWS.iter().all(|r| !r.goals.is_empty()), "a row without a goal");
}
