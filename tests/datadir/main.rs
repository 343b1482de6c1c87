//! The data directory against a real Postgres, without a store: made, adopted, refused. Restores are in tests/e2e.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use supafly::config::Settings;
use supafly::exit::Exit;
use supafly::owner::{Identity, Origin};
use supafly::postgres::account::Account;
use supafly::postgres::control::{self, State};
use supafly::postgres::{bin, datadir_role};

struct Volume {
    dir: tempfile::TempDir,
    settings: Settings,
}

fn volume() -> Volume {
    let dir = tempfile::Builder::new().prefix("supafly-").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("SUPAFLY_DATA".into(), dir.path().join("data").display().to_string());
    env.insert("SUPAFLY_RUN".into(), dir.path().join("run").display().to_string());
    env.insert("SUPAFLY_PG_PORT".into(), port.to_string());
    env.insert("SUPAFLY_PG_LISTEN".into(), "127.0.0.1".into());
    env.insert("SUPAFLY_PG_SOCKETS".into(), "off".into());
    if let Some(bin) = std::env::vars().find(|(k, _)| k == "SUPAFLY_PG_BIN") {
        env.insert(bin.0, bin.1);
    }
    let settings = Settings::read(None, &env).unwrap();
    fs::create_dir_all(settings.own().join("secrets")).unwrap();
    fs::create_dir_all(settings.own().join("journal")).unwrap();
    fs::write(settings.own().join("secrets/postgres-password"), "hunter2").unwrap();
    fs::create_dir_all(settings.pg_socket_dir()).unwrap();
    let identity = Identity {
        project: "local".into(),
        epoch: None,
        incarnation: uuid::Uuid::new_v4(),
        origin: Origin::Fresh,
        system_identifier: None,
        store: String::new(),
    };
    identity.save(&settings.own().join("identity.json")).unwrap();
    Volume { dir, settings }
}

#[test]
fn a_cluster_is_made_whole_adopted_again_and_nothing_is_left_beside_it() {
    let volume = volume();
    let settings = &volume.settings;
    fs::create_dir(settings.data.join("pgdata.staging")).unwrap();
    fs::write(settings.data.join("pgdata.staging/half"), "made").unwrap();
    assert_eq!(datadir_role(settings).unwrap(), Exit::Clean);
    let pgdata = settings.pgdata();
    let bin = bin::find(settings).unwrap();
    let made = control::read(&bin, &pgdata).unwrap();
    assert_eq!(made.state, State::ShutDown);
    assert!(made.checksums);
    let meta = fs::metadata(&pgdata).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o750);
    assert_eq!(meta.uid(), Account::named("postgres").unwrap().uid.as_raw());
    assert!(!settings.data.join("pgdata.staging").exists());
    let mut left: Vec<_> = fs::read_dir(&settings.run).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort_unstable();
    assert_eq!(left, ["postgres", "postgres.room"], "a password or a socket is left");
    let conf = fs::read_to_string(settings.pg_socket_dir().join("postgresql.conf")).unwrap();
    assert!(conf.contains("archive_mode = off"), "{conf}");
    let meta = fs::metadata(settings.pg_socket_dir().join("postgresql.conf")).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.gid()), (0o640, Account::named("postgres").unwrap().gid.as_raw()));
    let identity = Identity::load(&settings.own().join("identity.json")).unwrap().unwrap();
    assert_eq!(identity.system_identifier, Some(made.system_identifier));

    // A stale pid file in each form does not keep it from being adopted.
    for stale in ["", "garbage\n", "1\n", &format!("{}\n", std::process::id())] {
        fs::write(pgdata.join("postmaster.pid"), stale).unwrap();
        assert_eq!(datadir_role(settings).unwrap(), Exit::Clean);
        assert!(!pgdata.join("postmaster.pid").exists(), "{stale:?}");
    }
    assert_eq!(control::read(&bin, &pgdata).unwrap(), made);

    // A port in use is said by number and setting.
    let taken = TcpListener::bind(("127.0.0.1", settings.pg_port)).unwrap();
    let e = datadir_role(settings).unwrap_err();
    assert!(
        e.message.contains(&settings.pg_port.to_string()) && e.message.contains("SUPAFLY_PG_PORT"),
        "{e}"
    );
    drop(taken);

    // Another cluster's data is refused, and another major's.
    let other = Identity { system_identifier: Some(7), ..identity.clone() };
    other.save(&settings.own().join("identity.json")).unwrap();
    assert_eq!(datadir_role(settings).unwrap_err().exit, Exit::Refused);
    identity.save(&settings.own().join("identity.json")).unwrap();
    fs::write(pgdata.join("PG_VERSION"), "9\n").unwrap();
    let e = datadir_role(settings).unwrap_err();
    assert_eq!(e.exit, Exit::Refused);
    assert!(e.message.contains("PG_VERSION says 9"), "{e}");
}

#[test]
fn what_is_no_cluster_is_refused_and_untouched() {
    let volume = volume();
    let pgdata = volume.settings.pgdata();
    fs::create_dir(&pgdata).unwrap();
    fs::write(pgdata.join("thesis.tex"), "years of work").unwrap();
    let e = datadir_role(&volume.settings).unwrap_err();
    assert_eq!(e.exit, Exit::Refused);
    assert!(e.message.contains("thesis.tex"), "{e}");
    assert_eq!(fs::read_to_string(pgdata.join("thesis.tex")).unwrap(), "years of work");
    assert!(Path::new(volume.dir.path()).join("data/supafly/identity.json").exists());
}

#[test]
fn a_wrong_locale_is_said_with_its_setting_and_leaves_no_cluster() {
    let mut volume = volume();
    volume.settings.pg_locale = "xx_XX.nowhere".into();
    let e = datadir_role(&volume.settings).unwrap_err();
    assert!(e.message.contains("SUPAFLY_PG_LOCALE"), "{e}");
    assert!(!volume.settings.pgdata().exists());
}
