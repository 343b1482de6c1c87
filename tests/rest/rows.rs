//! What a user does first: `create table` in psql, then rows through the API, as each of the roles. Nobody sends a NOTIFY.

use crate::support::machine::{PATIENCE, until};
use crate::support::rest::{Answer, Keys, call, leader, token, try_call, with_rest};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const ANN: &str = "00000000-0000-4000-8000-00000000000a";
const BEN: &str = "00000000-0000-4000-8000-00000000000b";

/// Asks until the answer has this code: the schema is read anew a moment after it has changed.
fn soon(code: u16, what: &str, ask: impl Fn() -> Answer) -> Answer {
    until(what, PATIENCE, || Some(ask()).filter(|a| a.code == code))
}

#[test]
fn a_new_table_answers_over_rest_and_graphql_under_row_security_without_a_hand() {
    let (mut machine, ports) = with_rest(&[]);
    machine.boot();
    machine.wait_ready();
    let keys = Keys::of(&machine);
    let service = Some(keys.service.as_str());

    machine
        .sql(
            "create table public.notes (id bigint generated always as identity primary key,
               owner uuid not null default auth.uid(), body text not null);
             grant select, insert, update, delete on public.notes to anon, authenticated, service_role;
             alter table public.notes enable row level security;
             create policy own on public.notes to authenticated
               using (owner = auth.uid()) with check (owner = auth.uid());
             create policy look on public.notes for select to anon using (body = 'public')",
        )
        .unwrap();
    let row = json!({"owner": ANN, "body": "of Ann"});
    let made = soon(201, "the new table", || call(ports.api, "POST", "/notes", service, Some(&row)));
    assert_eq!(made.json()[0]["body"], "of Ann", "{made:?}");
    let many = json!([{"owner": BEN, "body": "of Ben"}, {"owner": BEN, "body": "public"}]);
    assert_eq!(call(ports.api, "POST", "/notes", service, Some(&many)).code, 201);

    // Each role sees its own rows.
    let seen = |key: Option<&str>| {
        let answer = call(ports.api, "GET", "/notes?select=body&order=id", key, None);
        assert_eq!(answer.code, 200, "{answer:?}");
        answer.json()
    };
    assert_eq!(seen(service), json!([{"body": "of Ann"}, {"body": "of Ben"}, {"body": "public"}]));
    assert_eq!(seen(Some(&keys.anon)), json!([{"body": "public"}]));
    assert_eq!(seen(None), json!([{"body": "public"}]), "who shows no key is anon");
    let ann = keys.user(ANN, 600);
    assert_eq!(seen(Some(&ann)), json!([{"body": "of Ann"}]));
    let mine = call(ports.api, "POST", "/notes", Some(&ann), Some(&json!({"body": "mine"})));
    assert_eq!((mine.code, mine.json()[0]["owner"].as_str()), (201, Some(ANN)), "auth.uid() is the default");
    let theirs = call(ports.api, "POST", "/notes", Some(&ann), Some(&json!({"owner": BEN, "body": "x"})));
    assert_eq!(theirs.code, 403, "{theirs:?}");
    assert!(theirs.body.contains("row-level security"), "{theirs:?}");
    let anon = call(ports.api, "POST", "/notes", Some(&keys.anon), Some(&json!({"owner": ANN, "body": "x"})));
    assert_eq!(anon.code, 401, "{anon:?}");
    assert_eq!(call(ports.api, "DELETE", "/notes?body=eq.public", Some(&ann), None).json(), json!([]));
    assert_eq!(seen(service).as_array().unwrap().len(), 4, "what is not hers was not deleted");

    // Tokens that are none.
    let old = keys.user(ANN, -3600);
    let foreign = token("a secret that is somebody else's, 32 and more", ANN, 600);
    let mut cut = ann.clone();
    cut.truncate(cut.len() - 4);
    for (bad, why) in [(&old, "expired"), (&foreign, ""), (&cut, "")] {
        let answer = call(ports.api, "GET", "/notes", Some(bad), None);
        assert_eq!(answer.code, 401, "{answer:?}");
        assert!(answer.body.contains(why), "{answer:?}");
    }

    // Functions, changed and dropped tables: the API follows each.
    machine
        .sql(
            "create function public.who() returns text language sql stable as
               $$ select auth.role() || ' ' || coalesce(auth.uid()::text, 'nobody') $$;
             grant execute on function public.who() to anon, authenticated",
        )
        .unwrap();
    let who =
        soon(200, "the new function", || call(ports.api, "POST", "/rpc/who", Some(&ann), Some(&json!({}))));
    assert_eq!(who.json(), json!(format!("authenticated {ANN}")));
    let who = call(ports.api, "POST", "/rpc/who", Some(&keys.anon), Some(&json!({})));
    assert_eq!(who.json(), json!("anon nobody"));
    machine.sql("alter table public.notes add column stars int not null default 3").unwrap();
    let stars = soon(200, "the new column", || {
        call(ports.api, "GET", "/notes?select=stars&stars=eq.3&limit=1", service, None)
    });
    assert_eq!(stars.json(), json!([{"stars": 3}]));
    let graphql = try_call(
        ports.api,
        "POST",
        "/rpc/graphql",
        &[("Content-Profile", "graphql_public"), ("Authorization", &format!("Bearer {}", keys.anon))],
        Some(&json!({"query": "{ __typename }"})),
    )
    .unwrap();
    assert_eq!(graphql.code, 200, "{graphql:?}");
    let enabled = machine.sql("select count(*) from pg_extension where extname = 'pg_graphql'").unwrap();
    if enabled == [["1"]] {
        assert_eq!(graphql.json()["data"]["__typename"], "Query", "{graphql:?}");
    } else {
        eprintln!("pg_graphql is not on this machine: its placeholder is what answers");
        assert_eq!(graphql.json()["errors"][0]["message"], "pg_graphql extension is not enabled.");
    }
    machine.sql("drop table public.notes").unwrap();
    soon(404, "the table to be gone", || call(ports.api, "GET", "/notes", service, None));

    // What a superuser sets for the role wins, as on Supabase.
    machine
        .sql(
            "create schema api; grant usage on schema api to anon;
             create view api.one as select 1 as one; grant select on api.one to anon;
             alter role authenticator set pgrst.db_schemas = 'public, api';
             notify pgrst, 'reload config'",
        )
        .unwrap();
    let answer = until("the schema of the role's setting", PATIENCE, || {
        let answer = try_call(ports.api, "GET", "/one", &[("Accept-Profile", "api")], None)?;
        (answer.code == 200).then_some(answer)
    });
    assert_eq!(answer.json(), json!([{"one": 1}]));
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn its_secrets_are_in_its_own_file_and_nowhere_else() {
    let odd = "@/etc/passwd $(HOME) \"quoted\" 'x' \\back and more";
    let password = "p@ss:w/o?r#d%41 \"q\" \\ $(x)";
    let (mut machine, ports) = with_rest(&[
        ("JWT_SECRET", odd.to_owned()),
        ("AUTHENTICATOR_PASSWORD", password.to_owned()),
        ("PGHOST", "192.0.2.1".to_owned()),
    ]);
    machine.boot();
    machine.wait_ready();
    let keys = Keys::of(&machine);
    assert_eq!(keys.secret, odd);
    // The odd secret is the one that is asked for: a token of it is taken.
    let answer = call(ports.api, "GET", "/", Some(&keys.service), None);
    assert_eq!(answer.code, 200, "{answer:?}");
    // Refused requests are logged; the tokens that they carried are not.
    assert_eq!(call(ports.api, "GET", "/nothing", Some(&keys.service), None).code, 404);
    assert_eq!(call(ports.api, "GET", "/", Some(&token("x", ANN, 600)), None).code, 401);

    let pid = leader(&machine, "postgrest").expect("PostgREST");
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    };
    let (argv, environ, status) = (read("cmdline"), read("environ"), read("status"));
    let names: Vec<_> = environ.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).collect();
    assert!(
        names.iter().all(|n| ["PATH", "LANG", "TZ", "GHCRTS", "SUPAFLY_RUN_ID"].contains(n)),
        "{names:?}"
    );
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let path = machine.run_dir().join("postgrest/postgrest.conf");
    let file = fs::metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o400);
    if crate::support::machine::root() {
        let user = nix::unistd::User::from_name("supafly-rest").unwrap().expect("run `make test`");
        let ids = format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.uid);
        assert!(status.contains(&ids) && file.uid() == user.uid.as_raw(), "{status}");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        // Not even for a superuser of the database, who runs programs as Postgres's user.
        machine.sql("create table public.stolen (line text)").unwrap();
        for file in [path.clone(), machine.data().join("supafly/secrets/postgrest.json")] {
            let whole = format!("copy public.stolen from program 'cat {} 2>&1 || true'", file.display());
            machine.sql(&whole).unwrap();
        }
        let lines = machine
            .sql("select count(*), count(*) filter (where line like '%Permission denied%') from stolen");
        assert_eq!(lines.unwrap(), [["2", "2"]]);
    }
    let rendered = fs::read_to_string(&path).unwrap();
    let shown = machine.supafly(&["status", "--json"]).stdout;
    let check = machine.supafly(&["check"]).stdout;
    let base64 =
        rendered.lines().find_map(|l| l.strip_prefix("jwt-secret = ")).unwrap().trim_matches('"').to_owned();
    let said = machine
        .wait("its log of what it refused", |m| Some(m.log()).filter(|log| log.contains("GET /nothing")));
    for (place, text) in [
        ("argv", argv),
        ("environment", environ),
        ("log", said),
        ("status", String::from_utf8_lossy(&shown).into_owned()),
        ("check", String::from_utf8_lossy(&check).into_owned()),
    ] {
        for secret in [odd, password, &base64, &keys.service, &keys.anon] {
            assert!(!text.contains(secret), "a secret in its {place}: {text}");
            // As it would stand in a JSON text.
            let escaped = json!(secret).to_string();
            assert!(!text.contains(escaped.trim_matches('"')), "a secret in its {place}: {text}");
        }
    }

    // What it prints is read for what it is.
    let line = |needle: &str| {
        let log = machine.log();
        let line = log.lines().find(|l| l.contains("\"postgrest\"") && l.contains(needle)).map(str::to_owned);
        serde_json::from_str::<serde_json::Value>(&line.unwrap_or_else(|| panic!("no `{needle}` in {log}")))
            .unwrap()
    };
    let refused = line("GET /nothing");
    assert_eq!((&refused["level"], &refused["stream"]), (&json!("warn"), &json!("stdout")), "{refused}");
    let loaded = line("Schema cache loaded");
    assert_eq!((&loaded["level"], &loaded["stream"]), (&json!("info"), &json!("stderr")), "{loaded}");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
