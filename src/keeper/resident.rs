//! Keeper's life: begin, serve, tick, stop. Every task runs on one thread and is started here.

use super::adoption::{self, Adoption, Look};
use super::backup::{self, Backups, Find};
use super::decide::{self, Life, Seen, Stopped};
use super::inbox::Inbox;
use super::lineage::Lineage;
use super::outbox::{self, Outbox, Refused};
use super::ownership::{NotConfirmed, Ownership};
use super::report::{self, Facts, StoreFacts};
use super::watch::{Watch, graphql};
use super::{boottime, lock, server};
use crate::archive::AHEAD;
use crate::archive::push::on_a_thread;
use crate::config::{Settings, StoreUrl};
use crate::control::client::{self, Health, Report, Row};
use crate::exit::{Exit, Failure};
use crate::os;
use crate::owner::{Epoch, Identity, Origin};
use crate::postgres::lsn::WalFile;
use crate::store::{self, Store};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often Postgres is watched, facts are reported and the watchdog is told.
pub(super) const TICK: Duration = Duration::from_secs(2);
/// How often pg_graphql is asked: what makes it well or not is done in the database, where nobody tells us.
const GRAPHQL: Duration = Duration::from_secs(10);
/// How long set-up is waited for with impatience.
const SET_UP: Duration = Duration::from_secs(120);
/// What was fetched ahead and is not asked for is let go after this.
const IDLE: Duration = Duration::from_secs(30);
/// Buffers that WAL was read into are let go after this: mostly a minute goes by until the next is needed, and a backlog on
/// its way into a store that answers, for which they are kept, leaves no pause.
const SPARE: Duration = Duration::from_secs(1);
/// What is left of the share when the drain ends: time to say how it ended.
const RESERVE: Duration = Duration::from_millis(100);

/// Everything that stands on the store.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) epoch: Epoch,
    pub(super) ownership: Arc<Ownership>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) backups: Backups,
    pub(super) adoption: Arc<Adoption>,
}

/// Keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    settings: Settings,
    archive: Result<Arc<Archive>, String>,
    /// Where keeper is in its life.
    pub(super) life: watch::Sender<Life>,
    begun: Instant,
    seen: Mutex<Seen>,
    /// How pg_graphql was when it was asked last.
    graphql: Mutex<Option<Row>>,
    /// `pg_wal` directories that a Postgres of this life has archived from: only from those anything is shipped unasked.
    live: Mutex<BTreeSet<PathBuf>>,
    /// Something must be reported now.
    news: Notify,
}

impl Archive {
    pub(super) fn new(
        store: &Store,
        epoch: Epoch,
        origin: Origin,
        find: Find,
        pgdata: PathBuf,
        look: Look,
    ) -> Archive {
        let ownership = Arc::new(Ownership::new(store.clone(), epoch));
        let lineage = Arc::new(Lineage::new(store.clone(), epoch, origin));
        let adoption = Arc::new(Adoption::new(store.clone(), epoch, pgdata, look));
        let (owner, kept) = (Arc::clone(&ownership), Arc::clone(&adoption));
        let outbox = Outbox::new(store.clone(), epoch, owner, Arc::clone(&lineage), kept);
        Archive {
            epoch,
            ownership,
            outbox: Arc::new(outbox),
            inbox: Arc::new(Inbox::new(store.clone(), Arc::clone(&lineage))),
            backups: Backups::new(store.clone(), epoch, lineage, find),
            adoption,
        }
    }
}

