//! Server settings that somebody gives beside ours: by `SUPAFLY_PG_SETTINGS`, by `supafly.toml`, or as arguments of the
//! image, which are read as `postgres` itself reads its own. Pure.
//!
//! What would break the product is refused by name, with the setting that does it here. Whether a value fits is for
//! Postgres to say: `datadir` asks it before the start.

use std::fmt;

/// Names and values, in the order in which they were given; each name once. What extensions and programs keep under names
/// with a dot may be secret: such a value is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerSettings(Vec<(String, String)>);

/// What must be as it is, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("data_directory", "the cluster is in <data>/pgdata: set SUPAFLY_DATA"),
    ("config_file", "it is rendered at every boot: give single settings"),
    ("include", "give single settings"),
    ("include_dir", "give single settings"),
    ("include_if_exists", "give single settings"),
    ("hba_file", "who may connect is rendered at every boot"),
    ("ident_file", "who may connect is rendered at every boot"),
    ("external_pid_file", "`supafly status` knows the process"),
    ("listen_addresses", "set SUPAFLY_PG_LISTEN"),
    ("port", "set SUPAFLY_PG_PORT"),
    ("unix_socket_directories", "set SUPAFLY_PG_SOCKETS"),
    ("unix_socket_group", "our own services come through the socket"),
    ("unix_socket_permissions", "our own services come through the socket"),
    ("password_encryption", "only SCRAM passwords are let in"),
    ("archive_mode", "it is on when there is a store: set SUPAFLY_STORE"),
    ("archive_command", "WAL goes to the store: set SUPAFLY_STORE"),
    ("archive_library", "WAL goes to the store: set SUPAFLY_STORE"),
    ("archive_timeout", "set SUPAFLY_ARCHIVE_TIMEOUT"),
    ("archive_cleanup_command", "the archive is cleaned by nobody but us"),
    ("restore_command", "WAL comes from the store: set SUPAFLY_STORE"),
    ("recovery_end_command", "a restore is done before the server starts"),
    ("recovery_min_apply_delay", "a restore is done before the server starts"),
    ("primary_conninfo", "this is no standby"),
    ("primary_slot_name", "this is no standby"),
    ("promote_trigger_file", "this is no standby"),
    ("wal_level", "it is `logical`, which the archive and replication need"),
    ("fsync", "the archive would hold what the disk does not"),
    ("full_page_writes", "a base backup needs them"),
    ("data_sync_retry", "what failed to reach the disk would be taken for safe"),
    ("logging_collector", "its log is in `supafly logs` and in the container's"),
    ("log_destination", "its log is in `supafly logs` and in the container's"),
    ("log_line_prefix", "the supervisor reads it"),
    ("lc_messages", "the supervisor and the roles read them"),
];

impl ServerSettings {
    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The names alone, for the log.
    #[must_use]
    pub fn names(&self) -> String {
        self.iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }

    /// One `name=value` a line; empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// What should be there instead; and the reason for a name that is refused.
    pub fn from_text(text: &str) -> Result<ServerSettings, String> {
        let mut all = ServerSettings::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (name, value) =
                line.split_once('=').ok_or("one `name=value` a line, such as `work_mem=8MB`")?;
            all.put(name.trim(), value.trim()).map_err(|why| format!("without that: {why}"))?;
        }
        Ok(all)
    }

    /// Arguments as `postgres` takes them: `-c name=value`, `--name=value`, `-N 100` and its other short ones.
    ///
    /// # Errors
    /// The argument that cannot be, and why.
    pub fn from_arguments(arguments: &[String]) -> Result<ServerSettings, String> {
        let mut all = ServerSettings::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
                let pair = long.split_once('=');
                let (name, value) = pair.ok_or_else(|| format!("`--{long}` needs a value: --{long}=…"))?;
                all.put(name, value)?;
                continue;
            }
            let Some(letters) = argument.strip_prefix('-').filter(|s| !s.is_empty() && *s != "-") else {
                return Err(format!("`{argument}` is no setting: write -c name=value or --name=value"));
            };
            for (place, letter) in letters.char_indices() {
                if let Some((name, value)) = switch(letter) {
                    all.put(name, value)?;
                    continue;
                }
                // As getopt has it: what follows the letter, else the next argument.
                let attached = letters.get(place + letter.len_utf8()..).filter(|v| !v.is_empty());
                let value = attached.or_else(|| rest.next().map(String::as_str));
                let value = value.ok_or_else(|| format!("`-{letter}` needs a value"));
                let (name, value) = with_value(letter, value)?;
                all.put(&name, &value)?;
                break;
            }
        }
        Ok(all)
    }

    /// These, with `later` over them.
    #[must_use]
    pub fn with(mut self, later: ServerSettings) -> ServerSettings {
        for (name, value) in later.0 {
            self.0.retain(|(n, _)| *n != name);
            self.0.push((name, value));
        }
        self
    }

    /// As [`ServerSettings::from_text`] reads it.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), String> {
        // As Postgres has it.
        let name = name.replace('-', "_").to_ascii_lowercase();
        let word =
            |w: &str| w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && w.bytes().all(fits);
        if !name.split('.').all(word) {
            return Err(format!("`{}` is no name of a setting", name.escape_debug()));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("the value of `{name}` holds a line break or another control character"));
        }
        if name.starts_with("recovery_target") {
            return Err(format!("{name} is refused: a restore is done before the server starts"));
        }
        if let Some((name, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("{name} is refused: {why}"));
        }
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, value.to_owned()));
        Ok(())
    }
}

const fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// Letters that need no value.
fn switch(letter: char) -> Option<(&'static str, &'static str)> {
    match letter {
        'e' => Some(("datestyle", "euro")),
        'F' => Some(("fsync", "off")),
        'i' => Some(("listen_addresses", "*")),
        'l' => Some(("ssl", "on")),
        'O' => Some(("allow_system_table_mods", "on")),
        'P' => Some(("ignore_system_indexes", "on")),
        's' => Some(("log_statement_stats", "on")),
        _ => None,
    }
}

/// Letters that have one, as settings.
fn with_value(letter: char, value: Result<&str, String>) -> Result<(String, String), String> {
    let name = match letter {
        'c' => {
            let pair = value?;
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("`-c {pair}` needs a value: -c {pair}=…"))?;
            return Ok((name.to_owned(), value.to_owned()));
        }
        'd' => {
            let level = value?;
            let level = if level == "0" { "notice".to_owned() } else { format!("debug{level}") };
            return Ok(("log_min_messages".to_owned(), level));
        }
        'f' => {
            let kind = match value? {
                "s" => "enable_seqscan",
                "i" => "enable_indexscan",
                "o" => "enable_indexonlyscan",
                "b" => "enable_bitmapscan",
                "t" => "enable_tidscan",
                "n" => "enable_nestloop",
                "m" => "enable_mergejoin",
                "h" => "enable_hashjoin",
                other => return Err(format!("`-f {other}`: postgres knows s, i, o, b, t, n, m and h")),
            };
            return Ok((kind.to_owned(), "off".to_owned()));
        }
        't' => {
            let kind = match value? {
                "pa" | "parser" => "log_parser_stats",
                "pl" | "planner" => "log_planner_stats",
                "e" | "ex" | "executor" => "log_executor_stats",
                other => return Err(format!("`-t {other}`: postgres knows pa, pl and ex")),
            };
            return Ok((kind.to_owned(), "on".to_owned()));
        }
        'B' => "shared_buffers",
        'D' => "data_directory",
        'h' => "listen_addresses",
        'k' => "unix_socket_directories",
        'N' => "max_connections",
        'p' => "port",
        'S' => "work_mem",
        'W' => "post_auth_delay",
        other => {
            return Err(format!(
                "`-{other}` is not taken: write -c name=value; Postgres's own short ones that are: -B -N -S -W -d -e -f -l -O \
                 -P -s -t"
            ));
        }
    };
    // What is refused is refused with or without a value.
    Ok((name.to_owned(), value.or_else(|e| if refused(name) { Ok("") } else { Err(e) })?.to_owned()))
}

