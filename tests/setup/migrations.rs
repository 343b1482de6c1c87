//! Users' own scripts.

use super::cluster::Cluster;
use std::fs;

fn migrate(cluster: &Cluster, files: &[(&str, &str)]) -> String {
    let dir = cluster.migrations(files);
    let (code, said) = cluster.setup_with(&[("SUPAFLY_MIGRATIONS", &dir)]);
    assert_eq!(code, Some(0), "a bad migration is no reason to give up set-up: {said}");
    said
}

#[test]
fn they_run_once_in_the_order_of_their_names() {
    let cluster = Cluster::start();
    let files = [
        ("02_b.sql", "insert into public.t values (2); select 'a;b';"),
        ("01_a.sql", "create table public.t (id int); insert into t values (1);"),
        ("03_c.sh", "echo never"),
    ];
    let said = migrate(&cluster, &files);
    assert!(said.contains("migration 01_a.sql done") && said.contains("migration 02_b.sql done"), "{said}");
    assert!(said.contains("only *.sql is run; skipped: 03_c.sh"), "{said}");
    assert!(!migrate(&cluster, &[]).contains("migration 0"));
    assert_eq!(cluster.sql("select string_agg(id::text, ',' order by id) from public.t"), "1,2");
    let said = migrate(&cluster, &[("01_a.sql", "create table public.other ();"), ("04_d.sql", "select 1")]);
    assert!(
        said.contains("migration 01_a.sql: it was run on 20") && said.contains("2 after it were not begun"),
        "{said}"
    );
    let (_, said) = cluster.setup_with(&[("SUPAFLY_MIGRATIONS", "/nowhere/at/all")]);
    assert!(said.contains("/nowhere/at/all: there is no such directory"), "{said}");
}

#[test]
fn a_bad_one_is_shown_with_its_line_leaves_nothing_and_stops_the_later_ones() {
    let cluster = Cluster::start();
    let bad = "create table public.half (id int);\n\n-- ä\nselect *\n  from nowhere;\n";
    let said = migrate(
        &cluster,
        &[
            ("1.sql", "create table public.one ();"),
            ("2.sql", bad),
            ("3.sql", "create table public.three ();"),
        ],
    );
    assert!(
        said.contains("migration 2.sql: line 5, column 8: relation \"nowhere\" does not exist [42P01]"),
        "{said}"
    );
    assert!(said.contains("1 after it were not begun"), "{said}");
    let there = "select string_agg(relname, ' ' order by relname) from pg_class where relname in ('one', 'half', 'three')";
    assert_eq!(cluster.sql(there), "one");
    let said = migrate(&cluster, &[("2.sql", "create table public.half (id int);")]);
    assert!(said.contains("migration 2.sql done") && said.contains("migration 3.sql done"), "{said}");
    assert_eq!(cluster.sql(there), "half one three");
}

#[test]
fn what_cannot_be_in_a_transaction_says_so_and_is_run_again_when_it_was_cut_off() {
    let cluster = Cluster::start();
    let text = "create table if not exists public.t (id int);\ncreate index concurrently if not exists i on public.t (id);\n";
    let said = migrate(&cluster, &[("1.sql", text)]);
    assert!(said.contains("[25001]") && said.contains("`-- supafly: no-transaction`"), "{said}");
    let text = format!("-- supafly: no-transaction\n{text}");
    let dir = cluster.migrations(&[("1.sql", &text)]);
    for point in ["setup.migration-begun", "setup.migration-ran"] {
        let further = [("SUPAFLY_MIGRATIONS", dir.as_str()), ("SUPAFLY_FAILPOINT", point)];
        let (code, said) = cluster.setup_with(&further);
        assert_eq!(code, None, "{point}: {said}");
    }
    let said = migrate(&cluster, &[]);
    assert!(said.contains("migration 1.sql was cut off: again from its first line"), "{said}");
    assert!(!migrate(&cluster, &[]).contains("migration 1.sql"));
    assert_eq!(cluster.sql("select indisvalid from pg_index where indexrelid = 'public.i'::regclass"), "t");
    let said = migrate(&cluster, &[("2.sql", "begin;\ncreate table public.u ();\ncommit;\nselect 1/0;\n")]);
    assert!(said.contains("migration 2.sql: line 4, column 1: division by zero"), "{said}");
    assert!(said.contains("3 statements before it are done"), "{said}");
    let said = migrate(&cluster, &[("2.sql", "begin;\ncreate table public.v ();\n")]);
    assert!(said.contains("it begins a transaction and does not end it"), "{said}");
}

