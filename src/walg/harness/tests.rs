//! Engines that misbehave, as shell scripts: each must be over at the deadline and leave nothing.

use super::*;
use std::path::PathBuf;

const DEADLINE: Duration = Duration::from_millis(800);
const PATIENCE: Duration = Duration::from_secs(20);

struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Stage {
        Stage(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("pid")
    }

    fn job(&self, script: &str, deadline: Duration) -> Job {
        let text = format!("PID={}\n{script}", self.file().display());
        let environment = [("PATH", "/usr/bin:/bin"), ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")];
        Job {
            arguments: vec!["-c".into(), text],
            environment: environment.map(|(n, v)| (n.to_owned(), Secret::new(v))).to_vec(),
            run_as: None,
            deadline,
        }
    }

    fn run(&self, script: &str) -> (Outcome, Duration) {
        let begun = Instant::now();
        let outcome = run(Path::new("/bin/bash"), &self.job(script, DEADLINE)).unwrap();
        (outcome, begun.elapsed())
    }

    /// The process whose number the script wrote is gone, or only waits to be reaped.
    fn gone(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.file()) else { return false };
        let Ok(pid) = text.trim().parse::<i32>() else { return false };
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => true,
        }
    }

    fn until_gone(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.gone() {
            assert!(Instant::now() < end, "the engine's process lives on");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn one_that_hangs_and_ignores_every_polite_signal_ends_at_the_deadline_with_its_children() {
    let stage = Stage::new();
    let (outcome, took) = stage.run("trap '' TERM INT HUP QUIT; sleep 600 & echo $! >$PID; wait; sleep 600");
    assert!(matches!(outcome.ended, Ended::Deadline), "{outcome:?}");
    assert!(took >= DEADLINE && took < PATIENCE, "{took:?}");
    stage.until_gone();
}

#[test]
fn one_that_ends_leaves_no_child_behind() {
    let stage = Stage::new();
    let (outcome, took) = stage.run("sleep 600 & echo $! >$PID; exit 3");
    assert!(matches!(outcome.ended, Ended::Itself(status) if status.code() == Some(3)), "{outcome:?}");
    assert!(took < PATIENCE, "{took:?}");
    stage.until_gone();
}

#[test]
fn a_child_in_a_session_of_its_own_that_keeps_the_pipes_does_not_hold_us() {
    let stage = Stage::new();
    let (_, took) =
        stage.run("setsid bash -c 'echo $$ >'$PID'; exec sleep 60' & until [ -s $PID ]; do :; done");
    assert!(took < PATIENCE, "{took:?}");
    // It is out of our reach by its own doing; the test takes it away.
    let pid: i32 = std::fs::read_to_string(stage.file()).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn one_that_floods_is_bounded_and_ends_at_the_deadline() {
    let stage = Stage::new();
    let (outcome, took) = stage.run("echo $$ >$PID; exec yes flood");
    assert!(matches!(outcome.ended, Ended::Deadline), "{outcome:?}");
    assert!(took < PATIENCE, "{took:?}");
    assert_eq!(outcome.last_lines.len(), 20);
    stage.until_gone();
}

#[test]
fn a_secret_that_it_prints_is_masked_and_is_in_no_argument() {
    let stage = Stage::new();
    let job = stage.job("echo out $AWS_SECRET_ACCESS_KEY; echo err $AWS_SECRET_ACCESS_KEY >&2", PATIENCE);
    assert!(!format!("{job:?}").contains("hunter2"));
    let outcome = run(Path::new("/bin/bash"), &job).unwrap();
    let mut lines = outcome.last_lines;
    lines.sort();
    assert_eq!(lines, ["err (secret)", "out (secret)"]);
}

#[test]
fn it_gets_what_it_is_given_and_nothing_else() {
    let stage = Stage::new();
    let (outcome, _) =
        stage.run("read -r line || echo stdin is empty; pwd; [ -z \"${HOME-}${CARGO-}\" ] && echo bare");
    assert_eq!(outcome.last_lines, ["stdin is empty", "/", "bare"]);
}

#[tokio::test]
async fn one_that_nobody_waits_for_is_killed() {
    let stage = Stage::new();
    let running = start(
        Path::new("/bin/bash"),
        stage.job("trap '' TERM; echo $$ >$PID; sleep 600; sleep 600", PATIENCE * 10),
    );
    let end = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(stage.file()).is_ok_and(|text| text.ends_with('\n')) {
        assert!(Instant::now() < end, "the engine did not start");
        tokio::task::yield_now().await;
    }
    drop(running);
    stage.until_gone();
}
