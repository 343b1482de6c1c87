//! Is it ready? Commands, HTTP and notifications that do not behave.

use crate::harness::{World, scenario, until, within};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn probed_by(w: &World, script: &str, times: &str) {
    let argv = ["/bin/sh", "-c", script];
    w.service("db", &["wait"], &format!("ready = {{ exec = {argv:?}, {times} }}"));
}

const QUICK: &str = "every = \"150ms\", timeout = \"100ms\"";

#[track_caller]
fn until_said(w: &World, words: &str) {
    until(&format!("`{words}` in the status"), || {
        let seen = w.state_of("db")?;
        assert_ne!(seen["state"], "ready", "{seen}");
        seen["detail"].as_str()?.contains(words).then_some(())
    });
}

scenario!(a_probe_command_that_misbehaves_is_asked_again_and_never_twice_at_once, |w| {
    let (tries, lock, bad) = (w.file("tries"), w.file("lock"), w.file("bad"));
    // Each hangs, forks, holds its pipe, is killed or leaves somebody behind; the lock is held while one is in flight.
    let script = format!(
        "exec 9>>{lock}; flock -n 9 || echo two >> {bad}; echo t >> {tries}
         case $(wc -l < {tries}) in
         1) exec sleep 1000;;
         2) sleep 1000 & sleep 1000;;
         3) kill -9 $$;;
         4) ( setsid sleep 1000 9>&- & ); exit 1;;
         5) exec >&- 2>&-; exit 3;;
         *) exit 0;;
         esac"
    );
    // Time enough for each to get as far as it is meant to.
    probed_by(w, &script, "every = \"1500ms\", timeout = \"1s\"");
    w.start();
    w.until_state("db", "ready");
    // It goes on being asked when it is ready.
    assert!(w.lines("tries").len() >= 6, "{:?}", w.lines("tries"));
    assert_eq!(w.read("bad"), "");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_probe_command_that_forks_and_holds_its_pipe_delays_no_readiness, |w| {
    probed_by(w, "sleep 1000 & exit 0", "every = \"1m\", timeout = \"50s\"");
    w.start();
    within(Duration::from_secs(20), "readiness", || (w.state_of("db")?["state"] == "ready").then_some(()));
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_probe_command_that_prints_100_megabytes_costs_no_memory, |w| {
    let go = w.file("go");
    probed_by(
        w,
        &format!("[ -e {go} ] || exit 1; head -c 100000000 /dev/zero"),
        "every = \"20s\", timeout = \"19s\"",
    );
    std::fs::write(w.path("go"), "").unwrap();
    w.start();
    let mut most = 0;
    until("readiness", || {
        most = most.max(crate::procs::rss(w.pid()));
        (w.state_of("db")?["state"] == "ready").then_some(())
    });
    assert!(most < 40 << 10, "{most} kB");
    assert!(!w.log().contains("\\u0000"), "what a probe prints is no log");
    assert_eq!(w.stop(), 0);
});

scenario!(why_a_probe_command_failed_is_said, |w| {
    probed_by(w, "kill -9 $$", QUICK);
    w.start();
    until_said(w, "was ended by signal 9");
    assert_eq!(w.stop(), 0);
});

/// A server on a free port that treats every client as `manner` says at that moment: bytes, and whether it hangs up.
fn server(manner: Arc<Mutex<(&'static str, bool)>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let (answer, hangs_up) = *manner.lock().unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 1_024];
                let _ = client.read(&mut request);
                let _ = client.write_all(answer.as_bytes());
                if !hangs_up {
                    // Until the other side gives up.
                    let _ = client.read(&mut request);
                }
            });
        }
    });
    port
}

scenario!(an_http_probe_believes_a_complete_2xx_and_nothing_else, |w| {
    let manner = Arc::new(Mutex::new(("", false)));
    let port = server(Arc::clone(&manner));
    let probe =
        format!("http = {{ port = {port}, path = \"/ready\" }}, every = \"80ms\", timeout = \"60ms\"");
    w.service("db", &["wait"], &format!("ready = {{ {probe} }}"));
    w.start();
    until_said(w, "no answer within 60ms");
    for (answer, hangs_up, said) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", false, "what is not HTTP: `SSH-2.0-OpenSSH_9.2`"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", true, "answered 302"),
        ("", true, "what is not HTTP: ``"),
        ("HTTP/1.1 200", false, "no answer within 60ms"),
        ("HTTP/1.1 200 O", true, "what is not HTTP: `HTTP/1.1 200 O`"),
        ("HTTP/1.1 503 Not yet\r\n\r\n", true, "answered 503"),
    ] {
        *manner.lock().unwrap() = (answer, hangs_up);
        until_said(w, said);
    }
    // The head of a good answer is enough; its body may take for ever.
    *manner.lock().unwrap() = ("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsl", false);
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0);
});

const NOTIFY: &str = "ready = { notify = true }";

scenario!(a_grandchild_may_say_that_its_service_is_ready, |w| {
    w.service("near", &["child", "ready,wait", "wait"], NOTIFY);
    w.service("far", &["orphan", "ready,wait", "wait"], NOTIFY);
    w.start();
    w.until_all("ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(only_a_whole_line_is_a_notification_and_garbage_is_none, |w| {
    let go = w.file("go");
    w.service(
        "db",
        &[
            "garbage",
            "notify",
            "READ",
            "notify",
            "Y=1",
            "notify",
            "READY=0",
            "notify",
            "READY=10",
            "notify",
            "",
            "notify",
            "\\n\\n=\\nREADY",
            "notify",
            "STATUS=still here",
            "until",
            &go,
            "notify",
            "STATUS=two lines\\nREADY=1\\nUNKNOWN=x",
            "wait",
        ],
        NOTIFY,
    );
    w.start();
    until_said(w, "still here");
    assert_eq!(w.seen("db")["state"], "starting");
    std::fs::write(&go, "").unwrap();
    let seen = w.until_state("db", "ready");
    assert_eq!(seen["detail"], "two lines");
    assert_eq!(w.stop(), 0);
});

scenario!(a_notification_of_one_service_is_none_of_another, |w| {
    w.service("db", &["ready", "wait"], NOTIFY);
    w.service("web", &["wait"], NOTIFY);
    w.start();
    w.until_state("db", "ready");
    assert_eq!(w.seen("web")["state"], "starting");
    assert_eq!(w.stop(), 0);
});

scenario!(what_a_probe_command_leaves_behind_keeps_no_descriptor_of_ours, |w| {
    let tries = w.file("tries");
    probed_by(w, &format!("echo t >> {tries}; sleep 1000 & exit 0"), QUICK);
    w.start();
    w.until_state("db", "ready");
    let before = crate::procs::descriptors(w.pid());
    let first = w.lines("tries").len();
    until("ten more", || (w.lines("tries").len() > first + 10).then_some(()));
    let now = crate::procs::descriptors(w.pid());
    assert!(now < before + 8, "{before} before, {now} now");
    assert_eq!(w.stop(), 0);
});
