//! A service that fails for want of room waits for it: for as long as it takes, at the cost of no attempt.

use crate::harness::{World, is_root, scenario, skip, until, within};
use std::time::{Duration, Instant};

/// Of what any file system has, and what none has.
const ROOM: &str = "bytes = \"1KiB\"";
/// Two attempts, one after the other, and then everything ends.
const FEW: &str = "restart = { delay = \"50ms\", max_delay = \"50ms\", max = 2 }\ngives_up = \"stop-all\"";

/// For who comes back by a look every two seconds: it is tried without room after half a minute.
const SOON: Duration = Duration::from_secs(15);

/// Keys by which a service needs room that `lacks` takes away and `is_there` gives.
fn room(w: &World, more: &str) -> String {
    let (dir, file) = (w.file(""), w.file("more"));
    format!("room = {{ path = {dir:?}, {ROOM}, more = {file:?}{more} }}\n{FEW}")
}

fn lacks(w: &World) {
    std::fs::write(w.path("more"), u64::MAX.to_string()).unwrap();
}

fn is_there(w: &World) {
    std::fs::remove_file(w.path("more")).unwrap();
}

/// `db` has failed once, for want of room, and would be well from now on.
fn without_room(w: &mut World) {
    lacks(w);
    let (once, marks) = (w.file("once"), w.file("marks"));
    let keys = room(w, "") + "\nready = { notify = true }";
    w.service("db", &["once", &once, "1", "ready", "mark", &marks, "up", "wait"], &keys);
    w.service("api", &["wait"], "requires = [\"db\"]");
    w.start();
    let seen = w.until_state("db", "no-room");
    let detail = seen["detail"].as_str().unwrap();
    assert!(detail.starts_with(&format!("no room on {}", w.file(""))), "{detail}");
    assert!(detail.contains("are needed: make room or grow the volume"), "{detail}");
    assert!(detail.contains("it ended with: exit 1"), "{detail}");
}

scenario!(who_fails_without_room_is_not_started_in_vain_and_comes_by_itself_when_there_is_some, |w| {
    without_room(w);
    // Far longer than all its attempts take.
    let seen = until("it to have waited", || w.state_of("db").filter(|s| s["for_ms"].as_u64() > Some(4_500)));
    assert_eq!((&seen["state"], &seen["restarts"]), (&"no-room".into(), &0.into()), "{seen}");
    let status = w.answer();
    let because = status["readiness"]["because"].as_str().unwrap();
    assert!(because.contains("db: no room on "), "{because}");
    assert_eq!(w.told("db", "waits for room, and starts when there is some").len(), 1, "it is said once");
    is_there(w);
    within(SOON, "it to be back", || (w.lines("marks") == ["up"]).then_some(()));
    w.until_all("ready");
    assert_eq!(w.seen("db")["restarts"], 1);
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_stop_waits_for_no_room, |w| {
    w.set_budget("60s");
    without_room(w);
    let (code, took) = w.timed_stop();
    assert_eq!(code, 0, "{}", w.log());
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(w.lines("marks").is_empty());
});

scenario!(somebody_s_wish_tries_it_without_room, |w| {
    without_room(w);
    w.request("start", Some("db")).unwrap();
    within(SOON, "it to be tried", || (w.lines("marks") == ["up"]).then_some(()));
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(a_service_that_waits_for_room_can_be_stopped_by_hand_and_stays_down, |w| {
    without_room(w);
    w.request("stop", Some("db")).unwrap();
    w.until_state("db", "stopped");
    is_there(w);
    w.request("start", Some("db")).unwrap();
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(while_everything_stands_nobody_comes_for_room_that_there_is, |w| {
    w.service("other", &["wait"], "");
    without_room(w);
    w.until_state("other", "ready");
    w.request("freeze", None).unwrap();
    is_there(w);
    let frozen = Instant::now();
    until("two looks' time", || (frozen.elapsed() > Duration::from_secs(5)).then_some(()));
    assert!(w.lines("marks").is_empty());
    w.request("thaw", None).unwrap();
    within(SOON, "it to be back", || (w.lines("marks") == ["up"]).then_some(()));
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(who_says_itself_that_it_finds_no_room_is_tried_again_beyond_its_attempts, |w| {
    let marks = w.file("marks");
    let script = format!("echo x >> {marks}; [ $(wc -l < {marks}) -gt 3 ] && exec sleep 1000; exit 73");
    let keys = room(w, ", codes = [73]").replace("max = 2", "when = \"never\"");
    w.shell("db", &script, &keys);
    w.start();
    let seen = w.until_state("db", "no-room");
    assert!(seen["detail"].as_str().unwrap().contains("it found no room (exit 73; "), "{seen}");
    until("a fourth start", || (w.lines("marks").len() == 4).then_some(()));
    w.until_state("db", "ready");
    assert_eq!(w.stop(), 0, "{}", w.log());
});

scenario!(what_is_final_is_final_without_room_as_well, |w| {
    lacks(w);
    let keys = room(w, "").replace("max = 2", "final_codes = [77]") + "\npass_exit = [77]";
    w.service("db", &["exit", "77"], &keys);
    assert_eq!(w.start().ended().code(), Some(77), "{}", w.log());
});

scenario!(a_file_system_that_does_not_answer_holds_nobody_up_and_proves_nothing, |w| {
    // Who opens it waits for the other end.
    nix::unistd::mkfifo(&w.path("more"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    w.service("db", &["exit", "1"], &room(w, ""));
    w.service("other", &["wait"], "");
    w.start();
    // An answer that tells of a look that hangs was given while it hung.
    until("the look to hang while others are well", || {
        let status = w.status()?;
        let of = |name: &str| status["services"].as_array()?.iter().find(|s| s["name"] == name);
        let hangs = of("db")?["detail"].as_str()?.contains("whether it had room");
        (hangs && of("other")?["state"] == "ready").then_some(())
    });
    // The policy decides, as if nobody had looked.
    assert_eq!(w.ended().code(), Some(70), "{}", w.log());
    assert!(w.log().contains("2 restarts within 10m"), "{}", w.log());
});

scenario!(a_full_file_system_is_seen_as_it_is_and_so_is_the_room_on_it, |w| {
    if !is_root() {
        return skip("not root: nothing can be mounted");
    }
    let place = w.file("small");
    std::fs::create_dir(&place).unwrap();
    // Never without a bound: what has none fills the host.
    let script = "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"";
    w.outside(&["unshare", "--mount", "sh", "-c", script, &place]);
    let marks = w.file("marks");
    let script = format!(
        "echo x >> {marks}; if [ $(wc -l < {marks}) = 1 ]; then \
         dd if=/dev/zero of={place}/filler bs=64k count=32; exit 1; fi; exec sleep 1000"
    );
    let keys = format!("room = {{ path = {place:?}, bytes = \"512KiB\" }}\n{FEW}");
    w.shell("db", &script, &keys);
    w.start();
    let seen = w.until_state("db", "no-room");
    let detail = seen["detail"].as_str().unwrap();
    let right = format!("no room on {place}: 0 MB are free, 0.5 MB are needed: make room or grow the volume");
    assert!(detail.starts_with(&right), "{detail}");
    std::fs::remove_file(format!("/proc/{}/root{place}/filler", w.pid())).unwrap();
    within(SOON, "it to be back", || (w.state_of("db")?["state"] == "ready").then_some(()));
    assert_eq!(w.lines("marks").len(), 2);
    assert_eq!(w.stop(), 0, "{}", w.log());
});
