//! `boot_*` and `stop_postgres_client`: what the way from our exec to a Postgres that serves costs, and the way back, over
//! `postgres` and `pg_ctl` alone.

use super::rig::{self, as_postgres, said};
use super::support::bucket::{Bucket, Kind};
use super::support::machine::Machine;
use super::support::programs;
use super::wal_out::{DELAY, late};
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::goal::{Goal, Unit};
use crate::numbers::row::{Condition, Context, Measured, Standing};
use crate::numbers::stats::Samples;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const SERVICES: &[&str] = &["secrets", "claim", "keeper", "datadir", "postgres"];
const PATIENCE: Duration = Duration::from_secs(60);

fn machine(context: &Context, env: &[(&str, String)]) -> Result<Machine, String> {
    let services = rig::services(context, SERVICES)?;
    let mut all = env.to_vec();
    all.push(("SUPAFLY_SERVICES", services.display().to_string()));
    let mut machine = Machine::new(&all);
    machine.boot();
    rig::wait_service(&mut machine, "postgres", &["ready"]);
    Ok(machine)
}

/// When a line of PID 1 that has this in it was written, since a moment; in milliseconds.
pub(super) fn since(log: &str, line: &str, from: SystemTime) -> Option<f64> {
    let said = log.lines().rfind(|l| l.contains(line))?;
    let time = serde_json::from_str::<serde_json::Value>(said).ok()?.get("time")?.as_str()?.to_owned();
    let at = time.parse::<jiff::Timestamp>().ok()?.as_microsecond() as f64 / 1e3;
    let from = from.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64() * 1e3;
    Some(at - from)
}

/// Exec of `supafly run` to READY=1 of its Postgres, in milliseconds; then everything down again.
fn boot(machine: &mut Machine) -> Result<f64, String> {
    let before = machine.log().len();
    let from = SystemTime::now();
    machine.boot();
    rig::wait_service(machine, "postgres", &["ready"]);
    let log = machine.log();
    machine.stop();
    since(&log[before..], "postgres is ready", from)
        .ok_or_else(|| "the log does not say when it was ready".to_owned())
}

/// `postgres` on the machine's own data directory and configuration, told apart only by who started it.
fn bare(machine: &Machine) -> Result<(Child, f64), String> {
    let room = machine.dir.path().join("notify");
    let _ = fs::remove_file(&room);
    let socket = UnixDatagram::bind(&room).map_err(said(room.display()))?;
    fs::set_permissions(&room, fs::Permissions::from_mode(0o666)).map_err(said(room.display()))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(said("notify"))?;
    let mut command = Command::new(programs::pg_bin().join("postgres"));
    command.arg("-D").arg(machine.data().join("pgdata"));
    command
        .arg("-c")
        .arg(format!("config_file={}", machine.run_dir().join("postgres/postgresql.conf").display()));
    // What it would archive nobody takes here.
    command.args(["-c", "archive_command=true"]);
    command.env_clear().env("NOTIFY_SOCKET", &room).env("PATH", "/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    as_postgres(&mut command);
    let begun = Instant::now();
    let child = command.spawn().map_err(said("postgres"))?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).map_err(said("READY=1"))?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        if text.lines().any(|l| l == "READY=1") {
            return Ok((child, begun.elapsed().as_secs_f64() * 1e3));
        }
    }
}

/// `pg_ctl stop -m fast`, in milliseconds.
fn pg_ctl_stop(machine: &Machine, mut child: Child) -> Result<f64, String> {
    let mut command = Command::new(programs::pg_bin().join("pg_ctl"));
    command.args(["stop", "-m", "fast", "-w", "-D"]).arg(machine.data().join("pgdata"));
    as_postgres(&mut command);
    // Who started it reaps it at once, as its supervisor would.
    let reaper = std::thread::spawn(move || child.wait());
    let begun = Instant::now();
    rig::run(&mut command)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let _ = reaper.join();
    Ok(took)
}

/// What one request through the proxy takes, with a connection of its own, as every request of ours has through it.
fn round_trip(bucket: &Bucket) -> Result<f64, String> {
    use std::io::{Read, Write};
    let address = bucket.proxy().endpoint().replace("http://", "");
    let ask = || -> std::io::Result<f64> {
        let begun = Instant::now();
        let mut stream = std::net::TcpStream::connect(&address)?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    };
    let times: std::io::Result<Vec<f64>> = (0..7).map(|_| ask()).collect();
    Ok(Samples::new(times.map_err(said(&address))?)?.median())
}

