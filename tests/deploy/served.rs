//! What the real binary serves under a plan's variables: the settings say on which ports, a running `web` says which paths.

use crate::client::get;
use crate::harness::{World, until};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use supafly::config::{Listen, Settings};

/// Doors of `web`: the variable, the value in its status, the setting.
type Door = (&'static str, &'static str, fn(&Settings) -> Listen);
const DOORS: [Door; 3] = [
    ("SUPAFLY_WEB_LISTEN", "health_address", |s| s.web_listen),
    ("SUPAFLY_WEB_PRIVATE", "private_address", |s| s.web_private),
    ("SUPAFLY_WEB_METRICS", "metrics_address", |s| s.web_metrics),
];

/// A running `web` with the plan's doors, each on a free port in place of its own.
pub(crate) struct Served {
    _world: World,
    /// By the plan's address, the real one.
    doors: Vec<(SocketAddr, SocketAddr)>,
}

impl Served {
    /// Starts it; the settings must be readable.
    pub(crate) fn start(settings: &Settings) -> Served {
        let mut world = World::new();
        let service = crate::text("services/web.toml");
        let as_us = |l: &&str| !l.starts_with("user =") && !l.starts_with("groups =");
        world.raw("web", &service.lines().filter(as_us).map(|l| format!("{l}\n")).collect::<String>());
        let mut command = world.command(&["run"]);
        command.env("SUPAFLY_DATA", world.path("data"));
        for (variable, _, setting) in DOORS {
            let value = match setting(settings) {
                Listen::Off => "off".to_owned(),
                Listen::At(address) => SocketAddr::new(address.ip(), 0).to_string(),
            };
            command.env(variable, value);
        }
        world.start_as(command);
        let values = until("web's addresses", || {
            world.state_of("web").map(|w| w["values"].clone()).filter(|v| v["metrics_address"].is_string())
        });
        let real = |key: &str| -> SocketAddr {
            let mut address: SocketAddr = values[key].as_str().unwrap().parse().unwrap();
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            address
        };
        let doors = DOORS.iter().filter_map(|(_, key, setting)| match setting(settings) {
            Listen::Off => None,
            Listen::At(address) => Some((address, real(key))),
        });
        let doors = doors.collect();
        Served { _world: world, doors }
    }

    /// Where the plan's port listens and what it answers to a question without a token; None where nothing listens.
    pub(crate) fn ask(&self, port: u16, path: &str) -> Option<(SocketAddr, u16)> {
        let (planned, real) = self.doors.iter().find(|(planned, _)| planned.port() == port)?;
        Some((*planned, get(*real, path).code))
    }
}

/// Variables that the binary or one of its services reads: settings, the store's, and what service files hand on by name.
pub(crate) fn is_known(variable: &str) -> bool {
    let handed_on = |name: &str| {
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/services")).unwrap().any(|file| {
            let spec: BTreeMap<String, toml::Value> =
                toml::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
            let pass = spec.get("pass").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            pass.iter().any(|p| p.as_str() == Some(name))
        })
    };
    let known = |name: &str| {
        supafly::config::TABLE.iter().any(|row| row.variable == name)
            || supafly::store::credentials::NAMES.contains(&name)
            || handed_on(name)
    };
    known(variable) || variable.strip_suffix("_FILE").is_some_and(known)
}
