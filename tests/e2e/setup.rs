//! Set-up as a service of the whole machine: its user, its powers, its rows.

use crate::support::graphql::with_stand_in;
use crate::support::machine::{Machine, open_directory};
use crate::support::programs::pg_bin;
use std::fs;

#[test]
fn a_machine_is_set_up_says_so_and_a_bad_migration_keeps_nobody_down() {
    let dir = open_directory();
    let migrations = dir.path().join("migrations");
    fs::create_dir(&migrations).unwrap();
    fs::write(migrations.join("1.sql"), "create table public.one (id int);").unwrap();
    fs::write(migrations.join("2.sql"), "select 1;\nselect nothing;").unwrap();
    let mut machine = Machine::new(&[("SUPAFLY_MIGRATIONS", migrations.display().to_string())]);
    machine.boot();
    machine.wait_ready();
    let state = |name: &'static str, wanted: &'static str| {
        move |m: &Machine| {
            let row = m.row(name)?;
            (row.get("state")?.as_str()? == wanted).then(|| row.get("detail").unwrap().to_string())
        }
    };
    let detail = machine.wait("the row of migrations", state("migrations", "failed"));
    assert!(detail.contains("2.sql: line 2, column 8: column \\\"nothing\\\" does not exist"), "{detail}");
    assert_eq!(machine.sql("select count(*) from public.one").unwrap(), [["0"]]);
    let detail = machine.wait("the row of pg_graphql", state("graphql", "absent"));
    assert!(detail.contains("pg_graphql is not installed on this machine"), "{detail}");
    assert!(machine.supafly(&["health", "--ready"]).status.success(), "{}", machine.tail());

    // Mended and asked for again: done, and what was done stays.
    fs::write(migrations.join("2.sql"), "select 1;").unwrap();
    let started = machine.supafly(&["restart", "setup"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    machine.wait("migrations that are done", state("migrations", "ok"));
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    // It took its leave each time.
    assert!(!machine.log().contains("connection to client lost"), "{}", machine.log());
}

#[test]
fn how_pg_graphql_is_follows_what_is_done_to_it_without_a_hand() {
    let root = open_directory();
    let Some(bin) = with_stand_in(&pg_bin(), root.path()) else {
        eprintln!(
            "skipped: this Postgres is not in Debian's directories, so no stand-in for pg_graphql can be installed"
        );
        return;
    };
    eprintln!("pg_graphql under test: a stand-in");
    let mut machine = Machine::new(&[("SUPAFLY_PG_BIN", bin.display().to_string())]);
    machine.boot();
    machine.wait_ready();
    let wait = |machine: &mut Machine, wanted: &str, words: &str| {
        machine.wait(&format!("graphql {wanted}"), |m| {
            let row = m.row("graphql")?;
            (row["state"] == wanted && row["detail"].as_str()?.contains(words)).then_some(())
        });
    };
    wait(&mut machine, "ok", "pg_graphql 1.5.7");
    machine.sql("drop extension pg_graphql").unwrap();
    wait(&mut machine, "absent", "`create extension pg_graphql` enables it");
    machine.sql("create extension pg_graphql").unwrap();
    wait(&mut machine, "ok", "pg_graphql 1.5.7");
    let resolve = "create or replace function graphql.resolve(query text, variables jsonb default '{}', \
                   \"operationName\" text default null, extensions jsonb default null) returns jsonb language sql as \
                   $$ select '{\"errors\": [{\"message\": \"out of order\"}]}'::jsonb $$";
    machine.sql(resolve).unwrap();
    wait(&mut machine, "broken", "out of order");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
