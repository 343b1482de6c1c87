//! The `claim` role: makes the decision of `protocol.rs` true, in an order that survives a kill at each step.
//!
//! | killed | what is there | next boot |
//! |---|---|---|
//! | before the identity is durable | nothing | decides anew |
//! | after it, before the PUT | an identity without object | creates the object (`Finish`), or decides anew if another was first |
//! | after the PUT | both | the incarnations are equal: it is the owner (`Proceed`) |
//!
//! A claim of an owned prefix ends the former owner for good. So what speaks against it on this volume is looked at before, and
//! a refusal leaves nothing: neither an identity nor an object.

use super::protocol::{Archived, Awaited, Data, Decision, Facts, Means, Seen, Strangers, decide};
use super::{Epoch, Identity, Origin, Record, read, record, taking};
use crate::config::{Mode, Settings, StoreUrl};
use crate::control::client::notify;
use crate::exit::{Exit, Failure};
use crate::failpoint;
use crate::store::{self, Kind, Store, StoreError};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// Between two tries while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The volume, as the claim sees and changes it; and who we are.
#[derive(Clone)]
pub(super) struct Volume {
    pub(super) identity: std::path::PathBuf,
    pub(super) pgdata: std::path::PathBuf,
    /// What `datadir` is about to adopt: nobody is taken over for a volume that is to hold another cluster.
    pub(super) awaited: Awaited,
    /// Looks what `datadir` would restore with: only where another is about to be taken over, as it starts two programs.
    pub(super) means: Rc<dyn Fn() -> Means>,
}

/// What the settings say about ownership.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) project: String,
    pub(super) store: String,
    pub(super) takeover: crate::config::Takeover,
    pub(super) mode: Mode,
    pub(super) ttl: Duration,
    pub(super) machine: String,
}

/// How one try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It is settled; in words.
    Settled(String),
    /// The store must answer first.
    Wait(String),
    /// Something changed: decide again.
    Again,
    /// Something is to be created, and the store must be tried out first.
    Untried,
}

/// Whether the store was tried out in this boot. Who goes on in his own epoch creates nothing here, so that he need not
/// wait for the trial: keeper makes it before it stores anything (`keeper/adoption.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// It has passed.
    Passed,
    /// It has not been made.
    Owed,
}

/// Runs the role.
///
/// # Errors
/// 77 refused, 78 a store that cannot be used, 70 a volume that cannot be written.
pub fn claim_role(settings: &Settings) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::gave_up(format!("claim: no runtime: {e}")))?;
    let store = match settings.store {
        StoreUrl::None => None,
        StoreUrl::S3 { .. } | StoreUrl::File { .. } => Some(store::open(settings)?),
    };
    let terms = Terms {
        project: settings.project.clone(),
        store: settings.store.to_string(),
        takeover: settings.takeover,
        mode: settings.mode,
        ttl: settings.ttl,
        machine: machine(settings),
    };
    let volume = Volume {
        identity: settings.own().join("identity.json"),
        pgdata: settings.pgdata(),
        awaited: crate::postgres::awaited(settings)?,
        means: Rc::new({
            let settings = settings.clone();
            move || taking::means(&settings)
        }),
    };
    let settled = runtime.block_on(claim(store.as_ref(), &volume, &terms, &settings.data))?;
    tracing::info!("{settled}");
    failpoint::hit("claim.done");
    Ok(Exit::Clean)
}

fn machine(settings: &Settings) -> String {
    let host = || nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok());
    settings.machine.clone().or_else(host).unwrap_or_else(|| "unknown".to_owned())
}

