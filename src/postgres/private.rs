//! A private postmaster: for making roles and for replaying the archive, before the real one may start.
//!
//! No TCP, a socket directory that only its user (and root) can enter, ended when this value goes, and signalled by the
//! kernel when we die (SIGQUIT: a postmaster ends at once, one for a single user in order). It is ready when its own pid file
//! says so; no connection is tried before that.

use super::account::Account;
use super::bin::Bin;
use super::{conf, hba, tree};
use crate::config::{ServerSettings, Settings};
use crate::exit::Failure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at something that has no event, in the end.
const LOOK: Duration = Duration::from_millis(50);
/// Between the first two: most postmasters are there, and gone, in a few of these.
const FIRST_LOOK: Duration = Duration::from_millis(4);

/// How long one that was killed may take to be gone, and what it said to be read.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Lines kept for the message when it fails.
const KEPT: usize = 20;

/// How long until the next look at what has been waited for this long.
fn pause(waited: Duration) -> Duration {
    (waited / 8).clamp(FIRST_LOOK, LOOK)
}

/// What to do about its last words, where they say it.
fn advice(said: &str) -> &'static str {
    // The kernel has the same words for what lies on no file system.
    if said.contains("No space left on device") && !said.contains("shared memory") {
        "; the disk is full: make room or grow the volume"
    } else {
        ""
    }
}

/// What a postmaster for one user needs.
pub(super) struct Quiet<'a> {
    pub(super) settings: &'a Settings,
    pub(super) bin: &'a Bin,
    pub(super) account: &'a Account,
}

impl Quiet<'_> {
    /// Runs statements, each on a line, as the cluster's first superuser, whatever his name, with nobody else alive. They must
    /// be one transaction or bear being half done.
    ///
    /// # Errors
    /// 70 with what it said, or that it did not end within the deadline and was killed.
    pub(super) fn single(
        &self,
        pgdata: &Path,
        facts: &conf::Facts,
        users: &hba::Users,
        statements: &str,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let sockets = self.settings.run.join("private");
        tree::remove(&sockets)?;
        tree::make(&sockets, 0o700, self.account)?;
        let facts = alone(facts, pgdata, &sockets);
        let config = super::write_configuration(&facts, users, self.account)?;
        let mut command = self.account.command(&self.bin.program("postgres"), self.settings, "QUIT");
        command
            .arg("--single")
            .arg("-D")
            .arg(pgdata)
            .arg("-c")
            .arg(format!("config_file={}", config.display()));
        confine(&mut command, &facts);
        command.args(["-c", "log_min_messages=error", "postgres"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |e: std::io::Error| Failure::gave_up(format!("postgres --single cannot be run: {e}"));
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read it says why on stderr. It is far less than a pipe holds, so nobody waits here.
            let _ = writeln!(stdin, "{statements}");
        }
        let pipe = child.stderr.take();
        let (sender, last_words) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let read = pipe.map_or(Ok(0), |mut pipe| std::io::Read::read_to_end(&mut pipe, &mut said));
            // Nobody may wait for it any more.
            let _ = sender.send(read.map(|_| said));
        });
        let ended = ended_within(&mut child, deadline).map_err(failed)?;
        if ended.is_none() {
            let _ = child.kill();
            // One that waits for a dead disk is not ended by that either.
            let _ = ended_within(&mut child, LAST_WORDS);
        }
        // Somebody that it has started may hold the pipe longer, and what is not heard may be an error.
        let heard = last_words.recv_timeout(LAST_WORDS).map_err(|e| e.to_string());
        let heard = heard.and_then(|read| read.map_err(|e| e.to_string()));
        tree::remove(&sockets)?;
        let (said, unheard) = match heard {
            Ok(said) => (String::from_utf8_lossy(&said).into_owned(), None),
            Err(why) => (String::new(), Some(format!("what it said could not be read: {why}"))),
        };
        // It goes on after an error, and ends well.
        let wrong = ["ERROR:", "FATAL:", "PANIC:"].iter().any(|w| said.contains(w));
        let how = match (ended, unheard) {
            (Some(status), None) if status.success() && !wrong => return Ok(()),
            (Some(status), None) => status.to_string(),
            (Some(status), Some(unheard)) => format!("{status}; {unheard}"),
            (None, _) => {
                format!("it did not end within {} and was killed", crate::spec::duration::show(deadline))
            }
        };
        Err(Failure::gave_up(format!(
            "postgres --single on {} failed ({how}){}:\n{}",
            pgdata.display(),
            advice(&said),
            said.trim()
        )))
    }
}

/// How a process ended; `None` when it has not within the deadline.
fn ended_within(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            None if begun.elapsed() < deadline => std::thread::park_timeout(pause(begun.elapsed())),
            ended => return Ok(ended),
        }
    }
}

/// The real configuration's facts without what makes a server reachable, or what is meant for its clients.
fn alone(facts: &conf::Facts, pgdata: &Path, sockets: &Path) -> conf::Facts {
    conf::Facts {
        pgdata: pgdata.to_path_buf(),
        sockets: vec![sockets.to_path_buf()],
        rendered: sockets.to_path_buf(),
        listen: String::new(),
        socket_mode: 0o700,
        preload: Vec::new(),
        given: ServerSettings::default(),
        ..facts.clone()
    }
}

