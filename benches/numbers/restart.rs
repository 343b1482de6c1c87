//! How fast a service that was killed runs again.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Service, Who, World};
use super::processes::{self, milliseconds, now};
use super::row::{Context, Measured, Row};
use nix::sys::signal::Signal;
use std::time::Duration;

pub(crate) static KILLED: Row = Row {
    name: "restart_killed",
    what: "From SIGKILL of a service that had run for more than a second to the moment when its successor runs, which it \
           stamps itself. As PID 1, with policies without delay where \
           there are some; the first end of each life.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: killed,
    when_missed: "",
};

/// One life and the next: milliseconds between the kill and the successor's first stamp. Every sample has a supervisor of
/// its own, because the second end in a row is another matter: most then wait, and we wait longer each time.
fn once(context: &Context, who: Who) -> Result<f64, String> {
    let words = ["serve", "STAMPS", "s0"].map(str::to_owned).to_vec();
    let service = Service { name: "s0".to_owned(), words, after: None };
    let mut world = World::new(context, who, &[service], Logs::Unsaid)?;
    world.start(place())?;
    world.stamped("up", 1)?;
    // Those that only restart at once what has run for a second look now and then.
    std::thread::sleep(Duration::from_millis(1_500));
    let pid = world.services(context)?.first().copied().ok_or("it has no service")?;
    let begun = now();
    processes::signal(pid, Signal::SIGKILL)?;
    let ups = world.stamped("up", 2)?;
    Ok(milliseconds(begun, ups.last().map_or(0, |s| s.at)))
}

/// As PID 1 where we may: each sees its own processes only, as in a container, and not those of the others.
fn place() -> Place {
    if nix::unistd::geteuid().is_root() { Place::Pid1 } else { Place::Child }
}

fn killed(context: &Context) -> Result<Measured, String> {
    let peers = context.peers(&[Who::Runit, Who::S6Notified, Who::S6, Who::Supervisord, Who::Horust]);
    let peers = peers.iter().map(|who| {
        let standing = who.beside(Who::Runit, "the goal is runit");
        Contestant::new(who.name(), standing, move || once(context, *who))
    });
    let ours = || once(context, Who::Supafly);
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![] })
}
