//! Clusters of others: where they mostly are, and whether one may be adopted. Nothing is changed here.

use super::super::account::Account;
use super::super::bin::Bin;
use super::super::control::{self, State};
use super::super::{role, tree};
use super::journal::adopting;
use super::{auto, mounts};
use crate::config::Settings;
use crate::exit::Failure;
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is needed for a look.
pub(super) struct Here<'a> {
    pub(super) settings: &'a Settings,
    pub(super) bin: &'a Bin,
    pub(super) postgres: &'a Account,
}

/// Where other images have their cluster: below the volume, and below the official image's directory.
pub(super) fn places(data: &Path, official: &Path) -> Vec<PathBuf> {
    let mut all =
        vec![data.to_path_buf(), data.join("pgdata"), data.join("data"), data.join("pgdata.adopting")];
    all.extend(of_majors(data));
    all.extend([official.join("data"), official.join("data/pgdata")]);
    all.extend(of_majors(official));
    all
}

/// `<major>/docker`, as the official image has it from 18 on.
fn of_majors(below: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(below) else { return Vec::new() };
    let major = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
    let mut all: Vec<_> =
        entries.flatten().filter(|e| major(&e.file_name())).map(|e| e.path().join("docker")).collect();
    all.sort();
    all
}

/// What `PG_VERSION` says.
pub(super) fn major_of(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path.join("PG_VERSION")).ok()?;
    Some(text.trim().chars().filter(|c| c.is_ascii_graphic()).take(16).collect())
}

/// Those of `places` that hold a cluster, and its major.
pub(super) fn found(places: &[PathBuf]) -> Vec<(PathBuf, String)> {
    places.iter().filter(|p| is_cluster(p)).filter_map(|p| Some((p.clone(), major_of(p)?))).collect()
}

/// Whether there is a cluster, of whatever major.
pub(super) fn is_cluster(path: &Path) -> bool {
    path.join("PG_VERSION").is_file() && path.join("global/pg_control").is_file()
}

/// One that may be adopted.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) source: PathBuf,
    pub(super) system_identifier: u64,
    pub(super) checksums: bool,
    /// The volume's root is its directory.
    pub(super) in_root: bool,
}

/// Why a cluster on another file system is not moved, and what to do.
pub(super) fn elsewhere(path: &Path, data: &Path) -> String {
    format!(
        "{}: it is not on the volume {}, and it is moved, never copied; nothing was touched. Mount that volume at {} (its root \
         may be the cluster) and name the cluster there by SUPAFLY_ADOPT",
        path.display(),
        data.display(),
        data.display()
    )
}

/// Why what lies in staging is not adopted, and what to do.
pub(super) const STAGED: &str = "it lies where clusters are made or restored, and what is half made there is thrown away: move \
     it to another name on the volume first, and name it there";

/// Whether a path leads into staging, by whatever name.
pub(super) fn in_staging(settings: &Settings, path: &Path) -> bool {
    let staging = role::staging(settings).canonicalize();
    matches!((path.canonicalize(), staging), (Ok(path), Ok(staging)) if path.starts_with(&staging))
}

/// What is not adopted stays as it is.
pub(super) fn refusal(path: &Path, why: &str) -> Failure {
    Failure::refused(format!("SUPAFLY_ADOPT: {}: {why}; nothing was touched", path.display()))
}

