//! Before a data directory is adopted: is it the newest of its own epoch, or a snapshot or copy of an older time?
//!
//! `archive/rollback.rs` says what is compared and why an honest owner always passes. Here is what is done about it:
//!
//! | found | mode | then |
//! |---|---|---|
//! | it has everything that is archived | any | adopted |
//! | the archive has more | any | 77; nothing is touched |
//! | the store does not answer | strict | waits, as `claim` does |
//! | the store does not answer | available | goes on and says so; keeper compares before it archives anything |
//!
//! Killed anywhere before the adoption: nothing was written, and the next boot compares again.

use super::Place;
use super::control;
use crate::archive::compare::{CannotTell, compare};
use crate::archive::rollback::{Position, RolledBack};
use crate::config::Mode;
use crate::control::client::notify;
use crate::exit::Failure;
use crate::owner::Epoch;
use crate::store::{Kind, Store};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the store may take before an available owner goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What a person reads when the archive has more than the data directory.
#[must_use]
pub(crate) fn refusal(pgdata: &Path, store: &str, epoch: Epoch, found: &RolledBack) -> String {
    format!(
        "{}: it is older than what its own epoch {epoch} has archived to {store}: {found}. A snapshot or copy of this volume \
         was put back, or the disk lost what it had synced. To go on with what is archived, move {} \
         away and start again: it is restored within this epoch; or empty the volume and start with SUPAFLY_TAKEOVER={}",
        pgdata.display(),
        pgdata.display(),
        epoch.0
    )
}

/// Compares the data directory with what `epoch` has archived.
///
/// # Errors
/// 77 when the archive has more, 70 when the volume cannot be read.
pub(super) fn newest_of_its_epoch(place: &Place<'_>, store: &Store, epoch: Epoch) -> Result<(), Failure> {
    let pgdata = place.settings.pgdata();
    let (bin, at) = (place.bin.clone(), pgdata.clone());
    let position = move || control::read(&bin, &at).map(|c| Position::from(&c)).map_err(|e| e.to_string());
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let looked = place.runtime.block_on(async {
            let comparing = compare(store, epoch, &pgdata, position.clone());
            match place.settings.mode {
                Mode::Strict => Some(comparing.await),
                Mode::Available => {
                    tokio::time::timeout(PATIENCE.saturating_sub(begun.elapsed()), comparing).await.ok()
                }
            }
        });
        let why = match looked {
            Some(Ok(Ok(()))) => {
                tracing::info!(
                    took_ms = begun.elapsed().as_millis(),
                    "the data directory has all that epoch {epoch} archived"
                );
                return Ok(());
            }
            Some(Ok(Err(found))) => {
                let why = refusal(&pgdata, &store.url(), epoch, &found);
                return Err(Failure::refused(format!("{why}. Nothing was touched")));
            }
            Some(Err(CannotTell::Volume(why))) => return Err(Failure::gave_up(why)),
            Some(Err(CannotTell::Store(e))) if e.kind == Kind::Transient => e.to_string(),
            Some(Err(e)) => match place.settings.mode {
                Mode::Strict => {
                    return Err(Failure::gave_up(format!("the comparison with the archive: {e}")));
                }
                Mode::Available => e.to_string(),
            },
            None => "the store does not answer".to_owned(),
        };
        let waits = place.settings.mode == Mode::Strict || begun.elapsed() + pause < PATIENCE;
        let text = if waits {
            format!(
                "waits for the store, {} s (to compare with the archive: {why})",
                begun.elapsed().as_secs()
            )
        } else {
            format!(
                "goes on as the owner of epoch {epoch}, not compared with the archive ({why}), because mode is available; \
                 keeper compares before it archives anything"
            )
        };
        tracing::warn!("{text}");
        // Without a supervisor there is nobody to tell; the log has it.
        let _ = notify(&format!("STATUS={text}"));
        if !waits {
            return Ok(());
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
