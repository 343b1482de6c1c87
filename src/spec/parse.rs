//! From the text of a service file to a [`ServiceSpec`], or to everything that is wrong with it.

use super::problem::{Problem, Problems};
use super::reader::{File, Reader, Value, nearest};
use super::{
    Check, GivesUp, GivesUpRule, Kind, Length, NewPrivileges, Pass, Presence, Probe, Ready, Restart, Rung,
    ServiceName, ServiceSpec, StopLadder, When,
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
        lock: r.get("lock").and_then(|v| absolute(f, v)),
        parent_death: r.get("parent_death").and_then(|v| signal(f, v)).or(base.parent_death),
        watchdog: r.get("watchdog").and_then(|v| f.duration(v)),
        reports_health: r.get("reports_health").and_then(|v| f.duration(v)),
        fence_by: r.get("fence_by").and_then(|v| one_name(f, v)),
        nofile: r.get("nofile").and_then(|v| f.integer(v, "a number of files")),
        nice: r.get("nice").and_then(|v| f.number(v, -20..=19, "a niceness from -20 to 19")),
        oom_score_adj: r
            .get("oom_score_adj")
            .and_then(|v| f.number(v, -1000..=1000, "a number from -1000 to 1000")),
        no_new_privileges: match r.get("no_new_privileges").and_then(|v| f.boolean(v)) {
            Some(true) => NewPrivileges::Never,
            Some(false) | None => NewPrivileges::Allowed,
        },
        name: base.name,
        kind: base.kind,
        exec: base.exec,
    };
    if let Some(me) = &name {
        for (key, list) in [("requires", &spec.requires), ("after", &spec.after)] {
            if let Some(v) = r.get(key).filter(|_| list.contains(me)) {
                f.problem(v.span(), format!("`{me}` cannot wait for itself"));
            }
        }
    }
    (name.is_some() && kind.is_some() && exec.is_some()).then_some(spec)
}

