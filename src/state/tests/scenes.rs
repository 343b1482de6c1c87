//! What the random histories reach seldom, step by step.

use super::super::*;
use crate::plan::Plan;
use crate::spec::{AfterOutage, Check, Kind, Live, OutageSignals, Probe, Ready, ServiceSpec};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

struct Scene {
    machine: Machine,
    now: Instant,
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn probe(failures: u32) -> Probe {
    Probe {
        check: Check::Tcp { port: 1 },
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        failures,
    }
}

/// `db`, and `api` after it, which is probed and does not find back by itself after an outage.
fn scene(change: impl FnOnce(&mut ServiceSpec)) -> Scene {
    let db = ServiceSpec::minimal(name("db"), Kind::Daemon, vec!["/bin/db".to_owned()]);
    let mut api = ServiceSpec::minimal(name("api"), Kind::Daemon, vec!["/bin/api".to_owned()]);
    api.requires = vec![name("db")];
    api.ready = Ready::Probe(probe(2));
    change(&mut api);
    let now = Instant::now();
    let plan = Plan::new(vec![db, api], Duration::from_secs(9), BTreeSet::new()).unwrap();
    let mut scene = Scene { machine: Machine::new(plan, &BTreeSet::new(), now), now };
    scene.step(Event::Tick);
    scene.spawned("db");
    scene.spawned("api");
    scene.says("api", Happened::Ready);
    scene
}

impl Scene {
    fn step(&mut self, event: Event) -> (Vec<Action>, Answer) {
        self.machine.step(event, self.now)
    }

    fn says(&mut self, service: &str, what: Happened) -> Vec<Action> {
        let run = self.machine.service(&name(service)).unwrap().run().unwrap();
        self.step(Event::Service { name: name(service), run, what }).0
    }

    fn spawned(&mut self, service: &str) -> Vec<Action> {
        self.says(service, Happened::Spawned(Pid(7)))
    }

    fn wait(&mut self, ms: u64) -> Vec<Action> {
        self.now += Duration::from_millis(ms);
        self.step(Event::Tick).0
    }

    fn state(&self, service: &str) -> State {
        self.machine.service(&name(service)).unwrap().state().clone()
    }

    fn serves(&self, service: &str) -> bool {
        matches!(self.state(service), State::Ready { up, .. } if up.fitness == Fitness::Fit)
    }

