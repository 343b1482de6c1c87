//! A container of a test: started with what the test says, looked at from outside and by `exec`, gone with its value.

use super::engine::{Image, engine};
use crate::support::machine::{PATIENCE, until};
use crate::support::programs::{pg_bin, var};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Who is PID 1 in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    Ourselves,
    Tini,
}

/// Both, for what may differ.
pub(crate) const INITS: [Init; 2] = [Init::Ourselves, Init::Tini];

/// The database's password where a test gives one: with what breaks a badly quoted one.
pub(crate) const PASSWORD: &str = "p@ss'w\"ord of the image";

/// A container that is not started yet.
pub(crate) struct Plan {
    options: Vec<String>,
    image: Image,
    words: Vec<String>,
}

impl Plan {
    /// With no option but those which every test needs.
    pub(crate) fn new(image: &Image) -> Plan {
        let run = var("SUPAFLY_TEST_RUN").map_or_else(|| "by-hand".to_owned(), |r| r.into_string().unwrap());
        let options = vec!["--label".to_owned(), format!("supafly.test={run}")];
        Plan { options, image: image.clone(), words: Vec::new() }
    }

    pub(crate) fn option(mut self, option: &str) -> Plan {
        self.options.push(option.to_owned());
        self
    }

    pub(crate) fn options(self, options: &[&str]) -> Plan {
        options.iter().fold(self, |plan, o| plan.option(o))
    }

    pub(crate) fn env(self, name: &str, value: &str) -> Plan {
        self.option("--env").option(&format!("{name}={value}"))
    }

    pub(crate) fn under(mut self, init: Init) -> Plan {
        if init == Init::Tini {
            self.options.extend(engine().init());
        }
        self
    }

    pub(crate) fn on(self, volume: &Volume) -> Plan {
        self.option("--volume").option(&format!("{}:/data", volume.name))
    }