impl Keeper {
    pub(super) fn new(settings: Settings, archive: Result<Archive, String>) -> Keeper {
        Keeper {
            settings,
            archive: archive.map(Arc::new),
            life: watch::Sender::new(Life::Serving),
            begun: Instant::now(),
            seen: Mutex::new(Seen::Down),
            graphql: Mutex::default(),
            live: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// What stands on the store, or the sentence that says why there is none.
    pub(super) fn archive(&self) -> Result<&Arc<Archive>, String> {
        self.archive.as_ref().map_err(Clone::clone)
    }

    /// Time since keeper began.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A Postgres that is ours archives from here.
    pub(super) fn alive(&self, pg_wal: &Path) {
        lock(&self.live).insert(pg_wal.to_path_buf());
    }

    fn pg_wal(&self) -> PathBuf {
        self.settings.pgdata().join("pg_wal")
    }

    /// Confirms every quarter of the TTL, and at once after the machine has slept.
    async fn own(self: Arc<Self>) {
        let Ok(archive) = self.archive() else { return };
        let period = (self.settings.ttl / 4).max(Duration::from_millis(250));
        loop {
            let patience = self.settings.ttl.max(Duration::from_secs(1));
            match tokio::time::timeout(patience, archive.ownership.confirm()).await {
                Ok(Err(NotConfirmed::Lost(_))) => {
                    self.news.notify_one();
                    return;
                }
                Ok(Err(NotConfirmed::Store(e))) => tracing::warn!(error = %e, "ownership is not confirmed"),
                Ok(Ok(())) => {}
                Err(_) => tracing::warn!("ownership is not confirmed: the store does not answer"),
            }
            let (slept, awake) = (boottime(), Instant::now());
            while awake.elapsed() < period && boottime().saturating_sub(slept) < period {
                let left = period.saturating_sub(awake.elapsed());
                tokio::time::sleep(left.min(TICK)).await;
            }
        }
    }

    /// Watches Postgres, ships what is ready, takes the backup that is due, reports.
    async fn tick(self: Arc<Self>) {
        let mut postgres = Watch::new(&self.settings);
        let mut asking = JoinSet::new();
        loop {
            let seen = postgres.look().await;
            self.ask_graphql(&seen, &mut asking);
            if matches!(seen, Seen::Writing { .. }) {
                self.alive(&self.pg_wal());
            }
            lock(&self.seen).clone_from(&seen);
            let life = *self.life.borrow();
            if let Ok(archive) = self.archive() {
                if archive.inbox.forget_idle(IDLE) | archive.outbox.forget_idle(SPARE) {
                    os::memory::give_back_soon();
                }
                if matches!(seen, Seen::Writing { .. }) && archive.adoption.due() {
                    let keeper = Arc::clone(&self);
                    tokio::spawn(async move { keeper.compare().await });
                }
                if life == Life::Serving {
                    for pg_wal in lock(&self.live).clone() {
                        archive.outbox.run_ahead(&pg_wal, None);
                    }
                }
                archive.backups.tick(&self, &seen, life, archive.ownership.lost().is_some());
            }
            if let Err(e) = client::notify("WATCHDOG=1") {
                tracing::debug!(error = %e, "the watchdog was not told");
            }
            self.report().await;
            // News is told at once, and is no reason to look again at once: a look may have been what made it.
            let next = tokio::time::sleep(TICK);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    () = self.news.notified() => self.report().await,
                }
            }
        }
    }

    /// Asks how pg_graphql is, beside the watch: it may hang, and readiness must not wait for it. One question at a time.
    fn ask_graphql(self: &Arc<Self>, seen: &Seen, asking: &mut JoinSet<()>) {
        while asking.try_join_next().is_some() {}
        match seen {
            Seen::Writing { .. } => {
                if asking.is_empty() {
                    let keeper = Arc::clone(self);
                    asking.spawn(async move {
                        let Some(row) = graphql(&keeper.settings).await else { return };
                        // Until set-up has been there it is asked at every turn, so that the row comes soon after it; but
                        // not for ever, because each question costs Postgres a process.
                        let soon = row.is_none() && keeper.now() < SET_UP;
                        let pause = if soon { Duration::ZERO } else { GRAPHQL };
                        *lock(&keeper.graphql) = row;
                        tokio::time::sleep(pause).await;
                    });
                }
            }
            // Nothing has changed that is known of.
            Seen::Full => {}
            Seen::Down | Seen::Silent(_) | Seen::Recovering => {
                asking.abort_all();
                *lock(&self.graphql) = None;
            }
        }
    }

