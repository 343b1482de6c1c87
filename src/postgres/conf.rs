//! `postgresql.conf`, rendered at every boot from facts. Pure.
//!
//! The file lies in the run directory, not in the data directory, so that a restored or adopted cluster gets this
//! machine's sizes, paths and archive, and never those of where it was made. `postgresql.auto.conf` (ALTER SYSTEM) of
//! the cluster still wins for what users may set.

use super::control::Floors;
use super::lsn::SegmentSize;
use crate::config::ServerSettings;
use std::path::PathBuf;
use std::time::Duration;

/// What projects count on, where it is installed: `setup` makes the extension, which answers only when it was loaded.
pub const PRELOAD: &[&str] = &["pg_stat_statements"];

const MIB: u64 = 1 << 20;

/// Whether and how WAL leaves the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// No store: nothing is archived and every status says so.
    Off,
    /// Through keeper.
    On {
        /// Our own executable.
        program: PathBuf,
        /// A segment is closed at the latest after this time.
        timeout: Duration,
    },
}

/// Everything that the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Memory that we may use, in bytes.
    pub memory: u64,
    /// Processors that we may use.
    pub processors: usize,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Directories of the Unix socket; ours first.
    pub sockets: Vec<PathBuf>,
    /// Directory of the rendered `pg_hba.conf` and `pg_ident.conf`.
    pub rendered: PathBuf,
    /// `listen_addresses`; empty = no TCP.
    pub listen: String,
    /// The port.
    pub port: u16,
    /// Access to the Unix socket.
    pub socket_mode: u32,
    /// See [`Archive`].
    pub archive: Archive,
    /// What a recovery may not go below.
    pub floors: Floors,
    /// Size of a segment of WAL in this cluster.
    pub segment: SegmentSize,
    /// Size of the volume, in bytes.
    pub volume: u64,
    /// Libraries that are there to be loaded at the start; one that is not would keep Postgres down.
    pub preload: Vec<String>,
    /// What somebody set beside ours; it wins.
    pub given: ServerSettings,
}

