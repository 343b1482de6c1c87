//! The steps of an adoption, from the look at the cluster to its name; a kill at each of them is in the table of the parent.

use super::super::private::Quiet;
use super::super::{Place, conf, control, initdb, role, tree};
use super::journal::{self, Journal, adopting, journal_path};
use super::{foreign, inherited};
use crate::config::Settings;
use crate::exit::Failure;
use crate::failpoint;
use crate::owner::durable;
use nix::unistd::Uid;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// A cluster of others may have to recover first, as long as that takes.
const RECOVERY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn begin(place: &Place<'_>, path: &Path) -> Result<(), Failure> {
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
    journal::write(settings, &journal)?;
    failpoint::hit("adopt.after-journal");
    if let Err(failure) = shift(settings, &journal) {
        // Only an empty one goes.
        let _ = fs::remove_dir(adopting(settings));
        if !adopting(settings).exists() {
            journal::forget(settings)?;
        }
        return Err(failure);
    }
    finish(place, &journal)
}

/// Moves the cluster to `pgdata.adopting`: one rename; or, out of the volume's root, one for each of its names.
pub(super) fn shift(settings: &Settings, journal: &Journal) -> Result<(), Failure> {
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

pub(super) fn finish(place: &Place<'_>, journal: &Journal) -> Result<(), Failure> {
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
        role::remove_stale_pid(&adopting)?;
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
    journal::note_ours(place, &adopting)?;
    failpoint::hit("adopt.after-note");
    tree::publish(&adopting, &settings.pgdata())?;
    failpoint::hit("adopt.after-rename");
    journal::forget(settings)?;
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
        RECOVERY,
    )
}
