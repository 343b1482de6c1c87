//! Who gets in and where: addresses, secrets, databases, and how many connections Postgres is asked for.

use crate::rig::{BOTH, Rig, version};
use crate::support::machine::root;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

/// Addresses of every machine beside the one that everybody else here uses.
const ELSEWHERE: &str = "127.0.0.2";
const NOWHERE: &str = "127.0.0.3";

#[test]
fn a_version_that_lets_everybody_in_keeps_to_loopback_and_says_why() {
    let rig = Rig::start(&[("SUPAFLY_PG_LISTEN", "*".to_owned())]);
    let reached = |port: u16| TcpStream::connect((NOWHERE, port)).is_ok();
    assert!(reached(rig.machine.port), "Postgres itself listens everywhere");
    let open = version().open_to_all();
    assert_eq!([reached(rig.transaction), reached(rig.session)], [!open, !open]);
    assert_eq!(
        rig.machine.log().matches("CVE-2026-107350").count(),
        usize::from(open),
        "said once, if at all"
    );
    rig.stop();
}

#[test]
fn it_listens_where_the_settings_say() {
    let rig = Rig::start(&[("SUPAFLY_POOLER_LISTEN", ELSEWHERE.to_owned())]);
    for port in [rig.transaction, rig.session] {
        let reached = |address: &str| TcpStream::connect((address, port)).is_ok();
        assert!(reached(ELSEWHERE) && !reached(NOWHERE));
    }
    rig.stop();
}

#[test]
fn passwords_are_in_files_of_its_own_and_nowhere_else() {
    let rig = Rig::start(&[]);
    let secrets = rig.machine.data().join("supafly/secrets/pooler.json");
    let text = fs::read_to_string(&secrets).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let password = json["pgbouncer"].as_str().unwrap();
    let owner = fs::metadata(&secrets).unwrap().uid();
    if root() {
        let user = nix::unistd::User::from_name("supafly-pool").unwrap().unwrap();
        assert_eq!(owner, user.uid.as_raw());
    }
    let mode = |path: &std::path::Path| {
        let there = fs::metadata(path).unwrap();
        (there.uid(), there.mode() & 0o777)
    };
    assert_eq!(mode(&secrets), (owner, 0o400));
    assert_eq!(mode(&rig.machine.run_dir().join("pooler")), (owner, 0o700));
    for file in ["pgbouncer.ini", "pgbouncer.users", "pgbouncer-session.ini", "pgbouncer-session.users"] {
        assert_eq!(mode(&rig.rendered(file)), (owner, 0o400), "{file}");
    }
    assert!(fs::read_to_string(rig.rendered("pgbouncer.users")).unwrap().contains(password));
    for name in BOTH {
        let process = rig.process(name);
        for what in ["cmdline", "environ"] {
            let shown = fs::read(format!("/proc/{process}/{what}")).unwrap();
            assert!(!String::from_utf8_lossy(&shown).contains(password), "{name}: {what}");
        }
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned();
        assert_eq!(line("NoNewPrivs:"), "1");
        assert_eq!(line("Uid:").split_whitespace().next().unwrap(), owner.to_string());
        if root() {
            assert_eq!(line("CapEff:").trim_start_matches('0'), "");
        }
    }
    assert!(!rig.machine.log().contains(password));
    rig.stop();
}

#[test]
fn users_come_in_with_their_own_password_and_as_nobody_else() {
    let rig = Rig::start(&[]);
    rig.machine.sql("create role app login password 'app''s \"own\"'").unwrap();
    rig.machine.sql("create role without login").unwrap();
    rig.machine
        .sql("create role old login; set password_encryption = md5; alter role old password 'o'")
        .unwrap();
    rig.machine.sql("create role expired login password 'x' valid until '2001-01-01'").unwrap();
    for port in [rig.transaction, rig.session] {
        let mut login = rig.login(port);
        assert_eq!(login.ask("select current_user"), Ok("postgres".to_owned()));
        login.user = "app".to_owned();
        let wrong = login.ask("select 1").unwrap_err();
        assert!(wrong.contains("SASL authentication failed") || wrong.contains("password"), "{wrong}");
        login.password = "app's \"own\"".to_owned();
        assert_eq!(login.ask("select current_user"), Ok("app".to_owned()));
        (login.user, login.password) = ("expired".to_owned(), "x".to_owned());
        assert!(login.ask("select 1").is_err());
        for (user, password) in [("old", "o"), ("without", "x")] {
            (login.user, login.password) = (user.to_owned(), password.to_owned());
            assert!(login.ask("select 1").is_err(), "{user}");
        }
        (login.user, login.password) = ("nobody-of-that-name".to_owned(), String::new());
        assert!(login.ask("select 1").is_err());
        // The console is for the pooler's own user over its socket.
        let mut console = rig.login(port);
        console.database = "pgbouncer".to_owned();
        assert!(console.ask("show config").is_err());
    }
    rig.stop();
}

#[test]
fn an_ordinary_user_has_it_too() {
    let mut rig = Rig::new(&[]);
    rig.machine.boot_unprivileged();
    BOTH.iter().for_each(|name| rig.wait_state(name, "ready"));
    for port in [rig.transaction, rig.session] {
        assert_eq!(rig.login(port).ask("select 'here'"), Ok("here".to_owned()));
    }
    rig.stop();
}

/// What the page tells those to do whose PgBouncer is older than 1.19.
#[test]
fn another_database_is_reached_at_once_or_after_what_the_page_says() {
    let rig = Rig::start(&[]);
    rig.machine.sql("create database other").unwrap();
    let mut login = rig.login(rig.transaction);
    login.database = "other".to_owned();
    let first = login.ask("select current_database()");
    if version() >= supafly::pooler::render::Version(1, 19, 0) {
        assert_eq!(first, Ok("other".to_owned()));
        return rig.stop();
    }
    assert_eq!(first, Err("08P01 bouncer config error".to_owned()));
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/behaviour.md")).unwrap();
    let sql = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let socket = rig.machine.run_dir().join("postgres");
    let done = std::process::Command::new(crate::support::programs::pg_bin().join("psql"))
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "other", "-c", sql, "-h"])
        .arg(socket)
        .args(["-p", &rig.machine.port.to_string()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(login.ask("select current_database()"), Ok("other".to_owned()));
    rig.stop();
}

#[test]
fn both_together_leave_connections_for_the_others() {
    let rig = Rig::start(&[]);
    let number = |file: &str, key: &str| -> u64 {
        let text = fs::read_to_string(rig.rendered(file)).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("{key}: {text}"));
        line.trim_start_matches(" = ").parse().unwrap()
    };
    let pool = |file| number(file, "max_db_connections");
    let all: u64 = rig.machine.sql("show max_connections").unwrap()[0][0].parse().unwrap();
    let (transaction, session) = (pool("pgbouncer.ini"), pool("pgbouncer-session.ini"));
    assert!(transaction >= 8 && session >= 8, "{transaction} {session}");
    assert!(transaction + session + 20 <= all, "{transaction} + {session} of {all}");
    rig.stop();
}
