//! A cluster that another image made: named, never touched unasked, adopted whole when asked, whatever is killed.

use super::clusters::{adopt, as_postgres, foreign, heirloom, prepared, refused, single, single_with, tree};
use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::{Machine, root};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_cluster_on_the_volume_is_named_and_untouched_until_it_is_asked_for_and_then_protected() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    // Supabase's image has it in the very place that is ours.
    let there = machine.data().join("pgdata");
    foreign(&there);
    let before = tree(&there);
    let named = format!("SUPAFLY_ADOPT={}", there.display());
    refused(&mut machine, &[&named, "SUPAFLY_ADOPT=never", "nothing was touched"]);
    machine.env.insert("SUPAFLY_ADOPT".into(), "never".into());
    refused(&mut machine, &["was not made here", &named]);
    assert!(tree(&there) == before, "it was touched");
    adopt(&mut machine, &there);
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    heirloom(&machine);
    let roles =
        "select rolname, rolsuper from pg_roles where rolname in ('postgres', 'boss', 'supafly') order by 1";
    assert_eq!(machine.sql(roles).unwrap(), [["boss", "t"], ["postgres", "t"], ["supafly", "f"]]);
    // The setting may stay, or go.
    assert_eq!(machine.stop().code(), Some(0));
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0));
    machine.env.remove("SUPAFLY_ADOPT");
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    // It outlives its volume like any other.
    machine.cut_power();
    machine.lose_volume();
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
}

#[test]
fn the_volume_of_an_official_image_whose_root_is_the_cluster_is_adopted() {
    let mut machine = Machine::new(&[]);
    let data = machine.data();
    foreign(&data);
    // His own, whatever it is for.
    fs::write(data.join("dump.sql"), "select 1").unwrap();
    refused(&mut machine, &[&format!("SUPAFLY_ADOPT={}", data.display())]);
    adopt(&mut machine, &data);
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    assert!(machine.log().contains("because Postgres gives no such names: dump.sql"), "{}", machine.tail());
    let mut left: Vec<_> =
        fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["dump.sql", "pgdata", "supafly"]);
}

/// Whoever is refused starts the old image once more, which takes all of the volume and closes it.
#[test]
fn a_volumes_root_is_looked_at_before_it_is_opened_and_opened_again_when_its_image_closed_it() {
    let mut machine = Machine::new(&[]);
    let data = machine.data();
    foreign(&data);
    fs::write(data.join("postmaster.pid"), "1\n").unwrap();
    let look = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.mode() & 0o7777)).unwrap();
    let before = look(&data);
    adopt(&mut machine, &data);
    refused(&mut machine, &["it runs or was killed", "nothing was touched"]);
    assert_eq!(look(&data), before, "it was touched");
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    prepared(&machine);
    if root() {
        assert_eq!(look(&data), (0, 0o755));
        assert!(Command::new("chown").args(["-R", "daemon:daemon"]).arg(&data).status().unwrap().success());
    }
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    if root() {
        assert_eq!(look(&data), (0, 0o755));
    }
}

#[test]
fn a_new_cluster_is_made_beside_one_that_is_to_be_left_alone() {
    let mut machine = Machine::new(&[]);
    let old = machine.data().join("15/docker");
    foreign(&old);
    let before = tree(&old);
    refused(&mut machine, &[&format!("SUPAFLY_ADOPT={}", old.display())]);
    assert!(!machine.data().join("pgdata").exists());
    machine.env.insert("SUPAFLY_ADOPT".into(), "never".into());
    machine.boot();
    machine.wait_ready();
    assert!(machine.sql("select from heirloom").is_err());
    assert_eq!(machine.stop().code(), Some(0));
    assert!(tree(&old) == before, "it was touched");
    // There is one now: what was found is no reason to stop, and what is named is not adopted over it.
    adopt(&mut machine, &old);
    machine.boot();
    machine.wait_ready();
    assert!(machine.sql("select from heirloom").is_err());
    let said =
        format!("the cluster in {} is not adopted, because this volume has one already", old.display());
    assert!(machine.log().contains(&said), "{}", machine.tail());
}

