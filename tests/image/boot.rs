//! From nothing to clients that are served: REST through a new table, the pooler, and what users type without thinking.

use super::container::{Container, INITS, Init, Plan};
use super::engine::Image;
use crate::support::rest::try_call;
use serde_json::{Value, json};

/// Writes and reads through every door.
fn serves(container: &Container, init: Init) {
    let what = format!("{init:?}");
    container.sql("create table public.notes (id bigint primary key, note text)").unwrap();
    container.sql("insert into public.notes values (1, 'by psql')").unwrap();
    let keys: Value = serde_json::from_str(&container.said(&["supafly", "keys", "--json"])).unwrap();
    let bearer = format!("Bearer {}", keys["SERVICE_ROLE_KEY"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str()), ("Prefer", "return=representation")];
    let api = container.port(3000);
    // The API learns of a new table by itself.
    let rows = container.wait("the new table in the API", || {
        try_call(api, "GET", "/notes?select=id,note", &headers, None).filter(|a| a.code == 200)
    });
    assert_eq!(rows.json(), json!([{"id": 1, "note": "by psql"}]), "{what}");
    let written =
        try_call(api, "POST", "/notes", &headers, Some(&json!({"id": 2, "note": "by REST"}))).unwrap();
    assert_eq!(written.code, 201, "{what}: {written:?}");
    let nobody = try_call(api, "GET", "/notes", &[("Authorization", "Bearer a.b.c")], None).unwrap();
    assert_eq!(nobody.code, 401, "{what}: {nobody:?}");
    let counted = container.by_port(5432, "select string_agg(note, ',' order by id) from public.notes");
    assert_eq!(counted.unwrap(), "by psql,by REST", "{what}");
    let health = try_call(container.port(8080), "GET", "/health/ready", &[], None).unwrap();
    assert_eq!(health.code, 200, "{what}: {health:?}");
}

fn pools(container: &Container, init: Init) {
    let pooled = container.by_port(6543, "select note from public.notes where id = 2");
    assert_eq!(pooled.as_deref(), Ok("by REST"), "{init:?}");
    let refused = container.by_port(6543, "select note from public.nothing").unwrap_err();
    assert!(refused.contains("does not exist"), "{init:?}: {refused}");
}

#[test]
fn the_slim_image_boots_to_ready_and_serves_psql_rest_and_the_pooler() {
    for init in INITS {
        let container = Plan::new(&Image::slim()).under(init).with_clients().ready();
        serves(&container, init);
        pools(&container, init);
    }
}

#[test]
fn the_full_image_boots_to_ready_and_serves_psql_rest_and_pgbouncer() {
    for init in INITS {
        let plan = Plan::new(&Image::full()).under(init).with_clients();
        let container = plan.env("SUPAFLY_POOLER", "pgbouncer").ready();
        serves(&container, init);
        pools(&container, init);
    }
}

#[test]
fn the_full_image_has_supavisor_as_its_pooler_and_is_ready_with_it() {
    let container = Plan::new(&Image::full()).with_clients().ready();
    let versions = container.said(&["supafly", "version", "--all"]);
    let line = versions.lines().find(|l| l.to_lowercase().contains("supavisor")).unwrap_or_default();
    eprintln!("supavisor under test: {line}");
    assert_eq!(container.service("pooler").unwrap()["state"], "ready");
    assert!(
        container.service("pooler-session").is_none_or(|s| s["state"] == "absent"),
        "{:?}",
        container.status()
    );
}

#[test]
fn what_users_type_into_docker_exec_works_without_options() {
    let container = Plan::new(&Image::slim()).env("POSTGRES_PASSWORD", "x").ready();
    assert_eq!(container.said(&["psql", "-U", "postgres", "-Atc", "select 1 + 1"]), "2");
    assert!(container.said(&["pg_isready"]).contains("accepting connections"));
    assert!(container.said(&["supafly", "status"]).starts_with("supafly: ready"));
}

#[test]
fn a_password_alone_is_enough_and_arguments_are_server_settings() {
    let plan = Plan::new(&Image::slim()).env("POSTGRES_PASSWORD", "x");
    let container = plan.words(&["-c", "work_mem=7MB"]).ready();
    assert_eq!(container.sql("show work_mem").unwrap(), "7MB");
}
