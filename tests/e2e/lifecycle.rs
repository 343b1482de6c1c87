//! Boot, stop and refusal of whole machines: what an operator meets before any volume is lost.

use crate::support::bucket::{Bucket, Kind};
use crate::support::ledger::{self, Writer};
use crate::support::machine::{Machine, PATIENCE, root, until};
use crate::support::programs::pg_bin;
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `pg_controldata` says of the cluster's state.
fn cluster_state(machine: &Machine) -> String {
    let out = Command::new(pg_bin().join("pg_controldata"))
        .arg(machine.data().join("pgdata"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix("Database cluster state:"));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&out.stderr))).trim().to_owned()
}

/// A client with an open transaction; it ends with the value.
struct OpenTransaction(std::process::Child);

impl OpenTransaction {
    fn start(machine: &Machine) -> OpenTransaction {
        let mut child = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-U", "postgres", "-d", "postgres"])
            .env("PGHOST", machine.run_dir().join("postgres"))
            .env("PGPORT", machine.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        use std::io::Write;
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(b"begin; create table never_committed (i int); select 'open';\n").unwrap();
        until("an open transaction", PATIENCE, || {
            let open = machine
                .sql("select count(*) from pg_stat_activity where state = 'idle in transaction'")
                .unwrap();
            (open == [["1"]]).then_some(())
        });
        OpenTransaction(child)
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No process has this machine's directory in its command line or holds its volume.
fn assert_nothing_left(machine: &Machine) {
    machine.wait_volume_free();
    let needle = machine.dir.path().display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        assert!(!cmdline.contains(&needle) || pid == std::process::id(), "{pid} still runs: {cmdline}");
    }
}

#[test]
fn sigterm_with_clients_and_an_open_transaction_shuts_down_cleanly_within_the_budget() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "30s".into());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    let client = OpenTransaction::start(&machine);
    let begun = Instant::now();
    let status = machine.stop();
    let took = begun.elapsed();
    drop(client);
    assert_eq!(status.code(), Some(0), "{}", machine.tail());
    assert_eq!(cluster_state(&machine), "shut down");
    assert!(took < Duration::from_secs(30), "{took:?} is beyond the budget");
    eprintln!("stopped in {took:?}");
    assert_nothing_left(&machine);
}

#[test]
fn a_stop_with_a_dead_store_ends_with_76_within_the_budget() {
    let bucket = Bucket::start(Kind::S3);
    let mut machine = Machine::new(&bucket.env());
    // keeper tries for the whole of its share: a quarter of this.
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "20s".into());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    let client = OpenTransaction::start(&machine);
    bucket.kill_server();
    machine.sql("create table unarchived as select generate_series(1, 1000)").unwrap();
    let begun = Instant::now();
    let status = machine.stop();
    let took = begun.elapsed();
    drop(client);
    assert_eq!(status.code(), Some(76), "{}", machine.tail());
    assert_eq!(cluster_state(&machine), "shut down");
    assert!(took < Duration::from_secs(20), "{took:?} is beyond the budget");
    assert_nothing_left(&machine);
}

