//! How fast everything ends that was asked to end.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Who, World, six};
use super::processes::{milliseconds, now};
use super::row::{Condition, Context, Measured, Row};
use nix::sys::signal::Signal;

pub(crate) static CHILD: Row = Row {
    name: "stop_child",
    what: "From SIGTERM to the end of a supervisor that is an ordinary child, with six services that end as soon as they \
           are asked. All six must have been asked and have ended by themselves.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: |context| stop(context, Place::Child),
    when_missed: "most of the time is the six services' own; the difference is smaller than that between rounds of either",
};

pub(crate) static PID1: Row = Row {
    name: "stop_pid1",
    what: "The same as PID 1 of a namespace, up to the end of the namespace.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: |context| stop(context, Place::Pid1),
    when_missed: "",
};

/// One stop: milliseconds, and how many services ended by themselves.
fn once(context: &Context, who: Who, place: Place) -> Result<(f64, usize), String> {
    let mut world = World::new(context, who, &six(false), Logs::Unsaid)?;
    world.start(place)?;
    world.stamped("up", 6)?;
    // Supervisors that look only now and then shall have seen that everything runs.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let begun = now();
    world.signal(Signal::SIGTERM)?;
    world.wait()?;
    let took = milliseconds(begun, now());
    let ended = world.stamps().iter().filter(|s| s.words.iter().any(|w| w == "down")).count();
    Ok((took, ended))
}

fn stop(context: &Context, place: Place) -> Result<Measured, String> {
    let mut fewest = 6;
    let ours = || {
        let (took, ended) = once(context, Who::Supafly, place)?;
        fewest = fewest.min(ended);
        Ok(took)
    };
    let peers = context.peers(&[Who::S6, Who::Runit, Who::Supervisord, Who::Horust]);
    let peers = peers.iter().map(|who| {
        // runsvdir leaves its services to themselves, or to the kernel's SIGKILL as PID 1.
        let alone = *who == Who::Runit;
        let why =
            if alone { "does not wait for its services: it ends before they do" } else { "the goal is s6" };
        let standing = who.beside(Who::S6, why);
        Contestant::new(who.name(), standing, move || once(context, *who, place).map(|(took, _)| took))
    });
    let (ours, peers) = contest(context, (5, WarmUp::Yes), ours, peers.collect())?;
    let all = Condition {
        what: "services of ours that ended by themselves".to_owned(),
        value: f64::from(u32::try_from(fewest).unwrap_or(0)),
        unit: Unit::Count,
        goal: Goal::AtLeast(6.0),
    };
    Ok(Measured { ours, peers, conditions: vec![all], notes: vec![] })
}
