//! The status is made from the machine alone, so a few steps of it make every face; the table is compared as shown.

use super::*;
use crate::plan::Plan;
use crate::spec::{GivesUp, Kind, Ready, Room, ServiceSpec};
use crate::state::{Action, Core, Ending, Event, Found, Happened, Killer, Pid, Run, Seen};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn named(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

struct Scene {
    machine: Machine,
    begun: Instant,
    now: Instant,
    reported: BTreeMap<ServiceName, Reported>,
    output: BTreeMap<ServiceName, Vec<String>>,
}

impl Scene {
    /// `keeper`, `postgres` that requires it and reports health, and `web`, whose program is absent.
    fn new() -> Scene {
        let daemon = |n: &str| ServiceSpec::minimal(named(n), Kind::Daemon, vec![format!("/opt/{n}")]);
        let mut keeper = daemon("keeper");
        keeper.restart.max = 0;
        keeper.gives_up.default = GivesUp::Hold;
        let mut postgres = daemon("postgres");
        postgres.requires = vec![named("keeper")];
        postgres.ready = Ready::Notify;
        postgres.reports_health = Some(Duration::from_secs(10));
        let plan = Plan::new(vec![keeper, postgres, daemon("web")], Duration::from_secs(9), BTreeSet::new());
        let begun = Instant::now();
        let machine = Machine::new(plan.unwrap(), &BTreeSet::from([named("web")]), begun);
        let mut scene =
            Scene { machine, begun, now: begun, reported: BTreeMap::new(), output: BTreeMap::new() };
        scene.step(Event::Tick);
        scene
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.machine.step(event, self.now).0
    }

    fn say(&mut self, name: &str, what: Happened) {
        let run = self.machine.service(&named(name)).unwrap().run().unwrap_or(Run(0));
        self.step(Event::Service { name: named(name), run, what });
    }

    fn status(&self) -> Status {
        status(&self.machine, &self.reported, &self.output, self.begun, self.now)
    }

    fn health(&mut self, ok: bool, reason: &str) {
        let health = Some((ok, reason.to_owned(), self.now));
        self.reported.insert(named("postgres"), Reported { health, ..Reported::default() });
    }

    fn up(mut self) -> Scene {
        self.say("keeper", Happened::Spawned(Pid(10)));
        self.say("postgres", Happened::Spawned(Pid(11)));
        self.say("postgres", Happened::Ready);
        self
    }
}

#[test]
fn ready_needs_a_young_and_good_report_of_whoever_must_report() {
    let mut scene = Scene::new().up();
    let s = scene.status();
    assert_eq!(
        (s.state, s.reason.as_str()),
        (Overall::Degraded, "postgres: has not yet said that clients can be served")
    );
    scene.health(true, "");
    assert_eq!(scene.status().state, Overall::Ready);
    scene.now += Duration::from_secs(11);
    assert_eq!(scene.status().reason, "postgres: has said nothing for 11s");
    scene.health(false, "in recovery");
    assert_eq!(scene.status().reason, "postgres: in recovery");
}

#[test]
fn what_may_fail_on_its_own_makes_the_whole_degraded_and_nobody_unready() {
    let mut scene = Scene::new();
    let daemon = |n: &str| ServiceSpec::minimal(named(n), Kind::Daemon, vec![format!("/opt/{n}")]);
    let (mut postgres, mut api) = (daemon("postgres"), daemon("api"));
    postgres.gives_up.default = GivesUp::StopAll;
    api.gives_up.default = GivesUp::Degrade;
    api.restart.max = 0;
    let plan = Plan::new(vec![postgres, api], Duration::from_secs(9), BTreeSet::new()).unwrap();
    scene.machine = Machine::new(plan, &BTreeSet::new(), scene.begun);
    scene.step(Event::Tick);
    let not = |because: &str| Readiness::Not { because: because.to_owned() };
    assert_eq!(scene.status().readiness, not("starting: not ready yet: postgres"));
    scene.say("postgres", Happened::Spawned(Pid(10)));
    let status = scene.status();
    assert_eq!((status.state, status.readiness), (Overall::Starting, Readiness::Ready));
    scene.say("api", Happened::Spawned(Pid(11)));
    assert_eq!(scene.status().state, Overall::Ready);
    scene.say("api", Happened::Exited(Ending::Exited(3)));
    scene.say("api", Happened::DescentGone);
    let status = scene.status();
    assert_eq!((status.state, status.readiness), (Overall::Degraded, Readiness::Ready));
    assert!(status.reason.starts_with("api gave up"), "{}", status.reason);
    scene.step(Event::Stop("SIGTERM".to_owned()));
    assert_eq!(scene.status().readiness, not("stopping: SIGTERM"));

    // A oneshot that may fail counts until it has ended once, well or not.
    let (mut postgres, mut setup) = (daemon("postgres"), daemon("setup"));
    postgres.gives_up.default = GivesUp::StopAll;
    setup.kind = Kind::Oneshot;
    setup.gives_up.default = GivesUp::Degrade;
    setup.restart.max = 0;
    let plan = Plan::new(vec![postgres, setup], Duration::from_secs(9), BTreeSet::new()).unwrap();
    scene.machine = Machine::new(plan, &BTreeSet::new(), scene.begun);
    scene.step(Event::Tick);
    scene.say("postgres", Happened::Spawned(Pid(10)));
    scene.say("setup", Happened::Spawned(Pid(11)));
    assert_eq!(scene.status().readiness, not("starting: not ready yet: setup"));
    scene.say("setup", Happened::Exited(Ending::Exited(70)));
    scene.say("setup", Happened::DescentGone);
    assert_eq!((scene.status().state, scene.status().readiness), (Overall::Degraded, Readiness::Ready));

    // Where everything may fail, nothing less than everything is ready.
    let mut lone = daemon("lone");
    lone.gives_up.default = GivesUp::Degrade;
    let plan = Plan::new(vec![lone], Duration::from_secs(9), BTreeSet::new()).unwrap();
    scene.machine = Machine::new(plan, &BTreeSet::new(), scene.begun);
    scene.step(Event::Tick);
    assert_eq!(scene.status().readiness, not("starting: not ready yet: lone"));
}

#[test]
fn who_says_that_another_does_not_serve_makes_nothing_worse_than_starting_while_that_starts() {
    let mut scene = Scene::new();
    let health = Some((false, "Postgres is not running".to_owned(), scene.now));
    scene.machine = {
        let mut keeper = ServiceSpec::minimal(named("keeper"), Kind::Daemon, vec!["/opt/keeper".to_owned()]);
        keeper.reports_health = Some(Duration::from_secs(10));
        let mut postgres =
            ServiceSpec::minimal(named("postgres"), Kind::Daemon, vec!["/opt/postgres".to_owned()]);
        postgres.ready = Ready::Notify;
        let plan = Plan::new(vec![keeper, postgres], Duration::from_secs(9), BTreeSet::new()).unwrap();
        Machine::new(plan, &BTreeSet::new(), scene.begun)
    };
    scene.step(Event::Tick);
    scene.say("keeper", Happened::Spawned(Pid(10)));
    scene.say("postgres", Happened::Spawned(Pid(11)));
    scene.reported.insert(named("keeper"), Reported { health, ..Reported::default() });
    let status = scene.status();
    assert_eq!(status.state, Overall::Starting, "{}", status.reason);
    assert_eq!(status.reason, "not ready yet: postgres; keeper: Postgres is not running");
    scene.say("postgres", Happened::Ready);
    let status = scene.status();
    assert_eq!(
        (status.state, status.reason.as_str()),
        (Overall::Degraded, "keeper: Postgres is not running")
    );
}

#[test]
fn a_service_that_waits_says_for_whom() {
    let scene = Scene::new();
    let s = scene.status();
    assert_eq!((s.state, s.reason.as_str()), (Overall::Starting, "not ready yet: keeper, postgres"));
    assert_eq!((s.services[1].state.as_str(), s.services[1].detail.as_str()), ("waiting", "for keeper"));
    assert_eq!(
        (s.services[2].state.as_str(), s.services[2].detail.as_str()),
        ("absent", "/opt/web is not installed")
    );
}

#[test]
fn an_ending_is_shown_as_what_it_was_with_the_last_output() {
    let endings = [
        (Ending::Exited(3), "exit 3"),
        (
            Ending::Signaled { signal: Killer(Signal::SIGSEGV as i32), core: Core::Dumped },
            "SIGSEGV, core dumped",
        ),
        (Ending::OomKilled, "OOM killed"),
    ];
    for (ending, shown) in endings {
        let mut scene = Scene::new();
        scene.output.insert(named("keeper"), vec!["no such bucket".to_owned()]);
        scene.say("keeper", Happened::Spawned(Pid(10)));
        scene.say("keeper", Happened::Exited(ending));
        scene.say("keeper", Happened::DescentGone);
        let s = scene.status();
        assert_eq!((s.services[0].state.as_str(), s.services[0].last.as_deref()), ("held", Some(shown)));
        assert_eq!(s.services[0].output, ["no such bucket"]);
        assert_eq!(s.state, Overall::Degraded);
        assert!(s.services.iter().any(|x| x.name == "postgres" && x.state != "ready"));
    }
}

#[test]
fn a_service_that_could_not_be_started_says_what_the_system_said() {
    let mut scene = Scene::new();
    scene.say("keeper", Happened::SpawnFailed("ENOENT: /opt/keeper is not there".to_owned()));
    let last = scene.status().services[0].last.clone();
    assert_eq!(last.as_deref(), Some("could not be started: ENOENT: /opt/keeper is not there"));
}

#[test]
fn a_stop_is_said_with_its_reason_until_it_is_proved() {
    let mut scene = Scene::new().up();
    scene.step(Event::Stop("SIGTERM".to_owned()));
    let s = scene.status();
    assert_eq!((s.state, s.reason.as_str()), (Overall::Stopping, "SIGTERM"));
    assert_eq!(s.services[1].detail, "SIGTERM sent; SIGTERM");
    for name in ["postgres", "keeper"] {
        scene.say(name, Happened::Exited(Ending::Exited(0)));
        assert_eq!(scene.status().state, Overall::Stopping);
        scene.say(name, Happened::DescentGone);
    }
    let s = scene.status();
    assert_eq!((s.state, s.reason.as_str()), (Overall::Stopped, "stopped as asked"));
}

#[test]
fn the_shape_survives_its_own_json() {
    let mut scene = Scene::new().up();
    scene.health(true, "");
    let s = scene.status();
    let json = serde_json::to_string(&s).unwrap();
    assert!(json.starts_with("{\"version\":1,\"state\":\"ready\","), "{json}");
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), s);
}

