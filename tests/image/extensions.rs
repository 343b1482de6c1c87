//! Every extension that the full image offers can be created. docs/extensions.md is made from that, by
//! `SUPAFLY_BLESS=1 make test-image`, and held to it.

use super::container::{Container, Plan};
use super::engine::Image;
use crate::support::programs::var;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// When Postgres must have loaded a library at its start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Before the extension can be created.
    ToCreate,
    /// Before it sees more than the session that uses it.
    ToWork,
}

/// Libraries, of the same name, that Postgres loads at its start beside what the image loads anyway: a setting of the
/// server, given as users give it.
const PRELOADED: &[(&str, Load)] = &[
    ("pg_cron", Load::ToCreate),
    ("pg_qualstats", Load::ToWork),
    ("pg_squeeze", Load::ToCreate),
    ("pg_stat_kcache", Load::ToCreate),
    ("pg_wait_sampling", Load::ToWork),
    ("pgaudit", Load::ToCreate),
    ("pglogical", Load::ToCreate),
    ("timescaledb", Load::ToCreate),
];

fn load(extension: &str) -> Option<Load> {
    PRELOADED.iter().find(|(name, _)| *name == extension).map(|(_, load)| *load)
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
fn failures<'a>(container: &Container, names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    names.filter_map(|name| Some((name, create(container, name).err()?))).collect()
}

fn page(all: &BTreeMap<String, Extension>) -> String {
    let mut page = format!(
        "# Extensions of the full image\n\nThese {} can be created by `CREATE EXTENSION`. `make test-image` creates each of them in \
         the image; with `SUPAFLY_BLESS=1` it writes this page, else it holds the page to what the image offers.\n\nThe last \
         column says where Postgres must load the library of the same name at its start: to create the extension, or for it to \
         see more than its own session. Libraries are named by a setting of the server, beside those that are loaded anyway: \
         `docker run … supafly -c shared_preload_libraries=pg_stat_statements,pg_cron`.\n\nWhere the image was built with \
         `PARTS=registry`, pg_graphql is a stand-in of that name.\n\n| extension | version | what it is | needs | load |\n\
         |---|---|---|---|---|\n",
        all.len()
    );
    for (name, extension) in all {
        let Extension { version, comment, needs } = extension;
        let comment = comment.replace('|', "\\|").replace('<', "&lt;");
        let load = match load(name) {
            Some(Load::ToCreate) => "to create it",
            Some(Load::ToWork) => "to see other sessions",
            None => "",
        };
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
    for (name, _) in PRELOADED {
        assert!(all.contains_key(*name), "{name} is not offered");
    }
    let (early, late): (Vec<&str>, Vec<&str>) =
        all.keys().map(String::as_str).partition(|name| load(name) != Some(Load::ToCreate));
    let failed = failures(&container, early.into_iter());
    assert!(failed.is_empty(), "as the image is, these cannot be created: {failed:#?}");
    // That the page says so for no reason would be a mistake, too.
    let failed = failures(&container, late.iter().copied());
    assert!(failed.keys().eq(late.iter()), "of {late:?} only these need to be loaded: {failed:#?}");
    let anyway = container.sql("show shared_preload_libraries").unwrap();
    drop(container);
    let mut libraries: Vec<&str> = anyway.split(", ").filter(|l| !l.is_empty()).collect();
    libraries.extend(PRELOADED.iter().map(|(library, _)| *library));
    let setting = format!("shared_preload_libraries={}", libraries.join(","));
    let container = Plan::new(&image).words(&["-c", &setting]).ready();
    let failed = failures(&container, PRELOADED.iter().map(|(name, _)| *name));
    assert!(failed.is_empty(), "with {setting}, these cannot be created: {failed:#?}");
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
