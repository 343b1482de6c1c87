//! What these rows stand on: bare servers of Postgres, the engine alone, and machines that run a part of our services.

use crate::numbers::row::Context;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::support::machine::Machine;
use super::support::programs;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) type Env = Vec<(String, String)>;

/// An error as a row wants it.
pub(super) fn said(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> String {
    move |e| format!("{what}: {e}")
}

/// The programs under test, the binary that the context names among them.
pub(super) fn install(context: &Context) -> Result<&'static Path, String> {
    let place = programs::programs();
    let there = place.join("supafly");
    let same = |a: &Path, b: &Path| -> std::io::Result<bool> {
        Ok(fs::metadata(a)?.len() == fs::metadata(b)?.len() && fs::read(a)? == fs::read(b)?)
    };
    if !same(&context.binary, &there).map_err(said(context.binary.display()))? {
        let beside = place.join("supafly.new");
        fs::copy(&context.binary, &beside).map_err(said(beside.display()))?;
        fs::set_permissions(&beside, Permissions::from_mode(0o755)).map_err(said(beside.display()))?;
        fs::rename(&beside, &there).map_err(said(there.display()))?;
    }
    Ok(place)
}

/// Who runs Postgres and what it starts.
pub(super) fn as_postgres(command: &mut Command) -> &mut Command {
    if let (true, Ok(Some(user))) =
        (nix::unistd::geteuid().is_root(), nix::unistd::User::from_name("postgres"))
    {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Gives a tree to Postgres's user.
pub(super) fn give_to_postgres(path: &Path) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(path))
}

/// Runs a command to its end; what it said is the error when it fails.
pub(super) fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(|_| ())
}

/// The same, and what it printed.
pub(super) fn output(command: &mut Command) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(said(command.get_program().display()))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    Err(format!(
        "{} {:?}: {}: {}",
        command.get_program().display(),
        command.get_args().take(3).collect::<Vec<_>>(),
        out.status,
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    ))
}

/// Copies a tree as it is.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

/// A service directory with only these services of ours.
pub(super) fn services(context: &Context, only: &[&str]) -> Result<PathBuf, String> {
    let dir = context.disk.join(format!("services-{}", only.join("-")));
    if dir.is_dir() {
        return Ok(dir);
    }
    fs::create_dir(&dir).map_err(said(dir.display()))?;
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).map_err(said(dir.display()))?;
    for name in only {
        let file = programs::programs().join("services").join(format!("{name}.toml"));
        let to = dir.join(format!("{name}.toml"));
        fs::copy(&file, &to).map_err(said(file.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o644)).map_err(said(to.display()))?;
    }
    Ok(dir)
}

/// A service of a machine's status.
pub(super) fn service(machine: &Machine, name: &str) -> Option<serde_json::Value> {
    let status = machine.status()?;
    status.get("services")?.as_array()?.iter().find(|s| s.get("name").is_some_and(|n| n == name)).cloned()
}

/// Waits until a service of a machine is in one of these states.
pub(super) fn wait_service(machine: &mut Machine, name: &str, states: &[&str]) {
    machine.wait(&format!("{name} to be {states:?}"), |m| {
        let state = service(m, name)?.get("state")?.as_str()?.to_owned();
        states.contains(&state.as_str()).then_some(())
    });
}

