//! What is needed to speak to the bucket besides its name: keys, region, endpoint, certificates, server-side encryption.
//!
//! Read once, from the file that `secrets` made for keeper's user, else from the environment, under the names that the
//! AWS tools use. Written back for that file, and translated for the backup engine, which knows some of them by other
//! names: both writers must reach the same bucket in the same way. `Debug` shows names, never values.

use crate::config::Secret;
use crate::exit::Failure;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Every name that is read; nothing else of the environment reaches the store.
pub const NAMES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AWS_S3_FORCE_PATH_STYLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CA_BUNDLE",
    "S3_SSE",
    "S3_SSE_KMS_ID",
    "S3_SSE_C",
];

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A key pair, with a session token when it is a temporary one.
    Keys {
        /// `AWS_ACCESS_KEY_ID`
        id: String,
        /// `AWS_SECRET_ACCESS_KEY`
        key: Secret,
        /// `AWS_SESSION_TOKEN`
        token: Option<Secret>,
    },
    /// A token file exchanged for temporary keys, as Fly and Kubernetes have it.
    WebIdentity {
        /// `AWS_WEB_IDENTITY_TOKEN_FILE`
        token_file: String,
        /// `AWS_ROLE_ARN`
        role: String,
    },
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Keys { .. } => f.write_str("Keys"),
            Proof::WebIdentity { .. } => f.write_str("WebIdentity"),
        }
    }
}

/// How a bucket is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`
    Path,
    /// `https://bucket.endpoint/key`
    Host,
}

