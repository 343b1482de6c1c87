//! A machine with PgBouncer on both ports, and what tests do to its services.

use crate::client::Login;
use crate::support::machine::{Machine, PATIENCE, children, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::Command;
use supafly::pooler::render::Version;

pub(crate) const BOTH: [&str; 2] = ["pooler", "pooler-session"];

pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) transaction: u16,
    pub(crate) session: u16,
}

impl Rig {
    /// Switched off.
    pub(crate) fn new(env: &[(&str, String)]) -> Rig {
        let mut machine = Machine::new(&[]);
        let (transaction, session) = machine.add_pgbouncer();
        machine.env.extend(env.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        Rig { machine, transaction, session }
    }

    /// Up, and both ports let clients through.
    pub(crate) fn start(env: &[(&str, String)]) -> Rig {
        let mut rig = Rig::new(env);
        rig.machine.boot();
        rig.machine.wait_ready();
        BOTH.iter().for_each(|name| rig.wait_state(name, "ready"));
        rig
    }

    pub(crate) fn login(&self, port: u16) -> Login {
        Login::postgres(&self.machine, port)
    }

    /// Its line of the status.
    pub(crate) fn service(machine: &Machine, name: &str) -> Option<serde_json::Value> {
        machine.status()?["services"].as_array()?.iter().find(|s| s["name"] == name).cloned()
    }

    pub(crate) fn wait_state(&mut self, name: &str, state: &str) {
        self.wait_detail(name, state, "");
    }

    /// Waits until it is in this state with these words in its detail or in its last error.
    pub(crate) fn wait_detail(&mut self, name: &str, state: &str, words: &str) {
        self.machine.wait(&format!("{name} to be {state}: {words}"), |m| {
            let service = Rig::service(m, name)?;
            (service["state"] == state && service.to_string().contains(words)).then_some(())
        });
    }

    /// The run of a service: another one when it was started again.
    pub(crate) fn run(&self, name: &str) -> u64 {
        Rig::service(&self.machine, name).and_then(|s| s["run"].as_u64()).unwrap()
    }

    /// Waits until another run of it is ready.
    pub(crate) fn wait_another(&mut self, name: &str, than: u64) {
        self.machine.wait(&format!("another {name}"), |m| {
            let service = Rig::service(m, name)?;
            (service["run"].as_u64()? != than && service["state"] == "ready").then_some(())
        });
    }

    /// The process of a service, by the number that it has here.
    pub(crate) fn process(&self, name: &str) -> Pid {
        let inner = Rig::service(&self.machine, name).and_then(|s| s["pid"].as_i64()).unwrap();
        self.outer(&inner.to_string())
    }

    /// A process that the machine numbers so, by the number that it has here.
    pub(crate) fn outer(&self, inner: &str) -> Pid {
        let top = u32::try_from(self.machine.pid().as_raw()).unwrap();
        let mut open = vec![top];
        while let Some(pid) = open.pop() {
            open.extend(children(pid));
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
            if numbers.and_then(|l| l.split_whitespace().last()) == Some(inner) {
                return Pid::from_raw(i32::try_from(pid).unwrap());
            }
        }
        panic!("no process {inner}");
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        kill(self.process(name), signal).unwrap();
    }

    /// Waits until the log has a line of the supervisor with this message, after the first `from` bytes.
    pub(crate) fn wait_said(&self, from: usize, message: &str) {
        let wanted = format!("\"message\":\"{message}\"");
        until(message, PATIENCE, || self.machine.log()[from..].contains(&wanted).then_some(()));
    }

    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let out = self.machine.supafly(arguments);
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {text}\n{}", self.machine.tail());
        text
    }

    /// A wanted stop, and nothing was lost by it.
    pub(crate) fn stop(mut self) {
        assert_eq!(self.machine.stop().code(), Some(0), "{}", self.machine.tail());
    }

    /// The rendered configuration of a mode.
    pub(crate) fn rendered(&self, file: &str) -> PathBuf {
        self.machine.run_dir().join("pooler").join(file)
    }
}

/// The version under test.
pub(crate) fn version() -> Version {
    let named = crate::support::programs::var("SUPAFLY_PGBOUNCER").unwrap_or("pgbouncer".into());
    let path =
        crate::support::programs::var("PATH").unwrap().into_string().unwrap() + ":/usr/local/sbin:/usr/sbin";
    let found = which::which_in(&named, Some(path), "/").unwrap_or_else(|_| named.clone().into());
    let out = Command::new(found).arg("--version").output();
    let out = out.unwrap_or_else(|e| panic!("{}: {e}: run `make test`", named.display()));
    Version::said(&String::from_utf8_lossy(&out.stdout)).unwrap()
}