#[test]
fn the_roles_read_the_settings_file_that_run_was_given() {
    let mut machine = Machine::new(&[]);
    let file = machine.dir.path().join("supafly.toml");
    let mut text = String::new();
    for (key, variable) in [("data", "SUPAFLY_DATA"), ("run", "SUPAFLY_RUN"), ("pg_port", "SUPAFLY_PG_PORT")]
    {
        text.push_str(&format!("{key} = \"{}\"\n", machine.env.remove(variable).unwrap()));
    }
    text.push_str(&format!("store = \"file://{}\"\n", machine.dir.path().join("store").display()));
    std::fs::write(&file, text).unwrap();
    machine.arguments = vec!["--config".into(), file.display().to_string()];
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    assert_eq!(machine.sql("show archive_mode").unwrap(), [["on"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn an_ordinary_user_has_all_of_it_as_one_user_and_is_told_so() {
    let mut machine = Machine::new(&[]);
    let store = machine.dir.path().join("store");
    machine.env.insert("SUPAFLY_STORE".into(), format!("file://{}", store.display()));
    machine.boot_unprivileged();
    machine.wait_ready();
    machine.wait_protected();
    assert!(machine.log().contains("not root"), "{}", machine.log());
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    assert_eq!(cluster_state(&machine), "shut down");
    assert_nothing_left(&machine);
}

#[test]
fn a_machine_that_keeps_its_volume_goes_on_in_its_epoch() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot_as_child();
    machine.wait_ready();
    ledger::create_table(&machine);
    let writer = Writer::start(&machine, 10, Duration::ZERO);
    writer.wait_rows(100);
    machine.cut_power();
    let ledger = writer.finish();
    machine.boot();
    machine.wait_ready();
    ledger::assert_rows(|s| machine.sql(s), ledger.last().unwrap().last);
    assert_eq!(bucket.keys("owner/"), ["owner/0000000001.json"]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn ready_is_never_said_in_recovery() {
    // A dependent of `postgres`, started at the first moment: what it sees is what the pooler and PostgREST would see.
    let bucket = Bucket::start(Kind::File);
    let mut first = Machine::new(&bucket.env());
    first.boot();
    first.wait_ready();
    ledger::create_table(&first);
    let writer = Writer::start(&first, 50, Duration::ZERO);
    writer.wait_rows(2_000);
    first.wait_protected();
    first.cut_power();
    writer.finish();
    first.lose_volume();

    let mut second = Machine::new(&bucket.env());
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    let services = second.dir.path().join("services");
    std::fs::create_dir(&services).unwrap();
    for file in std::fs::read_dir(&second.env["SUPAFLY_SERVICES"]).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), services.join(file.file_name())).unwrap();
    }
    let socket = second.run_dir().join("postgres");
    let seen = second.dir.path().join("seen");
    let ask = format!(
        "{}/psql -XAtq -h {} -p {} -U postgres -c 'select pg_is_in_recovery()' > {} 2>&1",
        pg_bin().display(),
        socket.display(),
        second.port,
        seen.display()
    );
    let text =
        format!("kind = \"oneshot\"\nexec = [\"/bin/sh\", \"-c\", \"{ask}\"]\nrequires = [\"postgres\"]\n");
    std::fs::write(services.join("dependent.toml"), text).unwrap();
    second.env.insert("SUPAFLY_SERVICES".into(), services.display().to_string());
    second.boot();
    second.wait_ready();
    let first_look = until("the dependent's answer", PATIENCE, || {
        std::fs::read_to_string(&seen).ok().filter(|s| !s.is_empty())
    });
    assert_eq!(first_look.trim(), "f");
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

#[test]
fn of_two_machines_on_one_prefix_one_serves_and_the_other_says_why_not() {
    let bucket = Bucket::start(Kind::File);
    let mut one = Machine::new(&bucket.env());
    one.boot();
    one.wait_ready();
    one.wait_protected();
    let before = bucket.keys("");
    let mut two = Machine::new(&bucket.env());
    two.boot();
    let status = two.wait_end();
    assert_eq!(status.code(), Some(77), "{}", two.tail());
    let log = two.log();
    assert!(log.contains("SUPAFLY_TAKEOVER") && log.contains("epoch"), "{log}");
    assert!(!two.data().join("pgdata").exists());
    let owners: Vec<_> = bucket.keys("owner/");
    assert_eq!(owners, ["owner/0000000001.json"]);
    assert!(before.iter().all(|key| bucket.keys("").contains(key)));
    assert_eq!(one.sql("select 1").unwrap(), [["1"]]);
    assert_eq!(one.stop().code(), Some(0), "{}", one.tail());
}

#[test]
fn of_two_machines_on_one_volume_one_serves_and_the_other_names_the_holder() {
    let bucket = Bucket::start(Kind::File);
    let mut one = Machine::new(&bucket.env());
    one.boot();
    one.wait_ready();
    let mut two = Machine::new(&bucket.env());
    two.env.insert("SUPAFLY_DATA".into(), one.data().display().to_string());
    two.env.insert("SUPAFLY_STOP_BUDGET".into(), "2s".into());
    two.boot();
    let status = two.wait_end();
    assert_eq!(status.code(), Some(77), "{}", two.tail());
    assert!(two.log().contains("supafly/lock"), "{}", two.log());
    assert_eq!(one.sql("select 1").unwrap(), [["1"]]);
    assert_eq!(one.stop().code(), Some(0), "{}", one.tail());
}

#[test]
fn without_a_store_every_status_says_unprotected() {
    let mut machine = Machine::new(&[]);
    machine.boot();
    machine.wait_ready();
    let shown = String::from_utf8(machine.supafly(&["status"]).stdout).unwrap();
    assert!(shown.contains("UNPROTECTED"), "{shown}");
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    assert_eq!(machine.sql("show archive_mode").unwrap(), [["off"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// Also the volume of a supafly that did not note yet which cluster is its own.
#[test]
fn a_volume_that_gets_a_store_later_is_protected_from_then_on() {
    for noted in [true, false] {
        let mut machine = Machine::new(&[]);
        machine.boot();
        machine.wait_ready();
        machine.sql("create table kept as select 1 as id").unwrap();
        assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
        if !noted {
            std::fs::remove_file(machine.data().join("supafly/journal/made")).unwrap();
        }
        let bucket = Bucket::start(Kind::File);
        machine.env.extend(bucket.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
        machine.boot();
        machine.wait_ready();
        machine.wait_protected();
        assert_eq!(machine.sql("table kept").unwrap(), [["1"]]);
        assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    }
}

#[test]
fn a_superuser_of_the_database_finds_no_store_key() {
    if !root() {
        eprintln!("not root: one user runs everything and the status says so; nothing to prove here");
        return;
    }
    let bucket = Bucket::start(Kind::S3);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    let key = bucket.env().into_iter().find(|(k, _)| *k == "AWS_SECRET_ACCESS_KEY").unwrap().1;
    // As Postgres's own user, everything that can be read: environments, command lines, and every file of ours.
    let hunt = format!(
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; find {} -type f -exec cat {{}} + 2>/dev/null; env",
        machine.dir.path().display()
    );
    machine.sql("create table loot (line text)").unwrap();
    let program = format!("sh -c \"{}\" | grep -ac -- ''", hunt.replace('\\', "\\\\"));
    let lines = machine
        .sql(&format!("copy loot from program $$ {program} $$"))
        .and_then(|_| machine.sql("table loot"));
    assert!(lines.unwrap()[0][0].parse::<u64>().unwrap() > 50, "the hunt itself saw nothing");
    let found = format!("sh -c \"{}\" | grep -ac -- '{key}' || true", hunt.replace('\\', "\\\\"));
    machine.sql("truncate loot").unwrap();
    machine.sql(&format!("copy loot from program $$ {found} $$")).unwrap();
    // The statement itself carries the key once, in the shell's own command line and in Postgres's process title.
    let count: u64 = machine.sql("table loot").unwrap()[0][0].parse().unwrap();
    let control = format!(
        "sh -c \"{}\" | grep -ac -- '{}' || true",
        hunt.replace('\\', "\\\\"),
        "no-such-key-anywhere"
    );
    machine.sql("truncate loot").unwrap();
    machine.sql(&format!("copy loot from program $$ {control} $$")).unwrap();
    let own: u64 = machine.sql("table loot").unwrap()[0][0].parse().unwrap();
    assert_eq!(count, own, "the key is somewhere beyond the searching statement itself");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_second_boot_of_a_stopped_machine_goes_on_with_its_data() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.sql("create table kept as select 1 as one").unwrap();
    machine.signal(Signal::SIGINT);
    assert_eq!(machine.wait_end().code(), Some(0), "{}", machine.tail());
    machine.boot();
    let begun = Instant::now();
    machine.wait_ready();
    eprintln!("ready again after {:?}", begun.elapsed());
    assert_eq!(machine.sql("table kept").unwrap(), [["1"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
