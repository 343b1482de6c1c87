//! A cluster that another image made: named when it is found, and adopted only when `SUPAFLY_ADOPT` names it.
//!
//! | killed | what is there | next boot |
//! |---|---|---|
//! | before the move | the cluster where it was, with or without a journal | begins anew; without the setting nothing was done |
//! | in the move of a volume's root | both halves, and the journal with all names | moves what is left |
//! | after the move | `pgdata.adopting`, and the journal | does every later step again |
//! | after the rename to `pgdata` | the cluster, the journal, the note that it is ours | removes the journal |
//!
//! Every step after the move may be done twice. What is looked at before the journal changes nothing.

mod auto;
mod foreign;
mod inherited;
mod mounts;

use super::account::Account;
use super::private::Quiet;
use super::{Place, bin, conf, control, initdb, tree};
use crate::config::{Adopt, Settings};
use crate::exit::Failure;
use crate::failpoint;
use crate::owner::{Identity, durable};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What was begun.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    source: PathBuf,
    system_identifier: u64,
    /// Of a cluster in the root of the volume: the names that are the cluster's. Else none: the directory itself moves.
    entries: Option<Vec<String>>,
}

fn journal_path(settings: &Settings) -> PathBuf {
    settings.own().join("journal").join("adopt.json")
}

fn note_path(settings: &Settings) -> PathBuf {
    settings.own().join("journal").join("made")
}

fn adopting(settings: &Settings) -> PathBuf {
    settings.data.join("pgdata.adopting")
}

fn identity_path(settings: &Settings) -> PathBuf {
    settings.own().join("identity.json")
}

/// Notes that the cluster in `staging`, which is about to get its name, is ours.
pub(super) fn note_ours(place: &Place<'_>, staging: &Path) -> Result<(), Failure> {
    note(place.settings, control::read(place.bin, staging)?.system_identifier)
}

fn note(settings: &Settings, system_identifier: u64) -> Result<(), Failure> {
    let path = note_path(settings);
    durable::write(&path, format!("{system_identifier}\n").as_bytes(), 0o644)
        .map_err(|e| tree::failed(&path, "write this file", &e))
}

/// Whether a cluster is one that was made or adopted here.
fn is_ours(settings: &Settings, system_identifier: u64) -> bool {
    let note = fs::read_to_string(note_path(settings)).unwrap_or_default();
    note.trim() == system_identifier.to_string()
}

/// At the first boot of a volume, before anything is made on it: a cluster that is found is not passed over.
///
/// # Errors
/// 77 with its directory and both ways on.
pub(crate) fn asked(settings: &Settings) -> Result<(), Failure> {
    if identity_path(settings).exists() {
        return Ok(());
    }
    match &settings.adopt {
        Adopt::Ask => refuse_found(settings),
        Adopt::Never | Adopt::Path(_) => Ok(()),
    }
}

/// A volume of a supafly that wrote no note yet: its identity knows the cluster. `claim` may forget that, when a store is set
/// for the first time, so it is noted before; and not before it is known that no link leads elsewhere. Killed in it, the
/// next boot does it.
///
/// # Errors
/// 70 when the note cannot be written.
pub(crate) fn remembered(settings: &Settings) -> Result<(), Failure> {
    if note_path(settings).exists() {
        return Ok(());
    }
    // What is wrong with an identity, those say who work with it.
    let identity = Identity::load(&identity_path(settings)).ok().flatten();
    identity.and_then(|identity| identity.system_identifier).map_or(Ok(()), |id| note(settings, id))
}

fn refuse_found(settings: &Settings) -> Result<(), Failure> {
    let mut found = foreign::found(&foreign::places(&settings.data, Path::new("/var/lib/postgresql")));
    // Made or adopted here: whether it fits this volume's identity, others say.
    found.retain(|(path, _)| *path != settings.pgdata() || !note_path(settings).exists());
    // What was begun is finished without being asked for again.
    found.retain(|(path, _)| *path != adopting(settings) || !journal_path(settings).exists());
    let Some((path, major)) = found.first() else { return Ok(()) };
    let others: String =
        found.iter().skip(1).map(|(p, m)| format!(" (and of Postgres {m} in {})", p.display())).collect();
    Err(Failure::refused(format!(
        "{}: there is a cluster of Postgres {major} that was not made here{others}; nothing was touched. To adopt it: \
         SUPAFLY_ADOPT={}; to leave it alone and make a new one: SUPAFLY_ADOPT=never",
        path.display(),
        path.display()
    )))
}

