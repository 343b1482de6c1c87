//! What is typed after the image's name, and what `docker exec` finds.

use crate::support::machine::{Machine, open_directory, root};
use crate::support::programs::{pg_bin, programs};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// One that ends by itself: `supafly run -- WORDS`.
fn ends(machine: &Machine, words: &[&str]) -> Output {
    Command::new(programs().join("supafly"))
        .args(["run", "--"])
        .args(words)
        .env_clear()
        .envs(&machine.env)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn arguments_with_a_dash_are_server_settings_that_hold_and_what_was_chosen_is_said_once() {
    let mut machine = Machine::new(&[("POSTGRES_PASSWORD", "correct horse battery".into())]);
    machine.env.insert("SUPAFLY_PG_SETTINGS".into(), "work_mem=5MB\nrandom_page_cost=1.5".into());
    machine.words = words(&["postgres", "-c", "work_mem=8MB", "--max-connections=77", "-N", "66"]);
    machine.boot();
    machine.wait_ready();
    let now = |machine: &Machine| {
        let names = "'work_mem', 'random_page_cost', 'max_connections'";
        let asked =
            format!("select name || '=' || setting from pg_settings where name in ({names}) order by 1");
        machine.sql(&asked).unwrap().concat().join(" ")
    };
    assert_eq!(now(&machine), "max_connections=66 random_page_cost=1.5 work_mem=8192");
    let log = machine.log();
    assert_eq!(log.matches("chosen: data in ").count(), 1, "{log}");
    for word in [
        "UNPROTECTED",
        "server settings that were given: random_page_cost, work_mem, max_connections",
        "`postgres` as the first word",
        "the password of postgres as given",
    ] {
        assert!(log.contains(word), "{word}\n{log}");
    }
    assert!(!log.contains("correct horse"), "{log}");
    // They are of this start; and what ALTER SYSTEM has set wins over them, which is said.
    machine.sql("alter system set work_mem = '6MB'").unwrap();
    assert_eq!(machine.stop().code(), Some(0));
    machine.words = words(&["-c", "work_mem=9MB"]);
    machine.boot();
    machine.wait_ready();
    assert_eq!(now(&machine), "max_connections=200 random_page_cost=1.5 work_mem=6144");
    assert!(machine.log().contains("ALTER SYSTEM has set work_mem in this cluster"), "{}", machine.tail());
}

#[test]
fn a_setting_that_would_break_the_product_or_that_postgres_does_not_know_starts_nothing() {
    let mut machine = Machine::new(&[]);
    let refused = ends(&machine, &["-c", "archive_mode=off"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        said(&refused).contains("archive_mode is refused: it is on when there is a store: set SUPAFLY_STORE")
    );
    assert!(!machine.data().exists());
    for (words, word) in [
        (&["-c", "wrok_mem=8MB"][..], "wrok_mem"),
        (&["-c", "work_mem=lots"], "work_mem"),
        (&["-c", "shared_preload_libraries=no_such_library"], "no_such_library, which is not installed"),
    ] {
        machine.words = words.iter().map(|w| (*w).to_owned()).collect();
        machine.boot();
        assert_eq!(machine.wait_end().code(), Some(78), "{}", machine.tail());
        assert!(machine.log().contains(word), "{word}\n{}", machine.tail());
    }
    // Libraries come beside ours.
    machine.words = words(&["-c", "shared_preload_libraries=auto_explain"]);
    machine.boot();
    machine.wait_ready();
    let loaded = machine.sql("show shared_preload_libraries").unwrap().concat().join("");
    assert!(loaded.contains("auto_explain") && loaded.contains("pg_stat_statements"), "{loaded}");
}

#[test]
fn any_other_first_word_is_executed_in_our_place() {
    let mut machine = Machine::new(&[]);
    let ran = ends(&machine, &["sh", "-c", "echo $$; cat /proc/$$/comm; exit 7"]);
    assert_eq!(ran.status.code(), Some(7));
    assert!(said(&ran).ends_with("sh\n"), "{}", said(&ran));
    let lost = ends(&machine, &["no-such-program"]);
    assert_eq!(lost.status.code(), Some(64));
    assert!(
        said(&lost).contains("no-such-program") && said(&lost).contains("-c name=value"),
        "{}",
        said(&lost)
    );
    let version = ends(&machine, &["--version"]);
    assert!(
        version.status.success() && said(&version).starts_with("postgres (PostgreSQL)"),
        "{}",
        said(&version)
    );
    // Even where nothing could be started.
    machine.env.insert("SUPAFLY_PG_PORT".into(), "no port".into());
    assert_eq!(said(&ends(&machine, &["echo", "-n", "here"])), "here");
    assert!(!machine.data().exists());
}

/// As `docker exec X psql -U postgres`, with the directory that Debian's psql knows given a name of the test's own: this
/// host's belongs to this host.
#[test]
fn psql_finds_the_socket_in_its_own_directory_and_a_stale_lock_there_is_no_obstacle() {
    let mut machine = Machine::new(&[]);
    let dir = open_directory();
    // As Debian has it; made by `secrets` where we are root.
    let sockets = dir.path().join("postgresql");
    if !root() {
        std::fs::create_dir(&sockets).unwrap();
    }
    machine.env.insert("SUPAFLY_PG_SOCKETS".into(), sockets.display().to_string());
    machine.boot();
    machine.wait_ready();
    let run = |machine: &Machine, program: &str, arguments: &[&str]| {
        Command::new(pg_bin().join(program))
            .args(["-h", &sockets.display().to_string(), "-p", &machine.port.to_string()])
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let who = run(
        &machine,
        "psql",
        &["-U", "postgres", "-XAtc", "select current_user, inet_client_addr() is null"],
    );
    assert_eq!(said(&who), "postgres|t\n");
    assert!(run(&machine, "pg_isready", &[]).status.success());
    if root() {
        let mode = std::fs::metadata(&sockets).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2775);
        // Who is neither root nor Postgres's user is nobody's superuser.
        let stranger = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(pg_bin().join("psql"))
            .args([
                "-h",
                &sockets.display().to_string(),
                "-p",
                &machine.port.to_string(),
                "-wU",
                "postgres",
                "-c",
                "select 1",
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(said(&stranger).contains("Peer authentication failed"), "{}", said(&stranger));
    }
    machine.cut_power();
    // The worst that can be left: the pid in it lives again, as another program.
    let lock = sockets.join(format!(".s.PGSQL.{}.lock", machine.port));
    let text = std::fs::read_to_string(&lock).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&lock, format!("1\n{rest}")).unwrap();
    machine.boot();
    machine.wait_ready();
    assert!(machine.log().contains("removed the stale lock of a socket"), "{}", machine.tail());
    assert!(run(&machine, "pg_isready", &[]).status.success());
}

#[test]
fn a_socket_directory_that_cannot_be_written_is_said_and_is_no_obstacle() {
    let mut machine = Machine::new(&[]);
    let dir = open_directory();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    machine.env.insert("SUPAFLY_PG_SOCKETS".into(), file.display().to_string());
    machine.boot();
    machine.wait_ready();
    assert!(machine.log().contains("no second socket in"), "{}", machine.tail());
}

#[test]
fn shared_memory_that_is_too_small_for_one_statement_is_said_in_status_and_log() {
    let mut machine = Machine::new(&[]);
    // However large this host's is, this is more.
    machine.words = words(&["-c", "maintenance_work_mem=1TB"]);
    machine.boot();
    machine.wait_ready();
    let row = machine.row("shared memory").expect("a row");
    let detail = row["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("/dev/shm has") && detail.contains("--shm-size="), "{detail}");
    assert!(machine.log().contains("could not resize shared memory segment"), "{}", machine.tail());
    assert_eq!(machine.stop().code(), Some(0));
    machine.words = words(&["-c", "maintenance_work_mem=1MB", "-c", "work_mem=64kB"]);
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.row("shared memory"), None);
}

/// As `docker run --user 1000` has it where the image knows nobody of that number.
#[test]
fn a_user_without_a_name_is_told_so() {
    if !root() {
        eprintln!("not root: nobody else can be had, so this is not tried");
        return;
    }
    let nobody = 54_321;
    let machine = Machine::new(&[]);
    std::os::unix::fs::chown(machine.dir.path(), Some(nobody), Some(nobody)).unwrap();
    let role = |role: &str| {
        Command::new("setpriv")
            .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
            .arg(programs().join("supafly"))
            .arg(role)
            .env_clear()
            .envs(&machine.env)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for made in ["secrets", "claim"] {
        let out = role(made);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let out = role("datadir");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(78), "{said}");
    assert!(
        said.contains("uid 54321 has no name in /etc/passwd") && said.contains("--user postgres"),
        "{said}"
    );
}