fn refused(name: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// The names that are refused, with the reasons, for the page.
pub(super) fn refusals() -> impl Iterator<Item = (&'static str, &'static str)> {
    REFUSED.iter().copied()
}

impl fmt::Display for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&str, &str)| {
            let value = if name.contains('.') { "(not shown)" } else { value };
            format!("{name}={value}")
        };
        let all: Vec<_> = self.iter().map(shown).collect();
        f.write_str(&all.join(", "))
    }
}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerSettings({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(arguments: &[&str]) -> Result<ServerSettings, String> {
        ServerSettings::from_arguments(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_as_postgres_reads_them() {
        let all = of(&[
            "-c",
            "work_mem=8MB",
            "--max-connections=50",
            "-N",
            "100",
            "-B128MB",
            "-sl",
            "-cdatestyle=iso, dmy",
            "-fh",
            "-d2",
            "-c",
            "my.thing=a=b",
        ]);
        let said = "work_mem=8MB, max_connections=100, shared_buffers=128MB, log_statement_stats=on, ssl=on, \
                    datestyle=iso, dmy, enable_hashjoin=off, log_min_messages=debug2, my.thing=(not shown)";
        let all = all.unwrap();
        assert_eq!(all.to_string(), said);
        assert_eq!(all.get("my.thing"), Some("a=b"));
    }

    #[test]
    fn what_may_be_secret_is_shown_nowhere() {
        let all = of(&["-c", "app.key=geheim", "-c", "work_mem=8MB"]).unwrap();
        assert_eq!(all.names(), "app.key, work_mem");
        assert!(!format!("{all} {all:?} {}", all.names()).contains("geheim"));
        assert!(all.to_text().contains("app.key=geheim\n"));
    }

    #[test]
    fn what_would_break_the_product_is_refused_with_the_right_setting() {
        for (arguments, words) in [
            (&["-c", "archive_mode=off"][..], "SUPAFLY_STORE"),
            (&["-c", "Archive-Command=/bin/true"], "archive_command is refused"),
            (&["--restore_command=x"], "SUPAFLY_STORE"),
            (&["-D", "/elsewhere"], "SUPAFLY_DATA"),
            (&["-p5433"], "SUPAFLY_PG_PORT"),
            (&["-p"], "SUPAFLY_PG_PORT"),
            (&["-h", "0.0.0.0"], "SUPAFLY_PG_LISTEN"),
            (&["-i"], "SUPAFLY_PG_LISTEN"),
            (&["-k", "/tmp"], "SUPAFLY_PG_SOCKETS"),
            (&["-F"], "fsync is refused"),
            (&["--data-sync-retry=on"], "data_sync_retry is refused"),
            // Directives of a configuration file, which would bring in whatever is refused.
            (&["-c", "include_dir=/etc/x"], "include_dir is refused"),
            (&["-c", "recovery_target_time=now"], "a restore is done"),
            (&["-c", "work_mem"], "`-c work_mem` needs a value"),
            (&["--work_mem"], "needs a value"),
            (&["-N"], "needs a value"),
            (&["-c", "work mem=1"], "no name of a setting"),
            (&["-c", "a=b\nfsync=off"], "line break"),
            (&["-j"], "not taken"),
            (&["-c", "a=b", "mydb"], "`mydb` is no setting"),
            (&["--"], "is no setting"),
        ] {
            let said = of(arguments).unwrap_err();
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
    }

    #[test]
    fn text_says_the_same_and_the_later_one_wins() {
        let first = ServerSettings::from_text("# ours\n work_mem = 8MB\n\nsearch_path=a, b\n").unwrap();
        assert_eq!(first.get("search_path"), Some("a, b"));
        let both = first.with(of(&["-S", "4096"]).unwrap());
        assert_eq!(both.to_string(), "search_path=a, b, work_mem=4096");
        assert_eq!(ServerSettings::from_text(&both.to_text()).unwrap(), both);
        assert!(ServerSettings::from_text("fsync=off").unwrap_err().contains("refused"));
        assert!(ServerSettings::from_text("fsync").unwrap_err().contains("name=value"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_refused_gets_through(
            arguments in prop::collection::vec("(-{0,2}[a-zA-Z_-]{1,12}=?.{0,6}|\\PC{0,12})", 0..6),
        ) {
            if let Ok(all) = ServerSettings::from_arguments(&arguments) {
                for (name, value) in all.iter() {
                    prop_assert!(!refused(name) && !name.starts_with("recovery_target"));
                    prop_assert!(!value.contains('\n'));
                }
                // However it travels, it stays the same.
                let trimmed = all.iter().all(|(_, v)| v.trim() == v);
                if trimmed {
                    prop_assert_eq!(ServerSettings::from_text(&all.to_text()).unwrap(), all);
                }
            }
        }
    }
}
