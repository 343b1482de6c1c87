//! From the text of a service file to a [`ServiceSpec`], or to everything that is wrong with it.

use super::asking::{live, ready};
use super::policy::{after_outage, codes, gives_up, ladder, outage_signals, restart};
use super::problem::{Problem, Problems};
use super::reader::{File, Reader, Value, nearest};
use super::room::room;
use super::{
    Capability, CoreLimit, Freezing, Helpers, Kind, NewPrivileges, Pass, Presence, Ready, ServiceName,
    ServiceSpec,
};
use nix::sys::signal::Signal;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use toml::de::DeTable;

/// Reads one service file. `file` is its path as the operator names it (its stem is the service's name), `variables`
/// is what `${name}` may stand for.
///
/// # Errors
/// Every problem of the file, each with its place.
pub fn parse(file: &str, text: &str, variables: &BTreeMap<String, String>) -> Result<ServiceSpec, Problems> {
    let reading = File { name: file, text, variables, problems: RefCell::default() };
    let spec = read(&reading, text);
    let mut problems = reading.problems.into_inner();
    problems.sort_by_key(|p| p.at.as_ref().map(|at| (at.line, at.column)));
    match spec {
        Some(spec) if problems.is_empty() => Ok(spec),
        Some(_) | None => Err(Problems(problems)),
    }
}

