//! When the system has no more to give: processes, descriptors, memory; and very many services.

use crate::harness::{Place, World, is_root, scenario, skip, until};
use crate::procs;
use nix::sys::signal::Signal;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const AGAIN: &str = "restart = { delay = \"500ms\", max_delay = \"500ms\", max = 100000 }";

/// Gives the running supervisor more, as its own user: not every root may do that to others.
fn lift(w: &World, limit: &str) {
    let pid = w.pid().to_string();
    let mut command = Command::new("prlimit");
    if is_root() {
        let uid = procs::status(w.pid(), "Uid").unwrap().split_whitespace().next().unwrap().to_owned();
        command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "prlimit"]);
    }
    command.args(["--pid", &pid, limit]);
    assert!(command.status().unwrap().success());
}

/// A second of want costs little: who cannot start waits.
#[track_caller]
fn is_calm(w: &World) {
    let before = procs::stat(w.pid()).unwrap().cpu;
    std::thread::sleep(Duration::from_secs(1));
    let spent = procs::stat(w.pid()).unwrap().cpu - before;
    assert!(spent < Duration::from_millis(400), "a busy loop: {spent:?} in a second");
}

scenario!(when_no_process_can_be_made_it_is_said_and_all_come_up_once_it_can, |w| {
    if !is_root() {
        return skip("not root: no user id of its own to be limited");
    }
    w.unprivileged();
    // The limit counts threads of one user: the supervisor's own and a few services.
    w.inside(&["prlimit", "--nproc=8:1000", "--"]);
    for i in 0..20 {
        w.service(&format!("s{i}"), &["wait"], AGAIN);
    }
    w.start();
    until("somebody without a process", || {
        w.log().contains("Resource temporarily unavailable").then_some(())
    });
    is_calm(w);
    let status = w.answer();
    let states: Vec<&str> =
        status["services"].as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"ready") && states.contains(&"backoff"), "{states:?}");
    lift(w, "--nproc=1000:1000");
    w.until_all("ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(when_no_descriptor_is_left_it_is_said_and_all_come_up_once_there_is, |w| {
    w.inside(&["prlimit", "--nofile=24:4096", "--"]);
    for i in 0..30 {
        w.service(&format!("s{i}"), &["wait"], AGAIN);
    }
    w.start();
    // A supervisor that takes what the hard limit allows has no want.
    until("somebody without a descriptor", || {
        (w.log().contains("Too many open files") || procs::descriptors(w.pid()) > 24).then_some(())
    });
    is_calm(w);
    assert!(w.runs());
    lift(w, "--nofile=4096:4096");
    w.until_all("ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_service_that_wants_more_open_files_than_the_hard_limit_gets_all_there_are, |w| {
    // As in a container: root, but nobody who may raise a hard limit.
    if is_root() {
        w.inside(&["setpriv", "--bounding-set=-sys_resource", "--"]);
    }
    w.inside(&["prlimit", "--nofile=256:512", "--"]);
    w.shell("many", "ulimit -Hn; exec sleep 1000", "nofile = 10240");
    w.shell("few", "ulimit -Hn; exec sleep 1000", "nofile = 300");
    w.start();
    w.until_all("ready");
    until("both limits", || {
        let said = |service: &str, n: &str| {
            w.log()
                .lines()
                .any(|l| l.contains(&format!("\"{service}\"")) && l.contains(&format!("\"message\":\"{n}\"")))
        };
        (said("many", "512") && said("few", "300")).then_some(())
    });
    assert!(w.log().contains("many get 512 open files each, less than their `nofile`"), "{}", w.log());
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(without_a_descriptor_to_look_with_nobody_is_declared_gone, |w| {
    w.inside(&["prlimit", "--nofile=60:60", "--"]);
    let (orphans, leaders) = (w.file("orphans"), w.file("leaders"));
    let script = format!("ignore-term,pid,{orphans},wait");
    w.service(
        "db",
        &["orphan", &script, "pid", &leaders, "wait"],
        "restart = { delay = \"50ms\", max_delay = \"50ms\", max = 100000 }",
    );
    w.start();
    let (leader, orphan) = (w.pid_in("leaders"), w.pid_in("orphans"));
    w.until_state("db", "ready");
    let clients: Vec<UnixStream> =
        std::iter::from_fn(|| UnixStream::connect(w.path("run/control.sock")).ok()).take(60).collect();
    until("the last descriptor to be taken", || (procs::descriptors(w.pid()) >= 60).then_some(()));
    w.signal_to(leader, Signal::SIGKILL);
    until("the leader's burial", || w.outer(leader).is_none().then_some(()));
    drop(clients);
    until("a second life", || (w.pids_in("orphans").len() == 2).then_some(()));
    assert!(!w.alive(orphan), "a new run met the old one's process");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(who_forks_faster_than_one_can_look_is_outrun_at_the_stop, |w| {
    if !is_root() {
        return skip("not root: no user id of its own to be limited");
    }
    w.unprivileged();
    // A bomb in a box: at most so many of this user at a time, each with a session of its own and deaf to TERM.
    w.inside(&["prlimit", "--nproc=60:60", "--"]);
    let (bomb, marks) = (w.file("bomb"), w.file("marks"));
    let script =
        format!("#!/bin/sh\ntrap '' TERM\necho x >> {marks}\nwhile :; do setsid {bomb} & sleep 0.02; done\n");
    std::fs::write(&bomb, script).unwrap();
    std::fs::set_permissions(&bomb, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    w.set_budget("3s");
    w.exec("bomb", &[bomb], AGAIN);
    w.start();
    until("a crowd", || (w.lines("marks").len() > 300).then_some(()));
    let (code, took) = w.timed_stop();
    assert!(code == 75 || code == 0, "{code}: {}", w.log());
    assert!(took < Duration::from_secs(9), "{took:?}");
});

/// A memory cgroup of the old kind with a limit.
struct Small(PathBuf);

impl Small {
    fn new() -> Option<Small> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = PathBuf::from(format!("/sys/fs/cgroup/memory/supafly-test-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let made = Small(dir);
        std::fs::write(made.0.join("memory.limit_in_bytes"), "100M").ok()?;
        Some(made)
    }
    /// Words that put what follows into it.
    fn words(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()]
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A service that eats what there is, beside a good one. How it ended.
fn eaten(w: &mut World) -> Option<String> {
    let Some(cgroup) = is_root().then(Small::new).flatten() else {
        skip("no memory cgroup of the old kind can be made");
        return None;
    };
    let words = cgroup.words();
    w.outside(&words.each_ref().map(String::as_str));
    w.inside(&["choom", "-n", "100", "--"]);
    let starts = w.file("starts");
    w.service("hog", &["pid", &starts, "hog", "400", "wait"],
        "oom_score_adj = 1000\nrestart = { delay = \"50ms\", max_delay = \"50ms\", max = 2 }\ngives_up = \"hold\"");
    w.service("good", &["wait"], "");
    w.start();
    let seen = w.until_state("hog", "held");
    assert_eq!(w.pids_in("starts").len(), 3, "the restart policy applies: {seen}");
    assert_eq!(w.until_state("good", "ready")["restarts"], 0);
    let own = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", w.pid())).unwrap();
    assert_eq!(own.trim(), "100");
    assert_eq!(w.stop(), 0, "{}", w.log());
    drop(cgroup);
    Some(seen["last"].as_str().unwrap().to_owned())
}

scenario!(a_service_that_eats_all_memory_is_ended_alone_called_so_and_restarted_by_its_policy, |w| {
    if let Some(last) = eaten(w) {
        assert_eq!(last, "OOM killed");
    }
});

scenario!(a_thousand_services_start_and_stop, |w| {
    w.set_budget("60s");
    w.inside(&["prlimit", "--nofile=4096", "--"]);
    // A child shares its table of processes with the whole machine: fewer, for the time of those who wait.
    let count = if w.place() == Place::Pid1 { 1_000 } else { 100 };
    for i in 0..count {
        w.exec(&format!("s{i}"), &["/bin/sleep".to_owned(), "3600".to_owned()], "");
    }
    let begun = std::time::Instant::now();
    w.start();
    w.until_all("ready");
    let up = begun.elapsed();
    assert_eq!(w.children().len(), count);
    let (code, down) = w.timed_stop();
    eprintln!("{count} services: up in {up:?}, down in {down:?}");
    assert_eq!(code, 0, "{}", w.log());
});

scenario!(a_freeze_without_a_descriptor_to_look_with_leaves_nobody_standing, |w| {
    w.inside(&["prlimit", "--nofile=60:60", "--"]);
    let pids = w.file("pids");
    w.service("db", &["pid", &pids, "child", &format!("pid,{pids},wait"), "wait"], "");
    w.start();
    until("both", || (w.pids_in("pids").len() == 2).then_some(()));
    w.until_state("db", "ready");
    let clients: Vec<UnixStream> =
        std::iter::from_fn(|| UnixStream::connect(w.path("run/control.sock")).ok()).take(60).collect();
    until("the last descriptor to be taken", || (procs::descriptors(w.pid()) >= 60).then_some(()));
    w.signal(Signal::SIGUSR1);
    w.until_marked("out", "not frozen");
    drop(clients);
    let stands = |pid: &i32| w.outer(*pid).and_then(procs::stat).is_some_and(|s| s.state == 'T');
    w.until_state("db", "ready");
    until("all of it to move", || (!w.pids_in("pids").iter().any(stands)).then_some(()));
    // Frozen first, then blind: it goes on when somebody can look again, and its leader at once.
    assert_eq!(w.says(&["freeze"]).0, 0);
    let clients: Vec<UnixStream> =
        std::iter::from_fn(|| UnixStream::connect(w.path("run/control.sock")).ok()).take(60).collect();
    until("the last descriptor to be taken", || (procs::descriptors(w.pid()) >= 60).then_some(()));
    w.signal(Signal::SIGUSR2);
    until("all of it to move", || (!w.pids_in("pids").iter().any(stands)).then_some(()));
    drop(clients);
    assert_eq!(w.stop(), 0, "{}", w.log());
});
