//! `fly.toml` and the machine's configuration: each alone, both against each other, and each rule on a broken variant.

use crate::plan::{Asked, Led, Plan, Platform};
use crate::rules::problems;
use crate::{broken, refused, text};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use supafly::machines::config::{Autostop, MachineConfig, Span};

/// What we write there; what we do not is a mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some keys are read to be allowed only")]
struct FlyToml {
    app: String,
    primary_region: String,
    kill_signal: Option<String>,
    /// Seconds.
    kill_timeout: Option<u64>,
    build: BTreeMap<String, String>,
    deploy: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    mounts: Vec<FlyMount>,
    vm: Vec<FlyVm>,
    restart: Vec<FlyRestart>,
    #[serde(default)]
    services: Vec<FlyService>,
    http_service: Option<FlyService>,
    #[serde(default)]
    checks: BTreeMap<String, FlyCheck>,
    #[serde(default)]
    metrics: Vec<Metrics>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some keys are read to be allowed only")]
struct FlyMount {
    source: String,
    destination: String,
    initial_size: String,
    auto_extend_size_threshold: u32,
    auto_extend_size_increment: String,
    auto_extend_size_limit: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlyVm {
    cpu_kind: String,
    cpus: u32,
    memory: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlyRestart {
    policy: String,
    retries: u32,
}

#[derive(Debug, Deserialize)]
struct FlyService {
    internal_port: u16,
    auto_stop_machines: Option<Autostop>,
    #[serde(default)]
    ports: Vec<FlyPort>,
    #[serde(default)]
    checks: Vec<FlyCheck>,
}

#[derive(Debug, Deserialize)]
struct FlyPort {
    #[serde(default)]
    handlers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlyCheck {
    #[serde(rename = "type")]
    kind: String,
    port: Option<u16>,
    method: Option<String>,
    path: Option<String>,
    interval: Span,
    timeout: Span,
    grace_period: Span,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    port: u16,
    path: String,
}

fn fly_toml(text: &str) -> FlyToml {
    toml::from_str(text).unwrap_or_else(|e| panic!("fly.toml: {e}"))
}

fn plan_of_toml(text: &str) -> Plan {
    let mut file = fly_toml(text);
    let mut led = Vec::new();
    let mut all: Vec<(Option<u16>, FlyCheck)> = file.checks.into_values().map(|c| (None, c)).collect();
    for service in file.services.drain(..).chain(file.http_service.take()) {
        led.push(Led {
            port: service.internal_port,
            handlers: service.ports.into_iter().flat_map(|p| p.handlers).collect(),
            to_loopback: false,
            autostop: service.auto_stop_machines.map(|a| a != Autostop::Off),
        });
        all.extend(service.checks.into_iter().map(|c| (Some(service.internal_port), c)));
    }
    let (http, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, c)| c.kind == "http");
    let asked = |(of, c): (Option<u16>, FlyCheck)| Asked {
        port: c.port.or(of).unwrap_or(0),
        path: c.path.unwrap_or_else(|| "/".to_owned()),
    };
    assert!(file.metrics.len() <= 1, "one scrape");
    Plan {
        platform: Platform::Fly,
        env: file.env,
        checks: http.into_iter().map(asked).collect(),
        other_checks: other.len(),
        metrics: file.metrics.pop().map(|m| Asked { port: m.port, path: m.path }),
        led,
        signal: file.kill_signal,
        stop: file.kill_timeout.map(Duration::from_secs),
        restart: file.restart.pop().map(|r| r.policy).unwrap_or_default(),
        mounts: file.mounts.into_iter().map(|m| m.destination).collect(),
    }
}

fn plan_of_machine(text: &str) -> Plan {
    let config = MachineConfig::read(text).unwrap();
    let mut all: Vec<_> = config.checks.into_values().map(|c| (None, c)).collect();
    let mut led = Vec::new();
    for service in config.services {
        led.push(Led {
            port: service.internal_port,
            handlers: service.ports.into_iter().flat_map(|p| p.handlers).collect(),
            to_loopback: false,
            autostop: Some(service.autostop != Autostop::Off),
        });
        all.extend(service.checks.into_iter().map(|c| (Some(service.internal_port), c)));
    }
    let (http, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, c)| c.kind == "http");
    Plan {
        platform: Platform::Fly,
        env: config.env,
        checks: http
            .into_iter()
            .map(|(of, c)| Asked { port: c.port.or(of).unwrap_or(0), path: c.path.unwrap_or_default() })
            .collect(),
        other_checks: other.len(),
        metrics: config.metrics.map(|m| Asked { port: m.port, path: m.path }),
        led,
        signal: config.stop_config.as_ref().map(|s| s.signal.clone()),
        stop: config.stop_config.map(|s| s.timeout.0),
        restart: config.restart.map(|r| r.policy).unwrap_or_default(),
        mounts: config.mounts.into_iter().map(|m| m.path).collect(),
    }
}

fn toml_text() -> String {
    text("fly.toml")
}

fn machine_text() -> String {
    text("image/machine.json")
}

/// Seconds that Fly waits after its signal: what others compare themselves with.
pub(crate) fn patience() -> Duration {
    plan_of_toml(&toml_text()).stop.unwrap()
}

/// The stop budget of `fly.toml`, as it is written.
pub(crate) fn budget() -> String {
    plan_of_toml(&toml_text()).env["SUPAFLY_STOP_BUDGET"].clone()
}

#[test]
fn fly_toml_promises_what_the_binary_serves() {
    assert_eq!(problems(&plan_of_toml(&toml_text())), Vec::<String>::new());
}

#[test]
fn the_machines_configuration_promises_what_the_binary_serves() {
    assert_eq!(problems(&plan_of_machine(&machine_text())), Vec::<String>::new());
}

#[test]
fn a_machine_by_the_companion_is_as_one_by_fly_deploy() {
    let file = fly_toml(&toml_text());
    let machine = MachineConfig::template().unwrap();
    assert_eq!(machine.env, file.env);
    let (guest, vm) = (machine.guest.unwrap(), &file.vm[0]);
    assert_eq!((guest.cpu_kind, guest.cpus), (vm.cpu_kind.clone(), vm.cpus));
    assert_eq!(format!("{}gb", guest.memory_mb / 1024), vm.memory);
    let (restart, theirs) = (machine.restart.unwrap(), &file.restart[0]);
    assert_eq!((restart.policy, restart.max_retries), (theirs.policy.clone(), Some(theirs.retries)));
    let stop = machine.stop_config.unwrap();
    assert_eq!(Some(stop.timeout.0), file.kill_timeout.map(Duration::from_secs));
    assert_eq!(Some(stop.signal), file.kill_signal);
    let (mount, theirs) = (&machine.mounts[0], &file.mounts[0]);
    assert_eq!(mount.path, theirs.destination);
    let gb = |text: &str| text.strip_suffix("GB").unwrap().parse::<u64>().unwrap();
    assert_eq!(mount.extra["extend_threshold_percent"], theirs.auto_extend_size_threshold);
    assert_eq!(mount.extra["add_size_gb"], gb(&theirs.auto_extend_size_increment));
    assert_eq!(mount.extra["size_gb_limit"], gb(&theirs.auto_extend_size_limit));
    assert_eq!((machine.metrics.unwrap().port, file.metrics.len()), (file.metrics[0].port, 1));
    assert_eq!(machine.services.len(), file.services.len());
    let (ours, theirs) = (&machine.checks["ready"], &file.checks["ready"]);
    assert_eq!((machine.checks.len(), file.checks.len()), (1, 1));
    assert_eq!(
        (&ours.kind, ours.port, &ours.method, &ours.path),
        (&theirs.kind, theirs.port, &theirs.method, &theirs.path)
    );
    let spans = (ours.interval.unwrap(), ours.timeout.unwrap(), ours.grace_period.unwrap());
    assert_eq!(spans, (theirs.interval, theirs.timeout, theirs.grace_period));
}

/// A variant of `fly.toml`: what is changed, into what, and the words of the refusal.
type Variant = (&'static str, &'static str, &'static [&'static str]);

#[test]
fn what_breaks_fly_toml_is_refused() {
    let whole = toml_text();
    let variants: &[Variant] = &[
        ("path = \"/health/ready\"", "path = \"/health/db\"", &["check", "404", "/health/db"]),
        ("path = \"/health/ready\"", "path = \"/health/live\"", &["no check asks /health/ready"]),
        ("path = \"/health/ready\"", "path = \"/status\"", &["check", "404", "/status"]),
        ("port = 8080", "port = 8081", &["nothing listens on port 8081"]),
        ("port = 8080", "port = 9187", &["127.0.0.1:9187", "cannot be reached"]),
        ("type = \"http\"", "type = \"tcp\"", &["only connects"]),
        ("port = 9188\n", "port = 9187\n", &["metrics", "127.0.0.1:9187", "cannot be reached"]),
        ("port = 9188\n", "port = 8080\n", &["metrics", "404"]),
        ("path = \"/metrics\"", "path = \"/metric\"", &["metrics", "404"]),
        (
            "SUPAFLY_WEB_METRICS = \"[::]:9188\"",
            "SUPAFLY_WEB_METRICS = \"off\"",
            &["metrics", "nothing listens on port 9188"],
        ),
        (
            "SUPAFLY_WEB_METRICS = \"[::]:9188\"",
            "SUPAFLY_WEB_METRICS = \"0.0.0.0:9188\"",
            &["metrics", "0.0.0.0:9188"],
        ),
        ("SUPAFLY_WEB_METRICS = \"[::]:9188\"", "SUPAFLY_WEB_PRIVATE = \"[::]:9188\"", &["metrics", "401"]),
        ("kill_timeout = 300", "kill_timeout = 290", &["the stop budget", "is not below"]),
        ("kill_timeout = 300", "kill_timeout = 400", &["300 s at most"]),
        ("kill_timeout = 300", "# none", &["no patience is set"]),
        (
            "SUPAFLY_STOP_BUDGET = \"290s\"",
            "SUPAFLY_STOP_BUDGET = \"300s\"",
            &["the stop budget", "is not below"],
        ),
        ("SUPAFLY_STOP_BUDGET = \"290s\"", "# none", &["the stop budget", "4.5s", "unused"]),
        (
            "SUPAFLY_STOP_BUDGET = \"290s\"",
            "SUPAFLY_STOP_BUDGET = \"long\"",
            &["the settings are refused", "SUPAFLY_STOP_BUDGET"],
        ),
        ("kill_signal = \"SIGTERM\"", "kill_signal = \"SIGKILL\"", &["SIGKILL", "no orderly stop"]),
        (
            "SUPAFLY_POOLER = \"pgbouncer\"",
            "SUPAFLY_POOLR = \"pgbouncer\"",
            &["SUPAFLY_POOLR", "nothing reads it"],
        ),
        ("SUPAFLY_POOLER = \"pgbouncer\"", "SUPAFLY_POOLER = \"supavisor\"", &["Supavisor has no IPv6"]),
        ("SUPAFLY_POOLER = \"pgbouncer\"", "POSTGRES_PASSWORD = \"x\"", &["POSTGRES_PASSWORD", "a secret"]),
        (
            "SUPAFLY_POOLER = \"pgbouncer\"",
            "SUPAFLY_PG_LISTEN = \"127.0.0.1\"",
            &["Postgres listens on `127.0.0.1`"],
        ),
        ("SUPAFLY_POOLER = \"pgbouncer\"", "SUPAFLY_TAKEOVER = \"auto\"", &["taking over"]),
        (
            "destination = \"/data\"",
            "destination = \"/var/lib/postgresql/data\"",
            &["the data directory is /data"],
        ),
        ("policy = \"on-failure\"", "policy = \"always\"", &["restart `always`"]),
    ];
    for (place, other, words) in variants {
        let found = problems(&plan_of_toml(&broken(&whole, place, other)));
        refused(&found, words);
    }
    let with =
        |more: &str| problems(&plan_of_toml(&format!("{whole}\n[[services]]\nprotocol = \"tcp\"\n{more}\n")));
    let found = with("internal_port = 5432\nports = [{ port = 5432, handlers = [\"proxy_proto\"] }]");
    refused(&found, &["5432", "proxy_proto"]);
    refused(&found, &["5432", "public before there is a gateway"]);
    refused(&found, &["5432", "an idle machine may be stopped"]);
    refused(&with("internal_port = 6543\nauto_stop_machines = \"off\""), &["6543", "public"]);
    refused(
        &with("internal_port = 3000\nauto_stop_machines = \"off\""),
        &["3000", "nothing serves it there"],
    );
    refused(&with("internal_port = 9188\nauto_stop_machines = \"off\""), &["9188", "public"]);
    refused(
        &with("internal_port = 8080\nauto_stop_machines = \"suspend\""),
        &["8080", "an idle machine may be stopped"],
    );
    assert_eq!(with("internal_port = 8080\nauto_stop_machines = \"off\""), Vec::<String>::new());
    refused(
        &with(
            "internal_port = 8080\nauto_stop_machines = false\nchecks = [{ type = \"http\", path = \"/up\", interval = \"15s\", timeout = \"5s\", grace_period = \"5s\" }]",
        ),
        &["check", "/up", "404"],
    );
}

#[test]
fn what_breaks_the_machines_configuration_is_refused() {
    let whole = machine_text();
    let service = |more: &str| format!("\"services\": [{{\"protocol\": \"tcp\", {more}}}]");
    let public =
        service("\"internal_port\": 5432, \"ports\": [{\"port\": 5432, \"handlers\": [\"proxy_proto\"]}]");
    let idle = service("\"internal_port\": 8080, \"autostop\": true");
    let variants: &[(&str, &str, &[&str])] = &[
        ("\"/health/ready\"", "\"/ready\"", &["check", "404", "/ready"]),
        ("\"port\": 9188", "\"port\": 9187", &["metrics", "127.0.0.1:9187"]),
        ("\"timeout\": \"300s\"", "\"timeout\": \"4m50s\"", &["is not below"]),
        ("\"signal\": \"SIGTERM\"", "\"signal\": \"SIGUSR1\"", &["no orderly stop"]),
        ("\"path\": \"/data\"", "\"path\": \"/\"", &["the data directory is /data"]),
        ("\"services\": []", &public, &["5432", "public"]),
        ("\"services\": []", &public, &["proxy_proto"]),
        ("\"services\": []", &idle, &["8080", "an idle machine may be stopped"]),
        (
            "\"SUPAFLY_POOLER\": \"pgbouncer\"",
            "\"SUPAFLY_POOL\": \"pgbouncer\"",
            &["SUPAFLY_POOL:", "nothing reads it"],
        ),
    ];
    for (place, other, words) in variants {
        refused(&problems(&plan_of_machine(&broken(&whole, place, other))), words);
    }
}

#[test]
fn a_key_that_fly_toml_does_not_know_is_a_mistake() {
    let text = broken(&toml_text(), "grace_period", "grace");
    assert!(toml::from_str::<FlyToml>(&text).is_err());
}
