//! Supervisors side by side: each is laid out in a directory of its own with the same services, and started either as
//! an ordinary child or as PID 1 of a namespace.

use super::processes;
use super::row::{Context, Standing};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Supafly,
    /// Another build of ours (`SUPAFLY_BENCH_BASELINE`), to see what a change is worth.
    Baseline,
    S6,
    /// s6 with services that say when they are ready, which lets it restart them at once.
    S6Notified,
    Runit,
    Supervisord,
    Horust,
    Tini,
}

/// A service: the actor with these words.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) words: Vec<String>,
    /// Starts after this one.
    pub(crate) after: Option<String>,
}

/// What becomes of the services' output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// What the peer does when nothing is said of it; we always capture.
    Unsaid,
    /// Captured by the peer's own logger.
    Captured,
}

/// Where the supervisor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Child,
    Pid1,
}

/// A supervisor laid out, and running once it was started.
#[derive(Debug)]
pub(crate) struct World {
    dir: tempfile::TempDir,
    who: Who,
    program: PathBuf,
    running: Option<(Child, Place)>,
}

/// A line of a stamp file.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    pub(crate) words: Vec<String>,
    /// Nanoseconds of the monotonic clock.
    pub(crate) at: u128,
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Who::Supafly => "supafly",
            Who::Baseline => "baseline",
            Who::S6 => "s6",
            Who::S6Notified => "s6 with readiness",
            Who::Runit => "runit",
            Who::Supervisord => "supervisord",
            Who::Horust => "Horust",
            Who::Tini => "tini",
        }
    }

    /// What our goal is measured by, unless the row knows better.
    pub(crate) const fn standing(self) -> Standing {
        if matches!(self, Who::Baseline) {
            Standing::Reference("another build of supafly")
        } else {
            Standing::Rival
        }
    }

    /// As one beside the one that the goal names.
    pub(crate) fn beside(self, named: Who, why: &'static str) -> Standing {
        if self == named || self == Who::Baseline { self.standing() } else { Standing::Reference(why) }
    }

    fn program(self, context: &Context) -> Result<PathBuf, String> {
        let name = match self {
            Who::Supafly => return Ok(context.binary.clone()),
            Who::Baseline => return context.baseline.clone().ok_or_else(|| "none is named".to_owned()),
            Who::S6 | Who::S6Notified => "s6-svscan",
            Who::Runit => "runsvdir",
            Who::Supervisord => "supervisord",
            Who::Horust => "horust",
            Who::Tini => "tini",
        };
        let named = super::var("SUPAFLY_HORUST").filter(|_| self == Who::Horust).map(PathBuf::from);
        let found = named.filter(|p| p.is_file()).or_else(|| which::which(name).ok());
        found.ok_or_else(|| format!("{name} is not installed: scripts/parts/peers.sh installs it"))
    }
}

/// Six services that only wait.
pub(crate) fn six(chained: bool) -> Vec<Service> {
    let name = |i: usize| format!("s{i}");
    let service = |i: usize| Service {
        name: name(i),
        words: vec!["serve".into(), "STAMPS".into(), name(i)],
        after: (chained && i > 0).then(|| name(i - 1)),
    };
    (0..6).map(service).collect()
}

