//! `supafly check`: reads everything that `run` would and says what it would do, for people or as one JSON object: the
//! settings with their source, the graph, and how the stop's budget is split.

use super::{RunArgs, load};
use crate::control::commands::Shown;
use crate::exit::{Exit, Failure};
use crate::os::privilege::Privilege;
use crate::plan::Plan;
use crate::spec::duration::show;
use crate::spec::{GivesUp, Kind, ServiceName};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;

/// A setting as it holds.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value as text.
    pub value: String,
    /// Where that comes from.
    pub source: String,
}

/// A variable of the environment that others know, and what becomes of it.
#[derive(Clone, Debug, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// In one word.
    pub fate: &'static str,
    /// In a sentence.
    pub why: String,
}

#[derive(Debug, Serialize)]
struct Checked {
    settings: Vec<Setting>,
    variables: Vec<Variable>,
    services: Vec<Planned>,
    stop: Stop,
}

#[derive(Debug, Serialize)]
struct Planned {
    name: ServiceName,
    kind: &'static str,
    requires: Vec<ServiceName>,
    after: Vec<ServiceName>,
    gives_up: GivesUp,
    /// The program that is missing, when that is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
}

#[derive(Debug, Serialize)]
struct Stop {
    budget_ms: u128,
    /// When what is left is killed.
    last_call_ms: u128,
    assumed: String,
    /// In the order of the stop.
    ladders: Vec<Ladder>,
}

#[derive(Debug, Serialize)]
struct Ladder {
    service: ServiceName,
    rungs: Vec<Rung>,
}

#[derive(Debug, Serialize)]
struct Rung {
    signal: String,
    ms: u128,
}

/// Says what `run` would do.
///
/// # Errors
/// 78 with every problem at once.
pub fn check(
    args: &RunArgs,
    settings: Vec<Setting>,
    variables: Vec<Variable>,
    shown: Shown,
) -> Result<Exit, Failure> {
    let plan = load::plan(args)?;
    let absent = load::absent(&plan, &args.environment);
    let problems = load::missing_accounts(&plan, Privilege::detect(), &absent);
    if !problems.is_empty() {
        return Err(Failure::config(crate::spec::problem::Problems(problems).to_string()));
    }
    let mut checked = checked(&plan, args, settings, &absent);
    checked.variables = variables;
    let text = match shown {
        Shown::Json => serde_json::to_string_pretty(&checked).unwrap_or_default() + "\n",
        Shown::Table => table(&checked, args),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| Failure::gave_up(format!("cannot write: {e}")))?;
    Ok(Exit::Clean)
}

fn checked(plan: &Plan, args: &RunArgs, settings: Vec<Setting>, absent: &BTreeSet<ServiceName>) -> Checked {
    let services = plan.order().iter().filter_map(|name| plan.spec(name)).map(|spec| Planned {
        name: spec.name.clone(),
        kind: match spec.kind {
            Kind::Daemon => "daemon",
            Kind::Oneshot => "oneshot",
        },
        requires: spec.requires.clone(),
        after: spec.after.clone(),
        gives_up: plan.giving_up(&spec.gives_up, None),
        absent: absent.contains(&spec.name).then(|| spec.lacks()),
    });
    let ladders = plan.split().into_iter().map(|split| Ladder {
        service: split.name,
        rungs: split.rungs.into_iter().map(|(signal, d)| Rung { signal, ms: d.as_millis() }).collect(),
    });
    let set = settings.iter().find(|s| s.key == "stop_budget" && s.source != "default");
    let assumed = match (set, &args.machine) {
        (Some(set), _) => format!("set by {}", set.source),
        (None, Some(machine)) => format!("assumed for machine {machine} of Fly"),
        (None, None) => "assumed, because nobody set stop_budget".to_owned(),
    };
    Checked {
        settings,
        variables: Vec::new(),
        services: services.collect(),
        stop: Stop {
            budget_ms: plan.budget().as_millis(),
            last_call_ms: plan.last_call().as_millis(),
            assumed,
            ladders: ladders.collect(),
        },
    }
}

/// For people, in 80 columns as far as names and values allow.
fn table(checked: &Checked, args: &RunArgs) -> String {
    let mut out = format!("{:<21} {:<29} SOURCE\n", "SETTING", "VALUE");
    for Setting { key, value, source } in &checked.settings {
        let value = if value.is_empty() { "-" } else { value };
        let _ = if value.chars().count() > 29 {
            // Too long for one line: the source has its own.
            writeln!(out, "{key:<21} {value}\n{:<51} {source}", "")
        } else {
            writeln!(out, "{key:<21} {value:<29} {source}")
        };
    }
    if !checked.variables.is_empty() {
        out.push_str("\nvariables of other images that are set:\n");
    }
    for Variable { name, fate, why } in &checked.variables {
        let _ = writeln!(out, "  {name}: {fate}: {why}");
    }
    let names = |list: &[ServiceName]| match list {
        [] => "-".to_owned(),
        list => list.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", "),
    };
    let _ = write!(
        out,
        "\nservices in {}, in the order of their start:\n{:<12} {:<8} {:<9} {:<20} AFTER\n",
        args.services.display(),
        "SERVICE",
        "KIND",
        "GIVES UP",
        "REQUIRES"
    );
    for Planned { name, kind, requires, after, gives_up, absent } in &checked.services {
        let gives_up = match gives_up {
            GivesUp::StopAll => "stop-all",
            GivesUp::Degrade => "degrade",
            GivesUp::Hold => "hold",
        };
        let (name, requires) = (name.as_str(), names(requires));
        let _ = writeln!(out, "{name:<12} {kind:<8} {gives_up:<9} {requires:<20} {}", names(after));
        if let Some(why) = absent {
            let _ = writeln!(out, "{:<12} absent: {why}", "");
        }
    }
    let ms = |ms: u128| show(std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)));
    let stop = &checked.stop;
    let _ = write!(
        out,
        "\nthe whole stop: {} ({}); killing begins after {};\nwhoever stops us must wait longer than that. In the order of the stop:\n",
        ms(stop.budget_ms),
        stop.assumed,
        ms(stop.last_call_ms)
    );
    for ladder in &stop.ladders {
        let rungs: Vec<String> = ladder.rungs.iter().map(|r| format!("{} {}", r.signal, ms(r.ms))).collect();
        let _ = writeln!(out, "  {}: {}, SIGKILL", ladder.service, rungs.join(", "));
    }
    out
}