    /// Compares the data directory with the archive; a finding is reported at once.
    async fn compare(&self) {
        if let Ok(archive) = self.archive()
            && archive.adoption.newest().await.is_err()
        {
            self.news.notify_one();
        }
    }

    /// What is told to PID 1.
    pub(super) fn told(&self) -> Report {
        let mut report = report::report(&self.facts());
        report.rows.extend(lock(&self.graphql).clone());
        if let Some(why) = self.archive().ok().and_then(|archive| archive.adoption.rolled_back()) {
            report.health = Some(Health { ok: false, reason: why.clone() });
            report.fence.get_or_insert(why);
        }
        report
    }

    async fn report(&self) {
        let (run, report) = (self.settings.run.clone(), self.told());
        let fenced = report.fence.is_some();
        match on_a_thread(move || client::report(&run, &report)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) if fenced => tracing::error!(error = %e, "that we must be fenced cannot be reported"),
            Ok(Err(e)) => tracing::debug!(error = %e, "facts cannot be reported"),
            Err(e) => tracing::warn!(error = e, "facts cannot be reported"),
        }
    }

    /// Everything known now.
    pub(super) fn facts(&self) -> Facts {
        let store = self.archive().ok().map(|archive| StoreFacts {
            epoch: archive.epoch,
            mode: self.settings.mode,
            ttl: self.settings.ttl,
            standing: archive.ownership.standing(),
            last: archive.outbox.last().map(|l| (l.name, l.at.elapsed(), l.end.map(|e| e.0))),
            ready: outbox::ready(&self.pg_wal()).map(|r| r.len()).map_err(|e| e.to_string()),
            trouble: archive.adoption.trouble().or_else(|| archive.outbox.trouble()),
            waiting: archive.inbox.waiting().map(report::waiting),
            protection: archive.backups.protection(),
            engine: archive.backups.label(),
        });
        Facts { now: self.now(), boottime: boottime(), seen: lock(&self.seen).clone(), store }
    }

    /// Ships what Postgres has left ready, until everything is durable or the time is up. Killed in it, what was shipped
    /// is in the archive and the rest on the volume: the next boot on it goes on, whatever was said about it.
    pub(super) async fn drain(&self, share: Duration) -> Exit {
        self.life.send_replace(Life::Draining);
        let Ok(archive) = self.archive() else { return Exit::Clean };
        let deadline = Instant::now() + share.saturating_sub(RESERVE);
        let stopped = tokio::time::timeout_at(deadline, archive.adoption.stopped()).await;
        let stopped =
            stopped.unwrap_or_else(|_| Stopped::Not("its control file was not read in time".to_owned()));
        if let Stopped::Not(why) = &stopped {
            tracing::error!(
                why,
                "Postgres did not stop in order: the end of its WAL was never closed and is not in the archive. Keep the \
                 volume: the next boot on it recovers what is there and archives it"
            );
        }
        let live = lock(&self.live).clone();
        let places: BTreeSet<PathBuf> = live.iter().cloned().chain([self.pg_wal()]).collect();
        let mut unarchived = 0;
        for pg_wal in places {
            let ready = match outbox::ready(&pg_wal) {
                Ok(ready) => ready,
                Err(e) => {
                    tracing::error!(error = %e, directory = %pg_wal.display(), "what is left to archive cannot be read");
                    unarchived += 1;
                    continue;
                }
            };
            let left = archive.outbox.unsettled(&ready);
            if live.contains(&pg_wal) && !left.is_empty() {
                let shipping = ship(&archive.outbox, &pg_wal, left);
                let _ = tokio::time::timeout_at(deadline, shipping).await;
            }
            unarchived += archive.outbox.unsettled(&ready).len();
        }
        if unarchived > 0 {
            tracing::error!(unarchived, "stopped with WAL that is not in the archive: keep the volume");
        }
        decide::drained(unarchived, &stopped)
    }
}

