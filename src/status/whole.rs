//! The whole: one word for people, and whether clients of what must not fail can be served. Pure.
//!
//! Two answers, because they part ways: while PostgREST is down the whole is not as it should be, and whoever decides
//! whether this machine gets clients must not take the database from them for that.

use super::{Overall, Readiness, Reported};
use crate::spec::{GivesUp, Kind, ServiceName};
use crate::state::{Cause, Cramped, Fitness, Machine, Service, State, Up, Whole};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a service lacks of serving.
enum Lack {
    /// Nothing is wrong yet.
    Starting,
    /// It does not serve.
    Broken(String),
    /// It serves, and says that clients cannot be served.
    Unfit(String),
}

/// The whole in one word and why it is not ready; and whether clients can be served.
pub(super) fn whole(
    machine: &Machine,
    reported: &BTreeMap<ServiceName, Reported>,
    now: Instant,
) -> (Overall, String, Readiness) {
    let settled = |state: Overall, reason: String| {
        let because = format!("{}: {reason}", state.word());
        (state, reason, Readiness::Not { because })
    };
    match machine.whole() {
        Whole::Stopping { cause, .. } => {
            let why = match cause {
                Cause::Asked(by) => by.clone(),
                Cause::GaveUp { name, why, .. } => format!("{name} gave up: {why}"),
            };
            return settled(Overall::Stopping, why);
        }
        Whole::Ended(exit) => return settled(Overall::Stopped, exit.sentence().to_owned()),
        Whole::Freezing { by, .. } => {
            return settled(Overall::Frozen, format!("being frozen, asked by {by}"));
        }
        Whole::Frozen { by, at } => {
            let since = crate::spec::duration::show(now.saturating_duration_since(*at));
            return settled(Overall::Frozen, format!("frozen for {since}, asked by {by}"));
        }
        Whole::Up => {}
    }
    let lacking: Vec<(&Service, Lack)> = machine
        .services()
        .filter_map(|s| Some((s, lack(machine, s, reported.get(&s.spec().name), now)?)))
        .collect();
    let (state, reason) = sum(lacking.iter().map(|(s, lack)| (*s, lack)));
    let counts = |s: &Service| {
        machine.plan().giving_up(&s.spec().gives_up, None) != GivesUp::Degrade
            || s.spec().reports_health.is_some()
            // Whatever it prepares is not there before it has ended once, well or not.
            || (s.spec().kind == Kind::Oneshot && s.last().is_none())
    };
    // Where everything may fail, nothing less than everything is ready.
    let readiness = if machine.services().any(counts) {
        readiness(sum(lacking.iter().filter(|(s, _)| counts(s)).map(|(s, lack)| (*s, lack))))
    } else {
        readiness((state, reason.clone()))
    };
    (state, reason, readiness)
}

fn readiness((state, reason): (Overall, String)) -> Readiness {
    if state == Overall::Ready {
        Readiness::Ready
    } else {
        Readiness::Not { because: format!("{}: {reason}", state.word()) }
    }
}

/// One word for these services, and why it is not `ready`.
fn sum<'a>(lacking: impl Iterator<Item = (&'a Service, &'a Lack)>) -> (Overall, String) {
    let (mut starting, mut broken, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
    for (service, lack) in lacking {
        match lack {
            Lack::Starting => starting.push(service.spec().name.to_string()),
            Lack::Broken(why) => broken.push(why.clone()),
            Lack::Unfit(why) => unfit.push(why.clone()),
        }
    }
    // Whoever watches another says that it does not serve: while that is on its way up, nothing is wrong.
    if broken.is_empty() && !starting.is_empty() {
        unfit.insert(0, format!("not ready yet: {}", starting.join(", ")));
        return (Overall::Starting, unfit.join("; "));
    }
    broken.extend(unfit);
    if broken.is_empty() { (Overall::Ready, String::new()) } else { (Overall::Degraded, broken.join("; ")) }
}

fn lack(machine: &Machine, s: &Service, reported: Option<&Reported>, now: Instant) -> Option<Lack> {
    let name = &s.spec().name;
    match s.state() {
        State::Absent | State::Done => None,
        State::Ready { up: Up { fitness: Fitness::Unfit(why), .. }, .. } => {
            // What it printed stands behind the first line, and is for the detail: the reason is shown to everybody.
            Some(Lack::Broken(format!("{name} is not ready: {}", why.lines().next().unwrap_or_default())))
        }
        State::Ready { .. } => unhealthy(s, reported, now).map(|why| Lack::Unfit(format!("{name}: {why}"))),
        State::GaveUp(given) => Some(Lack::Broken(format!("{name} gave up: {}", given.why))),
        State::Backoff { last, .. } => Some(Lack::Broken(format!("{name} is down: {last}"))),
        State::Cramped(Cramped { last, look, .. }) => Some(Lack::Broken(match look.lack() {
            None => format!("{name} is down: {last}"),
            Some(lack) => format!("{name}: {lack}"),
        })),
        State::Down(why) => Some(Lack::Broken(format!("{name} is stopped: {why}"))),
        // Whom it waits for says why.
        State::Waiting if machine.is_blocked(name) => None,
        State::Waiting | State::Spawning { .. } | State::Starting { .. } => Some(Lack::Starting),
        State::Frozen { .. } => Some(Lack::Broken(format!("{name} stands still"))),
        State::Stopping { .. } | State::Clearing { .. } => Some(match s.spec().kind {
            Kind::Daemon => Lack::Broken(format!("{name} is going down")),
            // A oneshot that has just ended well is on its way to done.
            Kind::Oneshot => Lack::Starting,
        }),
    }
}

fn unhealthy(s: &Service, reported: Option<&Reported>, now: Instant) -> Option<String> {
    let young = s.spec().reports_health?;
    match reported.and_then(|r| r.health.as_ref()) {
        None => Some("has not yet said that clients can be served".to_owned()),
        Some((_, _, at)) if now.saturating_duration_since(*at) > young => Some(format!(
            "has said nothing for {}",
            crate::spec::duration::show(now.saturating_duration_since(*at))
        )),
        Some((false, reason, _)) => Some(reason.clone()),
        Some((true, _, _)) => None,
    }
}
