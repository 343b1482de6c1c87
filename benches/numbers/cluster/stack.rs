//! `boot_stack`: how long after Postgres everything else is ready, over the slowest neighbour started by hand.

use super::boot::since;
use super::rig::{self, as_postgres, said};
use super::support::bucket::{Bucket, Kind};
use super::support::machine::Machine;
use super::support::ports::free_port;
use super::support::programs;
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::row::{Context, Measured, Standing};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(60);
/// What comes after Postgres.
const AFTER: &[&str] = &["setup", "pooler", "pooler-session", "postgrest"];

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and waits until `ready`; milliseconds.
fn own_start(mut command: Command, ready: impl Fn() -> bool) -> Result<f64, String> {
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    as_postgres(&mut command);
    let begun = Instant::now();
    let mut child = Killed(command.spawn().map_err(said(command.get_program().display()))?);
    while !ready() {
        if let Some(status) = child.0.try_wait().map_err(said("a neighbour"))? {
            return Err(format!("{} ended with {status}", command.get_program().display()));
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{} was not ready", command.get_program().display()));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// By hand, with the very configuration that the machine has rendered, on other ports.
fn postgrest(machine: &Machine, program: &Path) -> Result<f64, String> {
    let (port, admin) = (free_port(), free_port());
    let rendered = machine.run_dir().join("postgrest/postgrest.conf");
    let text = std::fs::read_to_string(&rendered).map_err(said(rendered.display()))?;
    let text: String = text
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("server-port", _)) => format!("server-port = {port}\n"),
            Some(("admin-server-port", _)) => format!("admin-server-port = {admin}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let conf = machine.dir.path().join("bare-postgrest.conf");
    std::fs::write(&conf, text).map_err(said(conf.display()))?;
    rig::give_to_postgres(&conf)?;
    let mut command = Command::new(program);
    command.arg(&conf).env_clear().env("PATH", "/usr/bin:/bin");
    let ready = || {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", admin))?;
            write!(stream, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.0 200"))
    };
    own_start(command, ready)
}

fn pgbouncer(machine: &Machine) -> Result<f64, String> {
    let port = free_port();
    let sockets = machine.run_dir().join("postgres");
    let ini = machine.dir.path().join("bare-pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
         unix_socket_dir =\n",
        sockets.display(),
        machine.port
    );
    std::fs::write(&ini, text).map_err(said(ini.display()))?;
    let program = which::which_in("pgbouncer", Some("/usr/sbin:/usr/bin:/usr/local/bin"), "/");
    let mut command = Command::new(program.map_err(|e| format!("pgbouncer: {e}"))?);
    command.arg(&ini).env_clear();
    own_start(command, || TcpStream::connect(("127.0.0.1", port)).is_ok())
}

pub(super) fn run(context: &Context) -> Result<Measured, String> {
    let place = rig::install(context)?;
    let there = |name: &str| place.join("services").join(format!("{name}.toml")).is_file();
    let after: Vec<&str> = AFTER.iter().copied().filter(|n| there(n)).collect();
    let rest = programs::var("SUPAFLY_POSTGREST").map(std::path::PathBuf::from);
    let rest =
        rest.or_else(|| which::which("postgrest").ok()).ok_or("no postgrest: set SUPAFLY_POSTGREST")?;
    for needed in ["postgrest", "pooler"] {
        if !after.contains(&needed) {
            return Err(format!("services/{needed}.toml is not there"));
        }
    }
    let bucket = Bucket::start(Kind::File);
    let mut env = bucket.env();
    let rest_copy = place.join("postgrest");
    std::fs::copy(&rest, &rest_copy).map_err(said(rest.display()))?;
    env.push(("SUPAFLY_POSTGREST", rest_copy.display().to_string()));
    env.push(("SUPAFLY_POOLER", "pgbouncer".to_owned()));
    for port in [
        "SUPAFLY_POSTGREST_PORT",
        "SUPAFLY_POSTGREST_ADMIN_PORT",
        "SUPAFLY_POOLER_PORT",
        "SUPAFLY_POOLER_SESSION_PORT",
    ] {
        env.push((port, free_port().to_string()));
    }
    let mut machine = Machine::new(&env);
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    machine.stop();
    let cell = RefCell::new(machine);
    let ours = || {
        let mut machine = cell.borrow_mut();
        let before = machine.log().len();
        let from = SystemTime::now();
        machine.boot();
        for name in &after {
            rig::wait_service(&mut machine, name, &["ready", "done", "absent"]);
        }
        let log = machine.log();
        let log = log.get(before..).unwrap_or_default();
        let at = |line: &str| since(log, line, from);
        let last =
            after.iter().filter_map(|n| at(&format!("{n} is ready")).or_else(|| at(&format!("{n} is done"))));
        let last = last.fold(f64::NAN, f64::max);
        let postgres = at("postgres is ready").ok_or("the log does not say when Postgres was ready")?;
        Ok(last - postgres)
    };
    let slowest = || {
        let machine = cell.borrow();
        // It runs from the turn before; whoever is first has none.
        Ok(postgrest(&machine, &rest_copy)?.max(pgbouncer(&machine)?))
    };
    let peers = vec![Contestant::new("the slowest neighbour, by hand", Standing::Rival, slowest)];
    let both = || {
        // Down from the turn before.
        let running = cell.borrow().status().is_some();
        if running {
            cell.borrow_mut().stop();
        }
        ours()
    };
    let (ours, peers) = contest(context, (5, WarmUp::Yes), both, peers)?;
    cell.into_inner().stop();
    let notes = vec![format!(
        "after Postgres: {}; by hand the longer of PostgREST, with the configuration that is rendered for it, and PgBouncer",
        after.join(", ")
    )];
    Ok(Measured { ours, peers, conditions: Vec::new(), notes })
}