    /// `db` dies, is away for so long, and comes back.
    fn outage(&mut self, ms: u64) {
        self.says("db", Happened::Exited(Ending::Exited(1)));
        self.says("db", Happened::DescentGone);
        self.wait(0);
        for _ in 0..2 {
            self.says("api", Happened::Unready("503".to_owned()));
        }
        assert!(!self.serves("api"));
        self.wait(ms);
        self.spawned("db");
    }
}

fn signalled(actions: &[Action], service: &str) -> bool {
    actions.iter().any(|a| matches!(a, Action::Signal { name: n, .. } if *n == name(service)))
}

fn after_outage(api: &mut ServiceSpec) {
    api.after_outage = Some(AfterOutage {
        of: name("db"),
        longer_than: Duration::from_secs(8),
        ready_within: Duration::from_secs(2),
    });
}

#[test]
fn how_long_it_is_ready_or_unready_counts_from_the_turn_and_not_from_the_newest_answer() {
    let mut s = scene(|_| {});
    let for_ms = |s: &Scene| {
        let service = s.machine.service(&name("api")).unwrap();
        s.now.duration_since(service.since()).as_millis()
    };
    s.wait(60_000);
    assert_eq!(for_ms(&s), 60_000, "of being ready");
    s.says("api", Happened::Unready("503".to_owned()));
    assert_eq!(for_ms(&s), 60_000, "one bad answer is none");
    for unready in [0, 1_000, 2_000] {
        s.says("api", Happened::Unready(format!("503 after {unready}")));
        assert_eq!(for_ms(&s), unready, "of being unready");
        s.wait(1_000);
    }
    for ready in [0, 1_000] {
        s.says("api", Happened::Ready);
        assert_eq!(for_ms(&s), ready, "of being ready again");
        s.wait(1_000);
    }
    s.step(Event::Freeze("USR1".to_owned()));
    s.says("api", Happened::Frozen);
    s.says("db", Happened::Frozen);
    s.wait(60_000);
    assert_eq!(for_ms(&s), 60_000, "of standing still");
    s.step(Event::Thaw("USR2".to_owned()));
    assert_eq!(for_ms(&s), 2_000, "of being ready again, without what it stood");
}

#[test]
fn a_readiness_that_is_red_restarts_nothing_and_green_again_is_ready_again() {
    let mut s = scene(|_| {});
    assert!(s.says("api", Happened::Unready("503".to_owned())).is_empty());
    assert!(s.serves("api"), "one bad answer is none");
    assert!(s.says("api", Happened::Unready("503".to_owned())).is_empty());
    assert!(!s.serves("api"));
    for _ in 0..100 {
        assert!(s.says("api", Happened::Unready("503".to_owned())).is_empty());
        assert!(s.wait(60_000).is_empty());
    }
    s.says("api", Happened::Ready);
    assert!(s.serves("api"));
}

#[test]
fn who_is_not_back_after_a_long_outage_is_started_again() {
    let mut s = scene(after_outage);
    s.outage(9_000);
    assert!(!signalled(&s.wait(1_900), "api"), "it has its time");
    assert!(signalled(&s.wait(200), "api"));
    assert!(matches!(s.state("api"), State::Stopping { then: Then::Failed(Why::AfterOutage(_)), .. }));
}

#[test]
fn who_finds_back_by_itself_and_who_was_away_shortly_are_left_alone() {
    let mut s = scene(after_outage);
    s.outage(9_000);
    s.says("api", Happened::Ready);
    assert!(!signalled(&s.wait(60_000), "api"));
    let mut s = scene(after_outage);
    s.outage(7_000);
    assert!(!signalled(&s.wait(60_000), "api"));
    let mut s = scene(|_| {});
    s.outage(60_000);
    assert!(!signalled(&s.wait(60_000), "api"), "nobody asked for it");
}

#[test]
fn who_wants_to_know_of_an_outage_is_told_before_it_begins_and_after_it_has_ended() {
    let told = |actions: &[Action]| {
        actions.iter().position(
            |a| matches!(a, Action::Tell { name: n, signal: Signal::SIGUSR1, .. } if *n == name("api")),
        )
    };
    let mut s = scene(|api| {
        let (begins, ends) = (Signal::SIGUSR1, Signal::SIGUSR2);
        api.outage_signals = Some(OutageSignals { of: name("db"), begins, ends });
    });
    let by = "a test".to_owned();
    let (actions, _) = s.step(Event::RestartOne { name: name("db"), dependents: Dependents::Keep, by });
    assert!(told(&actions) == Some(0) && signalled(&actions, "db"), "{actions:?}");
    assert!(told(&s.wait(1)).is_none(), "once");
    s.says("db", Happened::Exited(Ending::Exited(0)));
    s.says("db", Happened::DescentGone);
    let back = s.spawned("db");
    let ended =
        |a: &Action| matches!(a, Action::Tell { name: n, signal: Signal::SIGUSR2, .. } if *n == name("api"));
    assert_eq!(back.iter().filter(|a| ended(a)).count(), 1, "{back:?}");
}

#[test]
fn silence_ends_a_service_after_its_grace_and_its_threshold_and_it_comes_back_at_once() {
    let mut s = scene(|api| api.live = Some(Live { probe: probe(2), grace: Duration::from_secs(5) }));
    let silent = || Happened::NotLive("timeout".to_owned());
    for _ in 0..5 {
        assert!(s.says("api", silent()).is_empty(), "grace");
    }
    s.wait(6_000);
    assert!(s.says("api", silent()).is_empty());
    s.says("api", Happened::Live);
    assert!(s.says("api", silent()).is_empty(), "in a row, not in all");
    assert!(signalled(&s.says("api", silent()), "api"));
    s.says("api", Happened::Exited(Ending::Exited(0)));
    s.says("api", Happened::DescentGone);
    assert!(matches!(s.state("api"), State::Spawning { .. }), "it had been ready: {:?}", s.state("api"));
}

#[test]
fn a_freeze_waits_for_the_answer_of_who_quiesces_and_no_longer_than_its_deadline() {
    let quiesces = |api: &mut ServiceSpec| api.quiesces = Some(Duration::from_secs(3));
    let mut s = scene(quiesces);
    let (actions, answer) = s.step(Event::Freeze("USR1".to_owned()));
    assert_eq!(answer, Answer::Accepted);
    assert!(matches!(actions.as_slice(), [Action::Quiesce { .. }]), "{actions:?}");
    assert!(s.wait(2_900).is_empty());
    let actions = s.says("api", Happened::Quiesced);
    let frozen = |a: &Action| if let Action::Freeze { name, .. } = a { Some(name.to_string()) } else { None };
    let frozen: Vec<String> = actions.iter().filter_map(frozen).collect();
    assert_eq!(frozen, ["api", "db"], "who uses a service stands before it");
    let mut s = scene(quiesces);
    s.step(Event::Freeze("USR1".to_owned()));
    assert_eq!(s.wait(3_000).iter().filter(|a| matches!(a, Action::Freeze { .. })).count(), 2);
    s.says("api", Happened::Frozen);
    assert!(matches!(s.machine.whole(), Whole::Freezing { .. }));
    s.says("db", Happened::Frozen);
    assert!(matches!(s.machine.whole(), Whole::Frozen { .. }));
    let (actions, _) = s.step(Event::Thaw("USR2".to_owned()));
    let told = actions.iter().any(|a| matches!(a, Action::Resume { name: n, .. } if *n == name("api")));
    assert!(told && actions.iter().filter(|a| matches!(a, Action::Thaw { .. })).count() == 2, "{actions:?}");
}

#[test]
fn a_freeze_that_meets_work_under_way_is_undone_whole_and_says_why() {
    let mut s = scene(|_| {});
    s.step(Event::Freeze("USR1".to_owned()));
    s.says("api", Happened::Frozen);
    let actions = s.says("db", Happened::Busy("`db` has work under way: sh, pid 3".to_owned()));
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::Thaw { .. })).count(), 2, "{actions:?}");
    assert!(matches!(s.machine.whole(), Whole::Up) && s.serves("api") && s.serves("db"));
    assert_eq!(s.machine.not_frozen_because(), Some("`db` has work under way: sh, pid 3"));
    s.step(Event::Freeze("USR1".to_owned()));
    let actions = s.wait(6_000);
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::Thaw { .. })).count(), 2, "too late");
    let (_, answer) = s.step(Event::Thaw("USR2".to_owned()));
    assert_eq!(answer, Answer::Nothing("nothing is frozen".to_owned()));
}

