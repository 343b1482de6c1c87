//! What set-up does with pg_graphql, which is a stand-in here.

use super::cluster::{Cluster, open_directory, programs, text};
use super::stand_in::{stand_in, with_stand_in};

#[test]
fn it_is_enabled_where_it_is_installed_kept_at_its_version_and_left_alone_when_dropped() {
    let root = open_directory();
    let Some(bin) = with_stand_in(&programs(), root.path()) else {
        eprintln!(
            "skipped: this Postgres is not in Debian's directories, so no stand-in for pg_graphql can be installed"
        );
        return;
    };
    let share = root.path().join("share/postgresql").join(bin.parent().unwrap().file_name().unwrap());
    let cluster = Cluster::with(&bin, &[]);
    let said = cluster.setup();
    assert!(said.contains("graphql is ok: pg_graphql 1.5.7"), "{said}");
    cluster.tests_beside_the_steps();

    let extension = share.join("extension");
    stand_in(&extension, "1.6.1", "{\"data\": {\"__typename\": \"Query\"}}");
    let said = cluster.setup();
    assert!(said.contains("graphql is ok: pg_graphql 1.6.1"), "{said}");
    cluster.tests_beside_the_steps();

    // What depends on it is not dropped with it.
    cluster.sql("create view public.mine as select graphql.resolve('{x}')");
    stand_in(&extension, "1.7.0", "{\"data\": {\"__typename\": \"Query\"}}");
    let said = cluster.setup();
    assert!(said.contains("pg_graphql stays at 1.6.1 (this machine has 1.7.0)"), "{said}");
    cluster.sql("drop view public.mine");

    // An answer that is an error, and an error that is no answer.
    stand_in(&extension, "1.8.0", "{\"errors\": [{\"message\": \"no\"}]}");
    let said = cluster.setup();
    assert!(said.contains("graphql is broken: pg_graphql 1.8.0 answers"), "{said}");
    stand_in(&extension, "1.9.0", "no json");
    let said = cluster.setup();
    assert!(
        said.contains("graphql is broken: pg_graphql 1.9.0: invalid input syntax for type json"),
        "{said}"
    );

    cluster.sql("drop extension pg_graphql");
    let asked = "set role anon; select graphql_public.graphql(query := '{__typename}')";
    assert!(text(&cluster.psql("postgres", asked)).contains("pg_graphql extension is not enabled."));
    let said = cluster.setup();
    assert!(
        said.contains("graphql is absent: pg_graphql is installed on this machine but not in the database"),
        "{said}"
    );
    stand_in(&extension, "1.9.1", "{\"data\": {\"__typename\": \"Query\"}}");
    cluster.sql("create extension pg_graphql");
    assert!(text(&cluster.psql("postgres", asked)).contains("\"__typename\": \"Query\""));
    // Not only by DROP EXTENSION.
    cluster.sql("drop schema graphql cascade");
    assert!(text(&cluster.psql("postgres", asked)).contains("pg_graphql extension is not enabled."));
}

#[test]
fn it_is_not_put_into_a_schema_of_somebody_else() {
    let root = open_directory();
    let Some(bin) = with_stand_in(&programs(), root.path()) else {
        eprintln!("skipped: this Postgres is not in Debian's directories");
        return;
    };
    let cluster = Cluster::with(&bin, &[]);
    // What is asked as superuser would be theirs: it takes the fewest arguments.
    cluster.sql(
        "create role low; create schema graphql authorization low; set role low; \
         create function graphql.resolve(query text) returns jsonb language plpgsql as \
         'begin execute ''alter role low superuser''; return ''{}''; end'",
    );
    let said = cluster.setup();
    assert!(said.contains("schema graphql belongs to low"), "{said}");
    assert_eq!(cluster.sql("select rolsuper from pg_roles where rolname = 'low'"), "f");
}
