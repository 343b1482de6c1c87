//! A directory of its own, the real binary, and waiting for conditions with a deadline. A scenario is written once and
//! runs twice: as an ordinary child and as PID 1 of a namespace of its own. What a test starts dies with it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Named here, because what a world ends by belongs to whoever has one.
#[path = "ending.rs"]
mod ending;

#[allow(unused_imports, reason = "for those who look at processes of the test's own namespace")]
pub(crate) use crate::procs::alive;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A scenario: two tests, `name::as_a_child` and `name::as_pid_1`.
macro_rules! scenario {
    ($name:ident, |$w:ident| $body:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every scenario needs everything of its file")]
            use super::*;
            fn scenario($w: &mut crate::harness::World) {
                $body
            }
            #[test]
            fn as_a_child() {
                scenario(&mut crate::harness::World::new());
            }
            #[test]
            fn as_pid_1() {
                if let Some(mut w) = crate::harness::World::pid_1() {
                    scenario(&mut w);
                }
            }
        }
    };
}

pub(crate) use scenario;

/// The stand-in service, built beside the binary.
pub(crate) fn fakesvc() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_supafly"));
    binary.parent().unwrap().join("examples/fakesvc").display().to_string()
}

/// Waits until `what` gives something; a test that waits longer fails and says for what.
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// The same with a deadline of its own.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test has nothing to do, past the harness that keeps what a good test prints.
pub(crate) fn skip(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A user id that nobody else has, for limits that count by user.
pub(crate) fn own_uid() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = 700_000_000 + (std::process::id() % 100_000) * 1_000;
    (base + NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// Where the supervisor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Child,
    Pid1,
}

/// A supervisor's world.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) child: Option<Child>,
    budget: String,
    place: Place,
    outside: Vec<String>,
    inside: Vec<String>,
    env: Vec<(OsString, OsString)>,
    binary: PathBuf,
    fake: String,
    /// The supervisor's pid as we see it, and its namespace when that is not ours.
    pub(crate) found: RefCell<Option<(i32, Option<String>)>>,
}

impl World {
    /// For a supervisor that is an ordinary child.
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(dir.path().join("services")).unwrap();
        World {
            dir,
            child: None,
            budget: "9s".to_owned(),
            place: Place::Child,
            outside: Vec::new(),
            inside: Vec::new(),
            env: Vec::new(),
            binary: env!("CARGO_BIN_EXE_supafly").into(),
            fake: fakesvc(),
            found: RefCell::new(None),
        }
    }

    /// For one that is PID 1 of a namespace of its own, where we may make one.
    pub(crate) fn pid_1() -> Option<World> {
        if !is_root() {
            skip("not root: no pid namespace can be made");
            return None;
        }
        let mut w = World::new();
        w.place = Place::Pid1;
        Some(w)
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn budget(mut self, budget: &str) -> World {
        self.set_budget(budget);
        self
    }

    pub(crate) fn set_budget(&mut self, budget: &str) {
        budget.clone_into(&mut self.budget);
    }

    /// Words before the supervisor, inside its pid namespace (`setpriv …`).
    pub(crate) fn inside(&mut self, words: &[&str]) -> &mut World {
        self.inside.extend(words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// Words before everything, outside its pid namespace.
    pub(crate) fn outside(&mut self, words: &[&str]) -> &mut World {
        self.outside.extend(words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// A variable of the supervisor's own environment.
    pub(crate) fn env(&mut self, name: &str, value: impl Into<OsString>) -> &mut World {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Puts both programs beside the test's files: the build may lie below a home that other users cannot enter.
    pub(crate) fn reachable(&mut self) -> &mut World {
        let place = |from: &Path, name: &str| {
            let to = self.path(name);
            if std::fs::hard_link(from, &to).is_err() {
                std::fs::copy(from, &to).unwrap();
            }
            to
        };
        let (binary, fake) = (place(&self.binary, "supafly"), place(Path::new(&self.fake), "fakesvc"));
        self.binary = binary;
        self.fake = fake.display().to_string();
        self
    }

    /// The supervisor runs as a user of its own without any privilege. `false`: we may not arrange that.
    pub(crate) fn unprivileged(&mut self) -> bool {
        if !is_root() {
            // Nobody here has any.
            return true;
        }
        self.reachable();
        let uid = own_uid();
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        self.inside(&["setpriv", &user, &group, "--clear-groups", "--inh-caps=-all", "--"]);
        true
    }

    pub(crate) fn fake(&self) -> &str {
        &self.fake
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
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
            std::iter::once(self.fake.clone()).chain(script.iter().map(|w| (*w).to_owned())).collect();
        self.exec(name, &words, keys)
    }

    /// The same with a script of the shell.
    pub(crate) fn shell(&self, name: &str, script: &str, keys: &str) -> &World {
        self.exec(name, &["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()], keys)
    }

    pub(crate) fn exec(&self, name: &str, words: &[String], keys: &str) -> &World {
        let kind = if keys.contains("kind =") { "" } else { "kind = \"daemon\"\n" };
        self.raw(name, &format!("{kind}exec = {words:?}\n{keys}\n"))
    }

    pub(crate) fn raw(&self, name: &str, text: &str) -> &World {
        std::fs::write(self.path("services").join(format!("{name}.toml")), text).unwrap();
        self
    }

    /// A command of the binary that is no supervisor.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
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
            .env("SUPAFLY_STOP_BUDGET", &self.budget)
            .env("SUPAFLY_LOG_FORMAT", "json")
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null());
    }

    /// The supervisor with everything around it. It dies with the thread of its test.
    pub(crate) fn runner(&self) -> Command {
        let binary = self.binary.display().to_string();
        self.wrapped(&[&binary, "run"])
    }

    /// Any program in the supervisor's place.
    pub(crate) fn wrapped(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        self.settings(&mut command);
        let dies = match self.place {
            Place::Child => "TERM",
            Place::Pid1 => "KILL",
        };
        command.args(["--pdeathsig", dies, "--"]).args(&self.outside);
        if self.place == Place::Pid1 {
            command.args(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        }
        command.args(&self.inside).args(words);
        command
    }

    pub(crate) fn start(&mut self) -> &mut World {
        let command = self.runner();
        self.start_as(command)
    }

    pub(crate) fn start_as(&mut self, mut command: Command) -> &mut World {
        let open =
            |name| std::fs::OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        command.stdout(open("out")).stderr(open("err"));
        let child = command.spawn().unwrap();
        self.adopt(child)
    }

    pub(crate) fn adopt(&mut self, child: Child) -> &mut World {
        self.child = Some(child);
        self.found.replace(None);
        self
    }

    /// The exit code of a command that ends by itself, and what it said.
    pub(crate) fn says(&self, arguments: &[&str]) -> (i32, String) {
        let out = self.command(arguments).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
    }
}
