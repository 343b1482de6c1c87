//! `image/versions.toml`, as it is in the binary: what the image is made of. Pure.
//!
//! One file for all who need it: the Dockerfile's `ARG` lines are made from it ([`arguments`]; a test holds them
//! together), packer reads it, and `supafly version --all` shows it beside what is really there.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The file.
pub const TEXT: &str = include_str!("../../image/versions.toml");

/// What a part is fetched from, for one kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Where; none for what a package manager finds by its name.
    pub url: Option<String>,
    /// 64 hexadecimal digits; empty: not pinned.
    pub sha256: String,
}

/// A part, as it is wanted. In its addresses `{version}` has been replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its version; of Postgres the major only, and none where the image's tag says it.
    pub version: Option<String>,
    /// A published image.
    pub image: Option<String>,
    /// The image's digest, `sha256:…`; empty: not pinned.
    pub digest: Option<String>,
    /// A source or a program for every kind of machine.
    pub url: Option<String>,
    /// Where it is looked for when the first does not have it.
    pub mirror: Option<String>,
    /// 64 hexadecimal digits; empty: not pinned.
    pub sha256: Option<String>,
    /// For x86-64.
    pub amd64: Option<Download>,
    /// For 64-bit ARM.
    pub arm64: Option<Download>,
}

/// All parts, by name.
pub type Parts = BTreeMap<String, Part>;

/// Reads the file.
///
/// # Errors
/// What is wrong with it, with the part's name.
pub fn parse(text: &str) -> Result<Parts, String> {
    let mut parts: Parts = toml::from_str(text).map_err(|e| e.to_string())?;
    for (name, part) in &mut parts {
        let version = part.version.clone();
        let texts = [&mut part.image, &mut part.url, &mut part.mirror].into_iter().flatten();
        let downloads = [&mut part.amd64, &mut part.arm64].into_iter().flatten();
        let mut checks: Vec<String> = part.sha256.iter().cloned().collect();
        let mut all: Vec<&mut String> = texts.collect();
        for download in downloads {
            checks.push(download.sha256.clone());
            all.extend(download.url.as_mut());
        }
        for text in all {
            if let Some(version) = &version {
                *text = text.replace("{version}", version);
            }
            // A Dockerfile would read them in its own way.
            if text.is_empty() || text.contains(['{', '"', '$', '\\', ' ', '\n']) {
                return Err(format!("{name}: `{text}` is no address"));
            }
        }
        checks.extend(part.digest.iter().map(|d| d.strip_prefix("sha256:").unwrap_or(d).to_owned()));
        for check in checks.iter().filter(|c| !c.is_empty()) {
            if check.len() != 64 || !check.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("{name}: `{check}` is no sha256"));
            }
        }
    }
    Ok(parts)
}

/// The build arguments of the Dockerfile: `PART_KEY`, in order. An image has its digest behind its name.
#[must_use]
pub fn arguments(parts: &Parts) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, part) in parts {
        let mut add = |key: &str, value: Option<&String>| {
            if let Some(value) = value {
                all.push((format!("{name}_{key}").to_ascii_uppercase(), value.clone()));
            }
        };
        let digest = part.digest.as_deref().unwrap_or_default();
        let at = if digest.is_empty() { "" } else { "@" };
        add("image", part.image.as_ref().map(|image| format!("{image}{at}{digest}")).as_ref());
        add("version", part.version.as_ref());
        add("url", part.url.as_ref());
        add("mirror", part.mirror.as_ref());
        add("sha256", part.sha256.as_ref());
        for (machine, download) in [("amd64", &part.amd64), ("arm64", &part.arm64)] {
            let Some(download) = download else { continue };
            add(&format!("{machine}_url"), download.url.as_ref());
            add(&format!("{machine}_sha256"), Some(&download.sha256));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BEGIN: &str = "# --- made from image/versions.toml by `make docs`: change it there ---\n";
    const END: &str = "# --- end ---\n";

    #[test]
    fn the_page_of_versions_and_the_dockerfile_say_the_same() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once(BEGIN).unwrap();
        let (_, tail) = rest.split_once(END).unwrap();
        let line = |(name, value): (String, String)| format!("ARG {name}=\"{value}\"\n");
        let lines: String = arguments(&parse(TEXT).unwrap()).into_iter().map(line).collect();
        let wanted = format!("{head}{BEGIN}{lines}{END}{tail}");
        if std::env::var_os("SUPAFLY_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap();
        assert!(there == wanted, "image/versions.toml and Dockerfile differ: run `make docs`");
        // What a stage takes must be given, and what is given must be taken by one.
        let given: Vec<&str> = lines.lines().filter_map(|l| l.split(['=', ' ']).nth(1)).collect();
        for name in given {
            assert!(
                tail.contains(&format!("ARG {name}\n"))
                    || tail.contains(&format!("${{{name}}}"))
                    || name.ends_with("_VERSION"),
                "no stage takes {name}"
            );
        }
        for taken in tail.lines().filter_map(|l| l.strip_prefix("ARG ")).filter(|l| !l.contains('=')) {
            let known = ["TARGETARCH", "PARTS"].contains(&taken);
            assert!(known || lines.contains(&format!("ARG {taken}=")), "nothing gives {taken}");
        }
    }

    #[test]
    fn a_version_is_put_into_every_address_and_a_digest_behind_its_image() {
        let sum = "a".repeat(64);
        let text = format!(
            "[one]\nversion = '2.0'\nimage = 'host/one:v{{version}}'\ndigest = 'sha256:{sum}'\nurl = 'u/{{version}}'\n\
             [two]\nversion = '7'\namd64 = {{ url = 'x/{{version}}-amd64', sha256 = '' }}\narm64 = {{ sha256 = '{sum}' }}\n"
        );
        let said = arguments(&parse(&text).unwrap());
        let said: Vec<_> = said.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            said,
            [
                format!("ONE_IMAGE=host/one:v2.0@sha256:{sum}"),
                "ONE_VERSION=2.0".to_owned(),
                "ONE_URL=u/2.0".to_owned(),
                "TWO_VERSION=7".to_owned(),
                "TWO_AMD64_URL=x/7-amd64".to_owned(),
                "TWO_AMD64_SHA256=".to_owned(),
                format!("TWO_ARM64_SHA256={sum}"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_the_name_of_its_part() {
        for (text, said) in [
            ("[walg]\nsha256 = 'abc'", "walg: `abc` is no sha256"),
            ("[walg]\ndigest = 'sha256:XYZ'", "walg: `XYZ` is no sha256"),
            ("[walg]\nurl = 'a/{versoin}'", "walg: `a/{versoin}` is no address"),
            ("[walg]\nimage = 'a\"b'", "walg: `a\"b` is no address"),
            ("[walg]\nurll = 'a'", "unknown field `urll`"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn the_pooler_is_pinned_at_a_version_that_asks_for_passwords() {
        let parts = parse(TEXT).unwrap();
        for name in ["pgbouncer", "registry_pgbouncer"] {
            let version = parts[name].version.clone().unwrap();
            let numbers: Vec<u32> = version.split(['.', '-']).filter_map(|n| n.parse().ok()).collect();
            assert!(numbers >= vec![1, 26, 1], "{name} {version}: CVE-2026-107350");
        }
    }
}
