//! The numbered steps, as they are in the binary: `image/sql/NNNN-name.sql`, each with a test beside it. Pure.
//!
//! A file's first line may say how it is run: `-- supafly: every-run` (a declaration that is compared and brought about
//! at every run; else a step is done once and never again) and `no-transaction` (else it is one transaction).

use sha2::{Digest, Sha256};

/// How a file wants to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// At every run, whatever the ledger says.
    pub(super) every_run: bool,
    /// Its statements cannot be in one transaction.
    pub(super) no_transaction: bool,
}

impl Manner {
    /// What the first line says; a word that is none of ours is given back.
    pub(super) fn of(text: &str) -> Result<Manner, String> {
        let mut manner = Manner::default();
        let first = text.lines().next().unwrap_or_default().trim();
        let Some(words) = first.strip_prefix("-- supafly:") else { return Ok(manner) };
        for word in words.split([' ', ',']).filter(|w| !w.is_empty()) {
            match word {
                "every-run" => manner.every_run = true,
                "no-transaction" => manner.no_transaction = true,
                other => return Err(other.to_owned()),
            }
        }
        Ok(manner)
    }
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

macro_rules! steps {
    ($($name:literal),* $(,)?) => {
        &[$(Step { name: $name, sql: include_str!(concat!("../../image/sql/", $name, ".sql")) }),*]
    };
}

/// In their order. A step that was once published is never changed: what must change is a new one.
pub(super) const STEPS: &[Step] = steps![
    "0001-ledger",
    "0002-roles",
    "0003-schemas",
    "0004-extensions",
    "0005-auth-functions",
    "0006-new-tables",
    "0007-api-reload",
    "0008-graphql-access",
    "0009-publication",
    "0010-pooler-lookup",
    "0011-graphql",
    "0012-auth-users",
];

/// 64 hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_file_is_a_step_in_its_order_with_a_test_beside_it() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/sql");
        let mut names: Vec<String> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter_map(|n| n.strip_suffix(".sql").map(str::to_owned))
            .filter(|n| !n.ends_with(".test"))
            .collect();
        names.sort();
        assert_eq!(names, STEPS.iter().map(|s| s.name).collect::<Vec<_>>());
        for (at, step) in STEPS.iter().enumerate() {
            assert!(dir.join(format!("{}.test.sql", step.name)).exists(), "{} has no test", step.name);
            assert!(
                step.name.starts_with(&format!("{:04}-", at + 1)),
                "{}: a hole in the numbers",
                step.name
            );
            Manner::of(step.sql).unwrap();
        }
    }

    #[test]
    fn the_page_for_other_databases_has_the_lookup_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let step = STEPS.iter().find(|s| s.name == "0010-pooler-lookup").unwrap();
        let code: Vec<&str> = step.sql.lines().filter(|l| !l.starts_with("--") && !l.is_empty()).collect();
        let page = std::fs::read_to_string(root.join("docs/behaviour.md")).unwrap();
        assert!(page.contains(&format!("```sql\n{}\n```", code.join("\n"))));
    }

    #[test]
    fn the_first_line_says_how_a_file_is_run() {
        let both = Manner { every_run: true, no_transaction: true };
        assert_eq!(Manner::of("-- supafly: every-run, no-transaction\nselect 1"), Ok(both));
        assert_eq!(Manner::of("select 1;\n-- supafly: every-run"), Ok(Manner::default()));
        assert_eq!(Manner::of("-- supafly: no-transactoin"), Err("no-transactoin".to_owned()));
    }

    #[test]
    fn a_checksum_is_what_sha256sum_says() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }
}