/// Archives files in their order, a few at a time but never far ahead of the oldest, histories before anything else.
/// Behind a file that a person must look at nothing is stored.
async fn ship(outbox: &Arc<Outbox>, pg_wal: &Path, files: Vec<WalFile>) {
    let (histories, others): (Vec<_>, Vec<_>) =
        decide::in_order(&files).into_iter().partition(|f| matches!(f, WalFile::History(_)));
    for files in [histories, others] {
        let each = |file: WalFile| async move {
            loop {
                let path = pg_wal.join(file.name());
                match File::open(&path) {
                    Ok(open) => match outbox.archive(&file, open).await {
                        Ok(()) => return true,
                        Err(Refused::Alarm(_)) => return false,
                        Err(Refused::Again(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                    },
                    Err(e) => {
                        tracing::error!(error = %e, file = %path.display(), "a WAL file cannot be opened");
                        return false;
                    }
                }
            }
        };
        // In order: a finished one waits here for those before it, so no more than these are ever begun.
        let mut shipped = futures::stream::iter(files).map(each).buffered(AHEAD);
        while let Some(done) = shipped.next().await {
            if !done {
                return;
            }
        }
    }
}

fn archive_of(settings: &Settings) -> Result<Result<Archive, String>, Failure> {
    match settings.store {
        StoreUrl::None => Ok(Err("no store is configured (SUPAFLY_STORE): nothing is archived".to_owned())),
        StoreUrl::S3 { .. } | StoreUrl::File { .. } => {
            let path = settings.own().join("identity.json");
            let identity = Identity::load(&path)?.ok_or_else(|| {
                Failure::refused(format!("keeper: {}: not there; `claim` makes it first", path.display()))
            })?;
            let epoch = identity.epoch.ok_or_else(|| {
                Failure::refused(format!(
                    "keeper: {}: it has no epoch, but a store is configured; `claim` must run first",
                    path.display()
                ))
            })?;
            let store = store::open(settings)?;
            let (find, look) = (backup::finder(settings), adoption::look(settings));
            Ok(Ok(Archive::new(&store, epoch, identity.origin, find, settings.pgdata(), look)))
        }
    }
}

/// The share of the stop that PID 1 gives us.
fn share(settings: &Settings) -> Duration {
    let given = crate::facts::environment().remove("SUPAFLY_STOP_MS").and_then(|ms| ms.parse().ok());
    given.map_or(settings.stop_budget / 4, Duration::from_millis)
}

/// Runs keeper.
pub(super) async fn run(settings: &Settings) -> Result<Exit, Failure> {
    let keeper = Arc::new(Keeper::new(settings.clone(), archive_of(settings)?));
    let broken = |e: std::io::Error| Failure::gave_up(format!("keeper: signals cannot be received: {e}"));
    let mut announced = signal(SignalKind::user_defined1()).map_err(broken)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let socket = settings.keeper_socket();
    let listener = server::listen(&socket)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(Arc::clone(&keeper), listener));
    tasks.spawn(Arc::clone(&keeper).own());
    tasks.spawn(Arc::clone(&keeper).tick());
    if let Err(e) = client::notify("READY=1") {
        tracing::warn!(error = %e, "the supervisor was not told that keeper is ready");
    }
    let share = share(settings);
    loop {
        tokio::select! {
            _ = announced.recv() => {
                tracing::info!("the stop has begun: every request is answered within {} ms", share.as_millis());
                keeper.life.send_modify(|life| *life = life.announced(share));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let exit = keeper.drain(share).await;
    tasks.shutdown().await;
    let _ = std::fs::remove_file(&socket);
    Ok(exit)
}
