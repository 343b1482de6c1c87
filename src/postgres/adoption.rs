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
mod journal;
mod mounts;
mod steps;

pub(super) use journal::note_ours;
pub(crate) use journal::remembered;

use super::account::Account;
use super::{Place, bin, control, tree};
use crate::config::{Adopt, Settings, Takeover};
use crate::exit::Failure;
use crate::owner::protocol::Awaited;
use journal::{Journal, adopting, identity_path, is_ours, journal_path, note_path, unfinished};
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use steps::{begin, finish, shift};

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

/// At the first boot of a volume, when its directories are there: what `SUPAFLY_ADOPT` names is looked at before `claim` puts
/// an owner into an empty prefix. Whoever comes back with another volume would find that prefix owned, by nobody who has data.
/// Looks, and changes nothing; `settle` looks again.
///
/// # Errors
/// 77 for what cannot be adopted, untouched.
pub(crate) fn fits(settings: &Settings) -> Result<(), Failure> {
    let Adopt::Path(path) = &settings.adopt else { return Ok(()) };
    let begins =
        !identity_path(settings).exists() && !note_path(settings).exists() && unfinished(settings)?.is_none();
    // The setting may have outlived its volume: then what is archived is restored. Where nothing is, `claim` says so.
    let restores = settings.takeover != Takeover::Never && !there(settings, path);
    if begins && !restores {
        examine(settings, path)?;
    }
    Ok(())
}

/// Whether what `SUPAFLY_ADOPT` names is there: a cluster, or what somebody hopes to make one of.
fn there(settings: &Settings, path: &Path) -> bool {
    foreign::is_cluster(path) || foreign::in_staging(settings, path)
}

/// Whether staging may be thrown away, as everybody does who makes a data directory: not what `SUPAFLY_ADOPT` names.
///
/// # Errors
/// 77 with what to do first.
pub(super) fn spares(settings: &Settings) -> Result<(), Failure> {
    match &settings.adopt {
        Adopt::Path(path) if foreign::in_staging(settings, path) => {
            Err(foreign::refusal(path, foreign::STAGED))
        }
        Adopt::Path(_) | Adopt::Ask | Adopt::Never => Ok(()),
    }
}

fn examine(settings: &Settings, path: &Path) -> Result<(), Failure> {
    let (bin, postgres) = (bin::find(settings)?, Account::named("postgres")?);
    foreign::examine(&foreign::Here { settings, bin: &bin, postgres: &postgres }, path).map(drop)
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
            examine(settings, path)?;
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
    if standing == Standing::TookOver {
        return not_both(settings);
    }
    if let Some(journal) = unfinished(settings)? {
        return resume(place, &journal, standing);
    }
    let pgdata = settings.pgdata();
    if standing == Standing::Settled {
        passed_over(settings);
        return Ok(());
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

/// What `settle` would adopt on a volume that has no cluster of its own: for `claim`, which must not take from another what
/// this volume then cannot hold. Looks, and changes nothing.
///
/// # Errors
/// 70 when the journal cannot be read.
pub(crate) fn awaited(settings: &Settings) -> Result<Awaited, Failure> {
    let adopting = adopting(settings);
    if unfinished(settings)?.is_some() && adopting.exists() {
        return Ok(Awaited::Begun(adopting.display().to_string()));
    }
    if let Some(path) = still_there(settings) {
        return Ok(Awaited::Named(path.display().to_string()));
    }
    // With the note, what is in pgdata was made or adopted here, and the setting has been followed.
    let followed = foreign::is_cluster(&settings.pgdata()) && note_path(settings).exists();
    Ok(match &settings.adopt {
        Adopt::Path(path) if !followed && !same(path, &settings.pgdata()) => {
            Awaited::Absent(path.display().to_string())
        }
        Adopt::Path(_) | Adopt::Ask | Adopt::Never => Awaited::Nothing,
    })
}

/// The cluster that `SUPAFLY_ADOPT` names and that is still there, beside ours.
fn still_there(settings: &Settings) -> Option<&Path> {
    match &settings.adopt {
        Adopt::Path(path) if there(settings, path) && !same(path, &settings.pgdata()) => Some(path),
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

/// Two clusters for one volume: nobody can know which one was meant. `claim` refuses this before it takes anything, so it is
/// left to a volume that took over first, and got the other one before it was restored.
fn not_both(settings: &Settings) -> Result<(), Failure> {
    let (path, restore) = match awaited(settings)? {
        Awaited::Nothing | Awaited::Absent(_) => return Ok(()),
        Awaited::Named(path) => (path, "take SUPAFLY_ADOPT away"),
        Awaited::Begun(path) => (path, "move that directory away"),
    };
    Err(Failure::refused(format!(
        "SUPAFLY_ADOPT: the cluster in {path} is not adopted, because this volume has taken over what is archived in {}; neither \
         was touched: {restore} to restore that, or give the cluster an empty volume and its own SUPAFLY_STORE",
        settings.store
    )))
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
    journal::forget(settings)?;
    if there && is_ours(settings, journal.system_identifier) {
        return Ok(());
    }
    // Nothing was moved: as if it had not begun.
    settle(place, standing)
}
