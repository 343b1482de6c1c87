//! Where a test's machines archive to: a bucket of a real S3 server, or a directory. Looked at from outside, by its
//! object names, so that the oracle does not depend on what the machines believe.

use super::machine::{open_directory, root};
use std::sync::Arc;
use supafly::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline};
use supafly::store::Store;
use supafly::store::credentials::Credentials;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    File,
}

enum Place {
    S3(super::S3),
    /// Machines go through the proxy, the oracle does not.
    Faulty(super::proxy::Proxy, super::S3),
    File(tempfile::TempDir),
}

pub(crate) struct Bucket {
    place: Place,
    runtime: tokio::runtime::Runtime,
    store: Store,
}

impl Bucket {
    pub(crate) fn start(kind: Kind) -> Bucket {
        Bucket::at(match kind {
            Kind::S3 => Place::S3(super::S3::start()),
            Kind::File => Place::File(open_directory()),
        })
    }

    /// An S3 server whose region is called as Tigris's is.
    pub(crate) fn in_region_auto() -> Bucket {
        Bucket::at(Place::S3(super::S3::start_in("auto")))
    }

    /// An S3 server that machines reach through a proxy which breaks requests.
    pub(crate) fn behind_proxy() -> Bucket {
        let s3 = super::S3::start();
        Bucket::at(Place::Faulty(super::proxy::Proxy::start(s3.address()), s3))
    }

    fn at(place: Place) -> Bucket {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if let Place::File(dir) = &place {
            std::fs::create_dir(dir.path().join("store")).unwrap();
            // The machine's own way: a 0700 directory of keeper's user.
            if root() {
                let store = dir.path().join("store");
                let chown = std::process::Command::new("chown").arg("supafly:postgres").arg(store).status();
                assert!(chown.unwrap().success(), "no user `supafly`: run `make test`");
            }
        }
        let store = match &place {
            Place::File(dir) => {
                Store::new(Arc::new(supafly::store::file::Directory::new(dir.path().join("store"))))
            }
            Place::S3(s3) | Place::Faulty(_, s3) => {
                let env = s3.environment(s3.endpoint()).into_iter().collect();
                let credentials = Credentials::from_environment(&env);
                let limits = supafly::store::s3::Limits::default();
                let bucket = supafly::store::s3::Bucket::new(s3.bucket(), s3.prefix(), &credentials, limits);
                Store::new(Arc::new(bucket.unwrap()))
            }
        };
        Bucket { place, runtime, store }
    }