/// A string literal of `postgresql.conf`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A program for the shell and for Postgres's own `%` escapes.
fn command(program: &std::path::Path, arguments: &str) -> String {
    let path = program.display().to_string().replace('%', "%%");
    let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`");
    quoted(&format!("\"{path}\" {arguments}"))
}

/// Renders the file.
#[must_use]
pub fn render(facts: &Facts) -> String {
    let mut text =
        "# Rendered at every boot by `supafly datadir`: changes here are lost. ALTER SYSTEM is kept.\n"
            .to_owned();
    let mut set = |name: &str, value: String| text.push_str(&format!("{name} = {value}\n"));
    let path = |p: &std::path::Path| quoted(&p.display().to_string());
    let megabytes = |bytes: u64| format!("{}MB", bytes / MIB);

    set("data_directory", path(&facts.pgdata));
    set("hba_file", path(&facts.rendered.join("pg_hba.conf")));
    set("ident_file", path(&facts.rendered.join("pg_ident.conf")));
    set("listen_addresses", quoted(&facts.listen));
    set("port", facts.port.to_string());
    set("unix_socket_directories", quoted(&directories(&facts.sockets)));
    set("unix_socket_permissions", format!("{:04o}", facts.socket_mode));
    set("password_encryption", "'scram-sha-256'".to_owned());
    set("tcp_keepalives_idle", "30".to_owned());
    set("tcp_keepalives_interval", "10".to_owned());
    set("tcp_keepalives_count", "3".to_owned());
    set("tcp_user_timeout", "60000".to_owned());
    set("client_connection_check_interval", "'5s'".to_owned());

    // A quarter for Postgres's own cache is the manual's advice; a small machine keeps more for everything else.
    let share = if facts.memory < 1024 * MIB { facts.memory / 8 } else { facts.memory / 4 };
    let buffers = share.clamp(32 * MIB, 8192 * MIB);
    let connections = u32::try_from(facts.memory / (10 * MIB)).unwrap_or(u32::MAX).clamp(60, 200);
    let connections = connections.max(facts.floors.max_connections);
    let work = (facts.memory / 4 / u64::from(connections.max(1))).clamp(MIB, 64 * MIB);
    set("shared_buffers", megabytes(buffers));
    set("effective_cache_size", megabytes((facts.memory / 2).max(64 * MIB)));
    set("work_mem", megabytes(work));
    set("maintenance_work_mem", megabytes((facts.memory / 16).clamp(16 * MIB, 1024 * MIB)));
    set("max_connections", connections.to_string());
    let processors = u32::try_from(facts.processors).unwrap_or(1).max(1);
    set("max_worker_processes", (processors + 8).max(16).max(facts.floors.max_worker_processes).to_string());
    set("max_parallel_workers", processors.to_string());
    set("max_wal_senders", facts.floors.max_wal_senders.max(10).to_string());
    set("max_replication_slots", "10".to_owned());
    set("max_prepared_transactions", facts.floors.max_prepared_transactions.to_string());
    set("max_locks_per_transaction", facts.floors.max_locks_per_transaction.max(64).to_string());

    set("wal_level", "logical".to_owned());
    set("wal_compression", "on".to_owned());
    set("wal_log_hints", "on".to_owned());
    set("fsync", "on".to_owned());
    set("full_page_writes", "on".to_owned());
    // Postgres does not start with less than two segments.
    let two = 2 * facts.segment.bytes();
    set("min_wal_size", megabytes(two.max(80 * MIB)));
    set("max_wal_size", megabytes(two.max(1024 * MIB)));
    set("checkpoint_completion_target", "0.9".to_owned());
    // A slot that nobody reads holds WAL for ever (the default), until the disk is full and everybody is down. So at most
    // a quarter of the volume: behind that the slot is lost, which its consumer notices, and the database is not.
    set("max_slot_wal_keep_size", megabytes((facts.volume / 4).clamp(256 * MIB, 64 * 1024 * MIB)));
    match &facts.archive {
        Archive::Off => set("archive_mode", "off".to_owned()),
        Archive::On { program, timeout } => {
            set("archive_mode", "on".to_owned());
            set("archive_command", command(program, "wal-push %p"));
            set("archive_timeout", format!("'{}s'", timeout.as_secs().max(1)));
            set("restore_command", command(program, "wal-fetch %f %p"));
            set("recovery_target_timeline", "'latest'".to_owned());
        }
    }

    // What can be loaded at the start only.
    let preload = preload(facts);
    if !preload.is_empty() {
        set("shared_preload_libraries", quoted(&preload.join(", ")));
    }
    set("logging_collector", "off".to_owned());
    set("log_destination", "'stderr'".to_owned());
    set("log_line_prefix", "'%m [%p] '".to_owned());
    set("log_timezone", "'UTC'".to_owned());
    set("lc_messages", "'C'".to_owned());
    for (name, value) in facts.given.iter().filter(|(name, _)| *name != PRELOADED) {
        set(name, quoted(value));
    }
    text
}

const PRELOADED: &str = "shared_preload_libraries";

/// Ours, and those that somebody gave: one list does not take the other's place.
#[must_use]
pub fn preload(facts: &Facts) -> Vec<String> {
    let mut all = facts.preload.clone();
    let given = facts.given.get(PRELOADED).unwrap_or_default();
    for library in given.split(',').map(|l| l.trim().trim_matches('"')).filter(|l| !l.is_empty()) {
        if !all.iter().any(|there| there == library) {
            all.push(library.to_owned());
        }
    }
    all
}

/// A list of directories.
pub(super) fn directories(all: &[PathBuf]) -> String {
    all.iter().map(|p| listed(&p.display().to_string())).collect::<Vec<_>>().join(", ")
}

/// An entry of a list of directories, whatever is in its name.
fn listed(path: &str) -> String {
    if path.contains([',', '"', ' ']) {
        format!("\"{}\"", path.replace('"', "\"\""))
    } else {
        path.to_owned()
    }
}

/// What `ALTER SYSTEM` has set of what somebody gave: it wins, because Postgres reads it last.
#[must_use]
pub fn overruled<'a>(given: &'a ServerSettings, auto: &str) -> Vec<&'a str> {
    let name = |line: &str| {
        line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase()
    };
    let set: Vec<String> = auto.lines().map(name).collect();
    given.iter().map(|(name, _)| name).filter(|name| set.iter().any(|s| s == name)).collect()
}

/// Settings that are ours alone: whoever changes them turns the archive or durability off without a word.
const OWNED: &[&str] = &[
    "archive_mode",
    "archive_command",
    "archive_library",
    "restore_command",
    "fsync",
    "full_page_writes",
    "wal_level",
    "hba_file",
    "ident_file",
    "data_directory",
];

/// Which of them a `postgresql.auto.conf` sets. Its lines are `name = 'value'`, written by `ALTER SYSTEM`.
#[must_use]
pub fn owned_in(auto: &str) -> Vec<&'static str> {
    let set = |line: &str| {
        let name = line.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        OWNED.iter().copied().find(|owned| *owned == name)
    };
    auto.lines().filter_map(|line| set(line.trim_start())).collect()
}

/// What steers a recovery: of the machine where it was set, and fatal or dangerous anywhere else.
const RECOVERY: &[&str] = &[
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
];

/// What a restored cluster keeps of a `postgresql.auto.conf`: everything that a user may set, byte for byte, without what
/// is ours, what steers a recovery, and includes of files that are not there; and what was left out.
#[must_use]
pub fn kept(auto: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (mut text, mut left) = (Vec::new(), Vec::new());
    for line in auto.split_inclusive(|b| *b == b'\n') {
        let said = String::from_utf8_lossy(line);
        let name = said.trim().split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        let ours = OWNED.iter().chain(RECOVERY).any(|owned| *owned == name);
        if ours || name.starts_with("include") {
            left.push(name);
        } else {
            text.extend_from_slice(line);
        }
    }
    (text, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            memory: 2048 * MIB,
            processors: 2,
            pgdata: "/data/pgdata".into(),
            sockets: vec!["/run/supafly/postgres".into()],
            rendered: "/run/supafly/postgres".into(),
            listen: "*".into(),
            port: 5432,
            socket_mode: 0o777,
            archive: Archive::On { program: "/usr/bin/supafly".into(), timeout: Duration::from_secs(60) },
            floors: Floors::default(),
            segment: SegmentSize::DEFAULT,
            volume: 10 << 30,
            preload: vec!["pg_stat_statements".into()],
            given: ServerSettings::default(),
        }
    }

    #[test]
    fn a_slot_may_hold_a_quarter_of_the_volume_within_bounds() {
        for (volume, said) in [(1 << 28, "256MB"), (8 << 30, "2048MB"), (1 << 42, "65536MB")] {
            let text = render(&Facts { volume, ..facts() });
            assert!(text.contains(&format!("\nmax_slot_wal_keep_size = {said}\n")), "{text}");
        }
    }

    #[test]
    fn the_wal_may_be_two_segments_at_least() {
        for (megabytes, least, most) in [(1, 80, 1024), (16, 80, 1024), (64, 128, 1024), (1024, 2048, 2048)] {
            let segment = SegmentSize::try_from(megabytes * MIB).unwrap();
            let text = render(&Facts { segment, ..facts() });
            let said = format!("\nmin_wal_size = {least}MB\nmax_wal_size = {most}MB\n");
            assert!(text.contains(&said), "{text}");
        }
    }

    #[test]
    fn a_restore_keeps_what_users_set_and_nothing_that_steers_archive_or_recovery() {
        let auto = "# Do not edit\nwork_mem = '8MB'\narchive_mode = 'off'\nmy.setting = 'a = b'\n\
                    restore_command='/bin/false'\nRecovery_Target_LSN = '0/5'\ninclude_if_exists 'x.conf'\n\
                    recovery_prefetch = 'off'\n";
        let (text, left) = kept(auto.as_bytes());
        let kept_of_it = "# Do not edit\nwork_mem = '8MB'\nmy.setting = 'a = b'\nrecovery_prefetch = 'off'\n";
        assert_eq!(String::from_utf8(text.clone()).unwrap(), kept_of_it);
        assert_eq!(left, ["archive_mode", "restore_command", "recovery_target_lsn", "include_if_exists"]);
        assert!(owned_in(kept_of_it).is_empty());
        assert_eq!(kept(&text), (text, Vec::new()));
        // A value in another encoding than ours is no reason to lose it.
        let latin = b"search_path = 'caf\xe9'";
        assert_eq!(kept(latin), (latin.to_vec(), Vec::new()));
    }

    #[test]
    fn the_file_of_a_machine_of_two_gigabytes_is_this() {
        assert_eq!(render(&facts()), include_str!("golden/2g.conf"));
    }

    #[test]
    fn what_somebody_gave_comes_last_and_libraries_are_joined() {
        let given = ServerSettings::from_text(
            "work_mem=8MB\nsearch_path=a, 'b'\nshared_preload_libraries=timescaledb, pg_stat_statements\n",
        );
        let sockets = vec!["/run/supafly/postgres".into(), "/var/run/postgresql".into()];
        let facts = Facts { given: given.unwrap(), sockets, ..facts() };
        let text = render(&facts);
        assert!(text.ends_with("work_mem = '8MB'\nsearch_path = 'a, ''b'''\n"), "{text}");
        assert!(text.contains("\nshared_preload_libraries = 'pg_stat_statements, timescaledb'\n"), "{text}");
        assert!(
            text.contains("\nunix_socket_directories = '/run/supafly/postgres, /var/run/postgresql'\n"),
            "{text}"
        );
        assert_eq!(overruled(&facts.given, "# x\nWork_mem = '4MB'\nport='1'\n"), ["work_mem"]);
        assert_eq!(listed("/a b/c"), "\"/a b/c\"");
    }

    #[test]
    fn without_a_store_nothing_is_archived() {
        let text = render(&Facts { archive: Archive::Off, ..facts() });
        assert!(text.contains("\narchive_mode = off\n") && !text.contains("_command ="), "{text}");
    }

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        let text = render(&Facts {
            pgdata: "/data/o'neill\\".into(),
            archive: Archive::On { program: "/opt/$HOME/50%/a\"b".into(), timeout: Duration::ZERO },
            ..facts()
        });
        assert!(text.contains(r"data_directory = '/data/o''neill\\'"), "{text}");
        assert!(text.contains(r#"archive_command = '"/opt/\\$HOME/50%%/a\\"b" wal-push %p'"#), "{text}");
        assert!(text.contains("archive_timeout = '1s'"), "{text}");
    }

    #[test]
    fn what_the_primary_had_is_never_undercut() {
        let floors = Floors {
            max_connections: 900,
            max_worker_processes: 77,
            max_wal_senders: 55,
            max_prepared_transactions: 33,
            max_locks_per_transaction: 222,
        };
        let text = render(&Facts { floors, memory: 256 * MIB, ..facts() });
        for line in [
            "max_connections = 900",
            "max_worker_processes = 77",
            "max_wal_senders = 55",
            "max_prepared_transactions = 33",
            "max_locks_per_transaction = 222",
            "shared_buffers = 32MB",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn what_alter_system_may_not_set_is_found_and_the_rest_is_left() {
        let auto = "# Do not edit\nwork_mem = '8MB'\narchive_mode = 'off'\n  Archive_Command='/bin/true'\n#fsync = 'off'\n";
        assert_eq!(owned_in(auto), ["archive_mode", "archive_command"]);
        assert!(owned_in("").is_empty());
    }
}