#[test]
fn a_stop_thaws_first_and_a_frozen_service_takes_no_wishes() {
    let mut s = scene(|_| {});
    s.step(Event::Freeze("USR1".to_owned()));
    for service in ["api", "db"] {
        s.says(service, Happened::Frozen);
    }
    let (_, answer) =
        s.step(Event::StopOne { name: name("api"), dependents: Dependents::Keep, by: "me".to_owned() });
    assert!(matches!(answer, Answer::Rejected(why) if why.contains("thaw")));
    let (actions, _) = s.step(Event::Stop("SIGTERM".to_owned()));
    let right =
        matches!(actions.as_slice(), [Action::Thaw { .. }, Action::Thaw { .. }, Action::Signal { .. }]);
    assert!(right, "{actions:?}");
}

#[test]
fn a_stop_that_pulls_the_ground_away_is_refused_by_name() {
    let mut s = scene(|_| {});
    let stop = |dependents| Event::StopOne { name: name("db"), dependents, by: "me".to_owned() };
    let (actions, answer) = s.step(stop(Dependents::Keep));
    assert!(actions.is_empty());
    let why = "`api` runs and comes after `db`: stop that first, or add --with-dependents";
    assert_eq!(answer, Answer::Rejected(why.to_owned()));
    let (actions, answer) = s.step(stop(Dependents::Too));
    assert_eq!(answer, Answer::Accepted);
    assert!(signalled(&actions, "api") && !signalled(&actions, "db"));
    s.says("api", Happened::Exited(Ending::Exited(0)));
    assert!(signalled(&s.says("api", Happened::DescentGone), "db"));
}

#[test]
fn a_realtime_signal_has_a_name() {
    assert_eq!(Killer(36).to_string(), "SIGRTMIN+2");
    assert_eq!(Killer(33).to_string(), "signal 33");
    assert_eq!(Killer(11).to_string(), "SIGSEGV");
}

fn stop(service: &str, dependents: Dependents) -> Event {
    Event::StopOne { name: name(service), dependents, by: "me".to_owned() }
}

#[test]
fn a_fence_holds_what_somebody_has_stopped() {
    let mut s = scene(|api| api.fence_by = Some(name("db")));
    s.step(stop("api", Dependents::Keep));
    s.says("api", Happened::Exited(Ending::Exited(0)));
    s.says("api", Happened::DescentGone);
    assert!(matches!(s.state("api"), State::Down(_)));
    s.step(Event::Fence { by: name("db"), why: "epoch 4 is taken".to_owned() });
    let (actions, answer) = s.step(Event::Start(name("api")));
    assert!(actions.is_empty() && matches!(answer, Answer::Rejected(_)), "{answer:?} {actions:?}");
}

#[test]
fn a_start_wished_at_the_last_crash_is_a_start() {
    let mut s = scene(|api| api.restart.max = 0);
    s.says("api", Happened::Exited(Ending::Exited(1)));
    assert_eq!(s.step(Event::Start(name("api"))).1, Answer::Accepted);
    s.says("api", Happened::DescentGone);
    assert!(matches!(s.state("api"), State::Spawning { .. }), "{:?}", s.state("api"));
    let mut s = scene(|api| api.live = Some(Live { probe: probe(1), grace: Duration::ZERO }));
    s.says("api", Happened::NotLive("timeout".to_owned()));
    assert_eq!(s.step(Event::Start(name("api"))).1, Answer::Accepted);
}

