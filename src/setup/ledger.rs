//! What the ledger in the database says of a file, and what follows from it. Pure.

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sha256: String,
    /// The version of supafly that did it.
    pub(super) version: String,
    /// When it began, as Postgres writes it.
    pub(super) began: String,
    /// It came to its end.
    pub(super) finished: bool,
}

/// What is to be done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It is new.
    Run,
    /// It was begun outside of a transaction and did not come to its end: again from its first line.
    Again,
    /// Nothing: it was done.
    Done,
    /// It was done, but it said something else then.
    Changed(String),
}

/// Decides.
pub(super) fn due(entry: Option<&Entry>, sha256: &str) -> Due {
    match entry {
        None => Due::Run,
        Some(entry) if !entry.finished => Due::Again,
        Some(entry) if entry.sha256 == sha256 => Due::Done,
        Some(entry) => Due::Changed(format!(
            "it was run on {} by supafly {} with checksum {}, and has {} now: put the old text back, and write the change \
             as a new file",
            entry.began,
            entry.version,
            short(&entry.sha256),
            short(sha256)
        )),
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_or_was_cut_off_is_run() {
        let entry = |sha256: &str, finished| Entry {
            sha256: sha256.into(),
            version: "0.1.0".into(),
            began: "2026-11-25".into(),
            finished,
        };
        assert_eq!(due(None, "a"), Due::Run);
        assert_eq!(due(Some(&entry("a", true)), "a"), Due::Done);
        assert_eq!(due(Some(&entry("a", false)), "a"), Due::Again);
        // What did not come to its end may be mended.
        assert_eq!(due(Some(&entry("a", false)), "b"), Due::Again);
        let Due::Changed(said) = due(Some(&entry("aaaaaaaaaaaaaaaa", true)), "b") else { panic!() };
        assert!(said.contains("2026-11-25 by supafly 0.1.0") && said.contains("aaaaaaaaaaaa,"), "{said}");
    }
}