/// Looks at everything that could go wrong later.
///
/// # Errors
/// 77 with the reason and what to do.
pub(super) fn examine(place: &Here<'_>, path: &Path) -> Result<Cluster, Failure> {
    let settings = place.settings;
    let refusal = |why: String| refusal(path, &why);
    let source = match path.canonicalize() {
        Ok(source) => source,
        Err(e) => {
            return Err(refusal(format!(
                "{e}: name the directory of the cluster, or leave it out for a new one"
            )));
        }
    };
    if in_staging(settings, path) {
        return Err(refusal(STAGED.to_owned()));
    }
    let Some(major) = major_of(&source).filter(|_| is_cluster(&source)) else {
        return Err(refusal("it holds no cluster (no PG_VERSION with global/pg_control)".to_owned()));
    };
    if major != place.bin.major.to_string() {
        return Err(refusal(format!(
            "it is of Postgres {major}, installed is {}: use the image of Postgres {major}, or take it over by a dump",
            place.bin.major
        )));
    }
    let data = settings.data.canonicalize().map_err(|e| tree::failed(&settings.data, "find it", &e))?;
    let in_root = source == data;
    if !in_root && (data.starts_with(&source) || source.starts_with(data.join("supafly"))) {
        return Err(refusal(format!("it holds or is held by what is ours in {}", data.display())));
    }
    let of = |p: &Path| fs::symlink_metadata(p).map_err(|e| tree::failed(p, "look at it", &e));
    if !in_root {
        let parent = source.parent().unwrap_or(&source);
        if of(&source)?.dev() != of(&data)?.dev() || of(parent)?.dev() != of(&source)?.dev() {
            return Err(Failure::refused(elsewhere(&source, &settings.data)));
        }
    }
    if occupied(&settings.pgdata()) && source != settings.pgdata().canonicalize().unwrap_or_default() {
        return Err(refusal(format!("{} is not empty", settings.pgdata().display())));
    }
    // Of an adoption whose journal is gone: nobody knows of which cluster it is.
    let left = adopting(settings);
    if fs::symlink_metadata(&left).is_ok() && source != left.canonicalize().unwrap_or_default() {
        return Err(refusal(format!(
            "{} is there, left of another adoption: adopt that (SUPAFLY_ADOPT={}), or move it away",
            left.display(),
            left.display()
        )));
    }
    whole(&source, in_root, settings).map_err(refusal)?;
    stopped(place, &source).map_err(refusal)?;
    within(place, &source).map_err(refusal)?;
    owned(&source).map_err(refusal)?;
    speaks(place, &source).map_err(refusal)?;
    let control = control::read(place.bin, &source)?;
    Ok(Cluster {
        source,
        system_identifier: control.system_identifier,
        checksums: control.checksums,
        in_root,
    })
}

