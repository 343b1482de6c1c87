//! The `setup` role against a real Postgres: every step twice, every kill, passwords, policies, pg_graphql by a stand-in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/graphql.rs"]
mod stand_in;

mod cluster;
mod database;
mod graphql;
mod migrations;

use cluster::{Cluster, run, text};
use std::fs;
use std::path::Path;

#[test]
fn all_steps_twice_give_what_the_tests_beside_them_expect_and_the_second_time_writes_nothing() {
    let cluster = Cluster::start();
    let said = cluster.setup();
    assert!(said.contains("step 0002-roles done") && said.contains("no role is given a password"), "{said}");
    cluster.tests_beside_the_steps();
    let before = cluster.picture();
    let said = cluster.writes_nothing(|| cluster.setup());
    assert!(!said.contains("step 0"), "{said}");
    assert_eq!(before, cluster.picture());
    cluster.tests_beside_the_steps();
}

#[test]
fn a_kill_at_any_point_leaves_whole_steps_and_the_next_run_converges() {
    let expected = {
        let whole = Cluster::start();
        whole.secrets(r#"{"authenticator": "one"}"#);
        whole.setup();
        whole.picture()
    };
    let cluster = Cluster::start();
    cluster.secrets(r#"{"authenticator": "one"}"#);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/sql");
    let mut steps: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_suffix(".sql").map(str::to_owned))
        .filter(|n| !n.ends_with(".test"))
        .collect();
    steps.sort();
    steps.push("passwords".to_owned());
    for step in steps {
        for place in ["in", "after"] {
            let point = format!("setup.{place}-{step}");
            let (code, said) = cluster.setup_with(&[("SUPAFLY_FAILPOINT", &point)]);
            assert_eq!(code, None, "{point} was not reached: {said}");
        }
    }
    cluster.setup();
    assert_eq!(cluster.picture(), expected);
    cluster.tests_beside_the_steps();
}

/// Set-up is not run again after a crash of Postgres. So what it has done is on disk when it says so, though none of its steps
/// waits for that.
#[test]
fn what_was_done_survives_a_crash_of_postgres_right_after_it() {
    // Nobody else writes out what is committed and not waited for.
    let cluster =
        Cluster::with(&cluster::programs(), &["wal_writer_delay = 10s", "wal_writer_flush_after = 1GB"]);
    cluster.secrets(r#"{"authenticator": "kept over the crash"}"#);
    cluster.setup();
    let writer = "select pid from pg_stat_activity where backend_type = 'background writer'";
    let pid = cluster.sql(writer).parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let begun = std::time::Instant::now();
    let another = || {
        let now = cluster.psql("postgres", writer);
        let now = String::from_utf8_lossy(&now.stdout).trim().parse::<i32>().ok()?;
        (now != pid).then_some(())
    };
    while another().is_none() {
        assert!(begun.elapsed() < cluster::PATIENCE, "it did not come back: {}", cluster.log());
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    assert!(cluster.log().contains("all server processes terminated; reinitializing"), "{}", cluster.log());
    let last = "select count(*), max(name) from supafly.ledger where kind = 'step' and finished is not null";
    assert_eq!(cluster.sql(last), "12|0012-auth-users");
    assert_eq!(
        cluster.sql("select rolpassword is not null from pg_authid where rolname = 'authenticator'"),
        "t"
    );
    assert!(cluster.sql("select count(*) from pg_roles where rolname in ('anon', 'service_role')") == "2");
}

#[test]
fn that_a_role_exists_proves_nothing_and_what_is_not_ours_stays() {
    let cluster = Cluster::start();
    cluster.sql(
        "create role anon superuser login; create role authenticator createrole; create role service_role; \
         create role users_app; grant users_app to service_role; create role pgbouncer nologin; \
         grant service_role to anon; create role supabase_admin; grant supabase_admin to authenticator; \
         create role authenticated; grant authenticator to authenticated; \
         alter role anon set statement_timeout = '30s'; create role supabase_auth_admin; \
         alter role supabase_auth_admin set search_path = 'public'",
    );
    let said = cluster.setup();
    assert!(said.contains("role anon was a member of service_role: taken back"), "{said}");
    assert!(said.contains("role authenticator was a member of supabase_admin: taken back"), "{said}");
    assert!(said.contains("role authenticated was a member of authenticator: taken back"), "{said}");
    let timeout = "select setconfig from pg_db_role_setting where setrole = 'anon'::regrole";
    assert_eq!(cluster.sql(timeout), "{statement_timeout=30s}", "a user's own time-out was replaced");
    assert_eq!(cluster.sql("select pg_has_role('service_role', 'users_app', 'usage')"), "t");
    cluster.sql("alter role anon reset statement_timeout");
    cluster.setup();
    cluster.tests_beside_the_steps();
}

#[test]
fn what_is_set_for_the_role_or_the_database_changes_no_step() {
    let cluster = Cluster::start();
    cluster.sql(
        "create role users_low; create role anon; create role service_role; grant service_role to anon; \
         alter role postgres set role = 'users_low'; alter database postgres set quote_all_identifiers = on; \
         alter database postgres set idle_session_timeout = '500ms'; alter database postgres set search_path = 'public'; \
         alter database postgres set default_transaction_read_only = on",
    );
    let dir = cluster.migrations(&[("1.sql", "-- supafly: no-transaction\nselect pg_sleep(1);")]);
    let (code, said) = cluster.setup_with(&[("SUPAFLY_MIGRATIONS", &dir)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("role anon was a member of service_role: taken back"), "{said}");
    assert!(said.contains("migration 1.sql done"), "{said}");
    let mut undo = cluster.command("postgres");
    for sql in [
        "set role none",
        "set default_transaction_read_only = off",
        "alter database postgres reset all",
        "alter role postgres reset role",
    ] {
        undo.args(["-c", sql]);
    }
    let undone = run(&mut undo);
    assert!(undone.status.success(), "{}", text(&undone));
    cluster.tests_beside_the_steps();
}

#[test]
fn what_a_low_role_has_planted_beforehand_is_ours_afterwards_or_stops_set_up() {
    let cluster = Cluster::start();
    cluster.sql(
        "create role low; create schema extensions authorization low; create schema auth authorization low; \
         create schema graphql_public authorization low; set role low; \
         create function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql as 'begin end'; \
         create function extensions.pgrst_drop_watch() returns event_trigger language plpgsql as 'begin end'; \
         create function extensions.graphql_wrapper() returns void language plpgsql as 'begin end'; \
         create function extensions.graphql_placeholder() returns void language plpgsql as 'begin end'; \
         create function extensions.grant_pg_graphql_access() returns event_trigger language plpgsql as 'begin end'; \
         create function extensions.set_graphql_placeholder() returns event_trigger language plpgsql as 'begin end'; \
         create function graphql_public.graphql(\"operationName\" text default null, query text default null, \
         variables jsonb default null, extensions jsonb default null) returns jsonb language sql return null::jsonb",
    );
    cluster.setup();
    let theirs = "select string_agg(nspname, ' ') from pg_namespace where nspowner = 'low'::regrole";
    assert_eq!(cluster.sql(theirs), "");
    let theirs = "select string_agg(proname, ' ') from pg_proc where proowner = 'low'::regrole";
    assert_eq!(cluster.sql(theirs), "", "whoever owns it may change what superusers run");
    cluster.sql("drop role low");
    cluster.tests_beside_the_steps();

    let cluster = Cluster::start();
    cluster.sql("create role low; create schema supafly authorization low");
    let (code, said) = cluster.setup_with(&[]);
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("schema supafly belongs to low"), "{said}");
}

#[test]
fn a_function_that_somebody_has_dropped_is_told_with_the_way_to_have_it_back() {
    let cluster = Cluster::start();
    assert!(!cluster.setup().contains("(of 00"));
    cluster.sql("drop owned by pgbouncer cascade; drop schema extensions cascade");
    let said = cluster.setup();
    let told = "pgbouncer.get_auth(text) (of 0010-pooler-lookup)";
    assert!(
        said.contains("extensions.pgrst_ddl_watch() (of 0007-api-reload)") && said.contains(told),
        "{said}"
    );
    cluster.sql("delete from supafly.ledger where name in ('0007-api-reload', '0008-graphql-access', '0010-pooler-lookup'); \
                 delete from supafly.remembered");
    cluster.setup();
    cluster.tests_beside_the_steps();
}

#[test]
fn a_step_that_was_changed_after_it_was_done_is_shown_and_stops() {
    let cluster = Cluster::start();
    cluster.setup();
    cluster.sql("update supafly.ledger set sha256 = repeat('0', 64) where name = '0009-publication'");
    cluster.sql("delete from supafly.ledger where name = '0010-pooler-lookup'");
    let (code, said) = cluster.setup_with(&[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("set-up step 0009-publication was changed after it was done: it was run on 20"),
        "{said}"
    );
    assert_eq!(cluster.sql("select count(*) from supafly.ledger where name = '0010-pooler-lookup'"), "0");
}

#[test]
fn two_at_once_do_everything_once() {
    let cluster = Cluster::start();
    let dir = cluster.migrations(&[("1.sql", "create table public.once (); select pg_sleep(0.5);")]);
    let run_it = || cluster.setup_with(&[("SUPAFLY_MIGRATIONS", &dir)]);
    let ended = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(run_it)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    for (code, said) in &ended {
        assert_eq!(*code, Some(0), "{said}");
        assert!(!said.contains("failed") && !said.contains("already exists"), "{said}");
    }
    let waited = "waiting for the lock of set-up, which supafly setup of role postgres, process ";
    assert!(ended.iter().any(|(_, said)| said.contains(waited)), "{ended:?}");
    let ran = ended.iter().filter(|(_, said)| said.contains("migration 1.sql done")).count();
    assert_eq!(ran, 1, "{ended:?}");
}

#[test]
fn passwords_are_set_once_and_are_in_no_log() {
    let further = [
        "log_statement = all",
        "log_min_duration_statement = 0",
        "log_min_error_statement = debug5",
        "log_duration = on",
    ];
    let cluster = Cluster::with(&cluster::programs(), &further);
    let secret = "correct-horse-battery";
    cluster.secrets(&format!(
        r#"{{"authenticator": "{secret}", "pgbouncer": "p", "jwt_secret": "jwt-of-the-test"}}"#
    ));
    let said = cluster.setup();
    assert!(said.contains("2 of 2 passwords of roles were set"), "{said}");
    assert!(said.contains("nobody can log in as them: supabase_admin"), "{said}");
    let login = |password: &str| {
        let mut command = cluster.command("authenticator");
        run(command.env("PGPASSWORD", password).args(["-c", "select current_user"]))
    };
    assert_eq!(text(&login(secret)).trim(), "authenticator");
    assert!(!login("another").status.success());
    let stored = "select rolpassword from pg_authid where rolname = 'authenticator'";
    let verifier = cluster.sql(stored);
    assert!(!cluster.setup().contains("were set"));
    assert_eq!(cluster.sql(stored), verifier, "a password that fits was set again");
    cluster.sql("alter role authenticator password 'by hand'");
    assert!(cluster.setup().contains("1 of 2 passwords"));
    assert!(login(secret).status.success());
    let log = cluster.log();
    assert!(log.contains("create role"), "statements are not logged, so this proves nothing");
    let newer = cluster.sql(stored);
    for hidden in [secret, &verifier, &newer, "jwt-of-the-test"] {
        assert!(!log.contains(hidden), "in the server's log: {hidden}");
        assert!(!said.contains(hidden), "said: {hidden}");
    }
    assert_eq!(
        cluster.sql("select count(*) from pg_db_role_setting s, unnest(setconfig) c where c ~ 'jwt'"),
        "0"
    );
    cluster.secrets("{");
    assert_eq!(cluster.setup_with(&[]).0, Some(78));
}

#[test]
fn a_password_of_any_letters_lets_one_in_as_libpq_prepares_it() {
    let cluster = Cluster::start();
    let odd = [
        "'\"\\ %@:/$`",
        " of blanks ",
        "ü",
        "n\u{303}",
        "a\u{ad}b",
        "a\u{a0}b",
        "ªﬁ",
        "\u{627}1",
        "😀",
        "\u{2028}x",
        "\u{221}",
    ];
    for password in odd {
        cluster.secrets(&serde_json::json!({"authenticator": password}).to_string());
        assert!(cluster.setup().contains("1 of 1 passwords"), "{password:?}");
        let mut command = cluster.command("authenticator");
        let login = run(command.env("PGPASSWORD", password).args(["-c", "select current_user"]));
        assert_eq!(text(&login).trim(), "authenticator", "{password:?}");
        // As the server itself makes one of it, so that what a hand has set is left alone.
        cluster.sql(&format!("alter role authenticator password $p${password}$p$"));
        assert!(!cluster.setup().contains("1 of 1 passwords"), "{password:?}");
    }
}

#[test]
fn a_password_of_the_superuser_that_everybody_knows_is_told_whatever_this_machine_believes() {
    let cluster = Cluster::start();
    // As after a move from a desk: the variable says a good one, the cluster still has the other.
    cluster.sql("alter role postgres password 'your-super-secret-and-long-postgres-password'");
    let told = "the database role postgres has a password that everybody knows";
    for believed in [r#"{"postgres": "a good one"}"#, "{}"] {
        cluster.secrets(believed);
        let said = cluster.setup();
        assert!(said.contains(told) && !said.contains("your-super"), "{believed}: {said}");
    }
    cluster.sql("alter role postgres password 'a good one'");
    assert!(!cluster.setup().contains(told));
}

#[test]
fn policies_know_who_asks() {
    let cluster = Cluster::start();
    let (code, said) = cluster.setup_with(&[("SUPAFLY_AUTO_EXPOSE", "on")]);
    assert_eq!(code, Some(0), "{said}");
    cluster.tests_beside_the_steps();
    let (ann, bob) = ("11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000");
    cluster.sql(&format!(
        "create table public.notes (owner uuid default auth.uid(), note text); \
         alter table public.notes enable row level security; \
         create policy own on public.notes to authenticated using (owner = auth.uid()) with check (owner = auth.uid()); \
         insert into public.notes values ('{ann}', 'of ann'), ('{bob}', 'of bob')"
    ));
    let ask = |role: &str, sub: &str, sql: &str| {
        let sql = format!(
            "begin; set local role {role}; set local request.jwt.claims = '{{\"sub\": \"{sub}\", \"role\": \"{role}\"}}'; \
             {sql}; commit"
        );
        cluster.psql("postgres", &sql)
    };
    let notes = "select string_agg(note, ',' order by note) from public.notes";
    assert_eq!(text(&ask("authenticated", ann, notes)).trim(), "of ann");
    assert_eq!(text(&ask("authenticated", bob, notes)).trim(), "of bob");
    assert_eq!(text(&ask("anon", ann, notes)).trim(), "");
    assert_eq!(text(&ask("service_role", ann, notes)).trim(), "of ann,of bob");
    assert!(ask("authenticated", ann, "insert into public.notes (note) values ('x')").status.success());
    let others = format!("insert into public.notes values ('{bob}', 'forged')");
    assert!(text(&ask("authenticated", ann, &others)).contains("row-level security"));
}

#[test]
fn new_tables_follow_the_setting_when_it_changes_and_users_own_choices_stay() {
    let cluster = Cluster::start();
    let made = |name: &str| {
        cluster.sql(&format!("create table public.{name} (id int)"));
        cluster.sql(&format!("select has_table_privilege('anon', 'public.{name}', 'select')"))
    };
    let set = |value: &str| {
        let (code, said) = cluster.setup_with(&[("SUPAFLY_AUTO_EXPOSE", value)]);
        assert_eq!(code, Some(0), "{said}");
        cluster.tests_beside_the_steps();
    };
    cluster.setup();
    assert_eq!(made("a"), "f");
    set("on");
    assert_eq!(made("b"), "t");
    assert_eq!(
        cluster.sql("select has_table_privilege('anon', 'public.a', 'select')"),
        "f",
        "an old table was opened"
    );
    set("off");
    assert_eq!(made("c"), "f");
    cluster.sql("alter default privileges in schema public grant select on tables to anon");
    cluster.setup();
    assert_eq!(made("d"), "t", "a user's own default privilege was taken back");
}

#[test]
fn postgrest_is_told_of_changes_at_commit_and_not_of_temporary_ones() {
    let cluster = Cluster::start();
    cluster.setup();
    let told = |sql: &str| {
        let output =
            run(cluster.command("postgres").args(["-c", "listen pgrst", "-c", sql, "-c", "select 1"]));
        assert!(output.status.success(), "{sql}: {}", text(&output));
        text(&output).contains("\"pgrst\" with payload \"reload schema\"")
    };
    for sql in [
        "create table public.t (id int)",
        "comment on table public.t is 'x'",
        "create function public.f() returns int language sql return 1",
        "drop function public.f()",
        "create view public.v as select 1 as one",
        "drop view public.v",
    ] {
        assert!(told(sql), "{sql}");
    }
    assert!(!told("create temporary table x (id int)"));
    assert!(!told("create table auth.of_gotrue (id int)"));
}

#[test]
fn a_database_in_recovery_or_away_is_said() {
    let cluster = Cluster::start();
    // Nobody may connect: what the server refuses is not asked again for a minute.
    let hba = cluster.settings.pg_socket_dir().join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, rules.replace("local all postgres peer map=supafly\n", "local all postgres reject\n"))
        .unwrap();
    cluster.sql("select pg_reload_conf(), pg_sleep(0.5)");
    let (code, said) = cluster.setup_with(&[]);
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("no connection to Postgres at") && said.contains("28000"), "{said}");
}
