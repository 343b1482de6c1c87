use super::numbers::goal::{Goal, Unit, Verdict};

fn met(goal: Goal, ours: f64, best: Option<f64>) -> bool {
    goal.judge(Unit::Milliseconds, ours, best) == Verdict::Met
}

#[test]
fn an_absolute_goal_needs_no_peer_and_is_met_by_equality() {
    assert!(met(Goal::AtMost(3.0), 3.0, None));
    assert!(!met(Goal::AtMost(3.0), 3.001, Some(100.0)));
    assert!(met(Goal::AtLeast(2.0), 2.0, None));
    assert!(!met(Goal::AtLeast(2.0), 1.999, None));
}

#[test]
fn zero_is_a_goal() {
    assert!(met(Goal::AtMost(0.0), 0.0, None));
    assert!(!met(Goal::AtMost(0.0), 0.01, None));
}

#[test]
fn a_goal_beside_a_peer_is_a_factor_and_something_on_top() {
    let goal = Goal::AtMostPeer { factor: 1.1, plus: 20.0 };
    assert!(met(goal, 130.0, Some(100.0)));
    assert!(!met(goal, 130.1, Some(100.0)));
    assert!(met(Goal::AtLeastPeer { factor: 2.0 }, 200.0, Some(100.0)));
    assert!(!met(Goal::AtLeastPeer { factor: 2.0 }, 199.0, Some(100.0)));
}

#[test]
fn without_a_peer_nothing_is_met_by_comparison() {
    let verdict = Goal::AtMostPeer { factor: 1.0, plus: 0.0 }.judge(Unit::Count, 0.0, None);
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?}");
}

#[test]
fn a_miss_is_said_in_figures() {
    let verdict = Goal::AtMost(3.0).judge(Unit::Megabytes, 7.7, None);
    assert_eq!(verdict, Verdict::Missed("7.70 MB > 3.00 MB".to_owned()));
    let verdict = Goal::AtLeastPeer { factor: 2.0 }.judge(Unit::MegabytesPerSecond, 150.0, Some(107.0));
    assert_eq!(verdict, Verdict::Missed("150 MB/s < 214 MB/s".to_owned()));
}

#[test]
fn goals_read_as_a_person_writes_them() {
    assert_eq!(Goal::AtMost(3.0).show(Unit::Megabytes), "≤ 3.00 MB");
    assert_eq!(Goal::AtMostPeer { factor: 1.0, plus: 0.0 }.show(Unit::Milliseconds), "≤ best peer");
    assert_eq!(
        Goal::AtMostPeer { factor: 1.0, plus: 20.0 }.show(Unit::Milliseconds),
        "≤ best peer + 20.0 ms"
    );
    assert_eq!(Goal::AtLeastPeer { factor: 2.0 }.show(Unit::MegabytesPerSecond), "≥ 2 × best peer");
}