/// Everything that was given, by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<&'static str, Secret>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// From the environment.
    #[must_use]
    pub fn from_environment(env: &BTreeMap<String, String>) -> Credentials {
        let given =
            |name: &&'static str| Some((*name, Secret::new(env.get(*name).filter(|v| !v.is_empty())?)));
        Credentials(NAMES.iter().filter_map(given).collect())
    }

    /// From the text of a file: `NAME=value` lines; empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// 78 with the line's number and name; the value is not shown.
    pub fn from_text(file: &str, text: &str) -> Result<Credentials, Failure> {
        let mut values = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(Failure::config(format!("{file}:{number}: should be NAME=value")));
            };
            let Some(name) = NAMES.iter().find(|n| **n == name.trim()) else {
                let known = NAMES.join(", ");
                return Err(Failure::config(format!("{file}:{number}: unknown name; the names are {known}")));
            };
            if !value.trim().is_empty() {
                values.insert(*name, Secret::new(value.trim()));
            }
        }
        Ok(Credentials(values))
    }

    /// From `file` when this process may read it, else from the environment.
    ///
    /// # Errors
    /// 78 when the file is there and malformed or cannot be read for another reason than our rights.
    pub fn read(file: &Path, env: &BTreeMap<String, String>) -> Result<Credentials, Failure> {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        match std::fs::read_to_string(file) {
            Ok(text) => Credentials::from_text(&file.display().to_string(), &text),
            Err(e) if [NotFound, NotADirectory, PermissionDenied].contains(&e.kind()) => {
                Ok(Credentials::from_environment(env))
            }
            Err(e) => Err(Failure::config(format!("{}: cannot be read: {e}", file.display()))),
        }
    }

    /// Nothing at all was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of the file that [`Credentials::read`] reads.
    ///
    /// # Errors
    /// 78 when a value has a line break in it.
    pub fn to_text(&self) -> Result<Secret, Failure> {
        let mut text = String::from("# made by `supafly secrets` from its environment\n");
        for (name, value) in &self.0 {
            if value.reveal().contains(['\n', '\r']) {
                return Err(Failure::config(format!("{name}: has a line break in it")));
            }
            text.push_str(&format!("{name}={}\n", value.reveal().trim()));
        }
        Ok(Secret::new(text))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::reveal)
    }

    /// The endpoint without a trailing slash; none is Amazon's own.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .into_iter()
            .find_map(|name| self.get(name))
            .map(|url| url.trim_end_matches('/'))
    }

    /// The endpoint is Tigris, which is consistent only when each request asks for it.
    #[must_use]
    pub fn is_tigris(&self) -> bool {
        let host = self.endpoint().and_then(|url| url.split_once("://")).map_or("", |(_, rest)| rest);
        let host = host.split([':', '/']).next().unwrap_or_default();
        ["fly.storage.tigris.dev", "t3.storage.dev"]
            .iter()
            .any(|t| host == *t || host.ends_with(&format!(".{t}")))
    }

    /// The region; where nobody says it, what the endpoint expects.
    #[must_use]
    pub fn region(&self) -> &str {
        let default = if self.is_tigris() { "auto" } else { "us-east-1" };
        self.get("AWS_REGION").or_else(|| self.get("AWS_DEFAULT_REGION")).unwrap_or(default)
    }

    /// How the bucket is named in requests: by host at Amazon and Tigris (whose newer buckets answer to nothing else),
    /// by path everywhere else, unless `AWS_S3_FORCE_PATH_STYLE` says it. A dot in a bucket's name fits no certificate.
    #[must_use]
    pub fn addressing(&self, bucket: &str) -> Addressing {
        match self.get("AWS_S3_FORCE_PATH_STYLE") {
            Some("true" | "1") => Addressing::Path,
            _ if bucket.contains('.') => Addressing::Path,
            Some(_) => Addressing::Host,
            None if self.endpoint().is_none() || self.is_tigris() => Addressing::Host,
            None => Addressing::Path,
        }
    }

    /// Who we are.
    ///
    /// # Errors
    /// 78 naming the variable that lacks.
    pub fn proof(&self) -> Result<Proof, Failure> {
        let lacks =
            |name: &str, other: &str| Err(Failure::config(format!("{name} is not set, but {other} is")));
        let [id, key, file, role] =
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"]
                .map(|name| self.get(name).map(str::to_owned));
        match (id, key, file, role) {
            (Some(id), Some(key), _, _) => {
                let token = self.get("AWS_SESSION_TOKEN").map(Secret::new);
                Ok(Proof::Keys { id, key: Secret::new(key), token })
            }
            (Some(_), None, _, _) => lacks("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
            (None, Some(_), _, _) => lacks("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            (None, None, Some(token_file), Some(role)) => Ok(Proof::WebIdentity { token_file, role }),
            (None, None, Some(_), None) => lacks("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            (None, None, None, _) => Err(Failure::config(
                "SUPAFLY_STORE is a bucket, but there are no credentials for it: set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN",
            )),
        }
    }

    /// `AWS_CA_BUNDLE`
    #[must_use]
    pub fn ca_bundle(&self) -> Option<&str> {
        self.get("AWS_CA_BUNDLE")
    }

    /// `AWS_ENDPOINT_URL_STS`
    pub(super) fn sts_endpoint(&self) -> Option<&str> {
        self.get("AWS_ENDPOINT_URL_STS")
    }

    /// `AWS_ROLE_SESSION_NAME`
    pub(super) fn session_name(&self) -> &str {
        self.get("AWS_ROLE_SESSION_NAME").unwrap_or("supafly")
    }

    /// Encryption by the store: its type and, for KMS, the key's id.
    ///
    /// # Errors
    /// 78 for a type that both writers cannot apply alike.
    pub fn encryption(&self) -> Result<Option<(&str, Option<&str>)>, Failure> {
        if self.get("S3_SSE_C").is_some() {
            return Err(Failure::config(
                "S3_SSE_C: keys of the customer's own are not supported: use S3_SSE=AES256 or S3_SSE=aws:kms",
            ));
        }
        match (self.get("S3_SSE"), self.get("S3_SSE_KMS_ID")) {
            (None, None) => Ok(None),
            (Some("AES256"), None) => Ok(Some(("AES256", None))),
            (Some("aws:kms"), Some(id)) => Ok(Some(("aws:kms", Some(id)))),
            (Some("aws:kms"), None) => {
                Err(Failure::config("S3_SSE_KMS_ID is not set, but S3_SSE is aws:kms"))
            }
            (Some("AES256") | None, Some(_)) => {
                Err(Failure::config("S3_SSE_KMS_ID is set: S3_SSE should be aws:kms"))
            }
            (Some(_), _) => Err(Failure::config("S3_SSE should be AES256 or aws:kms")),
        }
    }

    /// The same for the backup engine, under its names.
    #[must_use]
    pub fn engine_environment(&self) -> Vec<(String, Secret)> {
        let mut env: BTreeMap<&str, Secret> = BTreeMap::new();
        let same = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ];
        let same = same.into_iter().chain(["AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_ENDPOINT_URL_STS"]);
        for name in same.chain(["AWS_CA_BUNDLE", "S3_SSE", "S3_SSE_KMS_ID"]) {
            if let Some(value) = self.0.get(name) {
                env.insert(name, value.clone());
            }
        }
        env.insert("AWS_REGION", Secret::new(self.region()));
        if let Some(endpoint) = self.endpoint() {
            env.insert("AWS_ENDPOINT", Secret::new(endpoint));
        }
        // Its own client falls back to paths for a bucket with a dot.
        let by_path = self.addressing("bucket") == Addressing::Path;
        env.insert("AWS_S3_FORCE_PATH_STYLE", Secret::new(if by_path { "true" } else { "false" }));
        if let Some(bundle) = self.ca_bundle() {
            env.insert("S3_CA_CERT_FILE", Secret::new(bundle));
        }
        if self.is_tigris() {
            env.insert("S3_REQUEST_ADDITIONAL_HEADERS", Secret::new("X-Tigris-Consistent: \"true\""));
        }
        env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests;
