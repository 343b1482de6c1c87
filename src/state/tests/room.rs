//! The file system's side of the histories: what is found when somebody looks for room.

use super::world::World;
use super::*;

impl World {
    /// Somebody looks: never while a look is under way, never without a pause, never while everything stops.
    pub(super) fn look(&mut self, name: &ServiceName, number: u64) -> Result<(), String> {
        promise!(self.stopping.is_none(), "{name} is looked after while everything stops");
        promise!(!self.processes.contains_key(name), "{name} is looked after while it lives");
        if let Some((before, at)) = self.looks.insert(name.clone(), (number, self.now)) {
            promise!(number > before, "look {number} of {name} comes after look {before}");
            let paused = self.now.duration_since(at) >= Duration::from_secs(2);
            promise!(paused, "{name} is looked after without a pause");
        }
        Ok(())
    }

    /// What a look finds: enough, too little of either, nothing to be seen, or the answer of a former look.
    pub(super) fn looked(&mut self, name: &ServiceName, what: u8) -> Result<(), String> {
        let Some((number, _)) = self.looks.get(name).copied() else { return Ok(()) };
        self.step(Event::Tick)?;
        let State::Cramped(Cramped { look, last, why, ready_for }) = self.state(name).clone() else {
            return self.stale_look(name, number);
        };
        let seen = match what {
            1 => Seen::Bytes { path: "/data".into(), free: 7, needed: 32 << 20 },
            _ => Seen::Files { path: "/data".into(), free: 0 },
        };
        let found = match what {
            0 => Found::Enough,
            1 | 2 => Found::Lacking(seen),
            3 => Found::Unknown("no answer".to_owned()),
            _ => return self.stale_look(name, number - 1),
        };
        let codes = &self.machine.service(name).unwrap().spec().room.as_ref().unwrap().codes;
        let said = last.code().is_some_and(|code| codes.contains(&code));
        // What was of use, or was killed, may well come back as it is.
        let vain = said
            || (why.is_none()
                && ready_for.is_none_or(|d| d < Duration::from_secs(10))
                && matches!(last, Ending::Exited(_) | Ending::SpawnFailed(_)));
        let long_enough = self.cramped.get(name).is_some_and(|until| self.now >= *until);
        let (lacks, goes_on) = match (&look, &found) {
            (Look::Rests { .. }, _) => return self.stale_look(name, number),
            (Look::First { .. }, Found::Lacking(_)) => (vain, !vain),
            (Look::Again { .. }, Found::Lacking(_)) => (!long_enough, long_enough),
            (Look::First { .. }, Found::Enough | Found::Unknown(_)) => (said, !said),
            (Look::Again { .. }, Found::Enough) => (false, true),
            (Look::Again { lack, .. }, Found::Unknown(_)) => {
                let seen = matches!(lack, Lack::Seen(_));
                (seen && !long_enough, !seen || long_enough)
            }
        };
        // Whoever only says so is tried again without a word of the file system.
        if lacks && matches!(look, Look::First { .. }) {
            self.cramped.insert(name.clone(), self.now + Duration::from_secs(30));
        }
        if goes_on {
            self.cramped.remove(name);
        }
        self.step(Event::Looked { name: name.clone(), number, found })?;
        let rests = matches!(self.state(name), State::Cramped(Cramped { look: Look::Rests { .. }, .. }));
        promise!(!lacks || rests, "{name} has no room and is {:?}", self.state(name));
        promise!(!goes_on || !rests, "{name} waits for room that it has");
        Ok(())
    }

    fn stale_look(&mut self, name: &ServiceName, number: u64) -> Result<(), String> {
        let before: Vec<State> = self.machine.services().map(|s| s.state().clone()).collect();
        let event = Event::Looked { name: name.clone(), number, found: Found::Enough };
        let (actions, _) = self.machine.step(event, self.now);
        let after: Vec<State> = self.machine.services().map(|s| s.state().clone()).collect();
        promise!(actions.is_empty() && before == after, "a stale look of {name} changed something");
        Ok(())
    }

    /// The services whose first look after an end is under way.
    pub(super) fn looked_at(&self) -> BTreeSet<ServiceName> {
        let first = |n: &&ServiceName| {
            matches!(self.state(n), State::Cramped(Cramped { look: Look::First { .. }, .. }))
        };
        self.names.iter().filter(first).cloned().collect()
    }

