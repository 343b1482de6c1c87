//! Every extension that the full image offers can be created. docs/extensions.md is made from that, by
//! `SUPAFLY_BLESS=1 make test-image`, and held to it.

use super::container::{Container, Plan};
use super::engine::Image;
use crate::support::programs::var;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What Postgres must load at its start before these can be created, beside what the image loads anyway: a setting of the
/// server, given as users give it.
const PRELOADED: &[(&str, &str)] = &[
    ("pg_cron", "pg_cron"),
    ("pg_qualstats", "pg_qualstats"),
    ("pg_squeeze", "pg_squeeze"),
    ("pg_stat_kcache", "pg_stat_kcache"),
    ("pg_wait_sampling", "pg_wait_sampling"),
    ("pglogical", "pglogical"),
    ("timescaledb", "timescaledb"),
];

/// Names without the library: those that say so by an error.
fn library(extension: &str) -> Option<&'static str> {
    PRELOADED.iter().find(|(name, _)| *name == extension).map(|(_, library)| *library)
}

struct Extension {
    version: String,
    comment: String,
    needs: String,
}

fn offered(container: &Container) -> BTreeMap<String, Extension> {
    let rows = container
        .sql("select a.name || E'\t' || a.default_version || E'\t' || coalesce(replace(a.comment, E'\n', ' '), '') || E'\t' || coalesce(array_to_string(v.requires, ', '), '') from pg_available_extensions a join pg_available_extension_versions v on v.name = a.name and v.version = a.default_version order by 1")
        .unwrap();
    let extension = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let name = fields.next()?;
        let (version, comment, needs) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, Extension { version, comment, needs }))
    };
    rows.lines().filter_map(extension).collect()
}

/// In a transaction that is taken back, with what it needs; in a session of its own, as some want to be the first.
fn create(container: &Container, name: &str) -> Result<String, String> {
    container.sql(&format!("begin; create extension if not exists \"{name}\" cascade; rollback"))
}

/// Tries all of them, and says which failed and why.
fn failures<'a>(container: &Container, names: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    names.filter_map(|name| Some((name.clone(), create(container, name).err()?))).collect()
}

fn page(all: &BTreeMap<String, Extension>) -> String {
    let mut page = format!(
        "# Extensions of the full image\n\nThese {} can be created by `CREATE EXTENSION`, as the test that made this page from the image did with each \
         (`tests/image/extensions.rs`). Where the last column names a library, Postgres must load it at its start first: \
         `docker run … supafly -c shared_preload_libraries=…`.\n\nWhere the image was built with `PARTS=registry`, pg_graphql is a \
         stand-in of the same name.\n\n| extension | version | what it is | needs | load first |\n|---|---|---|---|---|\n",
        all.len()
    );
    for (name, extension) in all {
        let Extension { version, comment, needs } = extension;
        let comment = comment.replace('|', "\\|").replace('<', "&lt;");
        let load = library(name).map(|l| format!("`{l}`")).unwrap_or_default();
        writeln!(page, "| `{name}` | {version} | {comment} | {needs} | {load} |").unwrap();
    }
    page
}

#[test]
fn every_extension_of_the_full_image_can_be_created_and_the_page_lists_them() {
    let image = Image::full();
    let container = Plan::new(&image).ready();
    let all = offered(&container);
    assert!(all.len() >= 40 + 45, "only {} are offered", all.len());
    let (early, late): (Vec<_>, Vec<_>) = all.keys().partition(|name| library(name).is_none());
    let failed = failures(&container, early.into_iter());
    assert!(failed.is_empty(), "as the image is, these cannot be created: {failed:#?}");
    let loaded = container.sql("show shared_preload_libraries").unwrap();
    // That the page says so for no reason would be a mistake, too.
    for name in &late {
        assert!(create(&container, name).is_err(), "{name} can be created without its library");
    }
    drop(container);
    let mut libraries: Vec<&str> = loaded.split(", ").filter(|l| !l.is_empty()).collect();
    libraries.extend(PRELOADED.iter().map(|(_, library)| *library));
    let setting = format!("shared_preload_libraries={}", libraries.join(","));
    let container = Plan::new(&image).words(&["-c", &setting, "-c", "wal_level=logical"]).ready();
    let failed = failures(&container, late.into_iter());
    assert!(failed.is_empty(), "with their libraries ({setting}), these cannot be created: {failed:#?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/extensions.md");
    let page = page(&all);
    if var("SUPAFLY_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        kept, page,
        "docs/extensions.md is not what the image has: SUPAFLY_BLESS=1 make test-image writes it"
    );
}