    /// What a machine needs to use it.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        variables(&self.place).into_iter().map(|(k, v)| (leak(&k), v)).collect()
    }

    /// The same as a Fly app has it after `fly storage create`: the project's name gives the prefix. Looked at from then on is
    /// what lies there.
    pub(crate) fn fly_env(&mut self, app: &str) -> Vec<(&'static str, String)> {
        let Place::S3(s3) = &self.place else { panic!("a bucket of Fly is one of S3") };
        let mut env = s3.environment(s3.endpoint());
        let credentials = Credentials::from_environment(&env.iter().cloned().collect());
        let limits = supafly::store::s3::Limits::default();
        let bucket = supafly::store::s3::Bucket::new(s3.bucket(), app, &credentials, limits).unwrap();
        self.store = Store::new(Arc::new(bucket));
        env.push(("BUCKET_NAME".into(), s3.bucket().to_owned()));
        env.push(("FLY_APP_NAME".into(), app.to_owned()));
        env.into_iter().map(|(k, v)| (leak(&k), v)).collect()
    }

    /// What the engine alone needs to read an epoch of it.
    pub(crate) fn engine_env(&self, epoch: u32) -> Vec<(String, String)> {
        let mut env = variables(&self.place);
        match &self.place {
            Place::File(dir) => {
                let prefix = dir.path().join("store").join(format!("e{epoch:010}"));
                env.push(("WALG_FILE_PREFIX".into(), prefix.display().to_string()));
            }
            Place::S3(s3) | Place::Faulty(_, s3) => {
                env.push(("WALG_S3_PREFIX".into(), format!("{}/e{epoch:010}", s3.url())));
                env.push(("AWS_ENDPOINT".into(), s3.endpoint().to_owned()));
                env.push(("AWS_S3_FORCE_PATH_STYLE".into(), "true".into()));
            }
        }
        env.push(("WALG_COMPRESSION_METHOD".into(), "zstd".into()));
        env
    }

    /// Lets another user read a directory store: the engine alone, run by hand, is somebody else.
    pub(crate) fn open_to(&self, user: &str) {
        if let Place::File(dir) = &self.place {
            let chown =
                std::process::Command::new("chown").args(["-R", user]).arg(dir.path().join("store")).status();
            assert!(chown.unwrap().success());
        }
    }

    /// The server is gone: connections are refused from now on.
    pub(crate) fn kill_server(&self) {
        match &self.place {
            Place::S3(s3) | Place::Faulty(_, s3) => s3.kill(),
            Place::File(_) => panic!("a directory has no server"),
        }
    }

    /// The proxy between machines and server.
    pub(crate) fn proxy(&self) -> &super::proxy::Proxy {
        match &self.place {
            Place::Faulty(proxy, _) => proxy,
            Place::S3(_) | Place::File(_) => panic!("there is no proxy"),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = self.runtime.block_on(self.store.list(prefix)).unwrap();
        entries.into_iter().map(|e| e.key).collect()
    }

    /// The objects below a prefix, with their sizes.
    pub(crate) fn stored(&self, prefix: &str) -> Vec<supafly::store::Entry> {
        self.runtime.block_on(self.store.list(prefix)).unwrap()
    }

    /// Takes an object away, as if it had never arrived.
    pub(crate) fn remove(&self, key: &str) {
        self.runtime.block_on(self.store.delete(key)).unwrap();
    }

    /// Stores an object as another machine would.
    pub(crate) fn create(&self, key: &str, body: Vec<u8>) {
        self.runtime.block_on(self.store.create(key, body)).unwrap();
        // A directory store is keeper's user's own.
        if let (Place::File(dir), true) = (&self.place, root()) {
            let store = dir.path().join("store");
            let chown =
                std::process::Command::new("chown").args(["-R", "supafly:postgres"]).arg(store).status();
            assert!(chown.unwrap().success());
        }
    }

    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(self.store.get(key)).unwrap().to_vec()
    }

    /// Where the archive of an epoch ends without a hole, on its newest timeline.
    pub(crate) fn archived_end(&self, epoch: u32) -> Lsn {
        let size = SegmentSize::DEFAULT;
        let mut segments: Vec<Segment> = self
            .keys(&format!("e{epoch:010}/wal_005/"))
            .iter()
            .filter_map(|key| {
                let name = key.rsplit('/').next()?;
                Segment::parse(name.split('.').next()?, size).ok().filter(|_| name.len() == 28)
            })
            .collect();
        segments.sort();
        let newest = segments.iter().map(|s| s.timeline).max().unwrap_or(Timeline(1));
        segments.retain(|s| s.timeline == newest);
        let mut end = segments.first().map_or(0, |s| s.number);
        for segment in &segments {
            if segment.number != end {
                break;
            }
            end += 1;
        }
        Lsn(end * size.bytes())
    }

    pub(crate) fn newest_backup(&self, epoch: u32) -> String {
        let suffix = "_backup_stop_sentinel.json";
        let keys = self.keys(&format!("e{epoch:010}/basebackups_005/"));
        let mut names: Vec<_> = keys
            .iter()
            .filter_map(|k| k.rsplit('/').next()?.strip_suffix(suffix).map(str::to_owned))
            .collect();
        names.sort();
        names.pop().expect("a base backup")
    }
}

fn variables(place: &Place) -> Vec<(String, String)> {
    match place {
        Place::File(dir) => {
            vec![("SUPAFLY_STORE".into(), format!("file://{}", dir.path().join("store").display()))]
        }
        Place::S3(s3) => through(s3, s3.endpoint()),
        Place::Faulty(proxy, s3) => through(s3, &proxy.endpoint()),
    }
}

fn through(s3: &super::S3, endpoint: &str) -> Vec<(String, String)> {
    let mut env = s3.environment(endpoint);
    env.push(("SUPAFLY_STORE".into(), s3.url()));
    env
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