fn program(f: &File<'_>, v: Value<'_>, argv: Vec<String>) -> Option<Vec<String>> {
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

fn absolute(f: &File<'_>, v: Value<'_>) -> Option<PathBuf> {
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

fn one_name(f: &File<'_>, v: Value<'_>) -> Option<ServiceName> {
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

fn signal(f: &File<'_>, v: Value<'_>) -> Option<Signal> {
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

fn ready(f: &File<'_>, v: Value<'_>, kind: Kind) -> Option<Ready> {
    let shape = "{ notify = true } or { http = {…} }, { tcp = {…} }, { unix = \"…\" }, { exec = […] }";
    let table = f.table(v, shape)?;
    let notify = table.get("notify").and_then(|v| f.boolean(v));
    let mut checks = Vec::new();
    if let Some(v) = table.get("http") {
        checks.push(http(f, v));
    }
    if let Some(v) = table.get("tcp") {
        checks.push(tcp(f, v));
    }
    if let Some(v) = table.get("unix") {
        checks.push(absolute(f, v).map(|path| Check::Unix { path }));
    }
    if let Some(v) = table.get("exec") {
        checks.push(f.texts(v).and_then(|argv| program(f, v, argv)).map(|argv| Check::Exec { argv }));
    }
    let every = table.get("every").and_then(|v| f.duration(v)).unwrap_or(Duration::from_secs(1));
    let timeout = match table.get("timeout") {
        Some(v) => f.duration(v).inspect(|t| {
            if *t >= every {
                f.problem(
                    v.span(),
                    "a probe's timeout must be shorter than `every`, or two would be in flight",
                );
            }
        }),
        None => Some(every / 2),
    };
    table.finish();
    if matches!(kind, Kind::Oneshot) {
        f.problem(v.span(), "a oneshot is ready when it has exited with 0; leave `ready` out");
        return None;
    }
    match (notify, checks.len()) {
        (Some(true), 0) => Some(Ready::Notify),
        (None | Some(false), 1) => {
            checks.pop()?.and_then(|check| Some(Ready::Probe(Probe { check, every, timeout: timeout? })))
        }
        _ => {
            f.problem(v.span(), format!("one way to tell, please: {shape}"));
            None
        }
    }
}

fn port(f: &File<'_>, v: Value<'_>) -> Option<u16> {
    f.number(v, 1..=65_535, "a port from 1 to 65535")
}

fn http(f: &File<'_>, v: Value<'_>) -> Option<Check> {
    let table = f.table(v, "{ port = 3001, path = \"/ready\" }")?;
    let port = table.get("port").and_then(|v| port(f, v));
    let path = match table.get("path") {
        Some(v) => f.text(v).filter(|path| {
            let fits = path.starts_with('/') && !path.contains(|c: char| c.is_whitespace() || c.is_control());
            if !fits {
                f.problem(v.span(), "write a path with its slash and without blanks, \"/ready\"");
            }
            fits
        }),
        None => Some("/".to_owned()),
    };
    if table.get("port").is_none() {
        f.problem(v.span(), "`port` is missing");
    }
    table.finish();
    Some(Check::Http { port: port?, path: path? })
}

fn tcp(f: &File<'_>, v: Value<'_>) -> Option<Check> {
    let table = f.table(v, "{ port = 5432 }")?;
    let port = table.get("port").and_then(|v| port(f, v));
    if table.get("port").is_none() {
        f.problem(v.span(), "`port` is missing");
    }
    table.finish();
    Some(Check::Tcp { port: port? })
}

fn ladder(f: &File<'_>, v: Value<'_>) -> Option<StopLadder> {
    let shape = "a list of rungs, [{ signal = \"SIGTERM\", share = 1 }]";
    let Some(array) = v.get_ref().as_array() else {
        f.problem(v.span(), format!("write {shape}"));
        return None;
    };
    let mut rungs = Vec::new();
    for value in array.iter() {
        let Some(table) = f.table(value, "{ signal = \"SIGTERM\", share = 1 }") else { continue };
        let sent = table.get("signal").and_then(|v| signal(f, v));
        let share =
            table.get("share").and_then(|v| f.integer::<u32>(v, "a share of 1 or more").filter(|s| *s > 0));
        let wait = table.get("wait").and_then(|v| f.duration(v));
        table.finish();
        match (sent, share, wait) {
            (Some(Signal::SIGKILL), _, _) => {
                f.problem(value.span(), "SIGKILL always follows the last rung by itself");
            }
            (Some(signal), Some(share), None) => rungs.push(Rung { signal, length: Length::Share(share) }),
            (Some(signal), None, Some(wait)) => rungs.push(Rung { signal, length: Length::Wait(wait) }),
            (None, _, _) => f.problem(value.span(), "a rung needs a `signal`"),
            (Some(_), _, _) => f.problem(value.span(), "a rung needs either `share` or `wait`"),
        }
    }
    let ladder = StopLadder::new(rungs);
    if ladder.is_none() && array.is_empty() {
        f.problem(v.span(), format!("an empty ladder; write {shape}"));
    }
    ladder
}

fn restart(f: &File<'_>, v: Value<'_>, base: &Restart) -> Restart {
    let Some(table) = f.table(v, "a table, { when = \"always\", delay = \"1s\" }") else {
        return base.clone();
    };
    let words = [("always", When::Always), ("on-failure", When::OnFailure), ("never", When::Never)];
    let delay = table.get("delay").and_then(|v| f.duration(v)).unwrap_or(base.delay);
    let restart = Restart {
        when: table.get("when").and_then(|v| f.word(v, &words)).unwrap_or(base.when),
        delay,
        max_delay: table
            .get("max_delay")
            .and_then(|v| f.duration(v))
            .unwrap_or_else(|| base.max_delay.max(delay)),
        window: table.get("window").and_then(|v| f.duration(v)).unwrap_or(base.window),
        max: table.get("max").and_then(|v| f.integer(v, "how many restarts")).unwrap_or(base.max),
        final_codes: table.get("final_codes").map(|v| codes(f, v)).unwrap_or_default(),
    };
    if let Some(v) = table.get("max_delay").filter(|_| restart.max_delay < restart.delay) {
        f.problem(v.span(), "`max_delay` is shorter than `delay`");
    }
    table.finish();
    restart
}

const GIVING_UP: [(&str, GivesUp); 3] =
    [("stop-all", GivesUp::StopAll), ("degrade", GivesUp::Degrade), ("hold", GivesUp::Hold)];

fn gives_up(f: &File<'_>, v: Value<'_>) -> Option<GivesUpRule> {
    if v.get_ref().as_table().is_none() {
        let default = f.word(v, &GIVING_UP)?;
        return Some(GivesUpRule { default, when_env: BTreeMap::new(), codes: BTreeMap::new() });
    }
    let table = f.table(v, "\"stop-all\"")?;
    let default = table.get("default").and_then(|v| f.word(v, &GIVING_UP));
    let mut when_env = BTreeMap::new();
    if let Some(names) = table.get("when_env").and_then(|v| f.table(v, "a table, { NAME = \"hold\" }")) {
        for (key, _, value) in names.all() {
            if let Some(what) = f.word(value, &GIVING_UP) {
                when_env.insert(key.to_owned(), what);
            }
        }
    }
    let mut by_code = BTreeMap::new();
    if let Some(table) = table.get("codes").and_then(|v| f.table(v, "a table, { 77 = \"hold\" }")) {
        for (key, span, value) in table.all() {
            match (key.parse(), f.word(value, &GIVING_UP)) {
                (Ok(code), Some(what)) => {
                    by_code.insert(code, what);
                }
                (Err(_), _) => f.problem(span, format!("`{key}` is not an exit code from 0 to 255")),
                (Ok(_), None) => {}
            }
        }
    }
    table.finish();
    if default.is_none() {
        f.problem(v.span(), "`default` is missing");
    }
    Some(GivesUpRule { default: default?, when_env, codes: by_code })
}

fn codes(f: &File<'_>, v: Value<'_>) -> BTreeSet<u8> {
    let Some(array) = v.get_ref().as_array() else {
        f.problem(v.span(), "write a list of exit codes, [76, 77]");
        return BTreeSet::new();
    };
    array.iter().filter_map(|v| f.integer(v, "an exit code from 0 to 255")).collect()
}
