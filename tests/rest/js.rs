//! supabase-js, as an application has it, through the routes that it expects.

use crate::support::machine::{PATIENCE, until};
use crate::support::programs::var;
use crate::support::rest::{Keys, call, with_rest};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const ANN: &str = "00000000-0000-4000-8000-00000000000a";
const BEN: &str = "00000000-0000-4000-8000-00000000000b";

/// Everything that the client does.
const STEPS: &[&str] = &[
    "insert",
    "select",
    "filters",
    "count",
    "update_upsert_delete",
    "rpc",
    "row_security",
    "errors",
    "graphql",
];

/// Where `scripts/parts/supabase-js.sh` has put it.
fn installed() -> PathBuf {
    let named = var("SUPAFLY_SUPABASE_JS").map(PathBuf::from);
    let cache = || {
        let cache = var("SUPAFLY_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(var("XDG_CACHE_HOME")?).join("supafly")));
        cache
            .unwrap_or_else(|| PathBuf::from(var("HOME").unwrap()).join(".cache/supafly"))
            .join("supabase-js")
    };
    let dir = named.unwrap_or_else(cache);
    let there = dir.join("node_modules/@supabase/supabase-js").is_dir();
    assert!(there, "no supabase-js in {}: run `make test`, or scripts/parts/supabase-js.sh", dir.display());
    dir
}

#[test]
fn an_application_with_supabase_js_finds_what_it_knows() {
    let installed = installed();
    let (mut machine, ports) = with_rest(&[("SUPAFLY_AUTO_EXPOSE", "on".to_owned())]);
    machine.boot();
    machine.wait_ready();
    machine
        .sql(
            "create table public.fruits (id int generated always as identity primary key, name text unique not null,
               stars int, tags text[] not null default '{}', owner uuid not null);
             create table public.bites (fruit int references public.fruits (id), depth int);
             alter table public.fruits enable row level security;
             create policy own on public.fruits to authenticated using (owner = auth.uid()) with check (owner = auth.uid());
             create function public.add(a int, b int) returns int language sql immutable as 'select a + b';
             create function public.whoami() returns uuid language sql stable as 'select auth.uid()'",
        )
        .unwrap();
    let keys = Keys::of(&machine);
    // A table answers before the schema is read anew; a function is found only after it, and with it what belongs together.
    until("the new schema", PATIENCE, || {
        (call(ports.api, "GET", "/rpc/whoami", Some(&keys.service), None).code == 200).then_some(())
    });
    let graphql =
        machine.sql("select count(*) from pg_extension where extname = 'pg_graphql'").unwrap() == [["1"]];
    let given = json!({
        "installed": installed, "rest": ports.api, "graphql": graphql,
        "anon": keys.anon, "service": keys.service,
        "user": keys.user(ANN, 600), "expired": keys.user(ANN, -3600), "sub": ANN, "other": BEN,
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rest/js/client.mjs");
    let mut node = Command::new("node")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("node cannot be started ({e}): install Node 20 or newer (`apt-get install nodejs` from Debian 13 on)")
        });
    node.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let out = node.wait_with_output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{wrong}");
    let done: Vec<_> = said.lines().filter_map(|l| l.strip_prefix("ok ")).collect();
    assert_eq!(done, STEPS, "{said}{wrong}");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
