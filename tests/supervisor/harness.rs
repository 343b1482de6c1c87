//! A directory of its own, the real binary, and waiting for conditions with a deadline. What a test starts dies with it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The stand-in service, built beside the binary.
pub(crate) fn fakesvc() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_supafly"));
    binary.parent().unwrap().join("examples/fakesvc").display().to_string()
}

/// Waits until `what` gives something; a test that waits longer fails and says for what.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A supervisor's world.
pub(crate) struct World {
    dir: tempfile::TempDir,
    child: Option<Child>,
    budget: &'static str,
}

impl World {
    pub(crate) fn new() -> World {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(dir.path().join("services")).unwrap();
        World { dir, child: None, budget: "9s" }
    }

    pub(crate) fn budget(mut self, budget: &'static str) -> World {
        self.budget = budget;
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of the test that a service marks.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a service file: a fakesvc with this script, and further keys.
    pub(crate) fn service(&self, name: &str, script: &[&str], keys: &str) -> &World {
        let words: Vec<String> =
            std::iter::once(fakesvc()).chain(script.iter().map(|w| (*w).to_owned())).collect();
        let kind = if keys.contains("kind =") { "" } else { "kind = \"daemon\"\n" };
        self.raw(name, &format!("{kind}exec = {words:?}\n{keys}\n"))
    }

    pub(crate) fn raw(&self, name: &str, text: &str) -> &World {
        std::fs::write(self.path("services").join(format!("{name}.toml")), text).unwrap();
        self
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supafly"));
        self.settings(&mut command);
        command.args(arguments);
        command
    }

    pub(crate) fn settings(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("SUPAFLY_SERVICES", self.path("services"))
            .env("SUPAFLY_RUN", self.path("run"))
            .env("SUPAFLY_STOP_BUDGET", self.budget)
            .env("SUPAFLY_LOG_FORMAT", "json")
            .stdin(Stdio::null());
    }

    pub(crate) fn start(&mut self) -> &mut World {
        let command = self.command(&["run"]);
        self.start_as(command)
    }

    pub(crate) fn start_as(&mut self, mut command: Command) -> &mut World {
        let open =
            |name| std::fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        command.stdout(open("out")).stderr(open("err"));
        self.child = Some(command.spawn().unwrap());
        self
    }

    pub(crate) fn adopt(&mut self, child: Child) -> &mut World {
        self.child = Some(child);
        self
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn term(&self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    /// Waits for the end of the supervisor.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = until("the supervisor's end", || child.try_wait().unwrap());
        assert_eq!(status.signal(), None, "{}", self.log());
        status
    }

    /// It was killed by the test itself.
    pub(crate) fn forget(&mut self) {
        let _ = self.child.take().unwrap().wait();
    }

    /// TERM, and the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.term();
        self.ended().code().unwrap()
    }

    /// The exit code of a command that ends by itself, and what it said.
    pub(crate) fn says(&self, arguments: &[&str]) -> (i32, String) {
        let out = self.command(arguments).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.read("out") + &self.read("err")
    }

    /// What services printed, as the objects that went out.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        self.read("out").lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    pub(crate) fn until_marked(&self, name: &str, text: &str) {
        until(&format!("`{text}` in {name}"), || self.read(name).contains(text).then_some(()));
    }

    /// A pid that a service wrote.
    pub(crate) fn pid_in(&self, name: &str) -> i32 {
        until(&format!("a pid in {name}"), || self.read(name).lines().last()?.parse().ok())
    }

    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        let (code, text) = self.says(&["status", "--json"]);
        (code == 0).then(|| serde_json::from_str(&text).unwrap())
    }

    pub(crate) fn state_of(&self, service: &str) -> Option<serde_json::Value> {
        let status = self.status()?;
        status["services"].as_array()?.iter().find(|s| s["name"] == service).cloned()
    }

    pub(crate) fn until_state(&self, service: &str, state: &str) -> serde_json::Value {
        until(&format!("{service} to be {state}"), || {
            let seen = self.state_of(service)?;
            (seen["state"] == state).then_some(seen)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if std::thread::panicking() {
                eprintln!("{}", self.log());
            }
            // Gently first: so it ends what it started. Then by force, it and what carries its marker.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
                let _ = nix::sys::signal::kill(pid, signal);
                let end = Instant::now() + Duration::from_secs(15);
                while Instant::now() < end {
                    if let Ok(Some(_)) = child.try_wait() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}
