//! What every PID 1 owes its container, as checks that know no implementation: ours must pass them, and so must tini,
//! which many others trust. And they must be able to fail: an init that adopts nobody does not pass.

use crate::harness::{Place, World, fakesvc, is_root, skip};
use crate::procs;
use nix::sys::signal::Signal;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// The tini to compare with; said aloud when there is none.
pub(crate) fn tini() -> Option<String> {
    let named = std::env::vars().find(|(k, _)| k == "SUPAFLY_TINI").map(|(_, v)| v);
    let path = named.unwrap_or_else(|| "/usr/bin/tini".to_owned());
    let there = std::path::Path::new(&path).exists();
    if !there {
        skip(&format!("no tini at {path}: scripts/parts/debian.sh installs it, SUPAFLY_TINI names another"));
    }
    there.then_some(path)
}

/// An init: something that runs one program, adopts what that leaves, and ends as it ended.
trait Init {
    /// What runs this stand-in script as its one program.
    fn command(&self, w: &World, script: &[&str]) -> Command;
    /// The running init below the process that was started.
    fn find(&self, root: i32) -> Option<i32>;
}

struct Supafly;

impl Init for Supafly {
    fn command(&self, w: &World, script: &[&str]) -> Command {
        w.service(
            "main",
            script,
            "restart = { when = \"never\" }\ngives_up = \"stop-all\"\npass_exit = [70, 76, 77]",
        );
        w.runner()
    }
    fn find(&self, root: i32) -> Option<i32> {
        procs::supervisor(root)
    }
}

struct Tini {
    path: String,
    options: &'static [&'static str],
}