/// Opens a volume whose root is the cluster that is to be adopted: it was that cluster's own, and our services must get
/// through it. At every boot until it is adopted, because the image that made it closes it whenever it is started between;
/// and not before it is known that it can be adopted.
///
/// # Errors
/// 77 for what cannot be adopted, untouched; 70 when owner and mode cannot be set.
pub(crate) fn opened(settings: &Settings) -> Result<(), Failure> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    match unfinished(settings)? {
        Some(Journal { entries: Some(_), .. }) => {}
        Some(Journal { entries: None, .. }) => return Ok(()),
        None => {
            let Adopt::Path(path) = &settings.adopt else { return Ok(()) };
            let todo = same(path, &settings.data) && foreign::is_cluster(&settings.data);
            // Where there is a cluster already, `settle` says what becomes of the other one.
            if !todo || foreign::occupied(&settings.pgdata()) {
                return Ok(());
            }
            let (bin, postgres) = (bin::find(settings)?, Account::named("postgres")?);
            foreign::examine(&foreign::Here { settings, bin: &bin, postgres: &postgres }, path)?;
        }
    }
    std::os::unix::fs::chown(&settings.data, Some(0), Some(0))
        .and_then(|()| fs::set_permissions(&settings.data, fs::Permissions::from_mode(0o755)))
        .map_err(|e| tree::failed(&settings.data, "set its owner and mode", &e))
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Whether this volume has, or should have, a cluster of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing says so.
    Fresh,
    /// It has just taken over what another volume archived, and nothing is restored yet.
    TookOver,
    /// It has.
    Settled,
}

/// Adopts what is to be adopted, or goes on with it.
///
/// # Errors
/// 77 for what cannot be adopted, untouched; 70 for a step that failed, which the next boot does again.
pub(super) fn settle(place: &Place<'_>, standing: Standing) -> Result<(), Failure> {
    let settings = place.settings;
    if let Some(journal) = unfinished(settings)? {
        return resume(place, &journal, standing);
    }
    let pgdata = settings.pgdata();
    match standing {
        Standing::Fresh => {}
        Standing::TookOver => return not_both(settings),
        Standing::Settled => {
            passed_over(settings);
            return Ok(());
        }
    }
    match &settings.adopt {
        Adopt::Path(path) => {
            if foreign::is_cluster(&pgdata)
                && control::read(place.bin, &pgdata).is_ok_and(|c| is_ours(settings, c.system_identifier))
            {
                passed_over(settings);
                return Ok(());
            }
            begin(place, path)
        }
        Adopt::Ask | Adopt::Never => match foreign::major_of(&pgdata) {
            // Of another major `decide` says more.
            Some(major) if major == place.bin.major.to_string() => {
                let id = control::read(place.bin, &pgdata)?.system_identifier;
                if is_ours(settings, id) {
                    return Ok(());
                }
                Err(Failure::refused(format!(
                    "{}: cluster {id} was not made here; nothing was touched. To adopt it: SUPAFLY_ADOPT={}; to make a new \
                     one, move it away",
                    pgdata.display(),
                    pgdata.display()
                )))
            }
            Some(_) => Ok(()),
            None if settings.adopt == Adopt::Ask => refuse_found(settings),
            None => Ok(()),
        },
    }
}

/// The cluster that `SUPAFLY_ADOPT` names and that is still there, beside ours.
fn still_there(settings: &Settings) -> Option<&Path> {
    match &settings.adopt {
        Adopt::Path(path) if foreign::is_cluster(path) && !same(path, &settings.pgdata()) => Some(path),
        Adopt::Path(_) | Adopt::Ask | Adopt::Never => None,
    }
}

fn passed_over(settings: &Settings) {
    let Some(path) = still_there(settings) else { return };
    tracing::warn!(
        "SUPAFLY_ADOPT: the cluster in {} is not adopted, because this volume has one already in {}: take the setting away, or \
         give an empty volume to that cluster",
        path.display(),
        settings.pgdata().display()
    );
}

/// Two clusters for one volume: nobody can know which one was meant.
fn not_both(settings: &Settings) -> Result<(), Failure> {
    let Some(path) = still_there(settings) else { return Ok(()) };
    Err(Failure::refused(format!(
        "SUPAFLY_ADOPT: the cluster in {} is not adopted, because this volume has taken over what is archived in {}; neither was \
         touched: take SUPAFLY_ADOPT away to restore that, or give the cluster an empty volume and its own SUPAFLY_STORE",
        path.display(),
        settings.store
    )))
}

