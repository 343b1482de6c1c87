//! A full volume holds and never ends anything: Postgres, a first boot and a restore wait until there is room, say for what,
//! and go on by themselves. On small file systems in memory, whose size is looked at before anything fills them.

use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::{Machine, root};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A volume in memory, gone with the value.
struct Volume(PathBuf);

impl Volume {
    /// `None`: nobody may mount here.
    fn mount(machine: &Machine, megabytes: u64) -> Option<Volume> {
        if !root() {
            eprintln!("not root: a small volume cannot be mounted");
            return None;
        }
        let data = machine.data();
        fs::create_dir_all(&data).unwrap();
        let volume = Volume(data);
        volume.mounted(&["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "tmpfs"], megabytes);
        Some(volume)
    }

    fn grow(&self, megabytes: u64) {
        self.mounted(&["-o", &format!("remount,size={megabytes}m")], megabytes);
    }

    fn mounted(&self, arguments: &[&str], megabytes: u64) {
        assert!(Command::new("mount").args(arguments).arg(&self.0).status().unwrap().success());
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let size = stat.blocks() * stat.fragment_size();
        assert_eq!(size, megabytes << 20, "{} is not the small volume", self.0.display());
    }

    /// Takes all that is left, of 300 MB at most.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for _ in 0..4_800 {
            match file.write_all(&[0; 64 << 10]) {
                Ok(()) => {}
                Err(e) => {
                    assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
                    return path;
                }
            }
        }
        panic!("300 MB did not fill {}", self.0.display());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The row of a service, while it waits for room: for what, and how often it was started again.
fn waits(machine: &Machine, service: &str) -> Option<(String, u64, u64)> {
    let status = machine.status()?;
    let row = status["services"].as_array()?.iter().find(|s| s["name"] == service)?.clone();
    let detail = row["detail"].as_str()?.to_owned();
    (row["state"] == "no-room").then_some((detail, row["restarts"].as_u64()?, row["for_ms"].as_u64()?))
}

/// Service files by which `name` gives up after two restarts in a second.
fn impatient(machine: &mut Machine, name: &str) {
    let services = machine.dir.path().join("services");
    fs::create_dir(&services).unwrap();
    for file in fs::read_dir(Path::new(&machine.env["SUPAFLY_SERVICES"])).unwrap() {
        let file = file.unwrap();
        let mut text = fs::read_to_string(file.path()).unwrap();
        if file.file_name() == format!("{name}.toml").as_str() {
            let policy = "restart = { when = \"always\", delay = \"100ms\", max_delay = \"200ms\", max = 2 }";
            let lines = text.lines().map(|l| if l.starts_with("restart = ") { policy } else { l });
            text = lines.collect::<Vec<_>>().join("\n");
            assert!(text.contains(policy));
        }
        fs::write(services.join(file.file_name()), text).unwrap();
    }
    machine.env.insert("SUPAFLY_SERVICES".into(), services.display().to_string());
}

#[test]
fn postgres_without_room_for_its_wal_waits_and_comes_back_with_every_row() {
    let mut machine = Machine::new(&[]);
    let Some(volume) = Volume::mount(&machine, 220) else { return };
    impatient(&mut machine, "postgres");
    machine.boot();
    machine.wait_ready();
    machine.sql("create table kept (n int)").unwrap();
    machine.sql("insert into kept select generate_series(1, 500)").unwrap();
    let filler = volume.fill();
    let (detail, restarts, _) = machine.wait("Postgres to wait for room", |m| {
        // The next segment has none: it ends itself by a PANIC.
        let _ = m.sql("select pg_switch_wal()");
        let _ = m.sql("insert into kept values (501)");
        waits(m, "postgres")
    });
    let place = machine.data();
    assert!(detail.starts_with(&format!("no room on {}: ", place.display())), "{detail}");
    assert!(detail.contains(" MB are free, 32 MB are needed: make room or grow the volume"), "{detail}");
    // Two restarts in vain would have ended everything long ago; nothing was started, and nothing counts.
    let (_, after, _) = machine.wait("it to have waited", |m| waits(m, "postgres").filter(|w| w.2 > 5_000));
    assert_eq!(after, restarts);
    let health = machine.supafly(&["health", "--ready"]);
    let said = String::from_utf8_lossy(&health.stdout).into_owned();
    assert!(!health.status.success() && said.contains("postgres: no room on "), "{said}");
    assert!(machine.supafly(&["health", "--live"]).status.success());
    fs::remove_file(filler).unwrap();
    machine.wait_ready();
    assert_eq!(machine.sql("select count(*) from kept where n <= 500").unwrap(), [["500"]]);
    machine.sql("insert into kept values (502)").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_first_boot_waits_for_room_says_how_much_and_needs_no_hand() {
    let mut machine = Machine::new(&[]);
    let Some(volume) = Volume::mount(&machine, 12) else { return };
    let filler = volume.fill();
    machine.boot();
    machine.wait("the very first service to wait", |m| waits(m, "secrets"));
    fs::remove_file(filler).unwrap();
    let (detail, ..) = machine.wait("the new cluster to wait", |m| waits(m, "datadir"));
    assert!(detail.contains(" MB are free, 112 MB are needed"), "{detail}");
    assert!(!machine.data().join("pgdata").exists() && !machine.data().join("pgdata.staging").exists());
    volume.grow(220);
    machine.wait_ready();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// What lies where clusters are made may be the only copy of somebody's data: want of room throws away what was made for want
/// of it, and nothing else.
#[test]
fn without_room_nothing_goes_that_this_start_has_not_made() {
    let mut machine = Machine::new(&[]);
    let Some(volume) = Volume::mount(&machine, 220) else { return };
    machine.boot();
    machine.wait_ready();
    machine.sql("create table kept as select 7 as n").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    let data = machine.data();
    let (staging, old) = (data.join("pgdata.staging"), data.join("old"));
    fs::rename(data.join("pgdata"), &staging).unwrap();
    fs::remove_dir_all(data.join("supafly")).unwrap();
    let mut roled = |role: &str, adopt: &Path| {
        machine.env.insert("SUPAFLY_ADOPT".into(), adopt.display().to_string());
        machine.supafly(&[role])
    };
    for role in ["secrets", "claim"] {
        assert!(roled(role, Path::new("never")).status.success());
    }
    let filler = volume.fill();
    let out = roled("datadir", &staging);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(staging.join("global/pg_control").exists(), "the only copy was thrown away: {said}");
    assert_eq!(out.status.code(), Some(77), "{said}");
    assert!(said.contains("move it to another name") && said.contains("nothing was touched"), "{said}");
    fs::rename(&staging, &old).unwrap();
    fs::create_dir(&staging).unwrap();
    let left = staging.join("left");
    fs::create_dir(&left).unwrap();
    let out = roled("datadir", &old);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(73), "{said}");
    assert!(left.exists(), "it was thrown away by a start that made nothing: {said}");
    fs::remove_file(filler).unwrap();
    machine.boot();
    machine.wait_ready();
    assert_eq!(machine.sql("table kept").unwrap(), [["7"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_restore_waits_for_the_room_that_it_needs_and_leaves_nothing_in_its_way() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table kept as select 7 as n").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.lose_volume();
    let Some(volume) = Volume::mount(&machine, 60) else { return };
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    machine.boot();
    let (detail, ..) = machine.wait("the restore to wait", |m| waits(m, "datadir"));
    assert!(detail.contains(" MB are needed: make room or grow the volume"), "{detail}");
    assert!(!machine.data().join("pgdata").exists() && !machine.data().join("pgdata.staging").exists());
    volume.grow(290);
    machine.wait_ready();
    assert_eq!(machine.sql("table kept").unwrap(), [["7"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// An engine that stands still before it fetches, until the file `go` is there.
fn hesitating(machine: &Machine) -> (PathBuf, PathBuf) {
    let (fetches, go) = (machine.dir.path().join("fetches"), machine.dir.path().join("go"));
    let script = machine.dir.path().join("engine");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *backup-fetch*)\n  echo >>{}\n  until [ -e {} ]; do sleep 0.05; done;;\nesac\nexec {} \"$@\"\n",
        fetches.display(),
        go.display(),
        machine.env["SUPAFLY_WALG"],
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Whoever runs it may write there.
    fs::write(&fetches, "").unwrap();
    fs::set_permissions(&fetches, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    (fetches, go)
}

/// There was room when it was looked at, and another took it: what is half fetched goes, and more than that is asked for, since
/// the same again would end in the same way.
#[test]
fn a_restore_whose_room_is_taken_while_it_fetches_asks_for_more_and_ends_well() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.sql("create table kept as select 7 as n").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.lose_volume();
    let Some(volume) = Volume::mount(&machine, 290) else { return };
    let (fetches, go) = hesitating(&machine);
    let engine = machine.dir.path().join("engine").display().to_string();
    machine.env.insert("SUPAFLY_WALG".into(), engine);
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    machine.boot();
    let fetched = || fs::read(&fetches).unwrap().len();
    machine.wait("the fetch to begin", |_| (fetched() == 1).then_some(()));
    let filler = volume.fill();
    fs::write(&go, "").unwrap();
    let (detail, ..) = machine.wait("the restore to wait", |m| waits(m, "datadir"));
    let needed =
        detail.split(" MB are needed").next().and_then(|d| d.rsplit(' ').next()).map(str::parse::<u64>);
    assert!(needed.is_some_and(|n| n.is_ok_and(|n| n > 290)), "{detail}");
    assert!(machine.log().contains("the disk is full: make room or grow the volume"), "{}", machine.tail());
    assert!(!machine.data().join("pgdata").exists() && !machine.data().join("pgdata.staging").exists());
    fs::remove_file(filler).unwrap();
    volume.grow(420);
    machine.wait_ready();
    assert_eq!(machine.sql("table kept").unwrap(), [["7"]]);
    assert_eq!(fetched(), 2, "one in vain, and one when there was room");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