    /// What follows the image's name.
    pub(crate) fn words(mut self, words: &[&str]) -> Plan {
        self.words.extend(words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// Password, and ports of the host for what clients use.
    pub(crate) fn with_clients(self) -> Plan {
        let plan = self.env("POSTGRES_PASSWORD", PASSWORD).env("SUPAFLY_POSTGREST_LISTEN", "*");
        plan.env("SUPAFLY_AUTO_EXPOSE", "on").options(&[
            "--publish",
            "127.0.0.1::5432",
            "--publish",
            "127.0.0.1::6543",
            "--publish",
            "127.0.0.1::3000",
            "--publish",
            "127.0.0.1::8080",
        ])
    }

    /// Starts it in the background.
    pub(crate) fn start(self) -> Container {
        let name = format!("supafly-test-{}", uuid::Uuid::new_v4().simple());
        let mut all = vec!["run", "--detach", "--name", &name];
        let limits = engine().limits();
        all.extend(limits.iter().map(String::as_str));
        all.extend(self.options.iter().map(String::as_str));
        all.push(&self.image.0);
        all.extend(self.words.iter().map(String::as_str));
        // Made before it runs, so that what failed half-way is removed, too.
        let container = Container { name: name.clone() };
        engine().said(&all);
        container
    }

    /// Starts it and waits until all of it is as it should be.
    pub(crate) fn ready(self) -> Container {
        let container = self.start();
        container.wait_ready();
        container
    }
}

/// A container that was started.
#[derive(Debug)]
pub(crate) struct Container {
    name: String,
}

impl Container {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command in it, as the image's user.
    pub(crate) fn exec(&self, words: &[&str]) -> Output {
        let mut all = vec!["exec", self.name.as_str()];
        all.extend(words);
        engine().output(&all)
    }

    /// The same, in the background.
    pub(crate) fn spawn(&self, words: &[&str]) -> Background {
        let mut all = vec!["exec", self.name.as_str()];
        all.extend(words);
        let mut command = engine().command(&all);
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// What a command in it printed; it must go well.
    pub(crate) fn said(&self, words: &[&str]) -> String {
        let out = self.exec(words);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?} ended with {}: {err}", out.status);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// One statement as users type it: `exec X psql -U postgres`.
    pub(crate) fn sql(&self, statement: &str) -> Result<String, String> {
        let out = self.exec(&["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-c", statement]);
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// One statement from outside, with the password, through one of its ports.
    pub(crate) fn by_port(&self, port: u16, statement: &str) -> Result<String, String> {
        let out = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
            .args(["-p", &self.port(port).to_string(), "-c", statement])
            .env("PGPASSWORD", PASSWORD)
            .env("PGCONNECT_TIMEOUT", "10")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// The host's port of one that it publishes.
    pub(crate) fn port(&self, inside: u16) -> u16 {
        let said = engine().said(&["port", &self.name, &format!("{inside}/tcp")]);
        let first = said.lines().next().unwrap_or_default();
        first.rsplit(':').next().unwrap_or_default().parse().unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    pub(crate) fn status(&self) -> Option<Value> {
        serde_json::from_slice(&self.exec(&["supafly", "status", "--json"]).stdout).ok()
    }

    /// The status row of a service.
    pub(crate) fn service(&self, name: &str) -> Option<Value> {
        let status = self.status()?;
        status["services"].as_array()?.iter().find(|s| s["name"] == name).cloned()
    }

    /// The process of a service, as numbered inside.
    pub(crate) fn pid(&self, service: &str) -> Option<u64> {
        self.service(service)?["pid"].as_u64()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status().is_some_and(|s| s["state"] == "ready")
    }

    pub(crate) fn wait_ready(&self) {
        self.wait("ready", || self.is_ready().then_some(()));
    }

    /// Waits for a condition on a container that must not end meanwhile.
    pub(crate) fn wait<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                self.runs(),
                "it ended with {} while we waited for {what}",
                self.inspect("{{.State.ExitCode}}")
            );
            assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}; {:?}", self.status());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    pub(crate) fn inspect(&self, format: &str) -> String {
        engine().said(&["inspect", "--format", format, &self.name])
    }

    /// Everything that it has printed.
    pub(crate) fn log(&self) -> String {
        let out = engine().output(&["logs", &self.name]);
        [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).join("\n")
    }

    /// Reads what it prints as it comes, by one process of the engine, until a line is what is waited for: looking again and
    /// again would take from the container the time that is measured.
    pub(crate) fn follow<T>(&self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let mut command = engine().command(&["logs", "--follow", &self.name]);
        let mut logs = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(logs.stdout.take().unwrap()).lines();
        let logs = Background(logs);
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).unwrap_or_default();
        });
        let end = Instant::now() + PATIENCE;
        let found = loop {
            let line = receiver.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|e| panic!("waited {PATIENCE:?} for {what}: {e}\n{}", self.log()));
            if let Some(found) = wanted(&line) {
                break found;
            }
        };
        drop((receiver, logs));
        reader.join().unwrap();
        found
    }

    pub(crate) fn signal(&self, signal: &str) {
        engine().said(&["kill", "--signal", signal, &self.name]);
    }

    /// As users do it: SIGTERM, and SIGKILL after docker's default of 10 s. Gives the exit code and how long it took.
    pub(crate) fn stop(&self) -> (i32, Duration) {
        let begun = Instant::now();
        engine().said(&["stop", "--time", "10", &self.name]);
        (self.wait_end(), begun.elapsed())
    }

    /// Waits until it has ended, and gives its exit code.
    pub(crate) fn wait_end(&self) -> i32 {
        until("the container's end", PATIENCE, || (!self.runs()).then_some(()));
        self.inspect("{{.State.ExitCode}}").parse().unwrap()
    }

    /// Ends it by SIGKILL and removes it; volumes with a name stay.
    pub(crate) fn cut_power(self) {}

    /// Every process in it: its number, state, parent and command line.
    pub(crate) fn processes(&self) -> Vec<Process> {
        // Not `sh` for each of them: what is looked at ends meanwhile.
        let script = "for p in /proc/[0-9]*; do read -r s < $p/stat && echo \"$s\" && tr '\\0\\n' '  ' < $p/cmdline && echo; done 2>/dev/null; true";
        let said = self.said(&["sh", "-c", script]);
        let lines: Vec<&str> = said.lines().collect();
        lines.windows(2).filter_map(|pair| Process::parse(pair[0], pair[1])).collect()
    }
}

/// A process inside.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u64,
    pub(crate) state: char,
    pub(crate) parent: u64,
    pub(crate) command: String,
}

impl Process {
    fn parse(stat: &str, command: &str) -> Option<Process> {
        let (pid, rest) = stat.split_once(" (")?;
        let mut rest = rest.rsplit_once(") ")?.1.split(' ');
        Some(Process {
            pid: pid.parse().ok()?,
            state: rest.next()?.parse().ok()?,
            parent: rest.next()?.parse().ok()?,
            command: command.trim().to_owned(),
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- the container's last lines ---\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
        // At once: `rm` alone would ask it to stop first.
        let _ = engine().output(&["kill", "--signal", "KILL", &self.name]);
        let _ = engine().output(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A client that runs beside the test; ended with its value.
pub(crate) struct Background(std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A volume with a name, gone with its value. Declared before its containers, it goes after them.
pub(crate) struct Volume {
    name: String,
}

impl Volume {
    pub(crate) fn new() -> Volume {
        let name = format!("supafly-test-{}", uuid::Uuid::new_v4().simple());
        let run = var("SUPAFLY_TEST_RUN").map_or_else(|| "by-hand".to_owned(), |r| r.into_string().unwrap());
        engine().said(&["volume", "create", "--label", &format!("supafly.test={run}"), &name]);
        Volume { name }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = engine().output(&["volume", "rm", "--force", &self.name]);
    }
}

/// A file that only its user may read, as docker's secrets are, for `…_FILE`.
pub(crate) fn secret_file(dir: &Path, name: &str, value: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, format!("{value}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    path.display().to_string()
}