pub(super) fn occupied(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

/// What was not stopped in order may be running elsewhere, and its WAL may be needed.
fn stopped(place: &Here<'_>, source: &Path) -> Result<(), String> {
    let how = "start it once with the image that made it, stop that in order (docker stop), and come back";
    if source.join("postmaster.pid").exists() {
        return Err(format!("postmaster.pid is there, so it runs or was killed: {how}"));
    }
    let control = control::read(place.bin, source).map_err(|e| e.to_string())?;
    match control.state {
        State::ShutDown => {}
        State::StartingUp
        | State::ShutDownInRecovery
        | State::ShuttingDown
        | State::CrashRecovery
        | State::ArchiveRecovery
        | State::Production => {
            return Err(format!("it was not stopped in order (`{}`): {how}", control.state.words()));
        }
    }
    for signal in ["standby.signal", "recovery.signal", "backup_label"] {
        if source.join(signal).exists() {
            return Err(format!("{signal} is there: it is a standby or a backup, no cluster of its own"));
        }
    }
    Ok(())
}

/// A mount in it could not be moved; where the root of the volume is the cluster, only what moves counts.
fn whole(source: &Path, in_root: bool, settings: &Settings) -> Result<(), String> {
    let (all, _) = entries(source, settings).map_err(|e| e.message)?;
    let parts: Vec<_> =
        if in_root { all.iter().map(|name| source.join(name)).collect() } else { vec![source.to_path_buf()] };
    let names: Vec<_> = all.iter().map(|name| source.join(name)).collect();
    match mounts::first(&parts).or_else(|| mounts::on_another_device(source, &names)) {
        None => Ok(()),
        Some(point) => Err(format!(
            "something is mounted at {}, and the cluster is moved by its name: put the files into the directory itself, \
                 without a mount",
            point.display()
        )),
    }
}

/// WAL and tables elsewhere would not be in the backups of this volume.
fn within(place: &Here<'_>, source: &Path) -> Result<(), String> {
    if fs::symlink_metadata(source.join("pg_wal")).is_ok_and(|m| m.is_symlink()) {
        return Err("pg_wal is a link: move the WAL into the cluster's directory first".to_owned());
    }
    if occupied(&source.join("pg_tblspc")) {
        return Err(
            "it has tablespaces elsewhere: move their tables to pg_default and drop them first".to_owned()
        );
    }
    let auto = fs::read(source.join("postgresql.auto.conf")).unwrap_or_default();
    auto::fits(&String::from_utf8_lossy(&auto), &|library| installed(place, library))
}

/// Whether a library is here, as Postgres looks for it: by its path, or among its own.
fn installed(place: &Here<'_>, library: &str) -> bool {
    let name = library.strip_prefix("$libdir/").unwrap_or(library);
    let name = name.strip_suffix(".so").unwrap_or(name);
    if name.starts_with('/') {
        return Path::new(&format!("{name}.so")).is_file();
    }
    !place.bin.libraries(&[name]).is_empty()
}

/// Only root can give files to Postgres's user.
fn owned(source: &Path) -> Result<(), String> {
    let us = Uid::effective();
    let owner = fs::metadata(source).map(|m| m.uid()).map_err(|e| e.to_string())?;
    if us.is_root() || owner == us.as_raw() {
        return Ok(());
    }
    Err(format!(
        "it belongs to user {owner} and we are user {us}, not root: give it to us (chown -R {us}), or run as root"
    ))
}

/// A locale that is not here would keep every database down. Its name is in the catalogue, which nobody can read yet; initdb
/// has written the same one into `postgresql.conf`.
fn speaks(place: &Here<'_>, source: &Path) -> Result<(), String> {
    let text = fs::read(source.join("postgresql.conf")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rev().find_map(|l| l.trim_start().strip_prefix("lc_monetary"));
    let Some(locale) = line.and_then(|l| l.split('\'').nth(1)).filter(|l| !l.is_empty()) else {
        return Ok(());
    };
    let mut command = place.postgres.command(&place.bin.program("postgres"), place.settings, "KILL");
    command.args(["-C", "lc_monetary", "-c", "config_file=/dev/null", "-D"]).arg(&place.settings.data);
    command.arg("-c").arg(format!("lc_monetary={locale}"));
    let output = command.output().map_err(|e| format!("postgres -C cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "it was made with the locale `{locale}`, which is not here (`locale -a`): install it, or take the cluster over by a dump"
    ))
}

/// What Postgres itself has in the directory of a cluster, whatever its major.
const NAMES: &[&str] = &[
    "PG_VERSION",
    "backup_label.old",
    "backup_manifest",
    "base",
    "current_logfiles",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_hba.conf",
    "pg_ident.conf",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
    "postgresql.auto.conf",
    "postgresql.conf",
    "postmaster.opts",
    "tablespace_map.old",
];

/// The names in a directory that are a cluster's; and the others, which are neither its nor ours.
pub(super) fn entries(root: &Path, settings: &Settings) -> Result<(Vec<String>, Vec<String>), Failure> {
    let ours = ["supafly", "pgdata", "pgdata.staging", "pgdata.adopting", "lost+found"];
    let failed = |e: std::io::Error| tree::failed(root, "read this directory", &e);
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let store = matches!(&settings.store, crate::config::StoreUrl::File { dir } if dir.starts_with(root.join(&name)));
        match name.to_str() {
            Some(name) if NAMES.contains(&name) => all.push(name.to_owned()),
            Some(name) if ours.contains(&name) || store => {}
            Some(_) | None => others.push(name.to_string_lossy().escape_debug().to_string()),
        }
    }
    all.sort();
    others.sort();
    Ok((all, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_other_images_are_looked_at_and_only_a_cluster_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (data, official) = (dir.path().join("data"), dir.path().join("postgresql"));
        for cluster in [
            data.clone(),
            data.join("pgdata"),
            data.join("pgdata.adopting"),
            official.join("data"),
            official.join("18/docker"),
        ] {
            fs::create_dir_all(cluster.join("global")).unwrap();
            fs::write(cluster.join("PG_VERSION"), "18\n").unwrap();
            fs::write(cluster.join("global/pg_control"), "").unwrap();
        }
        // Debian's own, and a directory with a version alone.
        fs::create_dir_all(official.join("15/main/global")).unwrap();
        fs::create_dir_all(data.join("17/docker")).unwrap();
        fs::write(data.join("17/docker/PG_VERSION"), "17\n").unwrap();
        let found = found(&places(&data, &official));
        let names: Vec<_> =
            found.iter().map(|(p, _)| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["data", "data/pgdata", "data/pgdata.adopting", "postgresql/data", "postgresql/18/docker"]
        );
        assert!(found.iter().all(|(_, major)| major == "18"));
    }
}
