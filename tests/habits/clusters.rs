//! Clusters that other images might have made, and what is asked of them.

use crate::support::machine::{Machine, root};
use crate::support::programs::pg_bin;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of Postgres as the user that may run it.
pub(crate) fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(if root() { "setpriv".into() } else { pg_bin().join(program) });
    if root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(pg_bin().join(program));
    }
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command
}

/// A cluster as the official image leaves it after a stop in order: another superuser, another owner, 0700, no role of ours.
pub(crate) fn foreign(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let chown = |owner: &str| {
        if root() {
            assert!(Command::new("chown").args(["-R", owner]).arg(path).status().unwrap().success());
        }
    };
    chown("postgres:postgres");
    let made = as_postgres("initdb")
        .args(["-U", "boss", "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8", "-D"])
        .arg(path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    single(path, "create table heirloom as select generate_series(1, 42) as i");
    chown("daemon:daemon");
}

pub(crate) fn single(path: &Path, statement: &str) {
    single_with(path, &[], statement);
}

pub(crate) fn single_with(path: &Path, arguments: &[&str], statement: &str) {
    let mut child = as_postgres("postgres")
        .args(["--single", "-D"])
        .arg(path)
        .args(arguments)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{statement}").unwrap();
    assert!(child.wait().unwrap().success());
}

/// Every file below, with its content, mode and owner.
pub(crate) fn tree(path: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(at) = todo.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let content = if meta.is_file() { fs::read(&at).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()));
        }
        all.insert(at, (meta.mode(), meta.uid(), content));
    }
    all
}

pub(crate) fn adopt(machine: &mut Machine, path: &Path) {
    machine.env.insert("SUPAFLY_ADOPT".into(), path.display().to_string());
}

pub(crate) fn heirloom(machine: &Machine) {
    assert_eq!(machine.sql("select count(*), max(i) from heirloom").unwrap(), [["42", "42"]]);
}

pub(crate) fn refused(machine: &mut Machine, words: &[&str]) {
    machine.boot();
    assert_eq!(machine.wait_end().code(), Some(77), "{}", machine.tail());
    for word in words {
        assert!(machine.log().contains(word), "`{word}` is not said:\n{}", machine.tail());
    }
}

pub(crate) fn prepared(machine: &Machine) {
    for role in ["secrets", "claim"] {
        let out = machine.supafly(&[role]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