    /// Whoever waits for room now has made no attempt.
    pub(super) fn forgive(&mut self, looked_at: &BTreeSet<ServiceName>) {
        for name in looked_at {
            if matches!(self.state(name), State::Cramped(Cramped { look: Look::Rests { .. }, .. })) {
                self.starts.entry(name.clone()).or_default().pop();
            }
        }
    }
}

/// `db` alone, which needs room, is up, and may be started again twice.
fn needs_room(codes: &[u8]) -> (Machine, std::time::Instant) {
    let mut db = ServiceSpec::minimal(named(0), Kind::Daemon, vec!["/bin/db".to_owned()]);
    db.room = Some(Room {
        path: "/data".into(),
        bytes: 32 << 20,
        more: None,
        codes: codes.iter().copied().collect(),
    });
    db.restart.max = 2;
    db.gives_up.default = GivesUp::StopAll;
    let now = std::time::Instant::now();
    let mut machine =
        Machine::new(Plan::new(vec![db], BUDGET, BTreeSet::new()).unwrap(), &BTreeSet::new(), now);
    machine.step(Event::Tick, now);
    (machine, now)
}

/// It comes up, ends with this code, and its look is answered; what the look was.
fn fails(machine: &mut Machine, code: u8, found: Found, now: std::time::Instant) {
    let run = machine.service(&named(0)).unwrap().run().unwrap();
    let say = |what| Event::Service { name: named(0), run, what };
    for what in [Happened::Spawned(Pid(7)), Happened::Exited(Ending::Exited(code))] {
        machine.step(say(what), now);
    }
    let (actions, _) = machine.step(say(Happened::DescentGone), now);
    let [Action::Look { number, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    machine.step(Event::Looked { name: named(0), number: *number, found }, now);
}

fn lacking() -> Found {
    Found::Lacking(Seen::Bytes { path: "/data".into(), free: 300 << 10, needed: 32 << 20 })
}

#[test]
fn a_hundred_failures_for_want_of_room_are_no_attempt_and_what_is_left_of_them_is_whole() {
    let (mut machine, mut now) = needs_room(&[]);
    for _ in 0..100 {
        fails(&mut machine, 1, lacking(), now);
        now += Duration::from_secs(2);
        let (actions, _) = machine.step(Event::Tick, now);
        let [Action::Look { number, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        let look = |found| Event::Looked { name: named(0), number: *number, found };
        let (actions, _) = machine.step(look(Found::Enough), now);
        assert!(matches!(actions.as_slice(), [Action::Spawn { .. }]), "{actions:?}");
    }
    // Three failures with room: as many as ever.
    for last in [false, false, true] {
        assert!(matches!(machine.whole(), Whole::Up));
        fails(&mut machine, 1, Found::Enough, now);
        let given_up = machine.service(&named(0)).unwrap().given_up().is_some();
        assert_eq!(given_up, last);
        now += Duration::from_secs(60);
        machine.step(Event::Tick, now);
    }
    assert!(matches!(machine.whole(), Whole::Ended(Exit::GaveUp)));
}

/// That there is little room does not prove that it was lacking.
#[test]
fn who_was_of_use_or_was_killed_comes_back_whatever_room_there_is() {
    for (ready, ending) in [
        (Duration::from_secs(10), Ending::Exited(1)),
        (Duration::ZERO, Ending::OomKilled),
        (Duration::ZERO, Ending::Signaled { signal: Killer(9), core: Core::None }),
    ] {
        let (mut machine, mut now) = needs_room(&[]);
        let run = machine.service(&named(0)).unwrap().run().unwrap();
        let say = |what| Event::Service { name: named(0), run, what };
        machine.step(say(Happened::Spawned(Pid(7))), now);
        now += ready;
        machine.step(say(Happened::Exited(ending)), now);
        let (actions, _) = machine.step(say(Happened::DescentGone), now);
        let [Action::Look { number, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        machine.step(Event::Looked { name: named(0), number: *number, found: lacking() }, now);
        let state = machine.service(&named(0)).unwrap().state();
        assert!(matches!(state, State::Backoff { .. } | State::Spawning { .. }), "{state:?}");
    }
}

#[test]
fn who_lacks_room_is_tried_all_the_same_ever_less_often() {
    let (mut machine, mut now) = needs_room(&[]);
    let mut waits = Vec::new();
    for _ in 0..8 {
        fails(&mut machine, 1, lacking(), now);
        let since = now;
        loop {
            now = machine.next_deadline().unwrap();
            let (actions, _) = machine.step(Event::Tick, now);
            let [Action::Look { number, .. }] = actions.as_slice() else { panic!("{actions:?}") };
            let look = Event::Looked { name: named(0), number: *number, found: lacking() };
            if let [Action::Spawn { .. }] = machine.step(look, now).0.as_slice() {
                break;
            }
        }
        waits.push((now - since).as_secs());
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600, 600]);
    assert!(matches!(machine.whole(), Whole::Up));
}

#[test]
fn who_comes_merely_after_one_without_room_does_not_wait_for_it() {
    let mut setup = ServiceSpec::minimal(named(0), Kind::Oneshot, vec!["/bin/setup".to_owned()]);
    setup.room = Some(Room { path: "/data".into(), bytes: 1, more: None, codes: [73].into() });
    let mut pooler = ServiceSpec::minimal(named(1), Kind::Daemon, vec!["/bin/pooler".to_owned()]);
    pooler.after = [named(0)].into();
    let now = std::time::Instant::now();
    let plan = Plan::new(vec![setup, pooler], BUDGET, BTreeSet::new()).unwrap();
    let mut machine = Machine::new(plan, &BTreeSet::new(), now);
    machine.step(Event::Tick, now);
    fails(&mut machine, 73, lacking(), now);
    machine.step(Event::Tick, now);
    let state = machine.service(&named(1)).unwrap().state();
    assert!(matches!(state, State::Spawning { .. }), "{state:?}");
}

#[test]
fn who_says_that_it_has_no_room_is_tried_ever_less_often_and_never_given_up() {
    let (mut machine, mut now) = needs_room(&[73]);
    let mut waits = Vec::new();
    for _ in 0..12 {
        fails(&mut machine, 73, Found::Unknown("a quota".to_owned()), now);
        let due = machine.next_deadline().unwrap();
        waits.push((due - now).as_secs());
        now = due;
        let (actions, _) = machine.step(Event::Tick, now);
        let [Action::Look { number, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        // Nothing to be seen is no reason to wait longer than that.
        machine.step(
            Event::Looked { name: named(0), number: *number, found: Found::Unknown("nfs".to_owned()) },
            now,
        );
    }
    assert!(waits[0] == 2 && waits[11] >= 54 && waits.iter().all(|w| *w <= 60), "{waits:?}");
    assert!(matches!(machine.whole(), Whole::Up));
}

/// Random histories reach it too seldom for every run.
#[test]
fn that_want_of_room_counts_as_an_attempt_is_caught() {
    let shape = Shape {
        kind: Kind::Daemon,
        notify: false,
        requires: 0,
        after: 0,
        fenced: false,
        rungs: 1,
        deadline: false,
        max: 1,
        how: GivesUp::Hold,
        pass: false,
        when: When::Always,
        live: false,
        probed: false,
        outage: false,
        goes_on: false,
        quiesces: false,
        room: true,
    };
    let (lacks, enough) = (Op::Looked(0, 1), Op::Looked(0, 0));
    let ops = [Op::Fails(0), lacks, Op::Wait(2_000), enough, Op::Fails(0), enough];
    assert_eq!(live(std::slice::from_ref(&shape), &ops), Ok(()));
    let why = mutant::with(Some(Mutant::WantOfRoomCounts), || live(&[shape], &ops)).unwrap_err();
    assert!(why.contains("gave up and was started only 1 times"), "{why}");
}

#[test]
fn what_lacks_is_said_with_what_to_do() {
    let (path, said) = ("/data".into(), |lack: Lack| lack.to_string());
    let Found::Lacking(bytes) = lacking() else { unreachable!() };
    assert_eq!(
        said(Lack::Seen(bytes)),
        "no room on /data: 0.2 MB are free, 32 MB are needed: make room or grow the volume"
    );
    assert_eq!(
        said(Lack::Seen(Seen::Files { path, free: 3 })),
        "no room on /data: there can be 3 more files (inodes): remove some, or grow the volume"
    );
    assert_eq!(
        said(Lack::Said { path: "/data".into(), code: 73 }),
        "it found no room (exit 73; its last lines say where, and it needs it on /data): make room, grow the volume, or \
         raise its quota"
    );
}
