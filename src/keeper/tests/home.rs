//! A keeper with its real socket, a store in memory that fails and hangs as it is told, and a data directory of real WAL.

use super::super::backup::{Engine, Progress};
use super::super::resident::{Archive, Keeper};
use super::super::{report, server};
use crate::archive::client::{fetch_within, push_within};
use crate::archive::codec::{self, Codec};
use crate::archive::names;
use crate::archive::testkit::real;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::owner::{Cluster, Epoch, Origin, cluster};
use crate::postgres::control::{Control, Floors, State};
use crate::postgres::lsn::{Lsn, Timeline, WalFile};
use crate::store::memory::Memory;
use crate::store::{Backend, Entry, Store, StoreError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longer than anything here may take.
pub(super) const EVER: Duration = Duration::from_secs(30);
/// Time for a look or two.
pub(super) const BRIEF: Duration = Duration::from_millis(600);

/// A store that can stop answering altogether.
#[derive(Clone, Debug, Default)]
pub(super) struct Hanging {
    pub(super) memory: Memory,
    pub(super) hangs: Arc<AtomicBool>,
}

impl Hanging {
    async fn gate(&self) {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Backend for Hanging {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.gate().await;
            self.memory.create(key, body).await
        })
    }
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        Box::pin(async move {
            self.gate().await;
            self.memory.get(key).await
        })
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            self.gate().await;
            self.memory.list(prefix).await
        })
    }
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.memory.delete(key)
    }
    fn url(&self) -> String {
        "hanging:".to_owned()
    }
}

/// An engine that always fails.
#[derive(Debug)]
pub(super) struct Broken;

impl Engine for Broken {
    fn label(&self) -> String {
        "wal-x 1.2.3".to_owned()
    }
    fn push(&self, _: Epoch, progress: Progress) -> BoxFuture<'_, Result<String, Failure>> {
        progress("1 of 9 parts");
        Box::pin(async { Err(Failure::gave_up("the engine was killed")) })
    }
}

pub(super) struct Home {
    _directory: TempDir,
    pub(super) settings: Settings,
    pub(super) memory: Memory,
    pub(super) hangs: Arc<AtomicBool>,
    pub(super) control: Arc<Mutex<Option<Control>>>,
    pub(super) keeper: Arc<Keeper>,
    server: JoinHandle<()>,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(super) fn settings(directory: &TempDir) -> Settings {
    let at = |name: &str| directory.path().join(name).display().to_string();
    let env = BTreeMap::from([
        ("SUPAFLY_DATA".to_owned(), at("data")),
        ("SUPAFLY_RUN".to_owned(), at("")),
        ("SUPAFLY_STORE".to_owned(), format!("file://{}", at("store"))),
    ]);
    Settings::read(None, &env).unwrap()
}

impl Home {
    pub(super) async fn new(origin: Origin) -> Home {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        std::fs::create_dir_all(settings.pgdata().join("pg_wal/archive_status")).unwrap();
        std::fs::create_dir_all(settings.keeper_socket().parent().unwrap()).unwrap();
        let backend = Hanging::default();
        let (memory, hangs) = (backend.memory.clone(), Arc::clone(&backend.hangs));
        let store = Store::new(Arc::new(backend));
        let epoch = Epoch(match origin {
            Origin::Fresh => 1,
            Origin::Takeover { from } => from.0 + 1,
        });
        let shape = Cluster {
            system_identifier: real().system,
            major: 15,
            wal_segment_size: real().size,
            checksums: true,
            engine: "wal-g".to_owned(),
        };
        cluster::write(&store, epoch, &shape).await.unwrap();
        let control: Arc<Mutex<Option<Control>>> = Arc::default();
        let read = Arc::clone(&control);
        let look = Arc::new(move || read.lock().unwrap().clone().ok_or("no control file".to_owned()));
        let find = Box::new(|| Ok(Some(Arc::new(Broken) as Arc<dyn Engine>)));
        let archive = Archive::new(&store, epoch, origin, find, settings.pgdata(), look);
        let keeper = Arc::new(Keeper::new(settings.clone(), Ok(archive)));
        let listener = server::listen(&settings.keeper_socket()).unwrap();
        let server = tokio::spawn(server::serve(Arc::clone(&keeper), listener));
        Home { _directory: directory, settings, memory, hangs, control, keeper, server }
    }

    /// The data directory is there, and its control file says so: redo lies in this segment.
    pub(super) fn control(&self, state: State, redo: usize) {
        let global = self.settings.pgdata().join("global");
        std::fs::create_dir_all(&global).unwrap();
        std::fs::write(global.join("pg_control"), "read by the test itself").unwrap();
        let redo = Lsn(real().segments[redo].segment.start(real().size).0 + 40);
        *self.control.lock().unwrap() = Some(Control {
            system_identifier: real().system,
            catalog: 0,
            state,
            timeline: Timeline(1),
            recovery_timeline: Timeline(0),
            checkpoint: redo,
            redo,
            wal_segment_size: real().size,
            checksums: true,
            floors: Floors::default(),
        });
    }

    /// Puts real segments into `pg_wal`, ready to be archived.
    pub(super) fn ready(&self, indexes: std::ops::Range<usize>) {
        let pg_wal = self.settings.pgdata().join("pg_wal");
        for index in indexes {
            let name = real().name(index);
            std::fs::write(pg_wal.join(&name), &real().segments[index].bytes).unwrap();
            std::fs::write(pg_wal.join("archive_status").join(format!("{name}.ready")), "").unwrap();
        }
    }

    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.settings.pgdata().join("pg_wal").join(real().name(index))
    }

    pub(super) fn key(&self, index: usize) -> String {
        let epoch = self.keeper.archive().unwrap().epoch;
        names::key(epoch, &WalFile::Segment(real().name(index)), Codec::Zstd)
    }

    pub(super) fn stored(&self, index: usize) -> bool {
        self.memory.objects().contains_key(&self.key(index))
    }

    pub(super) fn plant(&self, index: usize) {
        self.memory.plant(&self.key(index), codec::pack(&real().segments[index].bytes).unwrap());
    }

    pub(super) async fn push(&self, index: usize) -> Result<Exit, Failure> {
        let (settings, path) = (self.settings.clone(), self.path(index));
        tokio::task::spawn_blocking(move || push_within(&settings, &path, Duration::ZERO)).await.unwrap()
    }

    pub(super) async fn fetch(&self, name: &str) -> (Result<Exit, Failure>, Option<Vec<u8>>) {
        self.fetch_within(name, EVER).await
    }

    pub(super) async fn fetch_within(
        &self,
        name: &str,
        patience: Duration,
    ) -> (Result<Exit, Failure>, Option<Vec<u8>>) {
        let (settings, name) = (self.settings.clone(), name.to_owned());
        let destination = self.settings.pgdata().join("pg_wal/RECOVERYXLOG");
        let got = destination.clone();
        let exit =
            tokio::task::spawn_blocking(move || fetch_within(&settings, &name, &destination, patience));
        (exit.await.unwrap(), std::fs::read(got).ok())
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Home) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < EVER, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn row(&self, name: &str) -> String {
        let report = report::report(&self.keeper.facts());
        let row = report.rows.into_iter().find(|r| r.name.starts_with(name)).unwrap();
        format!("{}: {}", row.state, row.detail)
    }
}

pub(super) fn exit(result: &Result<Exit, Failure>) -> Exit {
    result.as_ref().map_or_else(|failure| failure.exit, |exit| *exit)
}
