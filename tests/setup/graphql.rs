//! pg_graphql by a stand-in: a real extension of that name with a `graphql.resolve` of the same signature, in a copy of
//! Postgres's directories (it finds its share directory relative to its own program). The real one is in the image.

use super::cluster::{Cluster, open_directory, programs, text};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn copy(options: &[&str], from: &Path, to: &Path) {
    let done = Command::new("cp").args(options).arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cp {} {}", from.display(), to.display());
}

/// Debian's layout: `lib/postgresql/<major>/bin`, `share/postgresql/<major>`. None where Postgres is installed otherwise.
fn with_stand_in(root: &Path) -> Option<PathBuf> {
    let bin = programs();
    let major = bin.parent()?.file_name()?.to_str()?.to_owned();
    let share = Path::new("/usr/share/postgresql").join(&major);
    if bin != Path::new("/usr/lib/postgresql").join(&major).join("bin") || !share.is_dir() {
        return None;
    }
    let (lib, here) = (root.join("lib/postgresql").join(&major), root.join("share/postgresql").join(&major));
    fs::create_dir_all(&lib).unwrap();
    fs::create_dir_all(here.parent().unwrap()).unwrap();
    copy(&["-RL"], &bin, &lib.join("bin"));
    symlink(bin.parent()?.join("lib"), lib.join("lib")).unwrap();
    copy(&["-RL"], &share, &here);
    stand_in(&here.join("extension"), "1.5.7", "{\"data\": {\"__typename\": \"Query\"}}");
    Some(lib.join("bin"))
}

fn stand_in(dir: &Path, version: &str, answer: &str) {
    let control =
        format!("default_version = '{version}'\nrelocatable = false\nschema = 'graphql'\nsuperuser = true\n");
    fs::write(dir.join("pg_graphql.control"), control).unwrap();
    let sql = format!(
        "create function graphql.resolve(query text, variables jsonb default '{{}}', \"operationName\" text default null, \
         extensions jsonb default null) returns jsonb language plpgsql as $$ begin return '{answer}'; end $$;\n\
         create sequence graphql.seq_schema_version;\n"
    );
    fs::write(dir.join(format!("pg_graphql--{version}.sql")), sql).unwrap();
}

#[test]
fn it_is_enabled_where_it_is_installed_kept_at_its_version_and_left_alone_when_dropped() {
    let root = open_directory();
    let Some(bin) = with_stand_in(root.path()) else {
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
    let Some(bin) = with_stand_in(root.path()) else {
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
