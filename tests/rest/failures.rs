//! PostgREST falls, hangs, lacks or cannot start: the others go on, the status says what and why, and it comes back when
//! the cause is gone.

use crate::support::machine::{Machine, PATIENCE, until};
use crate::support::rest::{Keys, Ports, call, leader, postgrest, service, try_call, wait_state, with_rest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;

fn pid(machine: &Machine) -> Pid {
    let pid = until("PostgREST's process", PATIENCE, || leader(machine, "postgrest"));
    Pid::from_raw(pid.try_into().unwrap())
}

/// The run of each service that has one, but PostgREST's.
fn others(machine: &Machine) -> Vec<(String, Value, Value)> {
    let status = machine.status().unwrap();
    let services = status["services"].as_array().unwrap();
    let rest = |s: &&Value| s["name"] != "postgrest";
    services
        .iter()
        .filter(rest)
        .map(|s| (s["name"].as_str().unwrap().to_owned(), s["run"].clone(), s["restarts"].clone()))
        .collect()
}

/// What a service printed before it failed, and why it is where it is.
fn why(row: &Value) -> String {
    let output: Vec<_> = row["output"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "{}: {} | {}",
        row["state"].as_str().unwrap(),
        row["detail"].as_str().unwrap(),
        output.join(" | ")
    )
}

/// Waits until it is tried again after an end of which these words were said.
fn wait_why(machine: &mut Machine, words: &str) -> Value {
    machine.wait(&format!("the reason: {words}"), |m| {
        service(m, "postgrest").filter(|row| row["state"] == "backoff" && why(row).contains(words))
    })
}

fn answers(machine: &mut Machine, ports: Ports) {
    let keys = Keys::of(machine);
    machine.wait("an answer of the API", |_| {
        let bearer = format!("Bearer {}", keys.service);
        let answer = try_call(ports.api, "GET", "/", &[("Authorization", &bearer)], None)?;
        (answer.code == 200).then_some(())
    });
}

fn up(env: &[(&str, String)]) -> (Machine, Ports) {
    let (mut machine, ports) = with_rest(env);
    machine.boot();
    machine.wait_ready();
    (machine, ports)
}

#[test]
fn killed_or_hung_it_is_started_again_and_nobody_else_notices() {
    // One that hangs is ended by the last rung of its stop, which is a part of this.
    let (mut machine, ports) = up(&[("SUPAFLY_STOP_BUDGET", "30s".to_owned())]);
    answers(&mut machine, ports);
    let before = others(&machine);
    let killed = pid(&machine);
    kill(killed, Signal::SIGKILL).unwrap();
    machine.wait("another process that is ready", |m| {
        let row = service(m, "postgrest")?;
        (row["state"] == "ready" && row["restarts"] == 1).then_some(row)
    });
    answers(&mut machine, ports);
    let row = service(&machine, "postgrest").unwrap();
    assert!(row["last"].as_str().unwrap().contains("SIGKILL"), "{row}");
    assert_ne!(pid(&machine), killed);

    let hung = pid(&machine);
    kill(hung, Signal::SIGSTOP).unwrap();
    let row = wait_state(&mut machine, "postgrest", &["unready"]);
    assert!(why(&row).contains("no answer within"), "{row}");
    assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
    let row = machine.wait("another process after the one that hung", |m| {
        let row = service(m, "postgrest")?;
        (row["state"] == "ready" && row["restarts"] == 2).then_some(row)
    });
    assert_ne!(pid(&machine), hung, "{row}");
    answers(&mut machine, ports);
    assert_eq!(others(&machine), before, "nobody else was touched");
    assert!(machine.supafly(&["health", "--ready"]).status.success());
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn where_all_is_one_user_without_any_right_it_serves_as_well() {
    let (mut machine, ports) = with_rest(&[]);
    machine.boot_unprivileged();
    machine.wait_ready();
    answers(&mut machine, ports);
    kill(pid(&machine), Signal::SIGKILL).unwrap();
    machine.wait("another process that is ready", |m| {
        service(m, "postgrest").filter(|row| row["state"] == "ready" && row["restarts"] == 1)
    });
    answers(&mut machine, ports);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn it_answers_on_all_addresses_or_on_the_one_that_is_given() {
    for listen in ["*", "::1"] {
        let (mut machine, ports) = up(&[("SUPAFLY_POSTGREST_LISTEN", listen.to_owned())]);
        wait_state(&mut machine, "postgrest", &["ready"]);
        let v4 = std::net::TcpStream::connect(("127.0.0.1", ports.api)).is_ok();
        let v6 = std::net::TcpStream::connect(("::1", ports.api)).is_ok();
        assert!(if listen == "*" { v4 } else { v6 && !v4 }, "{listen}: v4 {v4}, v6 {v6}");
        let open = machine.log().contains("opens its admin port");
        let old = machine.log().contains("version=12.");
        assert_eq!(open, listen == "*" && old, "it is said, and only then");
        assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    }
}

#[test]
fn not_installed_it_is_absent_and_one_that_vanishes_comes_back_with_its_program() {
    let mut without = Machine::new(&[]);
    without.boot();
    without.wait_ready();
    let row = service(&without, "postgrest").unwrap();
    assert_eq!(row["state"], "absent", "{row}");
    assert!(why(&row).contains("no-postgrest is not installed"), "{row}");
    assert_eq!(without.stop().code(), Some(0), "{}", without.tail());
    drop(without);

    let dir = crate::support::machine::open_directory();
    let program = dir.path().join("postgrest");
    fs::copy(postgrest(), &program).unwrap();
    let (mut machine, ports) = up(&[("SUPAFLY_POSTGREST", program.display().to_string())]);
    answers(&mut machine, ports);
    fs::rename(&program, dir.path().join("away")).unwrap();
    kill(pid(&machine), Signal::SIGKILL).unwrap();
    wait_why(&mut machine, &format!("there is no program `{}`", program.display()));
    assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
    fs::rename(dir.path().join("away"), &program).unwrap();
    wait_state(&mut machine, "postgrest", &["ready"]);
    answers(&mut machine, ports);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_taken_port_is_said_with_its_setting_and_tried_again() {
    let (mut machine, ports) = with_rest(&[]);
    for (port, variable) in
        [(ports.admin, "SUPAFLY_POSTGREST_ADMIN_PORT"), (ports.api, "SUPAFLY_POSTGREST_PORT")]
    {
        let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
        machine.boot();
        let row = wait_why(&mut machine, &format!("port {port} is taken (127.0.0.1)"));
        assert!(why(&row).contains(&format!("{variable}: port")), "{row}");
        assert!(row["last"].as_str().unwrap().contains("70"), "{row}");
        assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
        // Between two attempts; while the next one is under way it is `starting`.
        machine.wait(&format!("the table to say {variable}"), |m| {
            let table = String::from_utf8(m.supafly(&["status"]).stdout).unwrap();
            ["postgrest", "backoff", variable].iter().all(|word| table.contains(word)).then_some(())
        });
        drop(holder);
        wait_state(&mut machine, "postgrest", &["ready"]);
        answers(&mut machine, ports);
        assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    }
}

#[test]
fn a_schema_that_is_not_there_is_said_with_who_names_it() {
    let (mut machine, ports) = with_rest(&[("SUPAFLY_POSTGREST_SCHEMAS", "public, later 'x'".to_owned())]);
    machine.boot();
    wait_why(&mut machine, "SUPAFLY_POSTGREST_SCHEMAS: there is no schema `later 'x'` in the database");
    machine.sql("create schema \"later 'x'\"").unwrap();
    wait_state(&mut machine, "postgrest", &["ready"]);
    answers(&mut machine, ports);

    // What is set for the role wins over the setting, and is what is said.
    machine.sql("alter role authenticator set pgrst.db_schemas = 'public,gone'").unwrap();
    kill(pid(&machine), Signal::SIGKILL).unwrap();
    wait_why(
        &mut machine,
        "`pgrst.db_schemas` of the role authenticator: there is no schema `gone` in the database",
    );
    machine.sql("alter role authenticator reset pgrst.db_schemas").unwrap();
    wait_state(&mut machine, "postgrest", &["ready"]);
    answers(&mut machine, ports);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn damaged_secrets_and_a_foreign_password_are_named_with_the_service_that_mends_them() {
    let (mut machine, ports) = up(&[]);
    answers(&mut machine, ports);
    let file = machine.data().join("supafly/secrets/postgrest.json");
    fs::write(&file, "{\"authenticator\": \"geheim\"").unwrap();
    kill(pid(&machine), Signal::SIGKILL).unwrap();
    let row = wait_why(&mut machine, "postgrest.json: not what `secrets` writes");
    assert!(
        why(&row).contains("restart the service `secrets`") && !machine.log().contains("geheim"),
        "{row}"
    );
    assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
    let done = machine.supafly(&["restart", "secrets"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_state(&mut machine, "postgrest", &["ready"]);
    answers(&mut machine, ports);

    machine.sql("alter role authenticator password 'another'").unwrap();
    kill(pid(&machine), Signal::SIGKILL).unwrap();
    let row = wait_why(&mut machine, "does not let the role authenticator in");
    assert!(why(&row).contains("the service `setup`"), "{row}");
    let done = machine.supafly(&["restart", "setup"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_state(&mut machine, "postgrest", &["ready"]);
    answers(&mut machine, ports);
    let keys = Keys::of(&machine);
    assert_eq!(call(ports.api, "GET", "/", Some(&keys.anon), None).code, 200);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
