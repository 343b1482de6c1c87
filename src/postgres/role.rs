//! The `datadir` role: looks, decides (`datadir.rs`), does it, and renders the configuration.
//!
//! It runs under the lock of the volume, before Postgres and after the claim, at every boot. `cluster.json` is written
//! before Postgres first starts, so that nothing can be archived below an epoch that belongs to another cluster.

use super::account::Account;
use super::adoption::{self, Standing};
use super::bin::{self, Bin};
use super::conf::{self, Archive};
use super::control::{self, Control};
use super::datadir::{Decision, There, decide};
use super::{adopt, hba, initdb, sockets, tree};
use crate::config::{Settings, StoreUrl};
use crate::exit::{Exit, Failure};
use crate::owner::{Cluster, Identity, Origin, cluster, durable};
use crate::store::{self, Kind, Store};
use crate::{failpoint, restore, walg};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Everything about where we are that the steps share.
pub(crate) struct Place<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) bin: &'a Bin,
    pub(crate) postgres: &'a Account,
    pub(crate) keeper: &'a Account,
    pub(crate) program: PathBuf,
    pub(crate) runtime: &'a tokio::runtime::Runtime,
}

impl Place<'_> {
    /// Where a data directory is made before it gets its name.
    pub(crate) fn staging(&self) -> PathBuf {
        staging(self.settings)
    }

    /// Archiving through keeper, when there is a store.
    pub(crate) fn archive(&self) -> Archive {
        match self.settings.store {
            StoreUrl::None => Archive::Off,
            StoreUrl::S3 { .. } | StoreUrl::File { .. } => {
                Archive::On { program: self.program.clone(), timeout: self.settings.archive_timeout }
            }
        }
    }

    /// The facts of the real configuration, for the cluster with this control file.
    pub(crate) fn facts(&self, archive: Archive, control: &Control) -> conf::Facts {
        conf::Facts {
            memory: crate::facts::memory(),
            processors: crate::facts::processors(),
            pgdata: self.settings.pgdata(),
            sockets: sockets::directories(self),
            rendered: self.settings.pg_socket_dir(),
            listen: self.settings.pg_listen.clone(),
            port: self.settings.pg_port,
            socket_mode: 0o777,
            archive,
            floors: control.floors,
            segment: control.wal_segment_size,
            // What cannot be found out bounds nothing more than the smallest volume does.
            volume: tree::size(&self.settings.data).unwrap_or_default(),
            preload: self.bin.libraries(conf::PRELOAD),
            given: self.settings.pg_settings.clone(),
        }
    }

    /// How much is free on the volume. When that is less than `needed` it is a failure (73), and whoever waits for room is
    /// told for how much.
    pub(crate) fn room(&self, needed: u64, what: &str) -> Result<u64, Failure> {
        tree::room(&self.settings.data, needed, what).inspect_err(|failure| {
            if failure.exit == Exit::NoRoom {
                self.ask_for(needed);
            }
        })
    }

    /// Tells whoever starts us again for how much room to wait. Where that cannot be told, we are started sooner, and in
    /// vain.
    pub(crate) fn ask_for(&self, bytes: u64) {
        let _ = durable::replace(&wanted_room(self.settings), format!("{bytes}\n").as_bytes(), 0o644);
    }

    pub(crate) fn users(&self) -> hba::Users {
        hba::Users {
            postgres: self.postgres.name.clone(),
            keeper: self.keeper.name.clone(),
            root: nix::unistd::Uid::effective().is_root(),
        }
    }
}

/// The file in which this role says how much room it needs (`room.more` of its service), while it needs some.
fn wanted_room(settings: &Settings) -> PathBuf {
    settings.run.join("datadir.room")
}

/// Writes the three files and returns the path of `postgresql.conf`, which `reader` alone reads: what somebody gave for an
/// extension may be secret.
pub(crate) fn write_configuration(
    facts: &conf::Facts,
    users: &hba::Users,
    reader: &Account,
) -> Result<PathBuf, Failure> {
    let config = facts.rendered.join("postgresql.conf");
    for (path, text, mode) in [
        (facts.rendered.join("pg_hba.conf"), hba::hba(), 0o644),
        (facts.rendered.join("pg_ident.conf"), hba::ident(users), 0o644),
        (config.clone(), conf::render(facts), 0o640),
    ] {
        durable::replace(&path, text.as_bytes(), mode)
            .map_err(|e| tree::failed(&path, "write this file", &e))?;
    }
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(&config, Some(0), Some(reader.gid.as_raw()))
            .map_err(|e| tree::failed(&config, "give it to its group", &e))?;
    }
    Ok(config)
}

