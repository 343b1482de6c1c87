//! pg_graphql by a stand-in: a real extension of that name with a `graphql.resolve` of the same signature, in a copy of
//! Postgres's directories (it finds its share directory relative to its own program). The real one is in the image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn copy(options: &[&str], from: &Path, to: &Path) {
    let done = Command::new("cp").args(options).arg(from).arg(to).status().unwrap();
    assert!(done.success(), "cp {} {}", from.display(), to.display());
}

/// Debian's layout: `lib/postgresql/<major>/bin`, `share/postgresql/<major>`. None where Postgres is installed otherwise.
pub(crate) fn with_stand_in(bin: &Path, root: &Path) -> Option<PathBuf> {
    let major = bin.parent()?.file_name()?.to_str()?.to_owned();
    let share = Path::new("/usr/share/postgresql").join(&major);
    if bin != Path::new("/usr/lib/postgresql").join(&major).join("bin") || !share.is_dir() {
        return None;
    }
    let (lib, here) = (root.join("lib/postgresql").join(&major), root.join("share/postgresql").join(&major));
    fs::create_dir_all(&lib).unwrap();
    fs::create_dir_all(here.parent().unwrap()).unwrap();
    copy(&["-RL"], bin, &lib.join("bin"));
    symlink(bin.parent()?.join("lib"), lib.join("lib")).unwrap();
    copy(&["-RL"], &share, &here);
    stand_in(&here.join("extension"), "1.5.7", "{\"data\": {\"__typename\": \"Query\"}}");
    Some(lib.join("bin"))
}

/// Installs this version into a directory of extensions: it answers so.
pub(crate) fn stand_in(dir: &Path, version: &str, answer: &str) {
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