pub(super) fn postgres(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    let near = Bucket::start(Kind::File);
    let far = Bucket::behind_proxy();
    let (mut near_machine, mut far_machine) = (machine(context, &near.env())?, machine(context, &far.env())?);
    near_machine.wait_protected();
    far_machine.wait_protected();
    near_machine.stop();
    far_machine.stop();
    far.proxy().rules([late(DELAY)]);
    let trip = round_trip(&far)?;
    let near_cell = std::cell::RefCell::new(near_machine);
    let from_afar = std::cell::RefCell::new(Vec::new());
    let ours = || boot(&mut near_cell.borrow_mut());
    let afar = || {
        let took = boot(&mut far_machine)?;
        from_afar.borrow_mut().push(took);
        Ok(took)
    };
    let alone = || {
        let machine = near_cell.borrow();
        let (child, took) = bare(&machine)?;
        pg_ctl_stop(&machine, child)?;
        Ok(took)
    };
    let peers = vec![
        Contestant::new("postgres", Standing::Rival, alone),
        Contestant::new("supafly, s3 at 50 ms a request", Standing::Reference("judged apart"), afar),
    ];
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers)?;
    let bare = peers.first().and_then(|p| p.samples.as_ref().ok()).map_or(f64::NAN, Samples::median);
    let afar = peers.get(1).map(|p| p.samples.clone()).ok_or("no far machine")??.median();
    Ok(Measured {
        ours,
        peers,
        conditions: vec![Condition {
            what: "s3: over bare Postgres".to_owned(),
            value: afar - bare,
            unit: Unit::Milliseconds,
            goal: Goal::AtMost(3.0f64.mul_add(trip, 60.0)),
        }],
        notes: vec![format!(
            "from s3 at {trip:.0} ms a round trip: {afar:.0} ms; allowed are 60 ms and three round trips"
        )],
    })
}

/// A client with a transaction open; ends by itself when the server does.
fn client(sockets: &Path, port: u16) -> Result<Child, String> {
    let mut psql = Command::new(programs::pg_bin().join("psql"));
    psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-c"]);
    psql.arg("begin; create temp table t (i int); select pg_advisory_lock(7); select pg_sleep(600)");
    psql.env("PGHOST", sockets).env("PGPORT", port.to_string());
    let child = psql
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(said("psql"))?;
    let end = Instant::now() + PATIENCE;
    let held = "select count(*) from pg_locks where locktype = 'advisory' and granted";
    while rig::sql(sockets, port, held)? != "1" {
        if Instant::now() > end {
            return Err("the client did not begin its transaction".to_owned());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(child)
}

pub(super) fn stop(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    // No store: `pg_ctl` waits for no archive either.
    let mut machine = machine(context, &[])?;
    machine.stop();
    let cell = std::cell::RefCell::new(machine);
    let ours = || {
        let mut machine = cell.borrow_mut();
        machine.boot();
        rig::wait_service(&mut machine, "postgres", &["ready"]);
        let mut child = client(&machine.run_dir().join("postgres"), machine.port)?;
        let (status, took) = machine.stop_timed();
        let _ = child.wait();
        if status.success() { Ok(took.as_secs_f64() * 1e3) } else { Err(format!("it ended with {status}")) }
    };
    let alone = || {
        let machine = cell.borrow();
        let (server, _) = bare(&machine)?;
        let mut child = client(&machine.run_dir().join("postgres"), machine.port)?;
        let took = pg_ctl_stop(&machine, server)?;
        let _ = child.wait();
        Ok(took)
    };
    let peers = vec![Contestant::new("pg_ctl stop -m fast", Standing::Rival, alone)];
    let (ours, peers) = contest(context, (7, WarmUp::Yes), ours, peers)?;
    let notes =
        vec!["the whole of supafly is gone, not Postgres alone; pg_ctl looks ten times a second".to_owned()];
    Ok(Measured { ours, peers, conditions: Vec::new(), notes })
}
