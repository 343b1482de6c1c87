//! The engine's own record of a backup, `<name>_backup_stop_sentinel.json`, and the parts that its metadata names.
//!
//! Pure. Both engines write version 2; numbers are integers of 64 bits and are never read as floats (`jq` shows a wrong
//! system identifier). Unknown fields are the engine's business; missing ones make the backup unusable and are said.

use super::Backup;
use crate::owner::Epoch;
use crate::postgres::lsn::{Lsn, Timeline};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sentinel {
    #[serde(rename = "LSN")]
    lsn: u64,
    #[serde(rename = "FinishLSN")]
    finish_lsn: u64,
    pg_version: u32,
    system_identifier: u64,
    #[serde(default)]
    uncompressed_size: u64,
    #[serde(default)]
    compressed_size: u64,
    #[serde(default)]
    start_time: String,
    #[serde(default)]
    finish_time: String,
}

/// What a backup's files say of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Names of tar parts, as the engine wrote them (wal-rus leaves the compression's suffix out).
    pub parts: BTreeSet<String>,
    /// Files of the data directory that a restore must bring, as relative paths.
    pub files: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    #[serde(default)]
    files: Option<BTreeMap<String, FileEntry>>,
    #[serde(default)]
    tar_file_sets: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FileEntry {
    #[serde(default)]
    is_skipped: bool,
}

/// Parses a sentinel.
///
/// # Errors
/// In words: what is missing or wrong.
pub fn parse(epoch: Epoch, name: &str, body: &[u8]) -> Result<Backup, String> {
    let s: Sentinel = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let timeline = timeline(name).ok_or_else(|| format!("`{name}` is not a backup's name"))?;
    if s.finish_lsn < s.lsn {
        return Err(format!("it ends at {} before it begins at {}", Lsn(s.finish_lsn), Lsn(s.lsn)));
    }
    Ok(Backup {
        epoch,
        name: name.to_owned(),
        timeline,
        start: Lsn(s.lsn),
        finish: Lsn(s.finish_lsn),
        system_identifier: s.system_identifier,
        pg_version: s.pg_version,
        compressed_size: s.compressed_size,
        uncompressed_size: s.uncompressed_size,
        started: s.start_time,
        finished: s.finish_time,
    })
}

/// The timeline in `base_<8 hex><16 hex>`, with whatever follows for a delta.
fn timeline(name: &str) -> Option<Timeline> {
    let hex = name.strip_prefix("base_")?;
    let digits = hex.get(..24)?;
    let fits = digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    let rest = hex.get(24..)?;
    let timeline = u32::from_str_radix(digits.get(..8)?, 16).ok()?;
    (fits && (rest.is_empty() || rest.starts_with("_D_")) && timeline > 0).then_some(Timeline(timeline))
}

/// Parses `files_metadata.json`.
///
/// # Errors
/// In words.
pub fn contents(body: &[u8]) -> Result<Contents, String> {
    let m: Metadata = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let parts = m.tar_file_sets.unwrap_or_default().into_keys().collect();
    let files = m.files.unwrap_or_default();
    let files = files.into_iter().filter(|(_, f)| !f.is_skipped);
    Ok(Contents { parts, files: files.map(|(path, _)| path.trim_start_matches('/').to_owned()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "base_000000010000000000000003";

    #[test]
    fn a_sentinel_of_either_engine_is_read_to_the_last_digit() {
        for extra in [r#""DataCatalogSize":9,"ChkpNum":null,"Spec":null,"#, ""] {
            let body = format!(
                r#"{{{extra}"LSN":50331688,"FinishLSN":50331960,"PgVersion":150018,"SystemIdentifier":7711495386640342201,
                "UncompressedSize":23000000,"CompressedSize":3000000,"Version":2,"IsPermanent":false,
                "StartTime":"2026-11-23T22:05:54.615776Z","FinishTime":"2026-11-23T22:05:55.615776123Z"}}"#
            );
            let backup = parse(Epoch(1), NAME, body.as_bytes()).unwrap();
            assert_eq!(backup.system_identifier, 7_711_495_386_640_342_201);
            assert_eq!(backup.start.to_string(), "0/3000028");
            assert_eq!(backup.timeline, Timeline(1));
        }
    }

    #[test]
    fn what_is_no_sentinel_is_refused_in_words() {
        assert!(parse(Epoch(1), NAME, b"").is_err());
        assert!(parse(Epoch(1), NAME, br#"{"LSN":5}"#).unwrap_err().contains("FinishLSN"));
        let backwards = br#"{"LSN":50,"FinishLSN":40,"PgVersion":150018,"SystemIdentifier":1}"#;
        assert!(parse(Epoch(1), NAME, backwards).unwrap_err().contains("before it begins"));
        let good = br#"{"LSN":40,"FinishLSN":50,"PgVersion":150018,"SystemIdentifier":1}"#;
        for name in ["base_1", "base_00000001000000000000000g", "xbase_000000010000000000000003", ""] {
            assert!(parse(Epoch(1), name, good).is_err(), "{name}");
        }
        assert!(parse(Epoch(1), &format!("{NAME}_D_000000010000000000000001"), good).is_ok());
    }

    #[test]
    fn the_parts_and_files_of_a_backup_are_read() {
        let body = br#"{"Files":{"/base/1/1255":{"IsSkipped":false},"/global/1":{"IsSkipped":true}},
            "TarFileSets":{"part_001.tar.zst":["/base/1/1255"],"backup_label.tar.zst":null}}"#;
        let contents = contents(body).unwrap();
        assert_eq!(contents.files.into_iter().collect::<Vec<_>>(), ["base/1/1255"]);
        assert_eq!(contents.parts.len(), 2);
        assert_eq!(super::contents(b"{}").unwrap(), Contents::default());
    }
}
