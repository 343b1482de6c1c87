//! Plans that hold, and plans that are refused with the words that an operator reads.

use super::*;
use crate::spec::{Manner, Rung, StopLadder};
use nix::sys::signal::Signal;
use proptest::prelude::*;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn service(n: &str, kind: Kind, requires: &[&str], after: &[&str], rungs: &[Length]) -> ServiceSpec {
    let mut spec = ServiceSpec::minimal(name(n), kind, vec!["/bin/true".into()]);
    spec.requires = requires.iter().map(|n| name(n)).collect();
    spec.after = after.iter().map(|n| name(n)).collect();
    let rungs =
        rungs.iter().map(|l| Rung { signal: Signal::SIGTERM, length: *l, manner: Manner::Orderly }).collect();
    spec.stop = StopLadder::new(rungs).unwrap();
    spec
}

fn supafly(budget: Duration) -> Plan {
    let one = [Length::Share(1)];
    let specs = vec![
        service("secrets", Kind::Oneshot, &[], &[], &one),
        service("claim", Kind::Oneshot, &["secrets"], &[], &one),
        service("keeper", Kind::Daemon, &["claim"], &[], &[Length::Share(3)]),
        service("datadir", Kind::Oneshot, &["claim"], &["keeper"], &[Length::Share(2)]),
        service("postgres", Kind::Daemon, &["datadir"], &["keeper"], &[Length::Share(5), Length::Share(1)]),
    ];
    Plan::new(specs, budget, BTreeSet::new()).unwrap()
}

#[test]
fn the_budget_is_split_along_the_longest_way_down_and_keeps_a_reserve() {
    let plan = supafly(Duration::from_secs(9));
    let total = plan.share(&name("postgres")) + plan.share(&name("keeper"));
    assert!(total <= plan.last_call() && total + Duration::from_millis(50) > plan.last_call(), "{total:?}");
    assert!(plan.rungs(&name("postgres"))[0] > Duration::from_secs(4));
    assert_eq!(plan.last_call(), Duration::from_millis(8550));
    assert_eq!(plan.split()[0].name, name("postgres"));
}

#[test]
fn a_cycle_is_named_in_its_order() {
    let one = [Length::Share(1)];
    let specs = vec![
        service("a", Kind::Daemon, &["b"], &[], &one),
        service("b", Kind::Daemon, &[], &["c"], &one),
        service("c", Kind::Daemon, &["a"], &[], &one),
    ];
    let problems = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    assert_eq!(problems[0].to_string(), "a.toml: a cycle: a → b → c → a wait for each other");
}

#[test]
fn every_unknown_name_is_reported() {
    let one = [Length::Share(1)];
    let specs = vec![service("a", Kind::Daemon, &["x"], &["y"], &one)];
    let problems = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].to_string().contains("names `x`, which is no service; there are a"));
}

#[test]
fn of_two_that_would_be_asked_to_quiesce_the_second_is_refused() {
    let one = [Length::Share(1)];
    let mut specs =
        vec![service("a", Kind::Daemon, &[], &[], &one), service("b", Kind::Daemon, &[], &[], &one)];
    specs.iter_mut().for_each(|s| s.quiesces = Some(Duration::from_secs(1)));
    let problems = Plan::new(specs.clone(), Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    let said = "b.toml: handles = \"quiesce\", as `a` does: only one service can be asked";
    assert_eq!(problems[0].to_string(), said);
    specs[0].quiesces = None;
    assert!(Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).is_ok());
}

#[test]
fn waits_that_do_not_fit_the_budget_are_refused() {
    let specs = vec![
        service("db", Kind::Daemon, &[], &[], &[Length::Wait(Duration::from_secs(6))]),
        service("web", Kind::Daemon, &["db"], &[], &[Length::Wait(Duration::from_secs(4))]),
    ];
    let problems = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    let shown = problems[0].to_string();
    assert!(shown.starts_with("web.toml:") && shown.contains("SUPAFLY_STOP_BUDGET"), "{shown}");
}

#[test]
fn a_budget_that_leaves_nothing_for_a_share_is_refused() {
    let specs = vec![
        service("db", Kind::Daemon, &[], &[], &[Length::Wait(Duration::from_millis(8_550))]),
        service("web", Kind::Daemon, &["db"], &[], &[Length::Share(1)]),
    ];
    let problems = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    assert!(problems[0].to_string().starts_with("web.toml: the stop budget of 9s leaves"), "{problems:?}");
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let one = [Length::Share(1)];
    let specs = vec![service("a", Kind::Daemon, &[], &[], &one), service("a", Kind::Oneshot, &[], &[], &one)];
    let problems = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap_err();
    assert_eq!(problems[0].to_string(), "a.toml: `a` is there twice");
}

#[test]
fn giving_up_asks_the_code_first_then_the_environment() {
    let plan =
        Plan::new(vec![], Duration::from_secs(9), BTreeSet::from(["FLY_MACHINE_ID".to_owned()])).unwrap();
    let rule = GivesUpRule {
        default: GivesUp::StopAll,
        when_env: BTreeMap::from([("FLY_MACHINE_ID".to_owned(), GivesUp::Hold)]),
        codes: BTreeMap::from([(3, GivesUp::Degrade)]),
    };
    assert_eq!(plan.giving_up(&rule, Some(3)), GivesUp::Degrade);
    assert_eq!(plan.giving_up(&rule, Some(4)), GivesUp::Hold);
    let elsewhere = Plan::new(vec![], Duration::from_secs(9), BTreeSet::new()).unwrap();
    assert_eq!(elsewhere.giving_up(&rule, Some(4)), GivesUp::StopAll);
}

proptest! {
    #[test]
    fn an_order_has_every_dependency_first_and_every_way_down_fits(
        edges in prop::collection::vec((0usize..8, 0usize..8, any::<bool>()), 0..20),
        kinds in prop::collection::vec(any::<bool>(), 8),
        budget_ms in 500u64..300_000,
    ) {
        let names: Vec<String> = (0..8).map(|i| format!("s{i}")).collect();
        let specs: Vec<_> = (0..8).map(|i| {
            let pick = |strong: bool| -> Vec<&str> {
                let mut v: Vec<&str> = edges.iter().filter(|(a, b, s)| *a == i && *b < i && *s == strong)
                    .map(|(_, b, _)| names[*b].as_str()).collect();
                v.sort_unstable();
                v.dedup();
                v
            };
            let kind = if kinds[i] { Kind::Daemon } else { Kind::Oneshot };
            service(&names[i], kind, &pick(true), &pick(false), &[Length::Share(1 + i as u32 % 3)])
        }).collect();
        let budget = Duration::from_millis(budget_ms);
        let plan = Plan::new(specs.clone(), budget, BTreeSet::new()).unwrap();
        for (at, n) in plan.order().iter().enumerate() {
            for d in dependencies(plan.spec(n).unwrap()) {
                prop_assert!(plan.order()[..at].contains(d));
            }
        }
        let by_name: BTreeMap<_, _> = specs.into_iter().map(|s| (s.name.clone(), s)).collect();
        let unit = unit(&by_name, plan.order(), plan.last_call()).unwrap();
        let (_, needs) = longest(&by_name, plan.order(), unit).unwrap();
        prop_assert!(needs <= plan.last_call());
        prop_assert!(plan.last_call() < budget);
    }
}