/// One volume holds one cluster. The former owner of the archive may be alive: it loses nothing by a boot that is refused.
#[test]
fn who_takes_over_an_archive_and_names_a_cluster_is_asked_which_one_before_the_former_owner_loses_it() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table archived ()").unwrap();
    assert_eq!(machine.stop().code(), Some(0));
    machine.lose_volume();
    let old = machine.data().join("old");
    foreign(&old);
    let before = tree(&old);
    let owners = || bucket.keys("owner/").into_iter().map(|k| (bucket.get(&k), k)).collect::<Vec<_>>();
    let former = owners();
    assert_eq!(former.len(), 1);
    adopt(&mut machine, &old);
    // Whatever the one setting says: what is adopted needs a prefix of its own.
    refused(&mut machine, &["can only claim an empty prefix", "SUPAFLY_ADOPT away"]);
    assert_eq!(owners(), former);
    for takeover in ["auto", "1"] {
        machine.env.insert("SUPAFLY_TAKEOVER".into(), takeover.into());
        let both =
            format!("SUPAFLY_ADOPT={} and SUPAFLY_TAKEOVER={takeover} contradict each other", old.display());
        refused(&mut machine, &[&both, "nothing was taken", "take SUPAFLY_ADOPT away", "empty prefix"]);
        assert_eq!(owners(), former, "the former owner was fenced by a boot that came to nothing");
        assert!(tree(&old) == before, "it was touched");
        // Of `auto` the settings alone say nothing: where the prefix has no owner, it takes nothing.
        let check = machine.supafly(&["check"]);
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        assert_eq!(check.status.code(), Some(if takeover == "auto" { 0 } else { 78 }), "{said}");
        assert!(takeover == "auto" || said.contains(&both), "{said}");
    }
    machine.env.remove("SUPAFLY_ADOPT");
    machine.boot();
    machine.wait_ready();
    machine.sql("select from archived").unwrap();
    assert_eq!(owners().len(), 2);
    // The settings may stay once it is decided: the cluster is passed over, and the volume's own goes on.
    assert_eq!(machine.stop().code(), Some(0));
    adopt(&mut machine, &old);
    machine.boot();
    machine.wait_ready();
    assert!(
        machine.log().contains("is not adopted, because this volume has one already"),
        "{}",
        machine.tail()
    );
}

/// Else whoever comes back with the right volume finds a prefix that is owned, by nobody who has data.
#[test]
fn a_prefix_is_not_claimed_for_what_cannot_be_adopted() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    let old = machine.data().join("old");
    adopt(&mut machine, &old);
    refused(&mut machine, &["SUPAFLY_ADOPT", "No such file"]);
    // Who may restore may have kept the setting; but there is nothing to restore.
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    refused(&mut machine, &["there is no cluster to adopt", "nothing was claimed"]);
    assert_eq!(bucket.keys("owner/"), Vec::<String>::new());
    foreign(&old);
    fs::write(old.join("postmaster.pid"), "1\n").unwrap();
    refused(&mut machine, &["it runs or was killed"]);
    assert_eq!(bucket.keys("owner/"), Vec::<String>::new());
    // The volume is given up for the right one, and nothing is in its way.
    machine.lose_volume();
    foreign(&old);
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    // A setting that outlives its volume keeps nobody from his archive.
    machine.wait_protected();
    machine.cut_power();
    machine.lose_volume();
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    assert_eq!(bucket.keys("owner/").len(), 2);
}

/// Staging is cleared whenever a cluster is made or restored, so nothing in it is taken for one to adopt, by whatever name; nor
/// is it cleared while it is named.
#[test]
fn what_lies_in_staging_is_neither_adopted_nor_thrown_away_while_it_is_named() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    let data = machine.data();
    let (staging, link, below) =
        (data.join("pgdata.staging"), data.join("link"), data.join("pgdata.staging/below"));
    foreign(&below);
    std::os::unix::fs::symlink(&staging, &link).unwrap();
    let before = tree(&staging);
    // Half of a cluster is none, and somebody's all the same.
    for (named, takeover) in [(&below, "never"), (&below, "auto"), (&staging, "auto"), (&link, "auto")] {
        adopt(&mut machine, named);
        machine.env.insert("SUPAFLY_TAKEOVER".into(), takeover.into());
        refused(&mut machine, &["move it to another name", "nothing was touched"]);
        assert!(tree(&staging) == before, "it was touched");
    }
    assert_eq!(bucket.keys("owner/"), Vec::<String>::new());
    // A volume with a cluster of its own goes on.
    machine.env.insert("SUPAFLY_ADOPT".into(), "never".into());
    let aside = machine.dir.path().join("aside");
    fs::rename(&staging, &aside).unwrap();
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    fs::rename(&aside, &staging).unwrap();
    adopt(&mut machine, &link);
    machine.boot();
    machine.wait_ready();
    assert!(tree(&staging) == before, "it was touched");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    // Without data it would be restored, through staging.
    fs::remove_dir_all(data.join("pgdata")).unwrap();
    refused(&mut machine, &["move it to another name", "nothing was touched"]);
    assert!(tree(&staging) == before, "it was touched");
}