#[test]
fn what_is_to_go_is_not_frozen_and_thawed_by_its_own_turn() {
    let mut s = scene(|api| api.freezing = crate::spec::Freezing::GoesOn);
    s.step(stop("db", Dependents::Too));
    let (actions, answer) = s.step(Event::Freeze("USR1".to_owned()));
    assert_eq!(answer, Answer::Rejected("`db` is going down".to_owned()));
    assert!(actions.is_empty(), "{actions:?}");
}

#[test]
fn what_is_to_go_does_not_come_up_first() {
    let mut s = scene(|_| {});
    s.says("db", Happened::Exited(Ending::Exited(1)));
    s.says("db", Happened::DescentGone);
    s.spawned("db");
    s.says("db", Happened::Exited(Ending::Exited(1)));
    s.says("db", Happened::DescentGone);
    assert!(matches!(s.state("db"), State::Backoff { .. }), "{:?}", s.state("db"));
    s.step(stop("db", Dependents::Too));
    let actions = s.wait(60_000);
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "{actions:?}");
    s.says("api", Happened::Exited(Ending::Exited(0)));
    s.says("api", Happened::DescentGone);
    assert!(matches!(s.state("db"), State::Down(_)), "{:?}", s.state("db"));
}

#[test]
fn nobody_comes_back_on_a_service_that_is_to_go() {
    let spec = |n: &str| ServiceSpec::minimal(name(n), Kind::Daemon, vec![format!("/bin/{n}")]);
    let (mut api, mut worker) = (spec("api"), spec("worker"));
    api.requires = vec![name("db")];
    worker.requires = vec![name("db")];
    let now = Instant::now();
    let plan = Plan::new(vec![spec("db"), api, worker], Duration::from_secs(9), BTreeSet::new()).unwrap();
    let mut s = Scene { machine: Machine::new(plan, &BTreeSet::new(), now), now };
    s.step(Event::Tick);
    ["db", "api"].into_iter().for_each(|n| drop(s.spawned(n)));
    s.says("worker", Happened::SpawnFailed("EAGAIN".to_owned()));
    assert!(matches!(s.state("worker"), State::Backoff { .. }), "{:?}", s.state("worker"));
    // `api` takes its time to go.
    s.step(stop("db", Dependents::Too));
    s.now += Duration::from_millis(1_500);
    let (actions, _) = s.step(Event::Tick);
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "{actions:?}");
}

#[test]
fn many_ways_through_the_graph_are_not_walked_one_by_one() {
    let spec = |n: String| ServiceSpec::minimal(name(&n), Kind::Daemon, vec!["/bin/x".to_owned()]);
    let pair = |layer: usize| [name(&format!("a{layer}")), name(&format!("b{layer}"))];
    let mut specs = Vec::new();
    for layer in 0..40 {
        for own in pair(layer) {
            let mut spec = spec(own.to_string());
            spec.requires = if layer == 0 { Vec::new() } else { pair(layer - 1).to_vec() };
            specs.push(spec);
        }
    }
    let mut last = spec("last".to_owned());
    last.after = pair(39).to_vec();
    specs.push(last);
    let now = Instant::now();
    let plan = Plan::new(specs, Duration::from_secs(9), BTreeSet::new()).unwrap();
    let mut machine = Machine::new(plan, &BTreeSet::new(), now);
    machine.step(Event::Tick, now);
    assert!(!machine.is_blocked(&name("last")));
    assert!(machine.waits_for(&name("last")).is_some());
}

#[test]
fn two_that_die_together_do_not_come_back_together_and_none_waits_longer_than_its_delay() {
    let first = ServiceSpec::minimal(name("first"), Kind::Daemon, vec!["/bin/x".to_owned()]);
    let second = ServiceSpec { name: name("second"), ..first.clone() };
    let now = Instant::now();
    let plan = Plan::new(vec![first, second], Duration::from_secs(9), BTreeSet::new()).unwrap();
    let mut s = Scene { machine: Machine::new(plan, &BTreeSet::new(), now), now };
    s.step(Event::Tick);
    for full in [1, 2, 4].map(Duration::from_secs) {
        let fails = |service: &&str| {
            s.says(service, Happened::SpawnFailed("ENOENT".to_owned()));
            let State::Backoff { until, .. } = s.state(service) else { panic!("it failed") };
            until
        };
        let until: Vec<Instant> = ["first", "second"].iter().map(fails).collect();
        assert_ne!(until[0], until[1], "after {full:?}");
        for at in &until {
            let delay = at.duration_since(s.now);
            assert!(delay <= full && delay >= full * 9 / 10, "{delay:?} of {full:?}");
        }
        s.now = until[0].max(until[1]);
        s.step(Event::Tick);
    }
}
