//! The keys that are questions: how readiness and liveness are told.

use super::parse::{absolute, program};
use super::reader::{File, Reader, Value};
use super::{Check, Kind, Live, Probe, Ready};
use std::time::Duration;

/// What every question has beside its check.
struct Question {
    check: Option<Check>,
    asked: usize,
    every: Duration,
    timeout: Option<Duration>,
    failures: u32,
}

fn question(f: &File<'_>, table: &Reader<'_>, every: Duration) -> Question {
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
    let every = table.get("every").and_then(|v| f.duration(v)).unwrap_or(every);
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
    let failures = table.get("failures").and_then(|v| f.number(v, 1..=1_000, "how many failures, 1 or more"));
    Question {
        asked: checks.len(),
        check: checks.pop().flatten(),
        every,
        timeout,
        failures: failures.unwrap_or(3),
    }
}

impl Question {
    fn probe(self) -> Option<Probe> {
        let Question { check, every, timeout, failures, .. } = self;
        Some(Probe { check: check?, every, timeout: timeout?, failures })
    }
}

pub(super) fn ready(f: &File<'_>, v: Value<'_>, kind: Kind) -> Option<Ready> {
    let shape = "{ notify = true } or { http = {…} }, { tcp = {…} }, { unix = \"…\" }, { exec = […] }";
    let table = f.table(v, shape)?;
    let notify = table.get("notify").and_then(|v| f.boolean(v));
    let question = question(f, &table, Duration::from_secs(1));
    table.finish();
    if matches!(kind, Kind::Oneshot) {
        f.problem(v.span(), "a oneshot is ready when it has exited with 0; leave `ready` out");
        return None;
    }
    match (notify, question.asked) {
        (Some(true), 0) => Some(Ready::Notify),
        (None | Some(false), 1) => question.probe().map(Ready::Probe),
        _ => {
            f.problem(v.span(), format!("one way to tell, please: {shape}"));
            None
        }
    }
}

pub(super) fn live(f: &File<'_>, v: Value<'_>, kind: Kind) -> Option<Live> {
    let shape = "{ http = {…} }, { tcp = {…} }, { unix = \"…\" } or { exec = […] }";
    let table = f.table(v, shape)?;
    let question = question(f, &table, Duration::from_secs(10));
    let grace = table.get("grace").and_then(|v| f.duration(v)).unwrap_or_default();
    table.finish();
    if matches!(kind, Kind::Oneshot) {
        f.problem(v.span(), "a oneshot ends by itself; give it a `start_deadline`, and leave `live` out");
        return None;
    }
    if question.asked != 1 {
        f.problem(v.span(), format!("one question, please: {shape}"));
        return None;
    }
    Some(Live { probe: question.probe()?, grace })
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