/// Says on the command line what makes a server private, and what could keep it from starting or us from working: the
/// cluster's `postgresql.auto.conf` beats the rendered file, and may be somebody else's.
fn confine(command: &mut Command, facts: &conf::Facts) {
    for (name, value) in [
        ("listen_addresses", facts.listen.clone()),
        ("port", facts.port.to_string()),
        ("unix_socket_directories", conf::directories(&facts.sockets)),
        ("unix_socket_group", String::new()),
        ("unix_socket_permissions", format!("{:04o}", facts.socket_mode)),
        ("ssl", "off".to_owned()),
        ("shared_preload_libraries", String::new()),
        ("session_preload_libraries", String::new()),
        ("local_preload_libraries", String::new()),
        ("default_transaction_read_only", "off".to_owned()),
        // What it says is read here.
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("lc_messages", "C".to_owned()),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
}

/// A running private postmaster.
#[derive(Debug)]
pub struct Private {
    child: Child,
    pgdata: PathBuf,
    sockets: PathBuf,
    port: u16,
    said: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    ended: bool,
}

impl Private {
    /// Starts one on `pgdata`, as the user that runs Postgres. `facts` are those of the real configuration; what makes
    /// it private is set here.
    ///
    /// # Errors
    /// 70 when files cannot be written or it cannot be started.
    pub fn start(
        settings: &Settings,
        bin: &Bin,
        account: &Account,
        pgdata: &Path,
        facts: &conf::Facts,
        users: &hba::Users,
    ) -> Result<Private, Failure> {
        let sockets = settings.run.join("private");
        tree::remove(&sockets)?;
        tree::make(&sockets, 0o700, account)?;
        let facts = alone(facts, pgdata, &sockets);
        let config = super::write_configuration(&facts, users, account)?;
        let mut command = account.command(&bin.program("postgres"), settings, "QUIT");
        command.arg("-D").arg(pgdata).arg("-c").arg(format!("config_file={}", config.display()));
        confine(&mut command, &facts);
        // Without it the pid file says `ready` only when recovery is over, and no setting can pause the replay.
        command.args(["-c", "hot_standby=off"]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::gave_up(format!("private Postgres: setpriv cannot be run: {e}")))?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let reader = child.stderr.take().map(|pipe| {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    tracing::info!("private postgres: {line}");
                    let mut kept = said.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.push_back(line);
                    if kept.len() > KEPT {
                        kept.pop_front();
                    }
                }
            })
        });
        let pgdata = pgdata.to_path_buf();
        Ok(Private { child, pgdata, sockets, port: facts.port, said, reader, ended: false })
    }

    /// Waits until connections are taken; `look` is called at every turn with the time since the start.
    ///
    /// # Errors
    /// 70 with its last lines when it ends instead, or when the deadline is over.
    pub fn wait_ready(
        &mut self,
        deadline: Duration,
        mut look: impl FnMut(&Private, Duration),
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.alive()?;
            if self.status().as_deref() == Some("ready") {
                return Ok(());
            }
            if begun.elapsed() > deadline {
                return Err(self.failure(&format!("was not ready within {} s", deadline.as_secs())));
            }
            look(self, begun.elapsed());
            std::thread::park_timeout(pause(begun.elapsed()));
        }
    }

    /// # Errors
    /// 70 with its last lines when it has ended.
    pub fn alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.ended = true;
                self.join();
                Err(self.failure(&format!("ended ({status})")))
            }
            Err(e) => Err(self.failure(&format!("cannot be waited for: {e}"))),
        }
    }

    /// The last WAL segment that it says it has got from the archive.
    #[must_use]
    pub fn restored(&self) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().rev().find_map(|line| {
            let (_, name) = line.split_once("restored log file \"")?;
            let (name, _) = name.split_once('"')?;
            (name.len() == 24).then(|| name.to_owned())
        })
    }

    /// The eighth line of `postmaster.pid`: `starting`, `ready`, `standby`, `stopping`.
    fn status(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.pgdata.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse::<u32>().ok()?;
        (pid == self.child.id()).then(|| text.lines().nth(7).map(|l| l.trim().to_owned())).flatten()
    }

    /// A connection's configuration, as the superuser.
    #[must_use]
    pub fn connection(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.sockets).port(self.port).user("postgres").dbname("postgres");
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    /// Stops it in order (fast), and proves that it did.
    ///
    /// # Errors
    /// 70 when it did not end cleanly within the deadline.
    pub fn stop(mut self, deadline: Duration) -> Result<(), Failure> {
        self.signal(Signal::SIGINT);
        match self.wait_end(deadline) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failure(&format!("did not stop in order ({status})"))),
            None => Err(self.failure(&format!("did not stop within {} s", deadline.as_secs()))),
        }
    }

    fn wait_end(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.ended = true;
                self.join();
                return Some(status);
            }
            std::thread::park_timeout(pause(begun.elapsed()));
        }
        None
    }

    fn join(&mut self) {
        // The last lines matter most. A grandchild that holds the pipe cannot outlive the postmaster for long.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// A failure with the last lines that it wrote.
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: String = said.iter().map(|l| format!("\n  | {l}")).collect();
        let full = advice(&lines);
        Failure::gave_up(format!("private Postgres on {} {what}{full}{lines}", self.pgdata.display()))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGQUIT);
            if self.wait_end(Duration::from_secs(6)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        let _ = std::fs::remove_dir_all(&self.sockets);
    }
}

#[cfg(test)]
mod tests;
