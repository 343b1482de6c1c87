//! What a supervisor does while nothing happens. All contestants are idle at the same time, so both rows and all peers
//! are of the same windows.

use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Who, World, six};
use super::processes::field;
use super::row::{Context, Depth, Measured, Peer, Row};
use super::stats::Samples;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) static CPU: Row = Row {
    name: "idle_cpu",
    what: "CPU time in 30 s of all threads of a supervisor with six idle services without probes, their output captured.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMost(0.0)],
    run: |context| measured(context, |spent| spent.cpu_ms),
    when_missed: "",
};

pub(crate) static WAKEUPS: Row = Row {
    name: "idle_wakeups",
    what: "How often a thread of the supervisor was woken in the same 30 s.",
    unit: Unit::Count,
    goals: &[Goal::AtMost(1.0)],
    run: |context| measured(context, |spent| spent.wakeups),
    when_missed: "",
};

const WINDOWS: usize = 5;

/// What a supervisor has used up: since its start, or in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    cpu_ms: f64,
    wakeups: f64,
}

type Windows = Vec<(Who, Result<Vec<Spent>, String>)>;

fn measured(context: &Context, which: fn(&Spent) -> f64) -> Result<Measured, String> {
    static WINDOWS: OnceLock<Windows> = OnceLock::new();
    let all = WINDOWS.get_or_init(|| windows(context));
    let samples = |spent: &Result<Vec<Spent>, String>| {
        Samples::new(spent.as_ref().map_err(Clone::clone)?.iter().map(which).collect())
    };
    let mut ours = Err("it was not asked".to_owned());
    let mut peers = Vec::new();
    for (who, spent) in all {
        if *who == Who::Supafly {
            ours = samples(spent);
        } else {
            let (name, standing) = (who.name().to_owned(), who.standing());
            peers.push(Peer { name, standing, samples: samples(spent) });
        }
    }
    Ok(Measured { ours: ours?, peers, conditions: vec![], notes: vec![] })
}

fn windows(context: &Context) -> Windows {
    let length = match context.depth {
        Depth::Full => Duration::from_secs(30),
        Depth::Quick => Duration::from_secs(2),
    };
    let mut asked = vec![Who::Supafly];
    asked.extend(context.peers(&[Who::S6, Who::Runit, Who::Supervisord, Who::Horust]));
    let mut worlds: Vec<(Who, Result<World, String>)> =
        asked.iter().map(|w| (*w, idle(context, *w))).collect();
    std::thread::sleep(Duration::from_secs(3));
    let mut before: Vec<_> = worlds.iter().map(|(_, w)| spent(context, w)).collect();
    let mut all: Windows = asked.iter().map(|who| (*who, Ok(Vec::new()))).collect();
    for _ in 0..context.rounds(WINDOWS) {
        std::thread::sleep(length);
        for (((_, world), before), (_, windows)) in worlds.iter_mut().zip(&mut before).zip(&mut all) {
            let now = spent(context, world);
            let between = match (&now, &*before) {
                (Ok(now), Ok(then)) => {
                    Ok(Spent { cpu_ms: now.cpu_ms - then.cpu_ms, wakeups: now.wakeups - then.wakeups })
                }
                (Err(why), _) | (_, Err(why)) => Err(why.clone()),
            };
            *before = now;
            match (between, &mut *windows) {
                (Ok(between), Ok(list)) => list.push(between),
                (Err(why), _) => *windows = Err(why),
                (Ok(_), Err(_)) => {}
            }
        }
    }
    all
}

fn idle(context: &Context, who: Who) -> Result<World, String> {
    let mut world = World::new(context, who, &six(false), Logs::Captured)?;
    world.start(Place::Child)?;
    world.stamped("up", 6)?;
    Ok(world)
}

fn spent(context: &Context, world: &Result<World, String>) -> Result<Spent, String> {
    let mut sum = Spent::default();
    for pid in world.as_ref().map_err(Clone::clone)?.own(context)? {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        for thread in threads.flatten() {
            let read = |name: &str| fs::read_to_string(thread.path().join(name)).map_err(|e| e.to_string());
            let nanoseconds = field(&read("schedstat")?, "").ok_or("no schedstat")?;
            sum.cpu_ms += nanoseconds / 1e6;
            sum.wakeups += field(&read("status")?, "voluntary_ctxt_switches:").ok_or("no switches")?;
        }
    }
    Ok(sum)
}