#[test]
fn a_kill_in_one_leaves_all_of_it_or_nothing() {
    let cluster = Cluster::start();
    let dir = cluster.migrations(&[("1.sql", "create table public.t (id int);\ninsert into t values (1);")]);
    for (point, there) in
        [("setup.migration-begun", "f"), ("setup.migration-ran", "f"), ("setup.migration-done", "t")]
    {
        let further = [("SUPAFLY_MIGRATIONS", dir.as_str()), ("SUPAFLY_FAILPOINT", point)];
        assert_eq!(cluster.setup_with(&further).0, None, "{point}");
        assert_eq!(cluster.sql("select to_regclass('public.t') is not null"), there, "{point}");
    }
    assert!(!migrate(&cluster, &[]).contains("migration 1.sql"), "it was run twice");
}

#[test]
fn what_only_psql_can_run_is_run_by_psql_with_its_place_when_it_fails() {
    let cluster = Cluster::start();
    let dump = "\\set name rows\ncreate table public.:name (a int, b text);\ncopy public.rows from stdin;\n1\tit's; begin;\n\\.\n\
                select set_config('search_path', '', false);\nset role anon;\n";
    let said = migrate(
        &cluster,
        &[("1.sql", dump), ("2.sql", "\\set x 1\ncreate table public.half ();\nselect nothing;\n")],
    );
    assert!(said.contains("migration 1.sql done"), "{said}");
    assert!(said.contains("migration 2.sql: line 3: ERROR:  column \"nothing\" does not exist"), "{said}");
    assert_eq!(cluster.sql("select b from public.rows"), "it's; begin;");
    assert_eq!(cluster.sql("select to_regclass('public.half') is null"), "t");
    fs::remove_file(cluster.dir.path().join("migrations/2.sql")).unwrap();
    assert!(!migrate(&cluster, &[]).contains("migration 1.sql"));
}

#[test]
fn one_that_ends_its_transaction_behind_our_back_is_not_called_done() {
    let cluster = Cluster::start();
    // A carriage return ends a comment, as Postgres reads it: what follows is a statement.
    let hidden = "create table public.a ();\n-- x\rcommit;\ncreate table public.b ();\nselect 1/0;\n";
    let said = migrate(&cluster, &[("1.sql", hidden)]);
    assert!(said.contains("migration 1.sql: line 4") && said.contains("division by zero"), "{said}");
    let entries =
        "select string_agg(name, ' ') from supafly.ledger where kind = 'migration' and finished is not null";
    assert_eq!(cluster.sql(entries), "");
    // Whatever the scan does not see: the end is compared with the beginning.
    let by_psql = "\\set x 1\ncreate table public.c ();\n\\ir included.txt\ncreate table public.d ();\n";
    cluster.migrations(&[("included.txt", "rollback;\n")]);
    fs::remove_file(cluster.dir.path().join("migrations/1.sql")).unwrap();
    let said = migrate(&cluster, &[("2.sql", by_psql)]);
    assert!(said.contains("migration 2.sql: ") && said.contains("ended the transaction"), "{said}");
    assert_eq!(cluster.sql(entries), "");
}

#[test]
fn one_that_connects_anew_loses_nothing_and_is_entered_where_the_ledger_is() {
    let cluster = Cluster::start();
    let dump =
        "create table public.a ();\ncreate database other;\n\\connect other\ncreate table public.b ();\n";
    let said = migrate(&cluster, &[("1.sql", dump)]);
    assert!(said.contains("migration 1.sql done"), "{said}");
    assert_eq!(
        cluster.sql("select to_regclass('public.a') is not null, to_regclass('public.b') is null"),
        "t|t"
    );
    assert!(!migrate(&cluster, &[]).contains("migration 1.sql"), "it was run twice");
    let said = migrate(&cluster, &[("2.sql", "\\c postgres\nbegin;\ncreate table public.lost ();\n")]);
    assert!(said.contains("it begins a transaction and does not end it"), "{said}");
}

#[test]
fn without_its_lock_no_further_one_is_begun() {
    let cluster = Cluster::start();
    let all = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null;";
    let said = migrate(&cluster, &[("1.sql", all), ("2.sql", "create table public.late ();")]);
    assert!(said.contains("migration 1.sql done"), "{said}");
    assert!(said.contains("migration 2.sql: the session that holds the lock of set-up has ended"), "{said}");
    assert!(migrate(&cluster, &[]).contains("migration 2.sql done"));
}
