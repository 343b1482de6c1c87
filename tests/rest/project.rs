//! A project of Supabase moves in: its dump restores without an error, and its policies hold through the API. What
//! `pg_dump` then gives moves on to another machine in the same way.

use crate::support::machine::{Machine, PATIENCE, until};
use crate::support::programs::pg_bin;
use crate::support::rest::{Keys, Ports, call, try_call, with_rest};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const ANN: &str = "00000000-0000-4000-8000-00000000000a";
const BEN: &str = "00000000-0000-4000-8000-00000000000b";

/// Runs a script as the role postgres; the first error ends it.
fn restore(machine: &Machine, script: &str) {
    let mut psql = Command::new(pg_bin().join("psql"))
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-f", "-"])
        .env("PGHOST", machine.run_dir().join("postgres"))
        .env("PGPORT", machine.port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let out = psql.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains("ERROR"), "{said}");
}

/// The schema as `pg_dump` gives it, made repeatable as `supabase db dump` does.
fn dump(machine: &Machine) -> String {
    let out = Command::new(pg_bin().join("pg_dump"))
        .args(["--schema-only", "--quote-all-identifiers", "-n", "public", "-n", "private", "-U", "postgres"])
        .args(["-e", "citext", "-d", "postgres"])
        .env("PGHOST", machine.run_dir().join("postgres"))
        .env("PGPORT", machine.port.to_string())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.replace("CREATE SCHEMA \"", "CREATE SCHEMA IF NOT EXISTS \"")
}

/// Waits until PostgREST knows all that was restored. It reads the schema anew while a restore goes on, and then knows its
/// first tables only. A function made after the last of them is in what it reads last, so it may be known before all of them
/// are; when it is no longer known, all was read once more, and that began after the end of the restore. (A table would
/// not do: reading one works before it is known.)
fn wait_known(machine: &Machine, ports: Ports) {
    let service = Keys::of(machine).service;
    machine
        .sql("create function public.restored_to_the_end() returns int language sql stable as 'select 1'")
        .unwrap();
    let known = |code: u16| {
        until("the whole of what was restored", PATIENCE, || {
            let answer = call(ports.api, "GET", "/rpc/restored_to_the_end", Some(&service), None);
            (answer.code == code).then_some(())
        });
    };
    known(200);
    machine.sql("drop function public.restored_to_the_end()").unwrap();
    known(404);
}

fn up() -> (Machine, Ports) {
    let (mut machine, ports) = with_rest(&[]);
    machine.boot();
    machine.wait_ready();
    (machine, ports)
}

/// What members, others and nobody may do, by the project's own policies.
fn policies_hold(machine: &Machine, ports: Ports) {
    let keys = Keys::of(machine);
    let (ann, ben) = (keys.user(ANN, 600), keys.user(BEN, 600));
    let ask = |method: &str, path: &str, key: &str, body: Option<&Value>| {
        call(ports.api, method, path, Some(key), body)
    };
    // Without GoTrue somebody else enters users.
    machine
        .sql(&format!("insert into auth.users (id, email) values ('{ANN}', 'ann@x'), ('{BEN}', 'ben@x')"))
        .unwrap();
    let made = ask("POST", "/lists", &ann, Some(&json!({"name": "Groceries"})));
    assert_eq!(made.code, 201, "{made:?}");
    let list = made.json()[0].clone();
    assert_eq!(list["owner"], ANN, "auth.uid() is the default");
    assert_eq!(list["share_key"].as_str().unwrap().len(), 32, "pgcrypto is found in its schema");
    let id = list["id"].as_i64().unwrap();
    let task = ask("POST", "/tasks", &ann, Some(&json!({"list_id": id, "title": "Milk"})));
    assert_eq!(task.code, 201, "{task:?}");
    // sha256 of `Milk`, by the trigger.
    assert_eq!(
        task.json()[0]["digest"],
        machine.sql("select encode(sha256('Milk'), 'hex')").unwrap()[0][0].as_str(),
        "{task:?}"
    );
    let refused = ask("POST", "/tasks", &ben, Some(&json!({"list_id": id, "title": "Beer"})));
    assert_eq!((refused.code, refused.json()["code"].as_str()), (403, Some("42501")), "{refused:?}");
    let empty = ask("POST", "/tasks", &ann, Some(&json!({"list_id": id, "title": ""})));
    assert_eq!((empty.code, empty.json()["code"].as_str()), (400, Some("23514")), "{empty:?}");
    let titles = |key: &str| ask("GET", "/tasks?select=title,lists(name)", key, None).json();
    assert_eq!(titles(&ann), json!([{"title": "Milk", "lists": {"name": "Groceries"}}]));
    assert_eq!(titles(&ben), json!([]));
    let open = |key: &str| ask("POST", "/rpc/my_open_tasks", key, Some(&json!({}))).json();
    assert_eq!((open(&ann), open(&ben), open(&keys.service)), (json!(1), json!(0), json!(1)));
    // What anon may see is decided by policies, and by grants where there are some.
    assert_eq!(titles(&keys.anon), json!([]));
    assert_eq!(ask("GET", "/open_tasks", &keys.anon, None).code, 401, "not granted to anon");
    assert_eq!(ask("GET", "/open_tasks?select=title", &ann, None).json(), json!([{"title": "Milk"}]));
    // A member is let in by who passes row security, and deletes nothing: a restrictive policy says so.
    let joins = json!({"list_id": id, "user_id": BEN});
    assert_eq!(ask("POST", "/members", &keys.service, Some(&joins)).code, 201);
    assert_eq!(titles(&ben), titles(&ann));
    assert_eq!(ask("DELETE", "/tasks?title=eq.Milk", &ben, None).json(), json!([]));
    assert_eq!(ask("PATCH", "/tasks?title=eq.Milk", &ben, Some(&json!({"state": "done"}))).code, 200);
    assert_eq!(open(&ann), json!(0));
    let hidden = try_call(ports.api, "GET", "/x", &[("Accept-Profile", "private")], None).unwrap();
    assert_eq!(hidden.code, 406, "a schema that is not shown: {hidden:?}");
}

#[test]
fn a_dump_of_a_project_restores_and_its_policies_hold_here_and_on_the_next_machine() {
    let (mut first, ports) = up();
    restore(&first, include_str!("project.sql"));
    wait_known(&first, ports);
    policies_hold(&first, ports);
    let member = first
        .sql("select tablename from pg_publication_tables where pubname = 'supabase_realtime' order by 1")
        .unwrap();
    assert_eq!(member, [["tasks"]]);
    // New tables of this project are open, as its default privileges say.
    first.sql("create table public.later (id int)").unwrap();
    until("a table that came later", PATIENCE, || {
        (call(ports.api, "GET", "/later", None, None).code == 200).then_some(())
    });
    let dump = dump(&first);
    assert!(
        dump.contains("CREATE POLICY \"Members do tasks\"") && dump.contains("\"auth\".\"uid\"()"),
        "{dump}"
    );
    assert_eq!(first.stop().code(), Some(0), "{}", first.tail());
    drop(first);

    let (mut second, ports) = up();
    second.sql("create extension pg_trgm schema extensions").unwrap();
    restore(&second, &dump);
    wait_known(&second, ports);
    policies_hold(&second, ports);
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}
