//! What a private postmaster is told, and what is made of one for a single user that misbehaves.

use super::*;
use crate::postgres::control::Floors;
use crate::postgres::lsn::SegmentSize;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

fn facts() -> conf::Facts {
    conf::Facts {
        memory: 1 << 30,
        processors: 1,
        pgdata: "/data/pgdata".into(),
        sockets: vec!["/run/supafly/postgres".into(), "/tmp".into()],
        rendered: "/run/supafly/postgres".into(),
        listen: "*".into(),
        port: 5432,
        socket_mode: 0o777,
        archive: conf::Archive::Off,
        floors: Floors::default(),
        segment: SegmentSize::DEFAULT,
        volume: 1 << 30,
        preload: vec!["x".into()],
        given: ServerSettings::default(),
    }
}

#[test]
fn what_makes_it_private_is_said_where_the_cluster_cannot_say_otherwise() {
    let facts = facts();
    let mut command = Command::new("postgres");
    confine(&mut command, &alone(&facts, Path::new("/data/x"), Path::new("/run/supafly/private")));
    let said: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    for setting in [
        "listen_addresses=",
        "port=5432",
        "unix_socket_directories=/run/supafly/private",
        "unix_socket_permissions=0700",
        "shared_preload_libraries=",
        "ssl=off",
    ] {
        assert!(said.windows(2).any(|pair| pair == ["-c", setting]), "{setting}: {said:?}");
    }
}

/// What `single` makes of a program that stands for Postgres and does as the script says.
fn single(script: &str, deadline: Duration) -> Result<(), Failure> {
    let dir = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open.clone()).unwrap();
    let program = dir.path().join("postgres");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, open).unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let env = BTreeMap::from([("SUPAFLY_RUN".to_owned(), run.display().to_string())]);
    let settings = Settings::read(None, &env).unwrap();
    let account = Account::named("postgres").unwrap();
    let bin = Bin { directory: dir.path().to_path_buf(), major: 17 };
    let users = hba::Users { postgres: "postgres".into(), keeper: "supafly".into(), root: false };
    let quiet = Quiet { settings: &settings, bin: &bin, account: &account };
    quiet.single(Path::new("/data/x"), &facts(), &users, "select 1;", deadline)
}

#[test]
fn one_for_a_single_user_is_believed_only_when_it_ended_well_and_all_it_said_was_heard() {
    let long = Duration::from_secs(60);
    single("cat >/dev/null; echo 'NOTICE:  well' >&2", long).unwrap();
    for (script, deadline, words) in [
        ("echo 'ERROR:  no such role' >&2", long, "no such role"),
        ("exit 3", long, "exit status: 3"),
        ("echo 'FATAL:  No space left on device' >&2; exit 1", long, "make room or grow the volume"),
        ("exec sleep 60", Duration::from_millis(200), "did not end within 200ms and was killed"),
        // Whoever holds the pipe may still say that it went wrong.
        ("sleep 9 & exit 0", long, "what it said could not be read"),
    ] {
        let e = single(script, deadline).unwrap_err();
        assert_eq!(e.exit, crate::exit::Exit::GaveUp, "{script}: {e}");
        assert!(e.message.contains(words), "{script}: {e}");
    }
}