fn unfinished(settings: &Settings) -> Result<Option<Journal>, Failure> {
    let path = journal_path(settings);
    match fs::read(&path) {
        Ok(text) => parse(&text).map(Some).map_err(|e| {
            Failure::gave_up(format!(
                "{}: not what `datadir` writes: {e}; remove it when pgdata is whole",
                path.display()
            ))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(tree::failed(&path, "read it", &e)),
    }
}

/// Reads a journal; what leads out of the volume's root is none of ours.
fn parse(text: &[u8]) -> Result<Journal, String> {
    let journal: Journal = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let named =
        |name: &String| Path::new(name).components().eq([std::path::Component::Normal(name.as_ref())]);
    match journal.entries.iter().flatten().find(|name| !named(name)) {
        Some(name) => Err(format!("`{}` is no name of a file", name.escape_debug())),
        None => Ok(journal),
    }
}

fn forget(settings: &Settings) -> Result<(), Failure> {
    let path = journal_path(settings);
    tree::remove(&path)?;
    durable::sync_parent(&path).map_err(|e| tree::failed(&path, "make its removal durable", &e))
}

fn resume(place: &Place<'_>, journal: &Journal, standing: Standing) -> Result<(), Failure> {
    let settings = place.settings;
    let adopting = adopting(settings);
    if adopting.exists() {
        tracing::info!(source = %journal.source.display(), "goes on with an adoption that was cut off");
        shift(settings, journal)?;
        return finish(place, journal);
    }
    let there = foreign::is_cluster(&settings.pgdata())
        && control::read(place.bin, &settings.pgdata())?.system_identifier == journal.system_identifier;
    forget(settings)?;
    if there && is_ours(settings, journal.system_identifier) {
        return Ok(());
    }
    // Nothing was moved: as if it had not begun.
    settle(place, standing)
}

fn begin(place: &Place<'_>, path: &Path) -> Result<(), Failure> {
    let settings = place.settings;
    let here = foreign::Here { settings, bin: place.bin, postgres: place.postgres };
    let cluster = foreign::examine(&here, path)?;
    let (names, others) = foreign::entries(&cluster.source, settings)?;
    let journal = Journal {
        source: cluster.source.clone(),
        system_identifier: cluster.system_identifier,
        entries: cluster.in_root.then_some(names),
    };
    if cluster.in_root && !others.is_empty() {
        tracing::warn!(
            "left in {}, because Postgres gives no such names: {}; what belongs to the cluster is to be moved to {} by hand",
            cluster.source.display(),
            others.join(", "),
            settings.pgdata().display()
        );
    }
    tracing::info!(
        source = %journal.source.display(),
        "adopts cluster {} of Postgres {}; its postgresql.conf and pg_hba.conf are not read any more",
        journal.system_identifier,
        place.bin.major
    );
    if !cluster.checksums {
        tracing::warn!(
            "it has no checksums: a damaged page would not be noticed (`pg_checksums --enable` on a stopped cluster)"
        );
    }
    let text = serde_json::to_vec_pretty(&journal).unwrap_or_default();
    let at = journal_path(settings);
    durable::write(&at, &text, 0o644).map_err(|e| tree::failed(&at, "write this file", &e))?;
    failpoint::hit("adopt.after-journal");
    if let Err(failure) = shift(settings, &journal) {
        // Only an empty one goes.
        let _ = fs::remove_dir(adopting(settings));
        if !adopting(settings).exists() {
            forget(settings)?;
        }
        return Err(failure);
    }
    finish(place, &journal)
}

/// Moves the cluster to `pgdata.adopting`: one rename; or, out of the volume's root, one for each of its names.
fn shift(settings: &Settings, journal: &Journal) -> Result<(), Failure> {
    let adopting = adopting(settings);
    let moved = |from: &Path, e: &io::Error| {
        let crosses = matches!(
            e.raw_os_error().map(nix::errno::Errno::from_raw),
            Some(nix::errno::Errno::EXDEV | nix::errno::Errno::EBUSY)
        );
        if crosses && !foreign::occupied(&adopting) {
            Failure::refused(foreign::elsewhere(from, &settings.data))
        } else if crosses {
            Failure::gave_up(format!(
                "{}: something is mounted there ({e}), and a part of the cluster is in {} already: put its files into the \
                 directory itself; the next boot goes on",
                from.display(),
                adopting.display()
            ))
        } else {
            tree::failed(from, &format!("move it to {}", adopting.display()), e)
        }
    };
    match &journal.entries {
        None if adopting.exists() => {}
        None => fs::rename(&journal.source, &adopting).map_err(|e| moved(&journal.source, &e))?,
        Some(entries) => {
            match fs::create_dir(&adopting) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(tree::failed(&adopting, "make this directory", &e)),
            }
            for name in entries {
                let from = journal.source.join(name);
                match fs::rename(&from, adopting.join(name)) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound && adopting.join(name).exists() => {}
                    Err(e) => return Err(moved(&from, &e)),
                }
                failpoint::hit(&format!("adopt.moved-{name}"));
            }
        }
    }
    for directory in [&adopting, &settings.data] {
        fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| tree::failed(directory, "make the move durable", &e))?;
    }
    if journal.entries.is_none() {
        durable::sync_parent(&journal.source)
            .map_err(|e| tree::failed(&journal.source, "make the move durable", &e))?;
    }
    failpoint::hit("adopt.after-move");
    Ok(())
}

