//! How much memory is kept: by PID 1 alone, and by all of supafly with the whole stack.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Who, World, six};
use super::processes;
use super::row::{Context, Measured, Row};
use std::time::Duration;

/// How long everything must have been quiet.
const SETTLED: Duration = Duration::from_secs(3);

pub(crate) static SIX: Row = Row {
    name: "pss_idle_six",
    what: "Proportional set size of PID 1 with six idle services whose output is captured, three seconds after their \
           start. Of peers all processes that are not the services count: their loggers, and a process a service.",
    unit: Unit::Megabytes,
    goals: &[Goal::AtMost(3.0)],
    run: idle_six,
    when_missed: "",
};

fn once(context: &Context, who: Who) -> Result<f64, String> {
    let mut world = World::new(context, who, &six(false), Logs::Captured)?;
    world.start(Place::Pid1)?;
    world.stamped("up", 6)?;
    std::thread::sleep(SETTLED);
    world.own(context)?.into_iter().map(processes::pss).sum()
}

fn idle_six(context: &Context) -> Result<Measured, String> {
    let peers = context.peers(&[Who::S6, Who::Runit, Who::Supervisord, Who::Horust]);
    let peers =
        peers.iter().map(|who| Contestant::new(who.name(), who.standing(), move || once(context, *who)));
    let ours = || once(context, Who::Supafly);
    let (ours, peers) = contest(context, (5, WarmUp::No), ours, peers.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![] })
}