/// Plays Postgres's archiver: one file after the other through the shell, as `pgarch.c` does, `.ready` renamed to `.done`
/// after each. Seconds from the first command to the last answer.
pub(super) fn archiver(
    pgdata: &Path,
    segments: &[String],
    env: &Env,
    command: impl Fn(&str) -> String,
) -> Result<f64, String> {
    let status = pgdata.join("pg_wal/archive_status");
    for name in segments {
        let (ready, done) = (status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
        let _ = fs::remove_file(&done);
        if !ready.exists() {
            fs::write(&ready, "").map_err(said(ready.display()))?;
        }
    }
    give_to_postgres(&status)?;
    let begun = Instant::now();
    for name in segments {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command(name)]).current_dir(pgdata).env_clear().envs(env.iter().cloned());
        run(as_postgres(&mut shell))?;
        // The engine may have done this by itself.
        let _ = fs::rename(status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// A bare server of Postgres, stopped hard when dropped.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) sockets: PathBuf,
    lines: Receiver<(Instant, String)>,
    /// The last that it said before it was ready.
    pub(super) last: Vec<String>,
    begun: Instant,
}

impl Server {
    /// Starts `postgres` on a data directory; it listens on a socket in `sockets` only.
    pub(super) fn start(
        pgdata: &Path,
        sockets: &Path,
        settings: &[String],
        env: &Env,
    ) -> Result<Server, String> {
        let mut command = Command::new(programs::pg_bin().join("postgres"));
        command.arg("-D").arg(pgdata).args(["-c", "listen_addresses="]);
        command.arg("-c").arg(format!("unix_socket_directories={}", sockets.display()));
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(env.iter().cloned());
        command.current_dir(pgdata).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        as_postgres(&mut command);
        let begun = Instant::now();
        let mut child = command.spawn().map_err(said("postgres"))?;
        let (to, lines) = channel();
        let pipe = child.stderr.take().ok_or("no stderr")?;
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if to.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Server { child, sockets: sockets.to_path_buf(), lines, last: Vec::new(), begun })
    }

    /// Waits until it says that it takes connections; seconds since it was started.
    pub(super) fn ready(&mut self) -> Result<f64, String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok((at, line)) if line.contains("database system is ready to accept connections") => {
                    return Ok(at.duration_since(self.begun).as_secs_f64());
                }
                Ok((_, line)) => {
                    self.last.push(line);
                    let surplus = self.last.len().saturating_sub(12);
                    self.last.drain(..surplus);
                }
                Err(e) => {
                    let what = match e {
                        RecvTimeoutError::Timeout => "is not ready",
                        RecvTimeoutError::Disconnected => "ended",
                    };
                    return Err(format!("postgres {what}: {}", self.last.join(" | ")));
                }
            }
        }
    }

    pub(super) fn sql(&self, statement: &str) -> Result<String, String> {
        sql(&self.sockets, 5432, statement)
    }

    /// SIGINT, its fast stop, and the wait for the end.
    pub(super) fn stop(mut self) -> Result<(), String> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().map_err(|_| "no pid")?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).map_err(|e| e.to_string())?;
        let status = self.child.wait().map_err(said("postgres"))?;
        if status.success() { Ok(()) } else { Err(format!("postgres ended with {status}")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
            let _ = self.child.wait();
        }
    }
}

/// Statements as the superuser; rows of bare text.
pub(super) fn sql(sockets: &Path, port: u16, statement: &str) -> Result<String, String> {
    let mut psql = Command::new(programs::pg_bin().join("psql"));
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-c", statement]);
    output(psql.env("PGHOST", sockets).env("PGPORT", port.to_string()))
}

/// Makes an empty cluster as ours are made.
pub(super) fn initdb(pgdata: &Path) -> Result<(), String> {
    let mut command = Command::new(programs::pg_bin().join("initdb"));
    command.args(["-k", "-E", "UTF8", "--locale=C", "-U", "postgres", "-A", "trust", "-g", "-D"]).arg(pgdata);
    command.current_dir("/");
    run(as_postgres(&mut command))
}

/// Says on the volume that its cluster was made here, as `datadir` does: it is our own, only made by another hand.
pub(super) fn made_here(data: &Path) -> Result<(), String> {
    let mut ask = Command::new(programs::pg_bin().join("pg_controldata"));
    let told = output(ask.env("LC_ALL", "C").arg(data.join("pgdata")))?;
    let id = told.lines().find_map(|l| l.strip_prefix("Database system identifier:"));
    let id = id.ok_or("pg_controldata tells no system identifier")?.trim();
    let journal = data.join("supafly/journal");
    fs::create_dir_all(&journal).map_err(said(journal.display()))?;
    fs::write(journal.join("made"), format!("{id}\n")).map_err(said(journal.display()))
}

/// What the engine needs to know, besides its place.
pub(super) fn engine(mut env: Env, pgdata: &Path, more: &[(&str, String)]) -> Env {
    env.push(("PGDATA".into(), pgdata.display().to_string()));
    env.push(("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()));
    env.push(("HOME".into(), "/tmp".into()));
    env.extend(more.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
    // The last word holds.
    let last: BTreeMap<String, String> = env.into_iter().collect();
    last.into_iter().collect()
}

/// The engine's name and version.
pub(super) fn engine_name() -> String {
    let said = output(Command::new(programs::engine_path()).arg("--version").env("NO_COLOR", "1"));
    let line = said.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    let words: Vec<&str> = line.split_whitespace().filter(|w| *w != "version").take(2).collect();
    if words.is_empty() { "the engine".to_owned() } else { words.join(" ") }
}
