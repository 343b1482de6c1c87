//! `make dev` as a newcomer meets it: it says what it chose and when it is ready, Ctrl-C stops it cleanly, and the second
//! time it goes on with the data.

use crate::support::machine::{PATIENCE, lines, open_directory, root, until};
use crate::support::programs::pg_bin;
use crate::support::rest::call;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Dev {
    child: Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Dev {
    /// Starts it with a home of its own and waits for its word that it is ready.
    fn start(home: &Path) -> (Dev, String, Duration) {
        let mut child = Command::new("scripts/dev.sh")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("SUPAFLY_DEV_HOME", home)
            // The one of the tests lies where the users of services cannot reach it.
            .env_remove("SUPAFLY_POSTGREST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let said = lines(child.stderr.take().unwrap());
        let dev = Dev { child, said };
        let (mut all, mut built) = (String::new(), Instant::now());
        // A build may come first; from the line that says what was chosen on, it is the product's own time.
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let line = dev.said.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("it never said that it is ready:\n{all}"));
            if line.contains("logs follow") {
                built = Instant::now();
            }
            all.push_str(&line);
            all.push('\n');
            if line.contains("status  SUPAFLY_RUN=") {
                return (dev, all, built.elapsed());
            }
        }
    }

    /// Ctrl-C: SIGINT to the whole foreground group.
    fn interrupt(mut self) {
        let group = Pid::from_raw(-i32::try_from(self.child.id()).unwrap());
        kill(group, Signal::SIGINT).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            assert!(Instant::now() < end, "Ctrl-C does not stop it");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        crate::support::machine::kill_tree(self.child.id());
        let _ = self.child.wait();
    }
}

#[test]
fn make_dev_says_what_it_chose_stops_on_ctrl_c_and_goes_on_with_the_data() {
    let dir = open_directory();
    let home = dir.path().join("dev");
    // Ours, or somebody else's already: taken either way.
    let taken = std::net::TcpListener::bind("127.0.0.1:54322");
    let (dev, said, _) = Dev::start(&home);
    for word in [
        "port 54322 is taken; database gets ",
        "data ",
        "archive file://",
        "port ",
        "psql    psql -h ",
        "database postgresql://postgres:…@127.0.0.1:",
        "pooler  postgresql://postgres:…@127.0.0.1:",
        "rest    http://127.0.0.1:",
        "page    http://127.0.0.1:",
        "keys    SUPAFLY_RUN=",
        "status  SUPAFLY_RUN=",
    ] {
        assert!(said.contains(word), "`{word}` is not said:\n{said}");
    }
    if root() {
        assert!(!home.starts_with(env!("CARGO_MANIFEST_DIR")));
    }
    let port = std::fs::read_to_string(home.join("port")).unwrap().trim().to_owned();
    let sql = |statement: &str| {
        let out = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-U", "postgres", "-p", &port, "-c", statement, "-h"])
            .arg(home.join("run/postgres"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    sql("create table kept as select 42 as answer");
    // Each of the three answers where `keys` says, with what it says.
    let keys = Command::new(home.join("supafly"))
        .args(["keys", "--json"])
        .env("SUPAFLY_RUN", home.join("run"))
        .output()
        .unwrap();
    let keys: serde_json::Value = serde_json::from_slice(&keys.stdout).unwrap();
    for url in ["DB_URL", "POOLER_URL", "POOLER_SESSION_URL"] {
        let out = Command::new(pg_bin().join("psql"))
            .args(["-XAtq", "-d", keys[url].as_str().unwrap(), "-c", "table kept"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "42", "{url}: {out:?}");
    }
    let rest = keys["REST_URL"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
    until("an answer of the API", PATIENCE, || {
        let answer = call(rest, "GET", "/kept", Some(keys["ANON_KEY"].as_str().unwrap()), None);
        (answer.code == 200 && answer.body.contains("42")).then_some(())
    });
    dev.interrupt();
    drop(taken);
    let (dev, _, took) = Dev::start(&home);
    assert_eq!(sql("table kept").trim(), "42");
    assert_eq!(std::fs::read_to_string(home.join("port")).unwrap().trim(), port);
    eprintln!("the second time it was ready after {took:?}");
    dev.interrupt();
}
