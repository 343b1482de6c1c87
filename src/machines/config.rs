//! A machine's configuration as the Machines API takes it, and the one that a machine of ours gets.
//!
//! The API replaces the whole configuration at each update, so what we do not know must survive being read and written: each
//! table keeps it in `extra`. The template is a file (`image/machine.json`), so that it can be read without us, compared with
//! `fly.toml` and held to what the binary serves (`tests/deploy`).

use crate::exit::Failure;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What every machine of ours begins with; image and volume are empty and filled in by whoever makes the machine.
const TEMPLATE: &str = include_str!("../../image/machine.json");

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Image reference; with its digest where it is known.
    pub image: String,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Variables; secrets come from the app's secrets and are not here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// At most one volume.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What Fly's proxy leads here.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Checks by name, without any effect on routing.
    #[serde(default)]
    pub checks: BTreeMap<String, Check>,
    /// Where the platform scrapes metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How it is told to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_config: Option<Stop>,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Processors and memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// `shared` or `performance`.
    pub cpu_kind: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A volume and where it is mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Its id, `vol_…`.
    pub volume: String,
    /// Absolute.
    pub path: String,
    /// What we do not know or only pass on, such as when it grows.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A port that Fly's proxy leads to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port in the machine.
    pub internal_port: u16,
    /// What the proxy does with an idle machine.
    #[serde(default)]
    pub autostop: Autostop,
    /// The ports outside.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Checks that decide about routing.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A port outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its number, where it is one and not a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the proxy does to the stream: `http`, `tls`, `pg_tls`, `proxy_proto`.
    #[serde(default)]
    pub handlers: Vec<String>,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `http` or `tcp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port in the machine; a service's own where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of an HTTP check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of an HTTP check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// How long an answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How long after the start nothing counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Span>,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where metrics are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The port in the machine.
    pub port: u16,
    /// The path.
    pub path: String,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// When a machine is started again after it ended by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// `no`, `always`, `on-failure`.
    pub policy: String,
    /// How often before it stays down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How a machine is told to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal's name.
    pub signal: String,
    /// How long until it is ended; 300 s at most.
    pub timeout: Span,
    /// What we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What Fly's proxy does with a machine that nobody uses. The API also writes it as a boolean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Autostop {
    /// Nothing. What the API does where nothing is said.
    #[default]
    Off,
    /// It stops it.
    Stop,
    /// It suspends it, without a word to whoever runs in it.
    Suspend,
}

impl Serialize for Autostop {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Autostop::Off => "off",
            Autostop::Stop => "stop",
            Autostop::Suspend => "suspend",
        })
    }
}

impl<'de> Deserialize<'de> for Autostop {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Autostop, D::Error> {
        let value = Value::deserialize(from)?;
        match (value.as_bool(), value.as_str()) {
            (Some(false), _) | (_, Some("off")) => Ok(Autostop::Off),
            (Some(true), _) | (_, Some("stop")) => Ok(Autostop::Stop),
            (_, Some("suspend")) => Ok(Autostop::Suspend),
            (None, _) => {
                Err(serde::de::Error::custom(format!("autostop: off, stop or suspend, not {value}")))
            }
        }
    }
}

/// A duration as Go writes it (`1m30s`); the API also writes whole nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Reads Go's text: numbers with units, from hours down to milliseconds.
    #[must_use]
    pub fn parse(text: &str) -> Option<Span> {
        let mut rest = text;
        let mut sum = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let (unit, next) = after.split_at(letters);
            let seconds = match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
            let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
            sum = sum.checked_add(part)?;
            rest = next;
        }
        (!text.is_empty()).then_some(Span(sum))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        to.serialize_str(&if millis.is_multiple_of(1000) {
            format!("{}s", millis / 1000)
        } else {
            format!("{millis}ms")
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Span, D::Error> {
        let value = Value::deserialize(from)?;
        let read = value.as_str().and_then(Span::parse);
        read.or_else(|| value.as_u64().map(|ns| Span(Duration::from_nanos(ns))))
            .ok_or_else(|| serde::de::Error::custom(format!("a duration such as 15s, not {value}")))
    }
}

impl MachineConfig {
    /// What every machine of ours begins with. Image and volume are empty.
    ///
    /// # Errors
    /// None in a binary that passed its tests: the file is part of it.
    pub fn template() -> Result<MachineConfig, Failure> {
        MachineConfig::read(TEMPLATE)
    }

    /// Reads one.
    ///
    /// # Errors
    /// The text is no JSON or lacks what every configuration has.
    pub fn read(text: &str) -> Result<MachineConfig, Failure> {
        serde_json::from_str(text).map_err(|e| Failure::config(format!("a machine's configuration: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_read_and_written_without_a_change_and_has_nothing_unknown() {
        let template = MachineConfig::template().unwrap();
        let (written, file): (Value, Value) =
            (serde_json::to_value(&template).unwrap(), serde_json::from_str(TEMPLATE).unwrap());
        assert_eq!(written, file);
        assert!(template.extra.is_empty() && template.image.is_empty());
        assert_eq!(template.stop_config.unwrap().timeout, Span(Duration::from_secs(300)));
    }

    #[test]
    fn what_we_do_not_know_survives() {
        let text = r#"{"image":"i","init":{"swap_size_mb":5},"guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256,"gpus":1},
            "services":[{"protocol":"tcp","internal_port":1,"autostop":true,"force_instance_key":"k",
            "ports":[{"start_port":5,"end_port":6,"handlers":["tls"]}]}]}"#;
        let config = MachineConfig::read(text).unwrap();
        assert_eq!(config.services[0].autostop, Autostop::Stop);
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(written["init"]["swap_size_mb"], 5);
        assert_eq!(written["guest"]["gpus"], 1);
        assert_eq!(written["services"][0]["force_instance_key"], "k");
        assert_eq!(written["services"][0]["autostop"], "stop");
        assert_eq!(written["services"][0]["ports"][0]["end_port"], 6);
    }

    #[test]
    fn durations_are_read_in_both_ways_of_the_api() {
        for (text, millis) in [
            ("\"15s\"", 15_000),
            ("\"5m0s\"", 300_000),
            ("\"1h0m0.5s\"", 3_600_500),
            ("\"250ms\"", 250),
            ("15000000000", 15_000),
        ] {
            assert_eq!(
                serde_json::from_str::<Span>(text).unwrap().0,
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for wrong in
            ["\"\"", "\"15\"", "\"s\"", "\"1d\"", "\"1.2.3s\"", "-5", "true", "\"99999999999999999999h\""]
        {
            assert!(serde_json::from_str::<Span>(wrong).is_err(), "{wrong}");
        }
        let back = |ms| serde_json::to_string(&Span(Duration::from_millis(ms))).unwrap();
        assert_eq!((back(300_000), back(1_500)), ("\"300s\"".into(), "\"1500ms\"".into()));
    }

    #[test]
    fn an_idle_machine_is_left_alone_unless_it_says_otherwise() {
        for (text, right) in [
            ("false", Autostop::Off),
            ("\"off\"", Autostop::Off),
            ("true", Autostop::Stop),
            ("\"suspend\"", Autostop::Suspend),
        ] {
            assert_eq!(serde_json::from_str::<Autostop>(text).unwrap(), right);
        }
        assert!(serde_json::from_str::<Autostop>("\"later\"").is_err());
    }
}
