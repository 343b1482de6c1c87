//! How fast services run: six at once, and six that wait for each other.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Service, Who, World, six};
use super::processes::milliseconds;
use super::row::{Condition, Context, Measured, Row};
use super::stats::Samples;

pub(crate) static SIX: Row = Row {
    name: "start_six",
    what: "From exec of the supervisor to the moment when the last of six services, which do not know of each other, runs. \
           The services stamp that moment themselves.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: start_six,
    when_missed: "",
};

pub(crate) static CHAIN: Row = Row {
    name: "start_chain_six",
    what: "The same with six services of which each starts when the one before it runs. An edge is a fifth of the time \
           from the first service's start to the last one's. s6 has no dependencies without s6-rc, which Debian does not \
           have; its run scripts wait by s6-svwait.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: start_chain,
    when_missed: "",
};

/// One start: milliseconds to the last service, and from the first to the last.
fn once(context: &Context, who: Who, services: &[Service]) -> Result<(f64, f64), String> {
    let mut world = World::new(context, who, services, Logs::Unsaid)?;
    let begun = world.start(Place::Child)?;
    let ups = world.stamped("up", services.len())?;
    let moments = || ups.iter().map(|s| s.at);
    let (first, last) = (moments().min().unwrap_or(0), moments().max().unwrap_or(0));
    Ok((milliseconds(begun, last), milliseconds(first, last)))
}

fn start_six(context: &Context) -> Result<Measured, String> {
    let services = six(false);
    let sample = |who| {
        let services = &services;
        move || once(context, who, services).map(|(all, _)| all)
    };
    let peers = context.peers(&[Who::S6, Who::Runit, Who::Supervisord, Who::Horust]);
    let peers = peers.iter().map(|who| Contestant::new(who.name(), who.standing(), sample(*who)));
    let (ours, peers) = contest(context, (11, WarmUp::Yes), sample(Who::Supafly), peers.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![] })
}

fn start_chain(context: &Context) -> Result<Measured, String> {
    let services = six(true);
    let mut edges = Vec::new();
    let ours = || {
        let (all, between) = once(context, Who::Supafly, &services)?;
        edges.push(between / 5.0);
        Ok(all)
    };
    let sample = |who| {
        let services = &services;
        move || once(context, who, services).map(|(all, _)| all)
    };
    let peers = context.peers(&[Who::S6, Who::Horust]);
    let peers = peers.iter().map(|who| Contestant::new(who.name(), who.standing(), sample(*who)));
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers.collect())?;
    let edge = Condition {
        what: "an edge".to_owned(),
        value: Samples::new(edges)?.median(),
        unit: Unit::Milliseconds,
        goal: Goal::AtMost(5.0),
    };
    Ok(Measured { ours, peers, conditions: vec![edge], notes: vec![] })
}
