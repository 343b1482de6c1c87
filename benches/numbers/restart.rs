//! How fast a service that was killed runs again.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Service, Who, World};
use super::processes::{self, milliseconds, now};
use super::row::{Context, Measured, Row};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

pub(crate) static KILLED: Row = Row {
    name: "restart_killed",
    what: "From SIGKILL of a service that had run for more than a second to the moment when its successor runs, which it \
           stamps itself. As PID 1, with policies without delay where \
           there are some.",
    unit: Unit::Milliseconds,
    goals: &[Goal::AtMostPeer { factor: 1.0, plus: 0.0 }],
    run: killed,
    when_missed: "",
};

/// A service that is killed again and again.
struct Victim {
    world: World,
    lives: usize,
    since: Instant,
}

impl Victim {
    fn new(context: &Context, who: Who) -> Result<Victim, String> {
        let words = ["serve", "STAMPS", "s0"].map(str::to_owned).to_vec();
        let service = Service { name: "s0".to_owned(), words, after: None };
        let mut world = World::new(context, who, &[service], Logs::Unsaid)?;
        world.start(place())?;
        world.stamped("up", 1)?;
        Ok(Victim { world, lives: 1, since: Instant::now() })
    }

    fn kill(&mut self, context: &Context) -> Result<f64, String> {
        // Those that begin anew after a second look only now and then.
        std::thread::sleep(Duration::from_millis(1_500).saturating_sub(self.since.elapsed()));
        self.world.stamped("up", self.lives)?;
        let pid = self.world.services(context)?.first().copied().ok_or("it has no service")?;
        let begun = now();
        processes::signal(pid, Signal::SIGKILL)?;
        self.lives += 1;
        let ups = self.world.stamped("up", self.lives)?;
        self.since = Instant::now();
        Ok(milliseconds(begun, ups.last().map_or(0, |s| s.at)))
    }
}

/// As PID 1 where we may: each sees its own processes only, as in a container, and not those of the others.
fn place() -> Place {
    if nix::unistd::geteuid().is_root() { Place::Pid1 } else { Place::Child }
}

fn killed(context: &Context) -> Result<Measured, String> {
    let mut ours = Victim::new(context, Who::Supafly)?;
    let peers = context.peers(&[Who::Runit, Who::S6Notified, Who::S6, Who::Supervisord, Who::Horust]);
    let peers = peers.iter().map(|who| {
        let standing = who.beside(Who::Runit, "the goal is runit");
        let mut victim = Victim::new(context, *who);
        Contestant::new(who.name(), standing, move || victim.as_mut().map_err(|e| e.clone())?.kill(context))
    });
    let (ours, peers) = contest(context, (15, WarmUp::Yes), || ours.kill(context), peers.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![] })
}
