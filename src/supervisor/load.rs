//! From a directory of service files to a plan, or to every problem in all of them: one broken file among good ones
//! starts nothing.

use super::RunArgs;
use super::launch::find_program;
use crate::exit::Failure;
use crate::os::privilege::{self, Privilege};
use crate::plan::Plan;
use crate::spec::problem::{Problem, Problems};
use crate::spec::{Presence, ServiceName, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Reads and plans.
pub(super) fn plan(args: &RunArgs) -> Result<Plan, Failure> {
    let dir = args.services.display().to_string();
    let wrong = |message: String| Failure::config(Problem::whole(&dir, message).to_string());
    let entries = std::fs::read_dir(&args.services).map_err(|e| {
        wrong(format!("cannot read the directory of service files: {e}; set SUPAFLY_SERVICES or --services"))
    })?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(wrong("there is no service file (`name.toml`) here".to_owned()));
    }
    let (mut specs, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        let name = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Err(e) => problems.push(Problem::whole(&name, format!("cannot be read: {e}"))),
            Ok(text) => match parse(&name, &text, &args.variables) {
                Ok(spec) => specs.push(spec),
                Err(Problems(more)) => problems.extend(more),
            },
        }
    }
    let present = args.environment.iter().filter(|(_, v)| !v.is_empty()).map(|(k, _)| k.clone()).collect();
    // With a broken file missing, unknown names would be reported that are none.
    if !problems.is_empty() {
        return Err(Failure::config(Problems(problems).to_string()));
    }
    Plan::new(specs, args.stop_budget, present).map_err(|p| Failure::config(Problems(p).to_string()))
}

/// Services whose program is not installed and need not be.
pub(super) fn absent(plan: &Plan, environment: &BTreeMap<String, String>) -> BTreeSet<ServiceName> {
    let path = environment.get("PATH").map(String::as_str);
    let missing = |spec: &&crate::spec::ServiceSpec| {
        matches!(spec.presence, Presence::Optional) && find_program(spec.needed(), path).is_none()
    };
    plan.order().iter().filter_map(|n| plan.spec(n)).filter(missing).map(|s| s.name.clone()).collect()
}

/// Users and groups that service files name and this machine does not know. Who is absent never runs and needs none.
pub(super) fn missing_accounts(
    plan: &Plan,
    privilege: Privilege,
    absent: &BTreeSet<ServiceName>,
) -> Vec<Problem> {
    if matches!(privilege, Privilege::None) {
        return Vec::new();
    }
    plan.order()
        .iter()
        .filter(|n| !absent.contains(*n))
        .filter_map(|n| plan.spec(n))
        .filter_map(|s| {
            let why = privilege::resolve(s.user.as_deref(), s.group.as_deref(), &s.groups).err()?;
            Some(Problem::whole(&format!("{}.toml", s.name), why))
        })
        .collect()
}