fn finish(place: &Place<'_>, journal: &Journal) -> Result<(), Failure> {
    let settings = place.settings;
    let adopting = adopting(settings);
    let there = control::read(place.bin, &adopting)?.system_identifier;
    if there != journal.system_identifier {
        return Err(Failure::refused(format!(
            "{}: it holds cluster {there}, but cluster {} of {} is to be adopted ({}): move away what does not belong there",
            adopting.display(),
            journal.system_identifier,
            journal.source.display(),
            journal_path(settings).display()
        )));
    }
    let whole = || -> Result<(), Failure> {
        super::role::remove_stale_pid(&adopting)?;
        if Uid::effective().is_root() {
            tree::hand_over(&adopting, place.postgres)?;
        } else {
            fs::set_permissions(&adopting, fs::Permissions::from_mode(0o750))
                .map_err(|e| tree::failed(&adopting, "set its mode", &e))?;
        }
        failpoint::hit("adopt.after-owner");
        superuser(place, &adopting)?;
        failpoint::hit("adopt.after-superuser");
        let answers = initdb::roles(place, &adopting, &inherited::questions(place.bin.major))?;
        for warning in inherited::words(place.bin.major, &answers) {
            tracing::warn!("{warning}");
        }
        Ok(())
    };
    whole().map_err(|failure| {
        Failure::new(
            failure.exit,
            format!(
                "the cluster that was in {} is in {} now and not adopted yet; the next boot tries again (to give it up, move it \
                 back and remove {}). {failure}",
                journal.source.display(),
                adopting.display(),
                journal_path(settings).display()
            ),
        )
    })?;
    failpoint::hit("adopt.after-roles");
    tree::sync(&adopting)?;
    note_ours(place, &adopting)?;
    failpoint::hit("adopt.after-note");
    tree::publish(&adopting, &settings.pgdata())?;
    failpoint::hit("adopt.after-rename");
    forget(settings)?;
    tracing::info!(pgdata = %settings.pgdata().display(), "adopted cluster {}", journal.system_identifier);
    Ok(())
}

/// The role `postgres`, which set-up comes as, must be there and be a superuser. Whoever made the cluster may have named
/// his superuser as he liked; a postmaster for one user asks for no name.
fn superuser(place: &Place<'_>, pgdata: &Path) -> Result<(), Failure> {
    let facts = place.facts(conf::Archive::Off, &control::read(place.bin, pgdata)?);
    let quiet = Quiet { settings: place.settings, bin: place.bin, account: place.postgres };
    quiet.single(
        pgdata,
        &facts,
        &place.users(),
        "do $$ begin if pg_catalog.to_regrole('postgres') is null then create role postgres; end if; \
         alter role postgres superuser createdb createrole replication bypassrls login; end $$",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_moves_nothing_from_elsewhere() {
        let of = |name: &str| {
            let journal = Journal {
                source: "/data".into(),
                system_identifier: 7,
                entries: Some(vec!["base".to_owned(), name.to_owned()]),
            };
            parse(&serde_json::to_vec(&journal).unwrap())
        };
        assert_eq!(of("PG_VERSION").unwrap().entries.unwrap(), ["base", "PG_VERSION"]);
        for name in ["../etc", "/etc/shadow", "..", ".", "", "base/1", "base/"] {
            assert!(of(name).unwrap_err().contains("is no name of a file"), "{name}");
        }
    }
}
