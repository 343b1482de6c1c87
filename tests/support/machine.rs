//! A machine for tests: the real binary with a volume, a run directory and a port of its own, in PID, mount and IPC
//! namespaces of its own where we are root, so that a power cut is exact: every process dies by SIGKILL at once.
//!
//! Binary, engine and service files are copied into a 0755 directory, as `make dev` does, because the users that
//! Postgres and keeper run as cannot look below a 0700 home.

use super::ports::free_port;
use super::programs::{pg_bin, programs, var};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything in these tests may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for `condition` with a deadline; `what` is said when it does not come true.
pub(crate) fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {deadline:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A directory that every user can enter, gone with its last owner.
pub(crate) fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("supafly-").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// One machine. Its volume outlives its processes and goes with the value.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) env: BTreeMap<String, String>,
    /// Arguments before every command of ours.
    pub(crate) arguments: Vec<String>,
    /// What the image was given: after `run --`.
    pub(crate) words: Vec<String>,
    running: Option<Running>,
}

struct Running {
    /// `unshare`, or the binary itself.
    outer: Child,
    namespaced: bool,
}

impl Machine {
    /// A machine that is switched off, with an empty volume.
    pub(crate) fn new(env: &[(&str, String)]) -> Machine {
        let dir = open_directory();
        let port = free_port();
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let text = |p: PathBuf| p.display().to_string();
        all.insert("SUPAFLY_SERVICES".into(), text(programs().join("services")));
        all.insert("SUPAFLY_DATA".into(), text(dir.path().join("data")));
        all.insert("SUPAFLY_RUN".into(), text(dir.path().join("run")));
        all.insert("SUPAFLY_WALG".into(), text(programs().join("engine")));
        all.insert("SUPAFLY_PG_PORT".into(), port.to_string());
        all.insert("SUPAFLY_PG_LISTEN".into(), "127.0.0.1".into());
        // The host's own directory is not theirs to fill.
        all.insert("SUPAFLY_PG_SOCKETS".into(), "off".into());
        // Not installed, unless a test asks for it (`rest::with_rest`).
        all.insert("SUPAFLY_POSTGREST".into(), text(programs().join("no-postgrest")));
        // Whichever ports are free: `values` of `web` in the status name them.
        all.insert("SUPAFLY_WEB_LISTEN".into(), "127.0.0.1:0".into());
        all.insert("SUPAFLY_WEB_PRIVATE".into(), "127.0.0.1:0".into());
        all.insert("SUPAFLY_LOG_FORMAT".into(), "json".into());
        // By default Postgres has less than four seconds to end in order, and keeper two to ship what is left. A loaded
        // host may need more, and a stop takes no longer than those who stop.
        all.insert("SUPAFLY_STOP_BUDGET".into(), "60s".into());
        // It has no way to take whichever port is free: `add_pgbouncer` gives it two.
        all.insert("SUPAFLY_POOLER".into(), "off".into());
        all.insert("PATH".into(), supafly::facts::environment()["PATH"].clone());
        if let Some(bin) = var("SUPAFLY_PG_BIN") {
            all.insert("SUPAFLY_PG_BIN".into(), bin.into_string().unwrap());
        }
        all.extend(env.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        Machine { dir, port, env: all, arguments: Vec::new(), words: Vec::new(), running: None }
    }

    /// Gives it PgBouncer, and says its ports: for transactions, for sessions.
    pub(crate) fn add_pgbouncer(&mut self) -> (u16, u16) {
        let ports = (free_port(), free_port());
        self.env.insert("SUPAFLY_POOLER".into(), "pgbouncer".into());
        self.env.insert("SUPAFLY_POOLER_PORT".into(), ports.0.to_string());
        self.env.insert("SUPAFLY_POOLER_SESSION_PORT".into(), ports.1.to_string());
        if let Some(named) = var("SUPAFLY_PGBOUNCER") {
            self.env.insert("SUPAFLY_PGBOUNCER".into(), named.into_string().unwrap());
        }
        ports
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Everything the machine has printed since it exists.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path()).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Switches it on: in namespaces of its own where we are root, as PID 1.
    pub(crate) fn boot(&mut self) {
        self.boot_as(root());
    }

    /// Switches it on as an ordinary child, as under Fly's init.
    pub(crate) fn boot_as_child(&mut self) {
        self.boot_as(false);
    }

    /// Switches it on as a user without any right, when we are root; the machine's directory becomes that user's.
    pub(crate) fn boot_unprivileged(&mut self) {
        let binary = programs().join("supafly");
        if !root() {
            return self.start(Command::new(binary), false);
        }
        let nobody = 65_534;
        std::os::unix::fs::chown(self.dir.path(), Some(nobody), Some(nobody)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary);
        self.start(command, false);
    }

    fn boot_as(&mut self, namespaced: bool) {
        let binary = programs().join("supafly");
        let command = if namespaced {
            let mut c = Command::new("unshare");
            c.args(["--pid", "--ipc", "--fork", "--mount-proc", "--kill-child=SIGKILL"]).arg(binary);
            c
        } else {
            Command::new(binary)
        };
        self.start(command, namespaced);
    }

    fn start(&mut self, mut command: Command, namespaced: bool) {
        assert!(self.running.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        command
            .args(&self.arguments)
            .args(["run", "--"])
            .args(&self.words)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).current_dir("/").process_group(0);
        self.running = Some(Running { outer: command.spawn().unwrap(), namespaced });
    }

    /// The supervisor's pid as we see it.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        let running = self.running.as_ref().expect("it is off");
        let outer = running.outer.id();
        let pid = if running.namespaced {
            until("the namespace's first process", PATIENCE, || children(outer).first().copied())
        } else {
            outer
        };
        nix::unistd::Pid::from_raw(pid.try_into().unwrap())
    }