impl World {
    /// Lays it out. The word `STAMPS` of a service stands for the file into which all of them stamp.
    ///
    /// # Errors
    /// The supervisor is not installed, or has no way to say this.
    pub(crate) fn new(
        context: &Context,
        who: Who,
        services: &[Service],
        logs: Logs,
    ) -> Result<World, String> {
        let program = who.program(context)?;
        let world = World { dir: context.room(), who, program, running: None };
        let stamps = world.path("stamps").display().to_string();
        for service in services {
            let mut words = vec![context.actor.display().to_string()];
            words
                .extend(service.words.iter().map(|w| if w == "STAMPS" { stamps.clone() } else { w.clone() }));
            world.lay_out(service, words, logs)?;
        }
        Ok(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lay_out(&self, service: &Service, mut words: Vec<String>, logs: Logs) -> Result<(), String> {
        let Service { name, after, .. } = service;
        fs::create_dir_all(self.path("services")).unwrap();
        match self.who {
            Who::Supafly | Who::Baseline => {
                let after = after.iter().map(|a| format!("requires = [{a:?}]\n")).collect::<String>();
                let text = format!(
                    "kind = \"daemon\"\nexec = {words:?}\nrestart = {{ delay = \"1ms\", max = 100000 }}\n{after}"
                );
                fs::write(self.path(&format!("services/{name}.toml")), text).unwrap();
            }
            Who::S6 | Who::S6Notified | Who::Runit => {
                if self.who == Who::S6Notified {
                    words.push("3".to_owned());
                }
                let home = self.path(&format!("services/{name}"));
                let wait = match (after, self.who) {
                    (None, _) => String::new(),
                    (Some(after), Who::S6) => format!("s6-svwait -u ../{after} && "),
                    (Some(_), _) => return Err("it has no dependencies".to_owned()),
                };
                script(&home.join("run"), &format!("{wait}exec {}", words.join(" ")));
                if self.who == Who::S6Notified {
                    fs::write(home.join("notification-fd"), "3\n").unwrap();
                }
                if logs == Logs::Captured {
                    let logger = if self.who == Who::Runit { "svlogd -tt" } else { "s6-log T" };
                    let to = self.path(&format!("logs/{name}"));
                    fs::create_dir_all(&to).unwrap();
                    script(&home.join("log/run"), &format!("exec {logger} {}", to.display()));
                }
            }
            Who::Supervisord => {
                if after.is_some() {
                    return Err("its priorities do not wait".to_owned());
                }
                let log = match logs {
                    Logs::Captured => self.path(&format!("{name}.log")).display().to_string(),
                    Logs::Unsaid => "NONE".to_owned(),
                };
                let text = format!(
                    "[program:{name}]\ncommand={}\nstdout_logfile={log}\nredirect_stderr=true\n",
                    words.join(" ")
                );
                fs::write(self.path(&format!("services/{name}.conf")), text).unwrap();
                let text = format!(
                    "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}\n[include]\nfiles={}\n",
                    self.path("pid").display(),
                    self.path("services/*.conf").display()
                );
                fs::write(self.path("conf"), text).unwrap();
            }
            Who::Horust => {
                let after =
                    after.iter().map(|a| format!("start-after = [\"{a}.toml\"]\n")).collect::<String>();
                let log = match logs {
                    Logs::Captured => format!("stdout = {:?}\n", self.path(&format!("{name}.log"))),
                    Logs::Unsaid => String::new(),
                };
                let text = format!(
                    "command = {:?}\n{log}{after}[restart]\nstrategy = \"always\"\nbackoff = \"0s\"\n",
                    words.join(" ")
                );
                fs::write(self.path(&format!("services/{name}.toml")), text).unwrap();
            }
            Who::Tini => script(&self.path("run"), &format!("exec {}", words.join(" "))),
        }
        Ok(())
    }

    /// The command that starts it.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        match self.who {
            Who::Supafly | Who::Baseline => {
                command.arg("run").env_clear();
                command.env("PATH", super::var("PATH").unwrap_or_default());
                command.env("SUPAFLY_SERVICES", self.path("services"));
                command.env("SUPAFLY_RUN", self.path("run"));
                command.env("SUPAFLY_DATA", self.path("data"));
                command.env("SUPAFLY_LOG_FORMAT", "json");
            }
            Who::S6 | Who::S6Notified | Who::Runit => drop(command.arg(self.path("services"))),
            Who::Supervisord => drop(command.arg("-c").arg(self.path("conf"))),
            Who::Horust => {
                command.arg("--services-path").arg(self.path("services"));
                command.arg("--uds-folder-path").arg(self.dir.path());
            }
            Who::Tini => drop(command.arg("--").arg(self.path("run"))),
        }
        command
    }

    /// Starts it; when that was, in nanoseconds of the monotonic clock.
    pub(crate) fn start(&mut self, place: Place) -> Result<u128, String> {
        self.start_with(place, |_| {})
    }

