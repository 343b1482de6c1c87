//! `POSTGRES_INITDB_ARGS`: how a new cluster is made. Pure.
//!
//! Locale, text search and size of WAL segments are the operator's; what the product stands on is not.

use std::fmt;

/// Further arguments of `initdb`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitdbArgs(Vec<String>);

/// Long names that are handed on.
const TAKEN: &[&str] = &[
    "--builtin-locale",
    "--icu-locale",
    "--icu-rules",
    "--lc-collate",
    "--lc-ctype",
    "--lc-monetary",
    "--lc-numeric",
    "--lc-time",
    "--locale",
    "--locale-provider",
    "--no-locale",
    "--text-search-config",
    "--wal-segsize",
];

impl InitdbArgs {
    /// They.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// Reads them; words between blanks, without quotes.
    ///
    /// # Errors
    /// What should be there instead.
    pub fn from_text(text: &str) -> Result<InitdbArgs, String> {
        if text.contains(['\'', '"', '\\', '$', '`']) {
            return Err("words between blanks, without quotes: no shell reads them".to_owned());
        }
        let mut all = Vec::new();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            let (name, mut value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let name = match name {
                "-E" => "--encoding",
                "-A" => "--auth",
                "-T" => "--text-search-config",
                "-k" => "--data-checksums",
                "-g" => "--allow-group-access",
                name => name,
            };
            let alone = matches!(name, "--no-locale" | "--data-checksums" | "--allow-group-access");
            if value.is_none() && !alone {
                value = words.next();
            }
            let refuse = |why: &str| Err(format!("without `{name}`: {why}"));
            match (name, value) {
                // So it is anyway.
                ("--data-checksums" | "--allow-group-access", None) => {}
                ("--encoding", Some(encoding)) => {
                    if !["utf8", "utf-8", "unicode"].contains(&encoding.to_ascii_lowercase().as_str()) {
                        return refuse("the stack is made for UTF8");
                    }
                }
                ("--auth" | "--auth-host" | "--auth-local", Some("scram-sha-256")) => {}
                ("--auth" | "--auth-host" | "--auth-local", _) => {
                    return refuse("passwords are SCRAM, over the socket the kernel vouches");
                }
                ("-U" | "--username", Some("postgres")) => {}
                ("-U" | "--username", _) => return refuse("the superuser is postgres"),
                ("-D" | "--pgdata" | "-X" | "--waldir", _) => {
                    return refuse("data and WAL are together in <data>/pgdata");
                }
                ("--no-data-checksums", _) => return refuse("a damaged page would get into the backups"),
                ("--wal-segsize", Some(size)) if segment(size).is_none() => {
                    return refuse("a power of two from 1 to 1024, in megabytes");
                }
                (name, None) if alone && TAKEN.contains(&name) => all.push(name.to_owned()),
                (name, Some(value)) if TAKEN.contains(&name) && !alone => all.push(format!("{name}={value}")),
                (_, _) => {
                    return Err(format!("without `{word}`; taken are {}", TAKEN.join(", ")));
                }
            }
        }
        Ok(InitdbArgs(all))
    }

    /// The size of a segment of WAL that they ask for, in bytes; the later one holds, as for `initdb`.
    #[must_use]
    pub fn wal_segment_size(&self) -> Option<u64> {
        self.0.iter().rev().find_map(|a| segment(a.strip_prefix("--wal-segsize=")?))
    }

    /// Whether they say the locale, so that ours is not said.
    #[must_use]
    pub fn say_locale(&self) -> bool {
        self.0.iter().any(|a| a == "--no-locale" || a.starts_with("--locale="))
    }
}

/// Megabytes in digits, in bytes.
fn segment(megabytes: &str) -> Option<u64> {
    let size: u64 = megabytes.parse().ok()?;
    (size.is_power_of_two() && size <= 1024).then_some(size << 20)
}

impl fmt::Display for InitdbArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_official_image_is_given_mostly_is_taken() {
        let read = |text: &str| InitdbArgs::from_text(text).map(|a| a.to_string());
        let usual =
            "--encoding=UTF8 --data-checksums --auth-host=scram-sha-256 --locale C --lc-collate=C -T simple";
        assert_eq!(read(usual).unwrap(), "--locale=C --lc-collate=C --text-search-config=simple");
        assert!(InitdbArgs::from_text(usual).unwrap().say_locale());
        assert_eq!(read("--wal-segsize=64 --no-locale").unwrap(), "--wal-segsize=64 --no-locale");
        let size = |text: &str| InitdbArgs::from_text(text).unwrap().wal_segment_size();
        assert_eq!((size("--wal-segsize 64"), size("--locale=C")), (Some(64 << 20), None));
        assert_eq!(read("").unwrap(), "");
    }

    #[test]
    fn what_the_product_stands_on_is_refused_with_the_reason() {
        for (text, word) in [
            ("--auth=trust", "SCRAM"),
            ("-A trust", "SCRAM"),
            ("-E LATIN1", "UTF8"),
            ("-D /x", "<data>/pgdata"),
            ("--waldir=/wal", "<data>/pgdata"),
            ("-U boss", "postgres"),
            ("--no-data-checksums", "damaged"),
            ("--wal-segsize=48", "power of two"),
            ("--pwfile=/etc/shadow", "taken are"),
            ("--locale='C'", "quotes"),
            ("--no-sync", "taken are"),
        ] {
            let said = InitdbArgs::from_text(text).unwrap_err();
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
