//! PID 1 buries those whose parents are gone.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Service, Who, World};
use super::processes::milliseconds;
use super::row::{Condition, Context, Measured, Row};
use std::cell::Cell;

pub(crate) static STREAM: Row = Row {
    name: "orphans_20k",
    what: "As PID 1: from the first fork of a service that makes 20 000 orphans, one after the other, to the moment when \
           none of them is left.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: |context| orphans(context, "orphans", context.size(20_000, 200)),
    when_missed: "",
};

pub(crate) static BURST: Row = Row {
    name: "orphans_burst_5k",
    what: "As PID 1: 5 000 orphans live, then all end at once; from that moment until none is left.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: |context| orphans(context, "burst", context.size(5_000, 100)),
    when_missed: "",
};

/// One run: milliseconds, and how many were left when nobody waited any longer.
fn once(context: &Context, who: Who, verb: &str, number: u64) -> Result<(f64, u32), String> {
    let words = vec![verb.to_owned(), number.to_string(), "STAMPS".to_owned(), "stay".to_owned()];
    let service = Service { name: "s0".to_owned(), words, after: None };
    let mut world = World::new(context, who, &[service], Logs::Unsaid)?;
    world.start(Place::Pid1)?;
    world.stamped("drained", 1)?;
    let stamps = world.stamps();
    let find = |word: &str| stamps.iter().find(|s| s.words.first().is_some_and(|w| w == word));
    let (begin, drained) = (find("begin").ok_or("no beginning")?, find("drained").ok_or("no end")?);
    let left = drained.words.last().and_then(|w| w.parse().ok()).ok_or("no number of those left")?;
    Ok((milliseconds(begin.at, drained.at), left))
}

fn orphans(context: &Context, verb: &str, number: u64) -> Result<Measured, String> {
    let left = Cell::new(0);
    let ours = || {
        let (took, remained) = once(context, Who::Supafly, verb, number)?;
        left.set(left.get().max(remained));
        Ok(took)
    };
    let peers = context.peers(&[Who::S6, Who::Tini]);
    let peers = peers.iter().map(|who| {
        Contestant::new(who.name(), who.standing(), move || {
            let (took, left) = once(context, *who, verb, number)?;
            if left == 0 { Ok(took) } else { Err(format!("{left} orphans were never buried")) }
        })
    });
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers.collect())?;
    let none = Condition {
        what: "orphans of ours left".to_owned(),
        value: left.get().into(),
        unit: Unit::Count,
        goal: Goal::AtMost(0.0),
    };
    Ok(Measured { ours, peers, conditions: vec![none], notes: vec![] })
}