    /// Runs one of our commands on this machine.
    pub(crate) fn supafly(&self, args: &[&str]) -> std::process::Output {
        Command::new(programs().join("supafly"))
            .args(&self.arguments)
            .args(args)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let out = self.supafly(&["status", "--json"]);
        serde_json::from_slice(&out.stdout).ok()
    }

    /// Waits until all of it is as it should be, which is more than that clients can be served.
    pub(crate) fn wait_ready(&mut self) {
        self.wait("ready", |m| (m.status()?.get("state")?.as_str()? == "ready").then_some(()));
    }

    /// Waits for a condition on a machine that must not end meanwhile.
    pub(crate) fn wait<T>(&mut self, what: &str, condition: impl Fn(&Machine) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            let ended = self.running.as_mut().and_then(|r| r.outer.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("it ended with {status} while we waited for {what}:\n{}", self.tail());
            }
            assert!(
                Instant::now() < end,
                "waited {PATIENCE:?} for {what}; {:?}\n{}",
                self.status(),
                self.tail()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The value of a status row reported by a role, such as `backup`.
    pub(crate) fn row(&self, name: &str) -> Option<serde_json::Value> {
        let status = self.status()?;
        let services = status.get("services")?.as_array()?.clone();
        services
            .iter()
            .flat_map(|s| s.get("rows").and_then(|r| r.as_array()).cloned().unwrap_or_default())
            .find(|r| {
                r.get("name")
                    .and_then(|n| n.as_str())
                    .is_some_and(|n| n == name || n.starts_with(&format!("{name} ")))
            })
    }

    /// Waits until the current epoch has a verified base backup.
    pub(crate) fn wait_protected(&mut self) {
        self.wait("a verified base backup", |m| {
            let row = m.row("backup")?;
            (row.get("state")?.as_str()? == "ok").then_some(())
        });
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until the supervisor has ended.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("it is off");
        let mut status = None;
        until("the supervisor's end", PATIENCE, || {
            status = running.outer.try_wait().unwrap();
            status.map(|_| ())
        });
        let status = status.unwrap();
        assert!(status.signal().is_none() || !running.namespaced, "ended by {status}");
        status
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait_end()
    }

    /// SIGTERM, how it ended, and how long that took to the end of the last process.
    pub(crate) fn stop_timed(&mut self) -> (ExitStatus, Duration) {
        let pid = self.pid();
        let mut running = self.running.take().expect("it is off");
        let begun = Instant::now();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = running.outer.wait().unwrap();
        (status, begun.elapsed())
    }

    /// Cuts the power: every process is killed by SIGKILL, none can clean up.
    pub(crate) fn cut_power(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if running.namespaced {
            // The namespace's init is killed with its parent, and the kernel kills the rest before `wait` can end.
            let init = children(running.outer.id()).first().copied();
            running.outer.kill().unwrap();
            running.outer.wait().unwrap();
            if let Some(init) = init {
                until("the namespace's end", PATIENCE, || {
                    (!Path::new(&format!("/proc/{init}")).exists()).then_some(())
                });
            }
        } else {
            kill_tree(running.outer.id());
            running.outer.wait().unwrap();
        }
        self.wait_volume_free();
    }

    /// Nobody holds the volume: what a new boot would find out by waiting.
    pub(crate) fn wait_volume_free(&self) {
        let lock = self.data().join("supafly/lock");
        if let Ok(file) = File::open(&lock) {
            until("the volume's lock to be free", PATIENCE, || file.try_lock().ok());
        }
    }

    /// The volume is gone for ever.
    pub(crate) fn lose_volume(&mut self) {
        assert!(self.running.is_none(), "it still runs");
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// One statement as the database's superuser over the socket; rows as text.
    pub(crate) fn sql(&self, statement: &str) -> Result<Vec<Vec<String>>, String> {
        let out = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres"])
            .args(["-F", "\t", "-c", statement])
            .env("PGHOST", self.run_dir().join("postgres"))
            .env("PGPORT", self.port.to_string())
            .env("PGCONNECT_TIMEOUT", "30")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&out.stdout);
        Ok(text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            if !running.namespaced {
                kill_tree(running.outer.id());
            }
            let _ = running.outer.kill();
            let _ = running.outer.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the machine's last lines ---\n{}", self.tail());
        }
    }
}

/// The direct children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    fs::read_to_string(path).unwrap_or_default().split_whitespace().filter_map(|s| s.parse().ok()).collect()
}

/// Stops a whole tree from the top, then kills it, so that nothing can react to anything.
pub(crate) fn kill_tree(top: u32) {
    let mut stopped = Vec::new();
    let mut todo = vec![top];
    while let Some(pid) = todo.pop() {
        if stopped.contains(&pid) {
            continue;
        }
        let p = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        let _ = nix::sys::signal::kill(p, nix::sys::signal::Signal::SIGSTOP);
        stopped.push(pid);
        todo.extend(children(pid));
    }
    for pid in stopped {
        let p = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        let _ = nix::sys::signal::kill(p, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Lines of a child's output as they come; kept for tests that read while it runs.
pub(crate) fn lines(from: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (to, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
