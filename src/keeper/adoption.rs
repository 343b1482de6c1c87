//! Whether the data directory that we archive for is the newest of its epoch (`archive/rollback.rs`), as keeper must know
//! it: `datadir` compares before Postgres starts, but an available owner goes on when the store does not answer then.
//!
//! So keeper compares by itself, once in its life, as soon as Postgres takes writes or something is to be archived, and
//! nothing is stored before that: not a segment, not a base backup. A finding is final, like a loss of ownership, and
//! asks for the same fence: what was written since the boot is of no history that can go on. Killed before the
//! comparison, nothing was stored; killed after it, the next keeper compares again, also while Postgres runs.
//!
//! While there is no data directory, a restore is under way beside its place, and what it archives is a timeline of its
//! own: there is nothing to compare, and it is looked again for the next file.

use super::decide::Stopped;
use super::lock;
use super::outbox::Refused;
use crate::archive::compare::compare;
use crate::archive::push::on_a_thread;
use crate::archive::rollback::Position;
use crate::config::Settings;
use crate::owner::Epoch;
use crate::postgres::control::Control;
use crate::postgres::{bin, control, refusal};
use crate::store::{self, Store};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Reads the control file of the data directory.
pub(super) type Look = Arc<dyn Fn() -> Result<Control, String> + Send + Sync>;

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// Not compared, and why the last try failed.
    Nothing(Option<String>),
    /// It has everything that is archived.
    Newest,
    /// The archive has more; in words.
    RolledBack(String),
}

/// The comparison, made once.
pub(super) struct Adoption {
    store: Store,
    epoch: Epoch,
    pgdata: PathBuf,
    look: Look,
    known: Mutex<Known>,
    /// The store was tried out in this life.
    tried: AtomicBool,
    /// One comparison at a time; whoever comes meanwhile waits for its answer.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adoption")
            .field("epoch", &self.epoch)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Adoption {
    /// Nothing is compared yet.
    #[must_use]
    pub(super) fn new(store: Store, epoch: Epoch, pgdata: PathBuf, look: Look) -> Adoption {
        Adoption {
            store,
            epoch,
            pgdata,
            look,
            known: Mutex::new(Known::Nothing(None)),
            tried: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Whether anything may be stored: the store was tried out, and the data directory was compared, or there is none.
    ///
    /// # Errors
    /// Final when the archive has more; else to be asked again.
    pub(super) async fn newest(&self) -> Result<(), Refused> {
        if let Some(known) = self.known() {
            return known;
        }
        let _turn = self.turn.lock().await;
        if let Some(known) = self.known() {
            return known;
        }
        // `claim` tries the store out only when it creates something: an owner that goes on does not wait for it.
        if !self.tried.load(Ordering::SeqCst) {
            if let Err(e) = store::probe(&self.store).await {
                let why = format!("the store is not proved fit yet, nothing is stored before: {e}");
                *lock(&self.known) = Known::Nothing(Some(why.clone()));
                return Err(Refused::Again(why));
            }
            self.tried.store(true, Ordering::SeqCst);
        }
        if !self.data() {
            // Whatever was said of a trial that failed before.
            *lock(&self.known) = Known::Nothing(None);
            return Ok(());
        }
        let look = Arc::clone(&self.look);
        let position = move || look().map(|control| Position::from(&control));
        let compared = compare(&self.store, self.epoch, &self.pgdata, position).await;
        let known = match compared {
            Ok(Ok(())) => Known::Newest,
            Ok(Err(found)) => {
                let why = refusal(&self.pgdata, &self.store.url(), self.epoch, &found);
                tracing::error!("{why}");
                Known::RolledBack(why)
            }
            Err(e) => Known::Nothing(Some(format!(
                "not compared with the archive yet, nothing is stored before: {e}"
            ))),
        };
        let answer = answer(&known);
        *lock(&self.known) = known;
        answer.unwrap_or(Ok(()))
    }

    /// Whether there is a data directory. One that may not even be looked into counts as none: `datadir`, which may,
    /// has compared it, and its WAL still comes by open descriptors.
    fn data(&self) -> bool {
        self.pgdata.join("global/pg_control").exists()
    }

    /// How the Postgres of the data directory has ended.
    pub(super) async fn stopped(&self) -> Stopped {
        if let Ok(false) = self.pgdata.join("global/pg_control").try_exists() {
            return Stopped::NoData;
        }
        let look = Arc::clone(&self.look);
        match on_a_thread(move || look()).await.and_then(|read| read) {
            Ok(control) if control.state.stopped_in_order() => Stopped::InOrder,
            Ok(control) => Stopped::Not(format!("its control file says `{}`", control.state.words())),
            Err(e) => Stopped::Not(e),
        }
    }

    fn known(&self) -> Option<Result<(), Refused>> {
        let mut known = lock(&self.known);
        match &*known {
            Known::Nothing(_) => None,
            Known::Newest => answer(&known),
            // The old copy was moved away, as the message says: what comes in its place is compared anew.
            Known::RolledBack(_) if !self.data() => {
                *known = Known::Nothing(None);
                None
            }
            Known::RolledBack(_) => answer(&known),
        }
    }

    /// Whether Postgres should be compared now: it has not been, and nobody is at it.
    #[must_use]
    pub(super) fn due(&self) -> bool {
        matches!(*lock(&self.known), Known::Nothing(_)) && self.turn.try_lock().is_ok()
    }

    /// Why this machine must not go on.
    #[must_use]
    pub(super) fn rolled_back(&self) -> Option<String> {
        match &*lock(&self.known) {
            Known::RolledBack(why) if self.data() => Some(why.clone()),
            Known::Nothing(_) | Known::Newest | Known::RolledBack(_) => None,
        }
    }

    /// For the status.
    #[must_use]
    pub(super) fn trouble(&self) -> Option<Refused> {
        answer(&lock(&self.known)).and_then(Result::err)
    }
}

fn answer(known: &Known) -> Option<Result<(), Refused>> {
    match known {
        Known::Newest => Some(Ok(())),
        Known::RolledBack(why) => Some(Err(Refused::Alarm(why.clone()))),
        Known::Nothing(Some(why)) => Some(Err(Refused::Again(why.clone()))),
        Known::Nothing(None) => None,
    }
}

/// The control file of the real data directory, read by `pg_controldata`.
pub(super) fn look(settings: &Settings) -> Look {
    let settings = settings.clone();
    let found: OnceLock<bin::Bin> = OnceLock::new();
    Arc::new(move || {
        let bin = match found.get() {
            Some(bin) => bin,
            None => {
                let bin = bin::find(&settings).map_err(|e| e.to_string())?;
                found.get_or_init(|| bin)
            }
        };
        control::read(bin, &settings.pgdata()).map_err(|e| e.to_string())
    })
}