#[test]
fn what_cannot_be_adopted_is_refused_with_the_reason_and_untouched() {
    let mut machine = Machine::new(&[]);
    let old = machine.data().join("old");
    adopt(&mut machine, &old);
    refused(&mut machine, &["SUPAFLY_ADOPT", "No such file"]);
    foreign(&old);
    let mut attempt = |spoil: &dyn Fn(&Path), mend: &dyn Fn(&Path), word: &str| {
        spoil(&old);
        let before = tree(&old);
        refused(&mut machine, &[word, "nothing was touched"]);
        assert!(tree(&old) == before, "touched: {word}");
        mend(&old);
    };
    let version = fs::read_to_string(old.join("PG_VERSION")).unwrap();
    attempt(
        &|old| fs::write(old.join("PG_VERSION"), "9.6\n").unwrap(),
        &|old| fs::write(old.join("PG_VERSION"), &version).unwrap(),
        "it is of Postgres 9.6, installed is",
    );
    let remove = |name: &'static str| move |old: &Path| fs::remove_file(old.join(name)).unwrap();
    let put =
        |name: &'static str, text: &'static str| move |old: &Path| fs::write(old.join(name), text).unwrap();
    attempt(&put("postmaster.pid", "1\n"), &remove("postmaster.pid"), "it runs or was killed");
    attempt(&put("standby.signal", ""), &remove("standby.signal"), "it is a standby");
    attempt(
        &put("postgresql.auto.conf", "archive_command = '/bin/true'\n"),
        &put("postgresql.auto.conf", ""),
        "ALTER SYSTEM has set archive_command",
    );
    for (line, word) in [
        ("port = '5499'\n", "ALTER SYSTEM has set port"),
        ("ssl = 'on'\n", "ALTER SYSTEM has set ssl"),
        ("shared_preload_libraries = 'of_elsewhere'\n", "of_elsewhere is not installed here"),
    ] {
        attempt(&put("postgresql.auto.conf", line), &put("postgresql.auto.conf", ""), word);
    }
    attempt(
        &|old| {
            fs::rename(old.join("pg_wal"), old.join("wal")).unwrap();
            std::os::unix::fs::symlink("wal", old.join("pg_wal")).unwrap();
        },
        &|old| {
            fs::remove_file(old.join("pg_wal")).unwrap();
            fs::rename(old.join("wal"), old.join("pg_wal")).unwrap();
        },
        "pg_wal is a link",
    );
    let conf = fs::read_to_string(old.join("postgresql.conf")).unwrap();
    attempt(
        &|old| {
            let elsewhere = conf.replace("lc_monetary = 'C.UTF-8'", "lc_monetary = 'xx_YY.utf8'");
            assert!(elsewhere != conf);
            fs::write(old.join("postgresql.conf"), elsewhere).unwrap();
        },
        &|old| fs::write(old.join("postgresql.conf"), &conf).unwrap(),
        "it was made with the locale `xx_YY.utf8`, which is not here",
    );
    // Power was lost under it: what its WAL holds only the image that made it should bring back.
    let control = fs::read(old.join("global/pg_control")).unwrap();
    let crashed = |old: &Path| {
        let mut server = as_postgres("postgres");
        if root() {
            assert!(
                Command::new("chown").args(["-R", "postgres:postgres"]).arg(old).status().unwrap().success()
            );
        }
        server.arg("-D").arg(old).args(["-c", "listen_addresses=", "-c"]);
        server
            .arg(format!("unix_socket_directories={}", old.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = server.spawn().unwrap();
        crate::support::machine::until("the server to be ready", crate::support::machine::PATIENCE, || {
            let pid = fs::read_to_string(old.join("postmaster.pid")).ok()?;
            pid.lines().nth(7).is_some_and(|l| l.trim() == "ready").then_some(())
        });
        crate::support::machine::kill_tree(server.id());
        server.wait().unwrap();
        for left in ["postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            let _ = fs::remove_file(old.join(left));
        }
    };
    attempt(&crashed, &|_| {}, "it was not stopped in order (`in production`)");
    assert!(fs::read(old.join("global/pg_control")).unwrap() != control);
}

/// What its owner has set by ALTER SYSTEM beats what is rendered; and its prepared transactions need their room.
#[test]
fn neither_its_settings_nor_its_prepared_transactions_stop_an_adoption() {
    let mut machine = Machine::new(&[]);
    let old = machine.data().join("old");
    foreign(&old);
    let chown = |owner: &str| {
        if root() {
            assert!(Command::new("chown").args(["-R", owner]).arg(&old).status().unwrap().success());
        }
    };
    chown("postgres:postgres");
    single_with(
        &old,
        &["-c", "max_prepared_transactions=5"],
        "begin\ncreate table late (i int)\nprepare transaction 'later'",
    );
    assert_eq!(fs::read_dir(old.join("pg_twophase")).unwrap().count(), 1);
    fs::write(old.join("postgresql.auto.conf"), "default_transaction_read_only = 'on'\n").unwrap();
    chown("daemon:daemon");
    adopt(&mut machine, &old);
    prepared(&machine);
    let out = machine.supafly(&["datadir"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::write(machine.data().join("pgdata/postgresql.auto.conf"), "").unwrap();
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    machine.sql("commit prepared 'later'").unwrap();
    machine.sql("select from late").unwrap();
}

/// Made where texts have another order, by a Postgres that kept passwords as md5.
#[test]
fn what_only_its_owner_can_mend_is_said() {
    let mut machine = Machine::new(&[]);
    let old = machine.data().join("old");
    foreign(&old);
    let chown = |owner: &str| {
        if root() {
            assert!(Command::new("chown").args(["-R", owner]).arg(&old).status().unwrap().success());
        }
    };
    chown("postgres:postgres");
    single(&old, "create database shop");
    single(&old, "update pg_database set datcollversion = '2.1' where datname = 'shop'");
    single(&old, &format!("create role oldie login password 'md5{}'", "0".repeat(32)));
    chown("daemon:daemon");
    adopt(&mut machine, &old);
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    for word in ["shop (C.UTF-8, made with version 2.1, here is unknown)", "passwords: 1 of its roles"] {
        assert!(machine.log().contains(word), "`{word}` is not said:\n{}", machine.tail());
    }
}

/// Memory is another file system: where a volume of its own is mounted, nothing can be renamed from.
#[test]
fn a_cluster_on_another_file_system_is_refused_with_where_to_mount_it() {
    let shm = Path::new("/dev/shm");
    let mut machine = Machine::new(&[]);
    if fs::metadata(shm).unwrap().dev() == fs::metadata(machine.dir.path()).unwrap().dev() {
        panic!("this test needs /dev/shm to be a file system of its own");
    }
    let dir = tempfile::Builder::new().prefix("supafly-").tempdir_in(shm).unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let old = dir.path().join("old");
    foreign(&old);
    let before = tree(&old);
    adopt(&mut machine, &old);
    refused(&mut machine, &["it is not on the volume", "Mount that volume at"]);
    assert!(tree(&old) == before);
}

/// A bind mount has the same device, and cannot be renamed all the same.
#[test]
fn a_cluster_with_a_mount_in_it_is_refused_before_anything_is_moved() {
    if !root() {
        eprintln!("not root: nothing can be mounted, so this is not tried");
        return;
    }
    for in_root in [false, true] {
        let mut machine = Machine::new(&[]);
        let old = if in_root { machine.data() } else { machine.data().join("old") };
        foreign(&old);
        adopt(&mut machine, &old);
        prepared(&machine);
        let before = tree(&old);
        let out = Command::new("unshare")
            .args(["--mount", "sh", "-ec", "mount --bind \"$1\" \"$1\"; exec \"$2\" datadir", "sh"])
            .arg(old.join("pg_wal"))
            .arg(crate::support::programs::programs().join("supafly"))
            .env_clear()
            .envs(&machine.env)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(77), "{said}");
        assert!(said.contains("something is mounted at") && said.contains("nothing was touched"), "{said}");
        assert!(tree(&old) == before, "it was touched");
    }
}
