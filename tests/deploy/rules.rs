//! The rules: what must hold whatever the platform is, and what each platform needs besides.

use crate::plan::{Asked, Plan, Platform};
use crate::served::{Served, is_known};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use supafly::config::{Pooler, Settings, Takeover};

/// What lies between the end of our budget and the platform's patience, at least.
const MARGIN: Duration = Duration::from_secs(5);
/// Values of these are secrets; their names may be given with `_FILE` only.
const SECRET: [&str; 5] = ["PASSWORD", "SECRET", "_KEY", "TOKEN", "ACCESS_KEY_ID"];

/// Everything that is wrong.
pub(crate) fn problems(plan: &Plan) -> Vec<String> {
    let mut found = variables(plan);
    let mut env = plan.env.clone();
    if plan.platform == Platform::Fly {
        env.insert("FLY_MACHINE_ID".to_owned(), "148e".to_owned());
    }
    let settings = match Settings::read(None, &env) {
        Ok(settings) => settings,
        Err(e) => {
            found.push(format!("the settings are refused: {e}"));
            return found;
        }
    };
    let served = Served::start(&settings);
    found.extend(stop(plan, &settings));
    found.extend(checks(plan, &served));
    found.extend(metrics(plan, &served));
    found.extend(led(plan, &settings, &served));
    found.extend(volume(plan, &settings));
    found.extend(clients(plan, &settings));
    found
}

fn variables(plan: &Plan) -> Vec<String> {
    let unknown = plan.env.keys().filter(|name| !is_known(name)).map(|n| format!("{n}: nothing reads it"));
    let secrets = plan.env.keys().filter(|name| SECRET.iter().any(|s| name.ends_with(s)));
    unknown.chain(secrets.map(|n| format!("{n}: a secret in a file that is committed"))).collect()
}

fn stop(plan: &Plan, settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    let budget = settings.stop_budget;
    match plan.stop {
        None => found.push("no patience is set: the platform's default kills Postgres".to_owned()),
        Some(patience) if budget + MARGIN > patience => {
            found.push(format!(
                "the stop budget {budget:?} is not below the platform's patience {patience:?}"
            ));
        }
        // Short enough for nothing: a base of some gigabytes needs minutes for its last checkpoint.
        Some(_) if budget < Duration::from_secs(60) => {
            found.push(format!("the stop budget {budget:?} leaves the platform's patience unused"));
        }
        Some(_) => {}
    }
    if plan.platform == Platform::Fly
        && let Some(patience) = plan.stop
        && patience > Duration::from_secs(300)
    {
        found.push(format!("Fly waits for 300 s at most, not {patience:?}"));
    }
    match plan.signal.as_deref() {
        Some("SIGTERM" | "SIGINT" | "SIGQUIT") => {}
        // STOPSIGNAL of the image.
        None if plan.platform == Platform::Compose => {}
        other => found.push(format!("the stop signal {other:?} is no orderly stop")),
    }
    if !plan.restart.starts_with("on-failure") {
        found.push(format!("restart `{}`: exit 0 is a wanted stop, any other end is not", plan.restart));
    }
    found
}

/// Reachable from outside of the machine, over IPv4 and IPv6.
fn is_everywhere(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

fn asked(what: &str, asked: &Asked, served: &Served, good: &[u16]) -> Option<String> {
    let Asked { port, path } = asked;
    match served.ask(*port, path) {
        None => Some(format!("{what}: nothing listens on port {port}")),
        Some((address, _)) if !is_everywhere(address) => {
            Some(format!("{what}: {address} cannot be reached from outside over IPv4 and IPv6"))
        }
        Some((_, code)) if !good.contains(&code) => {
            Some(format!("{what}: port {port} answers {code} to {path}, which is not served there"))
        }
        Some(_) => None,
    }
}

fn checks(plan: &Plan, served: &Served) -> Vec<String> {
    // Ready or not yet: both are answers.
    let mut found: Vec<String> =
        plan.checks.iter().filter_map(|c| asked("check", c, served, &[200, 503])).collect();
    if plan.platform == Platform::Fly && !plan.checks.iter().any(|c| c.path == "/health/ready") {
        found.push("no check asks /health/ready".to_owned());
    }
    if plan.other_checks > 0 {
        found.push(
            "a check that only connects says that a process exists, not that clients are served".to_owned(),
        );
    }
    found
}

fn metrics(plan: &Plan, served: &Served) -> Vec<String> {
    match &plan.metrics {
        None if plan.platform == Platform::Fly => vec!["metrics are not scraped".to_owned()],
        None => Vec::new(),
        // The scraper shows no token: 401 is an answer that it cannot use.
        Some(place) => asked("metrics", place, served, &[200]).into_iter().collect(),
    }
}

fn led(plan: &Plan, settings: &Settings, served: &Served) -> Vec<String> {
    let mut found = Vec::new();
    let database = [settings.pg_port, settings.pooler_port, settings.pooler_session_port];
    for led in &plan.led {
        let port = led.port;
        let serves_api = port == settings.rest.port && settings.rest.listen == "*";
        let is_web = served
            .ask(port, "/health/live")
            .is_some_and(|(address, code)| is_everywhere(address) && code == 200);
        if !database.contains(&port) && !serves_api && !is_web {
            found.push(format!("port {port} is led to, and nothing serves it there"));
        }
        if led.handlers.iter().any(|h| h == "proxy_proto") {
            found.push(format!(
                "port {port}: proxy_proto is announced, and nothing reads PROXY protocol before the gateway"
            ));
        }
        if database.contains(&port) && !led.to_loopback {
            found.push(format!("port {port} of the database is public before there is a gateway"));
        }
        if !database.contains(&port) && !led.to_loopback && !is_web {
            found.push(format!("port {port} is public before there is a gateway"));
        }
        if led.autostop != Some(false) && plan.platform == Platform::Fly {
            found.push(format!("port {port}: an idle machine may be stopped; say `off`"));
        }
    }
    found
}

fn volume(plan: &Plan, settings: &Settings) -> Vec<String> {
    let data = settings.data.display().to_string();
    match plan.mounts.as_slice() {
        [one] if *one == data => Vec::new(),
        other => vec![format!("the data directory is {data}, and the volumes are mounted at {other:?}")],
    }
}

fn clients(plan: &Plan, settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    if settings.pg_listen != "*" {
        found.push(format!("Postgres listens on `{}`: clients come from outside", settings.pg_listen));
    }
    if plan.platform == Platform::Fly {
        if settings.pooler_listen != "*" {
            found.push(format!(
                "the pooler listens on `{}`: clients come from outside",
                settings.pooler_listen
            ));
        }
        match settings.pooler {
            Pooler::PgBouncer | Pooler::Off => {}
            Pooler::Auto | Pooler::Supavisor => {
                found.push(
                    "Supavisor has no IPv6, and the private network is IPv6: no client reaches it".to_owned(),
                );
            }
        }
        // Two machines of one app must not take the project from each other.
        if settings.takeover != Takeover::Never {
            found.push("taking over is what the companion decides, once".to_owned());
        }
    }
    found
}