/// Runs the role.
///
/// # Errors
/// 77 for data that is not ours, 78 for settings that cannot be, 73 without room, 70 for a step that failed.
pub fn datadir_role(settings: &Settings) -> Result<Exit, Failure> {
    // What a former start needed this one may not.
    let _ = std::fs::remove_file(wanted_room(settings));
    datadir(settings).map_err(Failure::or_no_room)
}

/// Where a data directory is made before it gets its name.
pub(super) fn staging(settings: &Settings) -> PathBuf {
    settings.data.join("pgdata.staging")
}

/// Makes a data directory in staging, which is cleared first. Without room what is half made makes room: it would be thrown
/// away at the next start, and whoever waits for that start looks at what is free. Only here: what lies there when nothing
/// was made may be somebody's only copy. A kill before that leaves it to the next start, as every kill does.
fn staged(place: &Place<'_>, make: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    adoption::spares(place.settings)?;
    make().map_err(Failure::or_no_room).inspect_err(|failure| {
        if failure.exit == Exit::NoRoom {
            // Why it failed matters more than why this does.
            let _ = tree::remove(&place.staging());
        }
    })
}

fn datadir(settings: &Settings) -> Result<Exit, Failure> {
    let path = settings.own().join("identity.json");
    let mut identity = Identity::load(&path)?.ok_or_else(|| {
        Failure::gave_up(format!(
            "{}: this volume has no identity yet; `supafly claim` makes it first",
            path.display()
        ))
    })?;
    let bin = bin::find(settings)?;
    let (postgres, keeper) = (Account::named("postgres")?, Account::named("supafly")?);
    let program =
        std::env::current_exe().map_err(|e| Failure::gave_up(format!("our own executable: {e}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Failure::gave_up(format!("runtime: {e}")))?;
    let place =
        Place { settings, bin: &bin, postgres: &postgres, keeper: &keeper, program, runtime: &runtime };
    let pgdata = settings.pgdata();
    let mut there = look(&bin, &pgdata)?;
    let own = match (identity.epoch, &settings.store) {
        (None, _) | (Some(_), StoreUrl::None) => None,
        (Some(epoch), StoreUrl::S3 { .. } | StoreUrl::File { .. }) => Some((store::open(settings)?, epoch)),
    };
    // A volume that knows its cluster needs no word of the store: an outage must not keep its data down.
    let known = matches!(there, There::Cluster { .. }) && identity.system_identifier.is_some();
    let recorded = match &own {
        Some((store, epoch)) if !known => {
            runtime.block_on(restore::patient("cluster.json", async || cluster::read(store, *epoch).await))?
        }
        Some(_) | None => None,
    };
    let standing = match (identity.origin, identity.system_identifier, &recorded) {
        (Origin::Fresh, None, None) => Standing::Fresh,
        (Origin::Takeover { .. }, None, _) if matches!(there, There::Missing | There::Empty) => {
            Standing::TookOver
        }
        (Origin::Fresh | Origin::Takeover { .. }, _, _) => Standing::Settled,
    };
    adoption::settle(&place, standing)?;
    if standing == Standing::Fresh {
        there = look(&bin, &pgdata)?;
    }
    match decide(&pgdata, bin.major, &there, &identity, recorded.as_ref())? {
        Decision::Init => staged(&place, || initdb::make(&place))?,
        Decision::Restore => match &own {
            Some((store, epoch)) => staged(&place, || restore::run(&place, store, *epoch))?,
            None => return Err(Failure::refused("a restore needs the store: set SUPAFLY_STORE as it was")),
        },
        Decision::Adopt => {
            if let Some((store, epoch)) = &own {
                adopt::newest_of_its_epoch(&place, store, *epoch)?;
            }
            failpoint::hit("datadir.after-compare");
            remove_stale_pid(&pgdata)?;
            match adoption::spares(settings) {
                Ok(()) => tree::remove(&place.staging())?,
                Err(why) => tracing::warn!("{why}"),
            }
        }
    }
    let control = control::read(&bin, &pgdata)?;
    if let Some((store, epoch)) = &own {
        record_once(&place, store, *epoch, &control)?;
    }
    failpoint::hit("datadir.after-cluster");
    if identity.system_identifier != Some(control.system_identifier) {
        identity.system_identifier = Some(control.system_identifier);
        identity.save(&path)?;
    }
    configure(&place, &control)?;
    room_for_wal(settings, &control)?;
    port_free(settings)?;
    Ok(Exit::Clean)
}

/// Sees to `cluster.json` once an epoch and notes that on the volume, so that later boots need no store for it.
fn record_once(
    place: &Place<'_>,
    store: &Store,
    epoch: crate::owner::Epoch,
    control: &Control,
) -> Result<(), Failure> {
    let note = place.settings.own().join("journal").join("cluster-recorded");
    let text = format!("{} {epoch} {}\n", store.url(), control.system_identifier);
    if std::fs::read_to_string(&note).is_ok_and(|there| there == text) {
        return Ok(());
    }
    record(place, store, epoch, control)?;
    durable::write(&note, text.as_bytes(), 0o644).map_err(|e| tree::failed(&note, "write this file", &e))
}

/// Writes our epoch's `cluster.json`; another cluster's there is a refusal.
fn record(
    place: &Place<'_>,
    store: &Store,
    epoch: crate::owner::Epoch,
    control: &Control,
) -> Result<(), Failure> {
    let engine = walg::Engine::find(place.settings)?.map_or_else(|| "none".to_owned(), |e| e.to_string());
    let ours = Cluster {
        system_identifier: control.system_identifier,
        major: place.bin.major,
        wal_segment_size: control.wal_segment_size,
        checksums: control.checksums,
        engine,
    };
    let write = async || match cluster::write(store, epoch, &ours).await {
        Err(e) if e.kind == Kind::Conflict => Ok(Err(Failure::refused(format!(
            "cluster {} may not use epoch {epoch}: {e}; use its own SUPAFLY_STORE",
            ours.system_identifier
        )))),
        Err(e) => Err(e),
        Ok(()) => Ok(Ok(())),
    };
    place.runtime.block_on(restore::patient("cluster.json", write))?
}

fn look(bin: &Bin, pgdata: &Path) -> Result<There, Failure> {
    let mut entries = match std::fs::read_dir(pgdata) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(There::Missing),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Ok(There::Garbage("it is not a directory".to_owned()));
        }
        Err(e) => return Err(tree::failed(pgdata, "read this directory", &e)),
    };
    let Some(first) = entries.next() else { return Ok(There::Empty) };
    let first = first.map_err(|e| tree::failed(pgdata, "read this directory", &e))?;
    let version = match std::fs::read_to_string(pgdata.join("PG_VERSION")) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = first.file_name().to_string_lossy().into_owned();
            return Ok(There::Garbage(format!("it holds `{name}` but no PG_VERSION, so it is no cluster")));
        }
        Err(e) => return Err(tree::failed(&pgdata.join("PG_VERSION"), "read it", &e)),
    };
    let text = version.trim();
    // Before 10 a major had two parts; of `9.6` the first says enough.
    match text.split('.').next().and_then(|t| t.parse::<u32>().ok()) {
        None => Ok(There::Garbage(format!("its PG_VERSION says `{}`", text.escape_debug()))),
        Some(major) if major != bin.major => Ok(There::OtherMajor(major)),
        Some(_) => {
            let control = control::read(bin, pgdata)?;
            Ok(There::Cluster {
                system_identifier: control.system_identifier,
                wal_segment_size: control.wal_segment_size,
                checksums: control.checksums,
            })
        }
    }
}

