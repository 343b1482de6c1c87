//! Random lives of random sets of services, in a world that keeps its own books.
//!
//! The [`World`] is the other side: it has processes (or none), obeys the machine's actions and reports what happened,
//! promptly or late, truly or stale. After each step it compares what the machine did with its own books; the first
//! broken promise is returned as text. The same histories then run with each deliberate defect of `mutant.rs`, and each
//! must be caught. Every loop is bounded.

#[macro_use]
mod promise;
mod ops;
mod room;
mod scenes;
mod world;

use super::mutant::{self, Mutant};
use super::*;
use crate::exit::Exit;
use crate::plan::Plan;
use crate::spec::{
    AfterOutage, Check, Freezing, Kind, Length, Live, Manner, OutageSignals, Probe, Ready, Room, Rung,
    ServiceSpec, StopLadder, When,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::World;

const BUDGET: Duration = Duration::from_secs(9);
const STABLE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Shape {
    kind: Kind,
    notify: bool,
    requires: u8,
    after: u8,
    fenced: bool,
    rungs: usize,
    deadline: bool,
    max: u32,
    how: GivesUp,
    pass: bool,
    when: When,
    live: bool,
    probed: bool,
    outage: bool,
    goes_on: bool,
    quiesces: bool,
    room: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Answer(usize, bool),
    Ready(usize),
    Alive(usize),
    Exit(usize, u8),
    Segfault(usize),
    Gone(usize),
    Stale(usize, u64, u8),
    Wait(u64),
    Start(usize),
    StopOne(usize, bool),
    RestartOne(usize, bool),
    Unready(usize),
    NotLive(usize),
    Freeze,
    Thaw,
    Proved(usize),
    Busy(usize),
    Quiesced(usize),
    /// It comes up and fails at once.
    Fails(usize),
    Looked(usize, u8),
    Oversleep(u64),
    Fence,
    Stop,
}

fn shape() -> impl Strategy<Value = Shape> {
    let how = prop_oneof![Just(GivesUp::StopAll), Just(GivesUp::Degrade), Just(GivesUp::Hold)];
    let when = prop_oneof![4 => Just(When::Always), 1 => Just(When::OnFailure), 1 => Just(When::Never)];
    let kind = prop_oneof![3 => Just(Kind::Daemon), 1 => Just(Kind::Oneshot)];
    let bools = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let more =
        (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let more = (more, any::<bool>());
    (kind, (bools, more), any::<u8>(), any::<u8>(), 1usize..3, 0u32..3, how, when).prop_map(
        |(kind, ((notify, fenced, deadline, pass), (more, room)), requires, after, rungs, max, how, when)| {
            Shape {
                kind,
                notify,
                requires,
                after,
                fenced,
                rungs,
                deadline,
                max,
                how,
                pass,
                when,
                live: more.0,
                probed: more.1,
                outage: more.2,
                goes_on: more.3,
                quiesces: more.4,
                room,
            }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let i = 0usize..4;
    prop_oneof![
        8 => (i.clone(), prop::bool::weighted(0.85)).prop_map(|(i, ok)| Op::Answer(i, ok)),
        6 => i.clone().prop_map(Op::Ready),
        1 => i.clone().prop_map(Op::Alive),
        5 => (i.clone(), prop_oneof![Just(0u8), Just(1), Just(77)]).prop_map(|(i, c)| Op::Exit(i, c)),
        1 => i.clone().prop_map(Op::Segfault),
        5 => i.clone().prop_map(Op::Gone),
        2 => (i.clone(), 0u64..6, 0u8..5).prop_map(|(i, r, w)| Op::Stale(i, r, w)),
        6 => prop_oneof![1u64..3_000, 3_000u64..70_000].prop_map(Op::Wait),
        1 => i.clone().prop_map(Op::Start),
        1 => (i.clone(), any::<bool>()).prop_map(|(i, too)| Op::StopOne(i, too)),
        1 => (i.clone(), any::<bool>()).prop_map(|(i, too)| Op::RestartOne(i, too)),
        2 => i.clone().prop_map(Op::Unready),
        4 => i.clone().prop_map(Op::NotLive),
        2 => Just(Op::Freeze),
        1 => Just(Op::Thaw),
        3 => i.clone().prop_map(Op::Proved),
        1 => i.clone().prop_map(Op::Busy),
        1 => i.clone().prop_map(Op::Quiesced),
        3 => i.clone().prop_map(Op::Fails),
        6 => (i, 0u8..5).prop_map(|(i, what)| Op::Looked(i, what)),
        1 => (1_000u64..30_000).prop_map(Op::Oversleep),
        1 => Just(Op::Fence),
        1 => Just(Op::Stop),
    ]
}

fn history() -> impl Strategy<Value = (Vec<Shape>, Vec<Op>)> {
    (prop::collection::vec(shape(), 1..5), prop::collection::vec(op(), 0..90))
}

fn named(i: usize) -> ServiceName {
    ServiceName::new(&format!("s{i}")).unwrap()
}

fn spec(i: usize, shape: &Shape) -> ServiceSpec {
    let mut spec = ServiceSpec::minimal(named(i), shape.kind, vec!["/bin/true".to_owned()]);
    let below = |mask: u8| (0..i).filter(move |j| mask & (1 << j) != 0).map(named);
    spec.requires = below(shape.requires).collect();
    spec.after = below(shape.after & !shape.requires).collect();
    spec.fence_by = (shape.fenced && i > 0).then(|| named(0));
    let probe = |failures| Probe {
        check: Check::Tcp { port: 1 },
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        failures,
    };
    spec.ready = match (shape.notify, shape.probed) {
        (true, true) => Ready::Probe(probe(1)),
        (true, false) => Ready::Notify,
        (false, _) => Ready::Started,
    };
    if shape.kind == Kind::Daemon {
        spec.live = shape.live.then(|| Live {
            probe: probe(1),
            grace: Duration::from_secs(if shape.deadline { 2 } else { 0 }),
        });
        spec.after_outage = (shape.outage && i > 0).then(|| AfterOutage {
            of: named(0),
            longer_than: Duration::from_secs(3),
            ready_within: Duration::from_secs(2),
        });
        spec.outage_signals = (shape.pass && i > 0).then(|| OutageSignals {
            of: named(0),
            begins: Signal::SIGUSR1,
            ends: Signal::SIGUSR2,
        });
        spec.watchdog = (shape.live && shape.pass).then(|| Duration::from_secs(20));
        spec.quiesces = shape.quiesces.then(|| Duration::from_secs(10));
    }
    spec.freezing = if shape.goes_on { Freezing::GoesOn } else { Freezing::Stands };
    let signals = [Signal::SIGTERM, Signal::SIGQUIT];
    let orderly = |i: usize| if i == 0 || shape.goes_on { Manner::Orderly } else { Manner::Forced };
    let rung = |(i, s): (usize, &Signal)| Rung { signal: *s, length: Length::Share(1), manner: orderly(i) };
    spec.stop = StopLadder::new(signals.iter().take(shape.rungs).enumerate().map(rung).collect()).unwrap();
    spec.start_deadline = shape.deadline.then(|| Duration::from_secs(5));
    spec.room = shape.room.then(|| Room {
        path: "/data".into(),
        bytes: 32 << 20,
        more: None,
        codes: if shape.goes_on { BTreeSet::from([1]) } else { BTreeSet::new() },
    });
    spec.restart.when = shape.when;
    spec.restart.max = shape.max;
    spec.gives_up.default = shape.how;
    spec.pass_exit = if shape.pass { BTreeSet::from([77]) } else { BTreeSet::new() };
    spec
}

fn live(shapes: &[Shape], ops: &[Op]) -> Result<(), String> {
    let mut world = World::new(shapes);
    world.step(Event::Tick)?;
    for op in ops {
        world.run(*op)?;
    }
    world.finish()
}

/// The first broken promise in so many random lives.
fn broken(mutant: Option<Mutant>, cases: u32) -> Option<String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(&history(), |(shapes, ops)| {
        mutant::with(mutant, || live(&shapes, &ops)).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, (shapes, ops))) => Some(format!("{why}\n{shapes:#?}\n{ops:?}")),
        Err(TestError::Abort(why)) => panic!("the histories cannot be made: {why}"),
    }
}

#[test]
fn no_history_breaks_a_promise() {
    if let Some(why) = broken(None, 12_000) {
        panic!("{why}");
    }
}

#[test]
fn every_mutant_is_caught_by_the_promise_that_it_breaks() {
    let all = [
        (Mutant::StaleEvents, "stale"),
        (Mutant::StartWhileStopping, "is started while everything stops"),
        (Mutant::FenceLostWhileSpawning, "is fenced and"),
        (Mutant::NoKillAtTheEnd, "is past its ladder and not killed|the stop does not end"),
        (Mutant::RungStays, "is past its ladder and not killed"),
        (Mutant::ReadinessForgives, "times in its window"),
        (Mutant::UnlimitedAttempts, "times in its window"),
        (Mutant::RequiresIgnored, "which it requires"),
        (Mutant::RequiresIgnoredOnRestart, "which it requires"),
        (Mutant::NoStopOrder, "still lives"),
        (Mutant::EndsWhileClearing, "the end is claimed|still lives"),
        (Mutant::HurryKillsFirst, "gets SIGKILL first"),
        (Mutant::AlwaysClean, "the exit is Clean"),
        (Mutant::OldForceCounts, "the exit is Forced"),
        (Mutant::StartWhileFrozen, "is started while everything stands"),
        (Mutant::StandingCounts, "is held to a deadline|is no reason for"),
        (Mutant::StopPullsTheGround, "run on it"),
        (Mutant::DependentsStartEarly, "comes back before|which it requires"),
        (Mutant::OversleepingCounts, "is held to a deadline|is past its ladder and not killed"),
        (Mutant::LiveWithoutGround, "is ended for its silence"),
        (Mutant::OutageNeverEnds, "serves and"),
        (Mutant::StartWithoutRoom, "has no room and"),
        (Mutant::StaleLooks, "stale look"),
    ];
    for (mutant, promises) in all {
        let why = broken(Some(mutant), 20_000).unwrap_or_default();
        let first = why.lines().next().unwrap_or_default();
        assert!(promises.split('|').any(|p| first.contains(p)), "{mutant:?} is seen only as: {first}");
    }
}
