//! What a setting may be: its type, how it is read and how it is shown.

use core::net::SocketAddr;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// `supafly.toml`, with its line.
    File {
        /// As named on the command line.
        file: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
}

/// The object store: the truth, of which the volume is a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// No store: every status says UNPROTECTED.
    None,
    /// `s3://bucket/prefix`; the prefix has no slash at either end and may be empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without a slash at either end; may be empty.
        prefix: String,
    },
    /// `file:///dir`
    File {
        /// Absolute; must exist.
        dir: PathBuf,
    },
}

/// Whether a boot without identity may take over a prefix that has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Refuse.
    Never,
    /// Take over from whoever is the owner.
    Auto,
    /// Take over from this one former epoch and no other.
    Epoch(u32),
}

/// What an owner does when it cannot confirm its ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Serve on through a store outage.
    Available,
    /// Freeze Postgres when unconfirmed for the TTL.
    Strict,
}

/// What becomes of a cluster that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// Nothing; one that is found is named, and no other is made beside it.
    Ask,
    /// Nothing, and none is looked for.
    Never,
    /// The one in this directory is adopted.
    Path(PathBuf),
}

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There; with port 0 on whichever port is free.
    At(SocketAddr),
}

/// Output of our own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text when stdout is a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which pooler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    /// Supavisor where it is installed, else PgBouncer where that is, else none.
    Auto,
    /// Supavisor.
    Supavisor,
    /// PgBouncer.
    PgBouncer,
    /// None.
    Off,
}

/// What must be written with percent signs in a part of a URL: all but what RFC 3986 calls unreserved.
pub const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Ports that Supavisor opens on all of IPv4 beside the pooler's two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupavisorPorts {
    /// Its HTTP API.
    pub api: u16,
    /// Its proxy, which serves nobody here.
    pub proxy: u16,
    /// Four for sessions, four for transactions, between the machines of a cluster.
    pub inner: [u16; 8],
}

impl SupavisorPorts {
    /// All ten.
    pub fn all(self) -> impl Iterator<Item = u16> {
        [self.api, self.proxy].into_iter().chain(self.inner)
    }
}

impl fmt::Display for SupavisorPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.inner;
        write!(f, "{}, {}, ", self.api, self.proxy)?;
        match (
            first.checked_add(7),
            rest.windows(2).all(|w| matches!(w, [a, b] if a.checked_add(1) == Some(*b))),
        ) {
            (Some(last), true) if rest.first() == first.checked_add(1).as_ref() => {
                write!(f, "{first}-{last}")
            }
            _ => write!(f, "{}", self.inner.map(|p| p.to_string()).join(", ")),
        }
    }
}

pub(super) fn parse_supavisor_ports(text: &str) -> Result<SupavisorPorts, String> {
    let right = || "ten different ports, such as `4000, 5412, 12100-12107`".to_owned();
    let port = |s: &str| s.trim().parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(right);
    let mut ports = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => ports.push(port(part)?),
            Some((from, to)) => ports.extend((port(from)?..=port(to)?).take(11)),
        }
    }
    let different: std::collections::BTreeSet<u16> = ports.iter().copied().collect();
    match <[u16; 10]>::try_from(ports) {
        Ok([api, proxy, inner @ ..]) if different.len() == 10 => Ok(SupavisorPorts { api, proxy, inner }),
        Ok(_) | Err(_) => Err(right()),
    }
}

/// A value that must not be printed. `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }
    /// The secret itself; for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("an absolute path".to_owned()) }
}

pub(super) fn parse_store(text: &str) -> Result<StoreUrl, String> {
    let right = || "`s3://bucket/prefix`, `file:///directory` or empty for none".to_owned();
    if text.is_empty() || text == "none" {
        return Ok(StoreUrl::None);
    }
    if let Some(dir) = text.strip_prefix("file://") {
        return absolute(dir).map(|dir| StoreUrl::File { dir }).map_err(|_| right());
    }
    let rest = text.strip_prefix("s3://").ok_or_else(right)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket_fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    let prefix = prefix.trim_matches('/');
    let prefix_fits = prefix.is_empty()
        || prefix.split('/').all(|p| {
            !p.is_empty()
                && p != "."
                && p != ".."
                && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        });
    if bucket_fits && prefix_fits {
        Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    } else {
        Err(right())
    }
}

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    text.parse()
        .map(Listen::At)
        .map_err(|_| "an address with its port, such as 127.0.0.1:8080 or [::]:8080, or `off`".to_owned())
}

pub(super) fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("`on` or `off`".to_owned()),
    }
}

pub(super) fn parse_off_or_path(text: &str) -> Result<Option<PathBuf>, String> {
    if text == "off" {
        return Ok(None);
    }
    absolute(text).map(Some).map_err(|_| "an absolute path, or `off`".to_owned())
}

pub(super) fn parse_adopt(text: &str) -> Result<Adopt, String> {
    match text {
        "ask" => Ok(Adopt::Ask),
        "never" => Ok(Adopt::Never),
        path => absolute(path)
            .map(Adopt::Path)
            .map_err(|_| "`ask`, `never`, or the absolute path of the cluster to adopt".to_owned()),
    }
}

pub(super) fn parse_takeover(text: &str) -> Result<Takeover, String> {
    match text {
        "never" => Ok(Takeover::Never),
        "auto" => Ok(Takeover::Auto),
        n => match n.trim_start_matches('0').parse() {
            Ok(epoch) if epoch > 0 => Ok(Takeover::Epoch(epoch)),
            _ => Err("`never`, `auto` or the number of the epoch to take over from".to_owned()),
        },
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { file, line } => write!(f, "{file}:{line}"),
            Source::Environment(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::None => f.write_str("none"),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            StoreUrl::File { dir } => write!(f, "file://{}", dir.display()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::At(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Adopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Adopt::Ask => f.write_str("ask"),
            Adopt::Never => f.write_str("never"),
            Adopt::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takeover::Never => f.write_str("never"),
            Takeover::Auto => f.write_str("auto"),
            Takeover::Epoch(epoch) => write!(f, "{epoch}"),
        }
    }
}