async fn claim(
    store: Option<&Store>,
    volume: &Volume,
    terms: &Terms,
    data: &Path,
) -> Result<String, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut trial = Trial::Owed;
    let mut asked = Identity::load(&volume.identity)?.is_none_or(|identity| identity.epoch.is_none());
    loop {
        let usable = match (store, trial) {
            (Some(store), Trial::Owed) if asked => match store::probe(store).await {
                Ok(()) => {
                    trial = Trial::Passed;
                    Ok(())
                }
                Err(store::Unusable::Unreachable(e)) => Err(e.to_string()),
                Err(store::Unusable::Refused(failure)) => return Err(failure),
            },
            (Some(_) | None, Trial::Passed | Trial::Owed) => Ok(()),
        };
        match attempt(store, usable, trial, volume, terms, data).await? {
            Tried::Settled(how) => return Ok(how),
            Tried::Again => {}
            Tried::Untried => asked = true,
            Tried::Wait(why) => {
                let text = format!("waits for the store {}: {why}", terms.store);
                tracing::warn!("{text}");
                // Without a supervisor there is nobody to tell; the log has it.
                let _ = notify(&format!("STATUS={text}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// One look and one deed.
pub(super) async fn attempt(
    store: Option<&Store>,
    usable: Result<(), String>,
    trial: Trial,
    volume: &Volume,
    terms: &Terms,
    data: &Path,
) -> Result<Tried, Failure> {
    let identity = Identity::load(&volume.identity)?;
    let present = present(&volume.pgdata)?;
    let seen = match (store, usable) {
        (None, _) => Seen::NoStore,
        (Some(_), Err(why)) => Seen::Unreachable(why),
        (Some(store), Ok(())) => look(store, identity.as_ref()).await.or_else(unreachable)?,
    };
    let mut facts = Facts {
        project: terms.project.clone(),
        store: terms.store.clone(),
        takeover: terms.takeover,
        mode: terms.mode,
        identity: identity.clone(),
        data: present,
        awaited: volume.awaited.clone(),
        means: Means::NotAsked,
        seen,
        archived: Archived::NotAsked,
    };
    let mut decision = decide(&facts);
    if let (Some(store), Some(from)) = (store, taking::from(&decision, identity.as_ref())) {
        facts.means = (volume.means)();
        facts.archived = match taking::archived(store, from).await {
            Ok(archived) => archived,
            Err(e) => return transient(e),
        };
        decision = decide(&facts);
    }
    match (decision, store) {
        (Decision::Refuse(why), _) => {
            Err(Failure::refused(why.replace("{data}", &data.display().to_string())))
        }
        (Decision::Wait(why), _) => Ok(Tried::Wait(why)),
        (Decision::Local, _) => {
            if identity.is_none() {
                new_identity(terms, None, Origin::Fresh).save(&volume.identity)?;
            }
            Ok(Tried::Settled("no store is set: this volume is the only copy, UNPROTECTED".to_owned()))
        }
        (Decision::Proceed { epoch, unconfirmed: Some(why) }, _) => Ok(Tried::Settled(format!(
            "the store does not answer ({why}): goes on as epoch {epoch}, unconfirmed, because mode is available"
        ))),
        (Decision::Proceed { epoch, unconfirmed: None }, Some(store)) => {
            if let (Some(Identity { origin: Origin::Takeover { from }, .. }), Data::Missing) =
                (&identity, present)
            {
                match wait_for_former(store, *from, terms.ttl).await {
                    Ok(()) => {}
                    Err(e) => return transient(e),
                }
            }
            Ok(Tried::Settled(format!("owns epoch {epoch} of {}", terms.store)))
        }
        (Decision::Claim { .. } | Decision::Finish { .. }, Some(_)) if trial == Trial::Owed => {
            Ok(Tried::Untried)
        }
        (Decision::Claim { epoch, origin }, Some(store)) => {
            let new = new_identity(terms, Some(epoch), origin);
            failpoint::hit("claim.before-identity");
            new.save(&volume.identity)?;
            failpoint::hit("claim.after-identity");
            create(store, &new, epoch, identity.as_ref(), volume, terms).await
        }
        (Decision::Finish { epoch }, Some(store)) => match &identity {
            Some(identity) => create(store, identity, epoch, None, volume, terms).await,
            None => Ok(Tried::Again),
        },
        // Without a store nothing is claimed; `decide` never says so.
        (Decision::Proceed { .. } | Decision::Claim { .. } | Decision::Finish { .. }, None) => {
            Ok(Tried::Again)
        }
    }
}

/// Creates the owner object of an identity that is durable on the volume.
async fn create(
    store: &Store,
    identity: &Identity,
    epoch: Epoch,
    former: Option<&Identity>,
    volume: &Volume,
    terms: &Terms,
) -> Result<Tried, Failure> {
    let record = Record {
        project: identity.project.clone(),
        epoch,
        incarnation: identity.incarnation,
        machine: terms.machine.clone(),
        mode: terms.mode,
        ttl_ms: u64::try_from(terms.ttl.as_millis()).unwrap_or(u64::MAX),
    };
    let body =
        serde_json::to_vec_pretty(&record).map_err(|e| Failure::gave_up(format!("owner object: {e}")))?;
    match store.create(&record::key(epoch), body).await {
        Ok(()) => {
            failpoint::hit("claim.after-put");
            // What follows a claim, such as the wait for a strict former owner, is the same as after a kill right here.
            Ok(Tried::Again)
        }
        Err(e) if e.kind == Kind::Conflict => match read(store, epoch).await {
            Ok(Some(there)) if there.incarnation == identity.incarnation => Ok(Tried::Again),
            Ok(Some(first)) => {
                // Somebody was first: this volume never owned it, and says so again as before. To take the winner over
                // in the same breath would be a fight, whatever the setting allows.
                put_back(former, &volume.identity)?;
                Err(Failure::refused(format!(
                    "{}: epoch {epoch} was claimed at the same moment by another machine ({}), which was first; nothing \
                     was touched here",
                    terms.store, first.machine
                )))
            }
            Ok(None) => Ok(Tried::Wait("the owner object conflicts and cannot be read yet".to_owned())),
            Err(e) => transient(e),
        },
        // Carried out or not: the next look at the store tells, by the incarnation.
        Err(e) => transient(e),
    }
}

fn put_back(former: Option<&Identity>, path: &Path) -> Result<(), Failure> {
    match former {
        Some(former) => former.save(path),
        None => match std::fs::remove_file(path) {
            Ok(()) => super::durable::sync_parent(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
        .map_err(|e| Failure::gave_up(format!("{}: cannot be removed: {e}", path.display()))),
    }
}

/// A strict former owner freezes itself when it cannot confirm for its TTL; its taker waits twice that before it opens.
async fn wait_for_former(store: &Store, former: Epoch, ttl: Duration) -> Result<(), StoreError> {
    match read(store, former).await? {
        Some(Record { mode: Mode::Strict, machine, ttl_ms, .. }) => {
            let wait = ttl.max(Duration::from_millis(ttl_ms)) * 2;
            let shown = crate::spec::duration::show(wait);
            let text =
                format!("waits {shown} for the former owner, epoch {former} (machine {machine}), to freeze");
            tracing::info!("{text}");
            // Without a supervisor there is nobody to tell; the log has it.
            let _ = notify(&format!("STATUS={text}"));
            tokio::time::sleep(wait).await;
            Ok(())
        }
        Some(Record { mode: Mode::Available, .. }) | None => Ok(()),
    }
}

fn new_identity(terms: &Terms, epoch: Option<Epoch>, origin: Origin) -> Identity {
    Identity {
        project: terms.project.clone(),
        epoch,
        incarnation: Uuid::new_v4(),
        origin,
        system_identifier: None,
        store: if epoch.is_some() { terms.store.clone() } else { String::new() },
    }
}

fn present(pgdata: &Path) -> Result<Data, Failure> {
    match std::fs::read_dir(pgdata) {
        Ok(mut entries) => Ok(if entries.next().is_some() { Data::Present } else { Data::Missing }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Data::Missing),
        Err(e) => Err(Failure::refused(format!(
            "{}: cannot be read ({e}): it should be a directory of Postgres's, or not be there",
            pgdata.display()
        ))),
    }
}

async fn look(store: &Store, identity: Option<&Identity>) -> Result<Seen, StoreError> {
    let own = async {
        match identity.and_then(|i| i.epoch) {
            Some(epoch) => read(store, epoch).await,
            None => Ok(None),
        }
    };
    // At once: mostly the newest is our own, and then all is known after one round trip.
    let (newest, own) = tokio::join!(record::newest(store), own);
    let (newest, mut own) = (newest?, own?);
    let highest = match (newest, &own) {
        (None, _) => None,
        (Some(epoch), Some(own)) if own.epoch == epoch => Some(own.clone()),
        (Some(epoch), _) => Some(record::listed(store, epoch).await?),
    };
    if let Some(highest) = &highest
        && identity.is_some_and(|i| i.epoch == Some(highest.epoch))
    {
        // Our own read may have come before it was made; this one did not.
        own = Some(highest.clone());
    }
    let strangers = match highest {
        Some(_) => Strangers::None,
        None => {
            let all = store.list("").await?;
            let stranger =
                all.into_iter().find(|e| !e.key.starts_with("_probe/") && !e.key.starts_with("owner/"));
            stranger.map_or(Strangers::None, |e| Strangers::Some(e.key))
        }
    };
    Ok(Seen::Reached { highest, own, strangers })
}

/// What an error of the store is for the decision: no answer, or an end.
fn unreachable(e: StoreError) -> Result<Seen, Failure> {
    match e.kind {
        Kind::Transient => Ok(Seen::Unreachable(e.to_string())),
        Kind::Absent | Kind::Conflict | Kind::Denied | Kind::Broken => Err(Failure::config(format!(
            "{e}: check SUPAFLY_STORE and the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3)"
        ))),
    }
}

fn transient(e: StoreError) -> Result<Tried, Failure> {
    match unreachable(e)? {
        Seen::Unreachable(why) => Ok(Tried::Wait(why)),
        Seen::NoStore | Seen::Reached { .. } => Ok(Tried::Again),
    }
}
