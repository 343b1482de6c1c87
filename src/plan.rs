//! From service files to a plan: who waits for whom, in which order everything starts and stops, and how the stop
//! budget is split over the ladders.
//!
//! Pure. A plan that exists has no unknown name, no cycle, and a stop that fits its budget: what an operator would find
//! out at the worst moment is found here. A oneshot counts in the stop only as the head of a path: while it runs,
//! nothing that waits for it does.

use crate::spec::problem::Problem;
use crate::spec::{GivesUp, GivesUpRule, Kind, Length, ServiceName, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The least that one share may last: less, and an outer deadline is no later than its inner ones.
const LEAST: Duration = Duration::from_millis(1);

/// A checked set of services.
#[derive(Clone, Debug)]
pub struct Plan {
    specs: BTreeMap<ServiceName, ServiceSpec>,
    /// Dependencies first.
    order: Vec<ServiceName>,
    dependents: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    rungs: BTreeMap<ServiceName, Vec<Duration>>,
    budget: Duration,
    reserve: Duration,
    present: BTreeSet<String>,
}

/// How long each rung of a service may take in the whole stop, for `check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The service.
    pub name: ServiceName,
    /// The signals of its ladder with their time.
    pub rungs: Vec<(String, Duration)>,
}

impl Plan {
    /// Plans these services for a stop budget. `present` are the names of the environment variables that are set and
    /// not empty, for rules that depend on the platform.
    ///
    /// # Errors
    /// Every problem at once: unknown names, cycles, a ladder that cannot fit the budget.
    pub fn new(
        specs: Vec<ServiceSpec>,
        budget: Duration,
        present: BTreeSet<String>,
    ) -> Result<Plan, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut named: BTreeMap<ServiceName, ServiceSpec> = BTreeMap::new();
        for spec in specs {
            if let Some(former) = named.insert(spec.name.clone(), spec) {
                problems
                    .push(Problem::whole(&file(&former.name), format!("`{}` is there twice", former.name)));
            }
        }
        let specs = named;
        for spec in specs.values() {
            let outage = spec.after_outage.as_ref().map(|rule| &rule.of);
            let told = spec.outage_signals.as_ref().map(|rule| &rule.of);
            let named =
                spec.requires.iter().chain(&spec.after).chain(&spec.fence_by).chain(outage).chain(told);
            for unknown in named.filter(|n| !specs.contains_key(*n)) {
                let all: Vec<_> = specs.keys().map(ServiceName::as_str).collect();
                let message = format!("names `{unknown}`, which is no service; there are {}", all.join(", "));
                problems.push(Problem::whole(&file(&spec.name), message));
            }
        }
        let mut quiesce = specs.values().filter(|s| s.quiesces.is_some());
        if let (Some(first), Some(second)) = (quiesce.next(), quiesce.next()) {
            let message =
                format!("handles = \"quiesce\", as `{}` does: only one service can be asked", first.name);
            problems.push(Problem::whole(&file(&second.name), message));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let order = order(&specs).map_err(|cycle| {
            let path: Vec<_> = cycle.iter().map(ServiceName::as_str).collect();
            let first = cycle.first().map(file).unwrap_or_default();
            vec![Problem::whole(&first, format!("a cycle: {} wait for each other", path.join(" → ")))]
        })?;
        let mut dependents: BTreeMap<ServiceName, BTreeSet<ServiceName>> = BTreeMap::new();
        for spec in specs.values() {
            for dependency in dependencies(spec) {
                dependents.entry(dependency.clone()).or_default().insert(spec.name.clone());
            }
        }
        let reserve = (budget / 20).max(Duration::from_millis(100)).min(budget / 2);
        let room = budget.saturating_sub(reserve);
        let unit = unit(&specs, &order, room).map_err(|(name, needs)| {
            let message = format!(
                "the waits of its stop and of what it waits for take {needs:?}, longer than the stop budget of {budget:?} \
                 less {reserve:?}: give SUPAFLY_STOP_BUDGET more, or the rungs less"
            );
            vec![Problem::whole(&file(&name), message)]
        })?;
        let shares = |s: &ServiceSpec| s.stop.rungs().iter().any(|r| matches!(r.length, Length::Share(_)));
        if let Some(spec) = specs.values().find(|s| unit < LEAST && shares(s)) {
            let message = format!(
                "the stop budget of {budget:?} leaves {unit:?} for one share of its stop: give SUPAFLY_STOP_BUDGET more, \
                 or the fixed waits on its way less"
            );
            return Err(vec![Problem::whole(&file(&spec.name), message)]);
        }
        let rungs = specs
            .values()
            .map(|s| (s.name.clone(), s.stop.rungs().iter().map(|r| length(r.length, unit)).collect()))
            .collect();
        Ok(Plan { specs, order, dependents, rungs, budget, reserve, present })
    }

    /// A service's file.
    #[must_use]
    pub fn spec(&self, name: &ServiceName) -> Option<&ServiceSpec> {
        self.specs.get(name)
    }

    /// Every service, dependencies first.
    #[must_use]
    pub fn order(&self) -> &[ServiceName] {
        &self.order
    }

