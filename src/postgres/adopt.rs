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
use crate::archive::patience::{Failing, Retry, Tries};
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

/// What to do after a comparison that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Try again after this long.
    Wait(Duration),
    /// Go on uncompared.
    GoOn,
    /// Strict, and waiting does not help.
    GiveUp,
}

/// Decides; `failing` is none when the store gave no answer in time.
fn next(mode: Mode, tries: &mut Tries, failing: Option<Failing>, waited: Duration) -> Next {
    let failing = failing.unwrap_or(Failing::Store(Kind::Transient));
    match (mode, tries.failed(failing, waited, Duration::MAX)) {
        (Mode::Strict, Retry::After(pause)) => Next::Wait(pause),
        (Mode::Strict, Retry::GiveUp) => Next::GiveUp,
        (Mode::Available, Retry::After(pause)) if waited + pause < PATIENCE => Next::Wait(pause),
        (Mode::Available, Retry::After(_) | Retry::GiveUp) => Next::GoOn,
    }
}

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
    let (begun, mut tries) = (Instant::now(), Tries::default());
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
        let (failing, why) = match looked {
            Some(Ok(Ok(()))) => {
                tracing::info!("the data directory has all that epoch {epoch} archived");
                return Ok(());
            }
            Some(Ok(Err(found))) => {
                let why = refusal(&pgdata, &store.url(), epoch, &found);
                return Err(Failure::refused(format!("{why}. Nothing was touched")));
            }
            Some(Err(CannotTell::Volume(why))) => return Err(Failure::gave_up(why)),
            Some(Err(CannotTell::Store(e))) => (Some(Failing::from(&e)), e.to_string()),
            Some(Err(CannotTell::Archive(e))) => (Some(Failing::from(&e)), e.to_string()),
            None => (None, "the store does not answer".to_owned()),
        };
        let waited = begun.elapsed();
        let next = next(place.settings.mode, &mut tries, failing, waited);
        let text = match next {
            Next::Wait(_) => {
                format!("waits for the store, {} s (to compare with the archive: {why})", waited.as_secs())
            }
            Next::GoOn => format!(
                "goes on as the owner of epoch {epoch}, not compared with the archive ({why}), because mode is available; \
                 keeper compares before it archives anything"
            ),
            Next::GiveUp => {
                return Err(Failure::gave_up(format!(
                    "{} cannot be compared with what epoch {epoch} archived, and mode is strict: {why}",
                    pgdata.display()
                )));
            }
        };
        tracing::warn!("{text}");
        // Without a supervisor there is nobody to tell; the log has it.
        let _ = notify(&format!("STATUS={text}"));
        match next {
            Next::Wait(pause) => std::thread::park_timeout(pause),
            Next::GoOn | Next::GiveUp => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failing() -> impl Strategy<Value = Option<Failing>> {
        let kinds = vec![Kind::Absent, Kind::Conflict, Kind::Denied, Kind::Transient, Kind::Broken];
        let store = prop::sample::select(kinds).prop_map(|k| Some(Failing::Store(k)));
        prop_oneof![store, Just(Some(Failing::Damage)), Just(None)]
    }

    proptest! {
        #[test]
        fn an_available_owner_is_never_kept_down_and_a_strict_one_never_goes_on_uncompared(
            failures in prop::collection::vec((failing(), 0u64..4000), 1..60),
        ) {
            for mode in [Mode::Available, Mode::Strict] {
                let (mut tries, mut waited) = (Tries::default(), Duration::ZERO);
                for (failing, took) in &failures {
                    waited += Duration::from_millis(*took);
                    match next(mode, &mut tries, *failing, waited) {
                        Next::Wait(pause) => {
                            waited += pause;
                            prop_assert!(mode == Mode::Strict || waited < PATIENCE);
                        }
                        Next::GoOn => {
                            prop_assert_eq!(mode, Mode::Available);
                            break;
                        }
                        Next::GiveUp => {
                            prop_assert_eq!(mode, Mode::Strict);
                            let away = matches!(failing, None | Some(Failing::Store(Kind::Transient)));
                            prop_assert!(!away, "a strict owner waits as long as the store is away");
                            break;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_refusal_says_what_was_found_and_both_ways_out() {
        let found = RolledBack::Content { name: "000000010000000000000007".into() };
        let said = refusal(Path::new("/data/pgdata"), "s3://b/p", Epoch(3), &found);
        for word in
            ["/data/pgdata", "0000000003", "s3://b/p", "000000010000000000000007", "SUPAFLY_TAKEOVER=3"]
        {
            assert!(said.contains(word), "{said}");
        }
    }
}