#[test]
fn the_table_is_made_for_people() {
    let mut scene = Scene::new().up();
    scene.health(true, "");
    scene.now += Duration::from_secs(4);
    let row =
        Row { name: "backup".to_owned(), state: "unprotected".to_owned(), detail: "none yet".to_owned() };
    scene.reported.entry(named("keeper")).or_default().rows.push(row);
    assert_eq!(
        render(&scene.status(), 80, Colour::Off),
        "supafly: ready, up 4s\n\
         \n\
         SERVICE   STATE           FOR  DETAIL\n\
         keeper    ready            4s\n\
         \x20 backup  unprotected          none yet\n\
         postgres  ready            4s\n\
         web       absent           4s  /opt/web is not installed\n"
    );
    assert!(render(&scene.status(), 80, Colour::On).contains("\x1b[31m  backup"));
}

proptest! {
    #[test]
    fn no_line_is_longer_than_the_width_and_no_control_character_gets_through(
        texts in prop::collection::vec("\\PC{0,120}|[a-z \n\t\x1b]{0,60}", 5),
        width in 40usize..120,
    ) {
        let mut scene = Scene::new().up();
        let row = Row { name: texts[0].clone(), state: texts[1].clone(), detail: texts[2].clone() };
        scene.reported.insert(named("postgres"), Reported { rows: vec![row], ..Reported::default() });
        let mut s = scene.status();
        s.reason = texts[3].clone();
        s.services[0].output = vec![texts[4].clone()];
        for line in render(&s, width, Colour::Off).lines() {
            prop_assert!(line.chars().count() <= width, "{line:?}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn a_service_that_waits_for_room_says_so_to_everybody_and_what_to_do() {
    let mut db = ServiceSpec::minimal(named("db"), Kind::Daemon, vec!["/opt/db".to_owned()]);
    db.gives_up.default = GivesUp::StopAll;
    db.room = Some(Room { path: "/data".into(), bytes: 32 << 20, more: None, codes: BTreeSet::new() });
    let mut scene = Scene::new();
    let plan = Plan::new(vec![db], Duration::from_secs(9), BTreeSet::new()).unwrap();
    scene.machine = Machine::new(plan, &BTreeSet::new(), scene.begun);
    scene.step(Event::Tick);
    scene.output.insert(named("db"), vec!["PANIC: no space".to_owned()]);
    for what in [Happened::Spawned(Pid(9)), Happened::Exited(Ending::Exited(1)), Happened::DescentGone] {
        scene.say("db", what);
    }
    let row = scene.status().services.remove(0);
    assert_eq!(row.detail, "exit 1; whether it had room is being looked at");
    let lacking = Seen::Bytes { path: "/data".into(), free: 320 << 10, needed: 32 << 20 };
    scene.step(Event::Looked { name: named("db"), number: 1, found: Found::Lacking(lacking) });
    let mut status = scene.status();
    let lack = "no room on /data: 0.3 MB are free, 32 MB are needed: make room or grow the volume";
    let row = status.services.remove(0);
    assert_eq!((row.state.as_str(), row.restarts), ("no-room", 0));
    assert_eq!(row.detail, format!("{lack}; starts when there is; it ended with: exit 1"));
    assert_eq!(row.output, ["PANIC: no space"]);
    assert_eq!(status.readiness, Readiness::Not { because: format!("degraded: db: {lack}") });
}