    /// Who waits for this service, and so stops before it.
    pub fn dependents(&self, name: &ServiceName) -> impl Iterator<Item = &ServiceName> {
        self.dependents.get(name).into_iter().flatten()
    }

    /// How long each rung of a service's ladder lasts.
    #[must_use]
    pub fn rungs(&self, name: &ServiceName) -> &[Duration] {
        self.rungs.get(name).map_or(&[], Vec::as_slice)
    }

    /// The whole ladder of a service: what it is told of as its own share.
    #[must_use]
    pub fn share(&self, name: &ServiceName) -> Duration {
        self.rungs(name).iter().sum()
    }

    /// The whole stop.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// When, after its begin, what is left of the whole stop is killed: the budget less the reserve for the killing.
    #[must_use]
    pub fn last_call(&self) -> Duration {
        self.budget.saturating_sub(self.reserve)
    }

    /// What follows when a service gives up with this exit code.
    #[must_use]
    pub fn giving_up(&self, rule: &GivesUpRule, code: Option<u8>) -> GivesUp {
        let by_code = code.and_then(|c| rule.codes.get(&c));
        let by_env =
            || rule.when_env.iter().find(|(name, _)| self.present.contains(*name)).map(|(_, what)| what);
        by_code.or_else(by_env).copied().unwrap_or(rule.default)
    }

    /// The split of the stop budget, in the order of the stop.
    #[must_use]
    pub fn split(&self) -> Vec<Split> {
        let row = |name: &ServiceName| {
            let spec = self.specs.get(name)?;
            let signals = spec.stop.rungs().iter().map(|r| r.signal.as_str().to_owned());
            Some(Split { name: name.clone(), rungs: signals.zip(self.rungs(name).iter().copied()).collect() })
        };
        self.order.iter().rev().filter_map(row).collect()
    }
}

fn file(name: &ServiceName) -> String {
    format!("{name}.toml")
}

/// Everything a service waits for.
pub(crate) fn dependencies(spec: &ServiceSpec) -> impl Iterator<Item = &ServiceName> {
    spec.requires.iter().chain(&spec.after)
}

fn length(length: Length, unit: Duration) -> Duration {
    match length {
        Length::Share(share) => unit * share,
        Length::Wait(wait) => wait,
    }
}

/// Depth first; the path on which a name occurs twice is the cycle.
fn order(specs: &BTreeMap<ServiceName, ServiceSpec>) -> Result<Vec<ServiceName>, Vec<ServiceName>> {
    fn visit(
        name: &ServiceName,
        specs: &BTreeMap<ServiceName, ServiceSpec>,
        path: &mut Vec<ServiceName>,
        out: &mut Vec<ServiceName>,
    ) -> Result<(), Vec<ServiceName>> {
        if out.contains(name) {
            return Ok(());
        }
        if let Some(at) = path.iter().position(|n| n == name) {
            let mut cycle = path.split_off(at);
            cycle.push(name.clone());
            return Err(cycle);
        }
        path.push(name.clone());
        for dependency in specs.get(name).into_iter().flat_map(dependencies) {
            visit(dependency, specs, path, out)?;
        }
        path.pop();
        out.push(name.clone());
        Ok(())
    }
    let mut out = Vec::new();
    for name in specs.keys() {
        visit(name, specs, &mut Vec::new(), &mut out)?;
    }
    Ok(out)
}

/// The longest way down when one share lasts `unit`: a service, then what it waited for.
fn longest(
    specs: &BTreeMap<ServiceName, ServiceSpec>,
    order: &[ServiceName],
    unit: Duration,
) -> Option<(ServiceName, Duration)> {
    let mut below: BTreeMap<&ServiceName, Duration> = BTreeMap::new();
    let mut worst: Option<(ServiceName, Duration)> = None;
    for name in order {
        let Some(spec) = specs.get(name) else { continue };
        let own: Duration = spec.stop.rungs().iter().map(|r| length(r.length, unit)).sum();
        let beneath = dependencies(spec).filter_map(|d| below.get(d).copied()).max().unwrap_or_default();
        let total = own + beneath;
        below.insert(name, if matches!(spec.kind, Kind::Oneshot) { beneath } else { total });
        if worst.as_ref().is_none_or(|(_, w)| total > *w) {
            worst = Some((name.clone(), total));
        }
    }
    worst
}

/// How long one share lasts so that the longest way down takes `room`; an error names the service whose fixed waits do not fit.
fn unit(
    specs: &BTreeMap<ServiceName, ServiceSpec>,
    order: &[ServiceName],
    room: Duration,
) -> Result<Duration, (ServiceName, Duration)> {
    if let Some((name, needs)) = longest(specs, order, Duration::ZERO).filter(|(_, needs)| *needs > room) {
        return Err((name, needs));
    }
    let (mut low, mut high) = (Duration::ZERO, room);
    for _ in 0..40 {
        let middle = (low + high) / 2;
        match longest(specs, order, middle) {
            Some((_, needs)) if needs > room => high = middle,
            Some(_) | None => low = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