    /// The same with a last word about the command.
    pub(crate) fn start_with(
        &mut self,
        place: Place,
        adapt: impl FnOnce(&mut Command),
    ) -> Result<u128, String> {
        let _ = fs::remove_file(self.path("stamps"));
        if self.who == Who::Runit {
            // It waits until the second is over in which its directory was changed; in an image that was long ago.
            std::thread::sleep(Duration::from_millis(2_300));
        }
        let own = self.command();
        let mut command = match place {
            Place::Child => own,
            Place::Pid1 if !nix::unistd::geteuid().is_root() => {
                return Err("only root makes a pid namespace".to_owned());
            }
            Place::Pid1 => {
                let mut c = Command::new("unshare");
                c.args(["--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"]);
                c.arg(own.get_program()).args(own.get_args());
                if matches!(self.who, Who::Supafly | Who::Baseline) {
                    c.env_clear();
                }
                c.envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
                c
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let errors = File::create(self.path("stderr")).map_err(|e| e.to_string())?;
        command.stderr(errors).current_dir(self.dir.path()).process_group(0);
        adapt(&mut command);
        let begun = processes::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        self.running = Some((child, place));
        Ok(begun)
    }

    /// The supervisor's pid as we see it.
    pub(crate) fn pid(&self) -> Result<u32, String> {
        let (child, place) = self.running.as_ref().ok_or("it is not running")?;
        match place {
            Place::Child => Ok(child.id()),
            Place::Pid1 => {
                self.until("PID 1 of the namespace", || processes::children(child.id()).first().copied())
            }
        }
    }

    /// Waits for something, not for ever.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            let ended = self.running.as_ref().is_some_and(|(child, _)| processes::is_zombie(child.id()));
            if ended || Instant::now() > end {
                let said = fs::read(self.path("stderr")).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().take(3).collect::<Vec<_>>().join(" / ");
                let how = if ended {
                    "it ended before".to_owned()
                } else {
                    format!("{} s in vain", PATIENCE.as_secs())
                };
                return Err(format!("waited for {what}, {how}; it said: {said}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All stamps so far.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let text = fs::read_to_string(self.path("stamps")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        let stamp = |line: &str| {
            let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let at = words.pop()?.parse().ok()?;
            Some(Stamp { words, at })
        };
        whole.filter_map(stamp).collect()
    }

    /// Waits for so many stamps that have this word, and gives them.
    pub(crate) fn stamped(&self, word: &str, number: usize) -> Result<Vec<Stamp>, String> {
        self.until(&format!("{number} services to say `{word}`"), || {
            let mut stamps = self.stamps();
            stamps.retain(|s| s.words.iter().any(|w| w == word));
            (stamps.len() >= number).then_some(stamps)
        })
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) -> Result<(), String> {
        processes::signal(self.pid()?, signal)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        let (mut child, _) = self.running.take().ok_or("it is not running")?;
        // Waiting in the kernel is exact; whoever hangs is killed from aside.
        let dog = super::watchdog::Watchdog::start(child.id(), PATIENCE);
        let status = child.wait().map_err(|e| e.to_string())?;
        if dog.has_bitten() {
            return Err(format!("it had not ended {} s after the signal", PATIENCE.as_secs()));
        }
        Ok(status)
    }

    /// The processes that are services.
    pub(crate) fn services(&self, context: &Context) -> Result<Vec<u32>, String> {
        let actor = fs::canonicalize(&context.actor).map_err(|e| e.to_string())?;
        let mut all = processes::below(self.pid()?);
        all.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == actor));
        Ok(all)
    }

    /// The processes that are the supervisor's own: all below it but the services.
    pub(crate) fn own(&self, context: &Context) -> Result<Vec<u32>, String> {
        let actor = fs::canonicalize(&context.actor).map_err(|e| e.to_string())?;
        let mut all = processes::below(self.pid()?);
        all.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != actor));
        Ok(all)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        processes::end_all_of(self.dir.path());
    }
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}