impl Init for Tini {
    fn command(&self, w: &World, script: &[&str]) -> Command {
        let fake = fakesvc();
        let mut words = vec![self.path.as_str()];
        words.extend_from_slice(self.options);
        words.extend(["--", &fake]);
        words.extend_from_slice(script);
        w.wrapped(&words)
    }
    fn find(&self, root: i32) -> Option<i32> {
        let mut level = vec![root];
        while !level.is_empty() {
            let is_tini = |pid: &i32| {
                std::fs::read_link(format!("/proc/{pid}/exe"))
                    .is_ok_and(|exe| exe.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tini")))
            };
            if let Some(pid) = level.iter().copied().find(is_tini) {
                return Some(pid);
            }
            level = level.into_iter().flat_map(procs::children).collect();
        }
        None
    }
}

type Verdict = Result<(), String>;

fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("waited in vain for: {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A started init; it dies with the check.
struct Running {
    child: std::process::Child,
    init: i32,
}

impl Running {
    fn start(init: &dyn Init, w: &World, script: &[&str]) -> Result<Running, String> {
        let mut command = init.command(w, script);
        let out = || std::fs::OpenOptions::new().append(true).create(true).open(w.path("out")).unwrap();
        command.stdout(out()).stderr(out());
        let child = command.spawn().unwrap();
        let root = i32::try_from(child.id()).unwrap();
        let mut running = Running { child, init: 0 };
        running.init = soon("the init", || init.find(root))?;
        Ok(running)
    }
    fn ended(&mut self) -> Result<ExitStatus, String> {
        soon("the init's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.init > 0 && matches!(self.child.try_wait(), Ok(None)) {
            procs::kill(self.init, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn grandchildren(w: &World, ours: i32) -> Result<Vec<i32>, String> {
    // By their marker: numbers of another namespace say nothing here.
    let name = w.file("");
    let found = soon("the orphan", || {
        let found: Vec<i32> = procs::marked(&name, true)
            .into_iter()
            .filter(|pid| {
                *pid != ours
                    && std::fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|c| c.ends_with(b"orphaned\0wait\0"))
            })
            .collect();
        (!found.is_empty()).then_some(found)
    })?;
    Ok(found)
}

/// An orphan in a session of its own becomes the init's child, and is buried when it ends.
fn adopts_orphans(init: &dyn Init, w: &World) -> Verdict {
    let marks = w.file("marks");
    let script = format!("mark,{marks},orphaned,wait");
    let running = Running::start(init, w, &["orphan", &script, "wait"])?;
    soon("the mark", || w.read("marks").contains("orphaned").then_some(()))?;
    let orphans = grandchildren(w, running.init)?;
    for orphan in orphans {
        soon("its adoption", || {
            let parent = procs::stat(orphan)?.parent;
            (parent != 0).then_some(parent)
        })?;
        let adopted = |pid| procs::stat(pid).is_some_and(|s| s.parent == running.init);
        let end = Instant::now() + Duration::from_secs(2);
        while !adopted(orphan) {
            if Instant::now() > end {
                return Err("an orphan was not adopted".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        procs::kill(orphan, Signal::SIGKILL);
        soon("the orphan's burial", || procs::stat(orphan).is_none().then_some(()))?;
    }
    Ok(())
}

/// A crowd of orphans leaves no zombie.
fn buries_a_crowd(init: &dyn Init, w: &World) -> Verdict {
    let done = w.file("done");
    let script = format!("i=0; while [ $i -lt 300 ]; do ( : & ); i=$((i+1)); done; echo done > {done}");
    let shell = w.file("crowd.sh");
    std::fs::write(&shell, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let running = Running::start(init, w, &["run", &shell, "wait"])?;
    soon("the crowd", || w.read("done").contains("done").then_some(()))?;
    soon("no zombie", || (procs::children(running.init).len() == 1).then_some(()))
}

/// TERM reaches the program, and its status is the init's.
fn hands_term_on_and_the_status_back(init: &dyn Init, w: &World) -> Verdict {
    let marks = w.file("marks");
    let mut running = Running::start(init, w, &["mark", &marks, "up", "on", "SIGTERM", "77"])?;
    soon("the program", || w.read("marks").contains("up").then_some(()))?;
    let program = soon("the program's pid", || procs::children(running.init).first().copied())?;
    soon("its handler", || {
        let caught = u64::from_str_radix(&procs::status(program, "SigCgt")?, 16).ok()?;
        (caught & (1 << 14) != 0).then_some(())
    })?;
    procs::kill(running.init, Signal::SIGTERM);
    let status = running.ended()?;
    if status.code() == Some(77) { Ok(()) } else { Err(format!("ended with {status}")) }
}

/// The program begins with no signal blocked.
fn starts_with_a_clean_mask(init: &dyn Init, w: &World) -> Verdict {
    let seen = w.file("seen");
    let _running = Running::start(init, w, &["inspect", &seen, "wait"])?;
    let seen = soon("what the program saw", || Some(w.read("seen")).filter(|s| s.contains("cwd")))?;
    if seen.contains("SigBlk:\t0000000000000000") { Ok(()) } else { Err(seen) }
}

/// When the program ends, so does the init, with its status, although an orphan lives.
fn ends_with_its_program(init: &dyn Init, w: &World) -> Verdict {
    let marks = w.file("marks");
    let orphan = format!("ignore-term,mark,{marks},orphaned,wait");
    let mut running = Running::start(init, w, &["orphan", &orphan, "until", &marks, "exit", "76"])?;
    let status = running.ended()?;
    if status.code() == Some(76) { Ok(()) } else { Err(format!("ended with {status}")) }
}

type Check = fn(&dyn Init, &World) -> Verdict;

const CHECKS: [(&str, Check); 5] = [
    ("adopts orphans", adopts_orphans),
    ("buries a crowd", buries_a_crowd),
    ("hands TERM on and the status back", hands_term_on_and_the_status_back),
    ("starts with a clean mask", starts_with_a_clean_mask),
    ("ends with its program", ends_with_its_program),
];

fn world(place: Place) -> World {
    match place {
        Place::Child => World::new(),
        Place::Pid1 => World::pid_1().unwrap(),
    }
}

fn passes_every_check(init: &dyn Init, place: Place) {
    if place == Place::Pid1 && !is_root() {
        return skip("not root: no pid namespace can be made");
    }
    for (name, check) in CHECKS {
        let w = world(place);
        if let Err(why) = check(init, &w) {
            panic!("{name}: {why}\n{}", w.log());
        }
    }
}

#[test]
fn we_pass_every_check_as_pid_1() {
    passes_every_check(&Supafly, Place::Pid1);
}

#[test]
fn we_pass_every_check_as_a_child() {
    passes_every_check(&Supafly, Place::Child);
}

#[test]
fn tini_passes_every_check_as_pid_1() {
    let Some(path) = tini() else { return };
    passes_every_check(&Tini { path, options: &[] }, Place::Pid1);
}

#[test]
fn tini_passes_every_check_as_a_child_when_it_is_a_subreaper() {
    let Some(path) = tini() else { return };
    passes_every_check(&Tini { path, options: &["-s"] }, Place::Child);
}

#[test]
fn an_init_that_is_no_subreaper_fails_the_check_of_adoption() {
    let Some(path) = tini() else { return };
    let w = World::new();
    let verdict = adopts_orphans(&Tini { path, options: &[] }, &w);
    assert_eq!(verdict, Err("an orphan was not adopted".to_owned()));
}
