//! What a file promises to the platform, in one shape for all platforms.

use std::collections::BTreeMap;
use std::time::Duration;

/// Where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// Its private network is IPv6, its checks come over IPv4, and whoever has a service is public.
    Fly,
    /// Ports are published by the file.
    Compose,
}

/// A question that the platform asks over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// A port that the platform leads to from outside.
#[derive(Clone, Debug)]
pub(crate) struct Led {
    /// In the machine.
    pub(crate) port: u16,
    pub(crate) handlers: Vec<String>,
    /// Where only this host can reach it.
    pub(crate) to_loopback: bool,
    /// Whether the platform may stop an idle machine; None where nothing is said.
    pub(crate) autostop: Option<bool>,
}

/// One deployment.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) platform: Platform,
    pub(crate) env: BTreeMap<String, String>,
    /// Over HTTP; those of other kinds are counted only.
    pub(crate) checks: Vec<Asked>,
    pub(crate) other_checks: usize,
    pub(crate) metrics: Option<Asked>,
    pub(crate) led: Vec<Led>,
    /// None: the platform's own default.
    pub(crate) signal: Option<String>,
    pub(crate) stop: Option<Duration>,
    pub(crate) restart: String,
    /// What is mounted from a volume.
    pub(crate) mounts: Vec<String>,
}
