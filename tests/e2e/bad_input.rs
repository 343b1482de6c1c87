//! Bad input: one clear message each, that names the file or the setting and says what to do; nothing touched; the
//! design's exit code.

use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::{Machine, open_directory, root};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A machine with its own copy of the service files, to be damaged.
fn with_services(machine: &mut Machine) -> std::path::PathBuf {
    let services = machine.dir.path().join("services");
    fs::create_dir(&services).unwrap();
    for file in fs::read_dir(&machine.env["SUPAFLY_SERVICES"]).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), services.join(file.file_name())).unwrap();
    }
    machine.env.insert("SUPAFLY_SERVICES".into(), services.display().to_string());
    services
}

fn refused(machine: &mut Machine, code: i32, words: &[&str]) {
    machine.boot();
    let status = machine.wait_end();
    let log = machine.log();
    assert_eq!(status.code(), Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` is not said:\n{log}");
    }
}

fn untouched(machine: &Machine) {
    assert!(!machine.data().join("pgdata").exists(), "something was made");
}

#[test]
fn a_malformed_service_file_is_shown_with_its_line_and_nothing_starts() {
    let mut machine = Machine::new(&[]);
    let services = with_services(&mut machine);
    fs::write(services.join("web.toml"), "kind = \"daemon\"\nexec = [\"/bin/true\"\n").unwrap();
    refused(&mut machine, 78, &["web.toml:"]);
    untouched(&machine);
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let mut machine = Machine::new(&[]);
    let services = with_services(&mut machine);
    fs::write(services.join("web.toml"), "kind = \"daemon\"\nexec = [\"/bin/true\"]\nrestrat = 3\n").unwrap();
    refused(&mut machine, 78, &["web.toml:3:1", "restrat"]);
    untouched(&machine);
}

#[test]
fn a_cycle_is_named_and_nothing_starts() {
    let mut machine = Machine::new(&[]);
    let services = with_services(&mut machine);
    let text = |other: &str| format!("kind = \"daemon\"\nexec = [\"/bin/true\"]\nafter = [\"{other}\"]\n");
    fs::write(services.join("one.toml"), text("two")).unwrap();
    fs::write(services.join("two.toml"), text("one")).unwrap();
    refused(&mut machine, 78, &["one", "two", "cycle"]);
    untouched(&machine);
}

#[test]
fn a_missing_program_of_a_required_service_is_named() {
    let mut machine = Machine::new(&[]);
    machine.env.insert("SUPAFLY_PG_BIN".into(), "/nowhere/bin".into());
    machine.boot();
    let status = machine.wait_end();
    assert!(matches!(status.code(), Some(70 | 78)), "{}", machine.tail());
    assert!(machine.log().contains("/nowhere/bin"), "{}", machine.log());
    untouched(&machine);
}

#[test]
fn a_port_in_use_is_said_with_the_setting_to_change() {
    let mut machine = Machine::new(&[]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", machine.port)).unwrap();
    machine.boot();
    machine.wait("the port named in the log", |m| m.log().contains(&m.port.to_string()).then_some(()));
    machine.wait("the setting named in the log", |m| m.log().contains("SUPAFLY_PG_PORT").then_some(()));
    drop(taken);
    // The port is free now: it comes up without a hand, or it had given up with the design's code.
    machine.cut_power();
}

#[test]
fn a_full_disk_is_said_and_nothing_half_made_is_left() {
    if !root() {
        eprintln!("not root: a full disk cannot be mounted");
        return;
    }
    let mut machine = Machine::new(&[]);
    let data = machine.data();
    fs::create_dir(&data).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs"]).arg(&data).status();
    assert!(mount.unwrap().success());
    machine.boot();
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        machine.wait("the full disk in the log", |m| {
            let log = m.log().to_lowercase();
            (log.contains("disk is full") || log.contains("no space left")).then_some(())
        });
        assert!(!machine.data().join("pgdata").exists());
    }));
    machine.cut_power();
    let unmount = Command::new("umount").args(["-l"]).arg(&data).status();
    assert!(unmount.unwrap().success());
    if let Err(panic) = seen {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_read_only_volume_is_said_with_what_to_do() {
    if !root() {
        eprintln!("not root: a read-only volume cannot be mounted");
        return;
    }
    let mut machine = Machine::new(&[]);
    let data = machine.data();
    fs::create_dir(&data).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"]).arg(&data).status();
    assert!(mount.unwrap().success());
    machine.boot();
    let status = machine.wait_end();
    let unmount = Command::new("umount").arg(&data).status();
    assert!(unmount.unwrap().success());
    assert!(matches!(status.code(), Some(70 | 78)), "{}", machine.tail());
    let log = machine.log();
    let said = log.contains("Read-only")
        && log.contains(&data.display().to_string())
        && log.contains("SUPAFLY_DATA");
    assert!(said, "{log}");
}

#[test]
fn a_foreign_major_is_refused_and_untouched() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    let version = machine.data().join("pgdata/PG_VERSION");
    fs::write(&version, "9\n").unwrap();
    refused(&mut machine, 77, &["PG_VERSION", "9"]);
    assert_eq!(fs::read_to_string(&version).unwrap(), "9\n");
}

#[test]
fn a_prefix_of_another_project_is_refused_and_untouched() {
    let bucket = Bucket::start(Kind::File);
    let mut other = Machine::new(&bucket.env());
    other.env.insert("SUPAFLY_PROJECT".into(), "theirs".into());
    other.boot();
    other.wait_ready();
    assert_eq!(other.stop().code(), Some(0), "{}", other.tail());
    let before = bucket.keys("");
    let mut machine = Machine::new(&bucket.env());
    machine.env.insert("SUPAFLY_PROJECT".into(), "ours".into());
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    refused(&mut machine, 77, &["theirs", "SUPAFLY_"]);
    untouched(&machine);
    assert_eq!(bucket.keys(""), before);
}

#[test]
fn an_alter_system_that_turns_the_archive_off_is_refused_at_the_next_boot() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.sql("alter system set work_mem = '8MB'").unwrap();
    machine.sql("alter system set archive_command = '/bin/true'").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    refused(&mut machine, 78, &["archive_command", "postgresql.auto.conf", "remove these lines"]);
}

#[test]
fn a_setting_that_cannot_be_is_named_with_what_would_be_right() {
    let mut machine = Machine::new(&[("SUPAFLY_TTL", "soon".into()), ("SUPAFLY_STORE", "ftp://x".into())]);
    refused(&mut machine, 78, &["SUPAFLY_TTL", "SUPAFLY_STORE", "duration"]);
    assert!(!Path::new(&machine.data()).exists());
}

#[test]
fn existing_data_without_identity_meets_a_used_prefix_and_is_refused() {
    let bucket = Bucket::start(Kind::File);
    let mut owner = Machine::new(&bucket.env());
    owner.boot();
    owner.wait_ready();
    assert_eq!(owner.stop().code(), Some(0), "{}", owner.tail());
    let mut lone = Machine::new(&[]);
    lone.boot();
    lone.wait_ready();
    lone.sql("create table precious as select 1").unwrap();
    assert_eq!(lone.stop().code(), Some(0), "{}", lone.tail());
    lone.env.extend(bucket.env().into_iter().map(|(k, v)| (k.to_owned(), v)));
    lone.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    let before = bucket.keys("");
    refused(&mut lone, 77, &["SUPAFLY_STORE"]);
    assert_eq!(bucket.keys(""), before);
    // Without the store it serves its data as before.
    lone.env.remove("SUPAFLY_STORE");
    lone.boot();
    lone.wait_ready();
    assert_eq!(lone.sql("table precious").unwrap(), [["1"]]);
    assert_eq!(lone.stop().code(), Some(0), "{}", lone.tail());
}

#[test]
fn existing_data_claims_an_empty_prefix_and_is_protected() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    machine.sql("create table precious as select 1").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    let bucket = Bucket::start(Kind::File);
    machine.env.extend(bucket.env().into_iter().map(|(k, v)| (k.to_owned(), v)));
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    assert_eq!(machine.sql("show archive_mode").unwrap(), [["on"]]);
    machine.sql("select pg_switch_wal()").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.lose_volume();
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.sql("table precious").unwrap(), [["1"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// Who was taken over stops for good. So a machine that could not restore what is archived takes nothing: one without an engine,
/// without Postgres, or with another major than the archive's (the image of the next one, started by mistake).
#[test]
fn a_machine_that_could_not_restore_takes_nothing_over_and_says_what_it_lacks() {
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    first.wait_protected();
    first.sql("create table kept as select 7 as n").unwrap();

    let other = open_directory();
    for (name, says) in [("postgres", ""), ("pg_controldata", "echo 'pg_controldata (PostgreSQL) 9.6.24'")] {
        let path = other.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{says}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    for (variable, value, words) in [
        ("SUPAFLY_WALG", "/nowhere/wal-g", "a restore needs the backup engine"),
        ("SUPAFLY_PG_BIN", "/nowhere/bin", "/nowhere/bin/postgres"),
        ("SUPAFLY_PG_BIN", other.path().to_str().unwrap(), "installed is 9 (PG_VERSION)"),
    ] {
        let right = second.env.insert(variable.into(), value.into());
        let out = second.supafly(&["secrets"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let out = second.supafly(&["claim"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(77), "{said}");
        assert!(said.contains("nothing was taken over") && said.contains(words), "{said}");
        assert!(!second.data().join("supafly/identity.json").exists(), "{said}");
        match right {
            Some(right) => second.env.insert(variable.into(), right),
            None => second.env.remove(variable),
        };
    }
    assert_eq!(bucket.keys("owner/").len(), 1, "the first is the owner still");
    // Who has what it needs takes over, as it was told to.
    assert_eq!(first.stop().code(), Some(0), "{}", first.tail());
    second.boot();
    second.wait_ready();
    assert_eq!(second.sql("table kept").unwrap(), [["7"]]);
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

/// An owner that is still at its first boot, or has no base backup yet, holds the only copy: to take it over would restore nothing.
#[test]
fn what_could_not_be_restored_yet_is_not_taken_over() {
    let bucket = Bucket::start(Kind::File);
    let (first, mut second) = (Machine::new(&bucket.env()), Machine::new(&bucket.env()));
    for role in ["secrets", "claim"] {
        assert!(first.supafly(&[role]).status.success(), "{role}");
    }
    second.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    assert!(second.supafly(&["secrets"]).status.success());
    let refused = |words: &str| {
        let out = second.supafly(&["claim"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(77), "{said}");
        assert!(said.contains("nothing was taken over") && said.contains(words), "{said}");
        assert!(!second.data().join("supafly/identity.json").exists(), "{said}");
        assert_eq!(bucket.keys("owner/").len(), 1, "the first is the owner still");
    };
    refused("no epoch there ever opened a cluster");
    let out = first.supafly(&["datadir"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!bucket.get("e0000000001/cluster.json").is_empty());
    refused("there is no base backup yet");
}