fn read(file: &File<'_>, text: &str) -> Option<ServiceSpec> {
    let stem = Path::new(file.name).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let name = ServiceName::new(stem);
    if name.is_none() {
        let message =
            "the file's stem is the service's name: up to 40 lower-case letters, digits and hyphens";
        file.problems.borrow_mut().push(Problem::whole(file.name, message));
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        file.problem(e.span().unwrap_or(0..0), format!("not TOML: {}", e.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let table = table.into_inner();
    // The reader borrows from the file for as long as the table lives; both end here.
    let reader = Reader::new(file, &table);
    let spec = service(&reader, name);
    reader.finish();
    spec
}

fn service(r: &Reader<'_>, name: Option<ServiceName>) -> Option<ServiceSpec> {
    let f = r.file;
    let missing = |key: &str| {
        f.problems.borrow_mut().push(Problem::whole(f.name, format!("`{key}` is missing")));
    };
    let kind = match r.get("kind") {
        Some(v) => f.word(v, &[("daemon", Kind::Daemon), ("oneshot", Kind::Oneshot)]),
        None => {
            missing("kind");
            None
        }
    };
    let exec = match r.get("exec") {
        Some(v) => f.texts(v).and_then(|argv| program(f, v, argv)),
        None => {
            missing("exec");
            None
        }
    };
    let base = ServiceSpec::minimal(
        name.clone().or_else(|| ServiceName::new("x"))?,
        kind.unwrap_or(Kind::Daemon),
        exec.clone().unwrap_or_default(),
    );
    let spec = ServiceSpec {
        user: r.get("user").and_then(|v| f.text(v)),
        group: r.get("group").and_then(|v| f.text(v)),
        groups: r.get("groups").and_then(|v| f.texts(v)).unwrap_or_default(),
        directory: r.get("directory").and_then(|v| absolute(f, v)).unwrap_or(base.directory),
        env: r.get("env").map(|v| environment(f, v)).unwrap_or_default(),
        pass: r.get("pass").map(|v| passes(f, v)).unwrap_or_default(),
        requires: r.get("requires").map(|v| names(f, v)).unwrap_or_default(),
        after: r.get("after").map(|v| names(f, v)).unwrap_or_default(),
        ready: r.get("ready").and_then(|v| ready(f, v, base.kind)).unwrap_or(base.ready),
        start_deadline: r.get("start_deadline").and_then(|v| f.duration(v)),
        stop: r.get("stop").and_then(|v| ladder(f, v)).unwrap_or(base.stop),
        on_stop: r.get("on_stop").and_then(|v| signal(f, v)),
        restart: r.get("restart").map_or(base.restart.clone(), |v| restart(f, v, &base.restart)),
        gives_up: r.get("gives_up").and_then(|v| gives_up(f, v)).unwrap_or(base.gives_up),
        pass_exit: r.get("pass_exit").map(|v| codes(f, v)).unwrap_or_default(),
        presence: match r.get("required").and_then(|v| f.boolean(v)) {
            Some(true) => Presence::Required,
            Some(false) | None => Presence::Optional,
        },
        program: r.get("program").and_then(|v| f.text(v)),
        lock: r.get("lock").and_then(|v| absolute(f, v)),
        room: r.get("room").and_then(|v| room(f, v)),
        parent_death: r.get("parent_death").and_then(|v| signal(f, v)).or(base.parent_death),
        watchdog: r.get("watchdog").and_then(|v| f.duration(v)),
        reports_health: r.get("reports_health").and_then(|v| f.duration(v)),
        fence_by: r.get("fence_by").and_then(|v| one_name(f, v)),
        nofile: r.get("nofile").and_then(|v| f.integer(v, "a number of files")),
        nice: r.get("nice").and_then(|v| f.number(v, -20..=19, "a niceness from -20 to 19")),
        oom_score_adj: r
            .get("oom_score_adj")
            .and_then(|v| f.number(v, -1000..=1000, "a number from -1000 to 1000")),
        core: r.get("core").and_then(|v| core(f, v)),
        capabilities: r.get("capabilities").and_then(|v| capabilities(f, v)),
        live: r.get("live").and_then(|v| live(f, v, base.kind)),
        after_outage: r.get("after_outage").and_then(|v| after_outage(f, v)),
        outage_signals: r.get("outage_signals").and_then(|v| outage_signals(f, v)),
        quiesces: quiesces(r),
        freezing: match r.get("freezes").and_then(|v| f.boolean(v)) {
            Some(false) => Freezing::GoesOn,
            Some(true) | None => Freezing::Stands,
        },
        helpers: r
            .get("helpers")
            .and_then(|v| f.word(v, &[("short-lived", Helpers::ShortLived), ("resident", Helpers::Resident)]))
            .unwrap_or(Helpers::ShortLived),
        env_files: r.get("env_files").map(|v| files(f, v)).unwrap_or_default(),
        no_new_privileges: match r.get("no_new_privileges").and_then(|v| f.boolean(v)) {
            Some(true) => NewPrivileges::Never,
            Some(false) | None => NewPrivileges::Allowed,
        },
        name: base.name,
        kind: base.kind,
        exec: base.exec,
    };
    if let (Some(v), false) = (r.get("after_outage"), matches!(spec.ready, Ready::Probe(_))) {
        f.problem(v.span(), "whether it is back is asked by a probe: give `ready` one");
    }
    if let (Some(v), true) = (r.get("outage_signals"), spec.ready == Ready::Started) {
        f.problem(
            v.span(),
            "a signal before it has its handlers would end it: give `ready` a way to say that it has",
        );
    }
    if let Some(me) = &name {
        for (key, list) in [("requires", &spec.requires), ("after", &spec.after)] {
            if let Some(v) = r.get(key).filter(|_| list.contains(me)) {
                f.problem(v.span(), format!("`{me}` cannot wait for itself"));
            }
        }
    }
    (name.is_some() && kind.is_some() && exec.is_some()).then_some(spec)
}

pub(super) fn program(f: &File<'_>, v: Value<'_>, argv: Vec<String>) -> Option<Vec<String>> {
    match argv.first() {
        None => f.problem(v.span(), "an empty list: write the program and its arguments"),
        Some(program) if !program.starts_with('/') => {
            f.problem(
                v.span(),
                format!("`{program}` is not absolute: no PATH is searched, write where it lies"),
            );
        }
        Some(_) => return Some(argv),
    }
    None
}

pub(super) fn absolute(f: &File<'_>, v: Value<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(f.text(v)?);
    if !path.is_absolute() {
        f.problem(v.span(), "write an absolute path");
        return None;
    }
    Some(path)
}

fn environment(f: &File<'_>, v: Value<'_>) -> BTreeMap<String, String> {
    let Some(table) = f.table(v, "a table, { NAME = \"value\" }") else { return BTreeMap::new() };
    let mut env = BTreeMap::new();
    for (key, span, value) in table.all() {
        if Pass::new(key).is_none() || key.ends_with('*') {
            f.problem(span, format!("`{key}` cannot name a variable: letters, digits and `_`"));
        } else if let Some(text) = f.text(value) {
            env.insert(key.to_owned(), text);
        }
    }
    env
}

fn files(f: &File<'_>, v: Value<'_>) -> BTreeMap<String, PathBuf> {
    let texts = environment(f, v);
    let relative = texts.iter().find(|(_, path)| !path.starts_with('/'));
    if let Some((name, _)) = relative {
        f.problem(v.span(), format!("`{name}`: write the absolute path of the file that holds its value"));
    }
    texts.into_iter().map(|(name, path)| (name, PathBuf::from(path))).collect()
}

fn core(f: &File<'_>, v: Value<'_>) -> Option<CoreLimit> {
    if v.get_ref().as_str() == Some("unlimited") {
        return Some(CoreLimit::Unlimited);
    }
    f.integer(v, "how many bytes a core may have, 0 for none, or \"unlimited\"").map(CoreLimit::Bytes)
}

fn capabilities(f: &File<'_>, v: Value<'_>) -> Option<BTreeSet<Capability>> {
    let texts = f.texts(v)?;
    let read = |text: &String| {
        let found = Capability::named(text);
        if found.is_none() {
            let hint = nearest(text, Capability::names()).map_or_else(
                || "write them as capabilities(7) does, \"CAP_NET_BIND_SERVICE\"".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            f.problem(v.span(), format!("`{text}` is no capability; {hint}"));
        }
        found
    };
    texts.iter().map(read).collect()
}

/// `handles = "quiesce"`, and how long it may take.
fn quiesces(r: &Reader<'_>) -> Option<Duration> {
    let within = r.get("quiesce_deadline").and_then(|v| r.file.duration(v));
    let handles = r.get("handles").and_then(|v| r.file.word(v, &[("quiesce", ())]));
    match (handles, r.get("quiesce_deadline")) {
        (Some(()), _) => Some(within.unwrap_or(Duration::from_secs(10))),
        (None, Some(v)) => {
            r.file.problem(v.span(), "`quiesce_deadline` without handles = \"quiesce\"");
            None
        }
        (None, None) => None,
    }
}

fn passes(f: &File<'_>, v: Value<'_>) -> Vec<Pass> {
    let texts = f.texts(v).unwrap_or_default();
    let read = |text: String| {
        let pass = Pass::new(&text);
        if pass.is_none() {
            f.problem(
                v.span(),
                format!("`{text}` cannot be passed on: write NAME, or NAME* for all that begin so"),
            );
        }
        pass
    };
    texts.into_iter().filter_map(read).collect()
}

pub(super) fn one_name(f: &File<'_>, v: Value<'_>) -> Option<ServiceName> {
    let text = f.text(v)?;
    let name = ServiceName::new(&text);
    if name.is_none() {
        f.problem(v.span(), format!("`{text}` cannot be a service: lower-case letters, digits and hyphens"));
    }
    name
}

fn names(f: &File<'_>, v: Value<'_>) -> Vec<ServiceName> {
    let Some(array) = v.get_ref().as_array() else {
        f.problem(v.span(), "write a list of services, [\"like-this\"]");
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for value in array.iter() {
        let Some(name) = one_name(f, value) else { continue };
        if seen.insert(name.clone()) {
            out.push(name);
        } else {
            f.problem(value.span(), format!("`{name}` is named twice"));
        }
    }
    out
}

pub(super) fn signal(f: &File<'_>, v: Value<'_>) -> Option<Signal> {
    let text = v.get_ref().as_str().unwrap_or_default();
    let full = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    let found = Signal::from_str(&full).ok().filter(|_| text.starts_with("SIG"));
    if found.is_none() {
        let near = nearest(&full, Signal::iterator().map(Signal::as_str));
        let hint = near.map_or_else(
            || "write SIGTERM, SIGINT, SIGQUIT, SIGUSR1 or the like".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        f.problem(v.span(), format!("`{text}` is not a signal; {hint}"));
    }
    found
}