/// Under the lock of the volume a pid file is stale unless that very process works in this directory. Postgres itself
/// refuses to start on an empty one and on the pid of any live process of its user, which after a reboot is chance.
pub(super) fn remove_stale_pid(pgdata: &Path) -> Result<(), Failure> {
    let path = pgdata.join("postmaster.pid");
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(tree::failed(&path, "read it", &e)),
    };
    if let Some(pid) = text.lines().next().and_then(|l| l.trim().parse::<u32>().ok()) {
        let process = Path::new("/proc").join(pid.to_string());
        let named = std::fs::read_to_string(process.join("comm")).is_ok_and(|c| c.trim() == "postgres");
        let here = std::fs::read_link(process.join("cwd")).ok();
        if named && here.is_some() && here == pgdata.canonicalize().ok() {
            let place = pgdata.display();
            return Err(Failure::refused(format!(
                "{place}: Postgres (pid {pid}) is running on it; stop it first"
            )));
        }
    }
    tracing::info!(file = %path.display(), "removed a stale pid file");
    tree::remove(&path)
}

fn configure(place: &Place<'_>, control: &Control) -> Result<(), Failure> {
    let auto = place.settings.pgdata().join("postgresql.auto.conf");
    match std::fs::read(&auto) {
        Ok(text) => {
            let taken = conf::owned_in(&String::from_utf8_lossy(&text));
            let overruled = conf::overruled(&place.settings.pg_settings, &String::from_utf8_lossy(&text));
            if !overruled.is_empty() {
                tracing::warn!(
                    "ALTER SYSTEM has set {} in this cluster, which wins over what was given at the start: `alter system reset \
                     …` lets the given one hold",
                    overruled.join(", ")
                );
            }
            if !taken.is_empty() {
                return Err(Failure::config(format!(
                    "{}: ALTER SYSTEM has set {}, which would win over what keeps the data safe here: remove these lines",
                    auto.display(),
                    taken.join(", ")
                )));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::gave_up(format!("{}: cannot be read: {e}", auto.display()))),
    }
    sockets::say(place);
    sockets::remove_stale_lock(place)?;
    let facts = place.facts(place.archive(), control);
    let lacking: Vec<_> = conf::preload(&facts)
        .into_iter()
        .filter(|name| !name.contains('/') && place.bin.libraries(&[name]).is_empty())
        .collect();
    if !lacking.is_empty() {
        return Err(Failure::config(format!(
            "shared_preload_libraries names {}, which is not installed with {}: Postgres would not start",
            lacking.join(", "),
            place.bin.directory.display()
        )));
    }
    let config = write_configuration(&facts, &place.users(), place.postgres)?;
    let program = place.bin.program("postgres");
    let mut command = place.postgres.command(&program, place.settings, "KILL");
    command.args(["-C", "shared_buffers", "-D"]).arg(place.settings.pgdata());
    command.arg("-c").arg(format!("config_file={}", config.display())).stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output();
    let output =
        output.map_err(|e| Failure::gave_up(format!("setpriv (for postgres -C) cannot be run: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::config(format!(
        "Postgres does not take {}, or postgresql.auto.conf (ALTER SYSTEM):\n{}",
        config.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Says how much room Postgres needs to start (`room.more` of its service): a segment to end its recovery with, and one to
/// go on with.
fn room_for_wal(settings: &Settings, control: &Control) -> Result<(), Failure> {
    let file = settings.run.join("postgres.room");
    let bytes = 2 * control.wal_segment_size.bytes();
    durable::replace(&file, format!("{bytes}\n").as_bytes(), 0o644)
        .map_err(|e| tree::failed(&file, "write this file", &e))
}

/// Postgres's own message would come after we have handed over, and in a restart loop.
fn port_free(settings: &Settings) -> Result<(), Failure> {
    let port = settings.pg_port;
    for host in settings.pg_listen.split(',').map(str::trim).filter(|h| !h.is_empty()) {
        let hosts = if host == "*" { vec!["0.0.0.0"] } else { vec![host] };
        for address in hosts.iter().filter_map(|h| (*h, port).to_socket_addrs().ok()).flatten() {
            match TcpListener::bind(address) {
                Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    return Err(Failure::gave_up(format!(
                        "port {port} on {} is in use by another program: stop it, or set SUPAFLY_PG_PORT",
                        address.ip()
                    )));
                }
                // What else may be wrong with an address Postgres says better than we can guess.
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(())
}
