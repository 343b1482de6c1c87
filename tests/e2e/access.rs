//! How one comes in: what `keys` and `status -o` say is true, nobody else says it, and what everybody knows is refused.

use crate::support::machine::Machine;
use crate::support::programs::pg_bin;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

fn json(machine: &Machine, args: &[&str]) -> BTreeMap<String, String> {
    let out = machine.supafly(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn log_in(url: &str) -> Result<String, String> {
    let out = Command::new(pg_bin().join("psql"))
        .args(["-XAtq", "-d", url, "-c", "select current_user"])
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(if out.status.success() { &out.stdout } else { &out.stderr });
    if out.status.success() { Ok(said.trim().to_owned()) } else { Err(said.into_owned()) }
}

#[test]
fn what_keys_says_lets_one_in_is_kept_and_is_said_nowhere_else() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    let keys = json(&machine, &["keys", "--json"]);
    assert_eq!(log_in(&keys["DB_URL"]).unwrap(), "postgres");
    assert_eq!(json(&machine, &["status", "-o", "json"]), keys);
    assert!(!keys.contains_key("API_URL"), "nothing answers there yet");

    // A shell takes `-o env` as it is, with the names that were asked for.
    let env = machine.supafly(&["status", "-o", "env", "--override-name", "DB_URL=DATABASE_URL"]);
    let script = format!("{}\nprintf %s \"$DATABASE_URL\"", String::from_utf8(env.stdout).unwrap());
    let read = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), keys["DB_URL"]);

    // Neither the table nor the JSON of the status, nor the log, nor the run directory has any of them.
    let password = keys["DB_URL"].split([':', '@']).nth(2).unwrap();
    let hidden = [password, &keys["ANON_KEY"], &keys["SERVICE_ROLE_KEY"], &keys["JWT_SECRET"]];
    let texts = [
        String::from_utf8(machine.supafly(&["status"]).stdout).unwrap(),
        String::from_utf8(machine.supafly(&["status", "--json"]).stdout).unwrap(),
        std::fs::read_to_string(machine.run_dir().join("endpoints.json")).unwrap(),
        machine.log(),
    ];
    for text in texts {
        assert!(text.len() > 20, "{text}");
        assert!(!hidden.iter().any(|secret| text.contains(secret)), "a secret is in:\n{text}");
    }

    // After a stop `keys` still knows them, `status -o` says that nothing runs, and the next boot makes no others.
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    assert_eq!(json(&machine, &["keys", "--json"]), keys);
    assert!(!machine.supafly(&["status", "-o", "env"]).status.success());
    machine.boot();
    machine.wait_ready();
    assert_eq!(json(&machine, &["keys", "--json"]), keys);

    // A password that somebody changed is his own; that `keys` is wrong now is said.
    machine.sql("alter role postgres password 'another'").unwrap();
    assert!(machine.supafly(&["restart", "setup"]).status.success());
    let row = machine.wait("the row of passwords", |m| m.row("passwords"));
    assert!(row.to_string().contains("another password than `supafly keys` shows"), "{row}");
    assert!(log_in(&keys["DB_URL"]).unwrap_err().contains("password authentication failed"));
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_secret_that_everybody_knows_is_refused_in_the_open_and_warned_of_on_a_desk() {
    let known = "super-secret-jwt-token-with-at-least-32-characters-long";
    for (name, value) in [("JWT_SECRET", known), ("POSTGRES_PASSWORD", "postgres")] {
        let mut open = Machine::new(&[(name, value.to_owned()), ("FLY_APP_NAME", "shop".to_owned())]);
        open.boot();
        assert_eq!(open.wait_end().code(), Some(78), "{}", open.tail());
        let log = open.log();
        assert!(log.contains(&format!("{name} is a well-known one")), "{log}");
        assert!(!log.contains(known));
        assert!(!open.data().join("supafly/secrets/keys.json").exists(), "what is refused is not kept");
    }
    let mut desk = Machine::new(&[
        ("JWT_SECRET", known.to_owned()),
        ("POSTGRES_PASSWORD", "p@ss w/rd".to_owned()),
        ("SUPAFLY_STORE", "none".to_owned()),
    ]);
    desk.boot();
    desk.wait_ready();
    assert!(desk.log().contains("JWT_SECRET is a well-known one"), "{}", desk.tail());
    let keys = json(&desk, &["keys", "--json"]);
    assert_eq!(keys["JWT_SECRET"], known);
    assert_eq!(log_in(&keys["DB_URL"]).unwrap(), "postgres");
    assert_eq!(desk.stop().code(), Some(0), "{}", desk.tail());
}
