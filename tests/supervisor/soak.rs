//! A random killer among services, their children, probes and clients. What must not grow does not, nobody stays a
//! zombie, and in the end everybody is back. `SUPAFLY_SOAK_SECONDS=600` is the full measure, `SUPAFLY_SOAK_SEED` repeats.

use crate::harness::{World, scenario, until, within};
use crate::procs;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn asked(name: &str) -> Option<u64> {
    std::env::vars().find(|(k, _)| k == name).and_then(|(_, v)| v.parse().ok())
}

/// A zombie that nobody buries stays for good.
const SOON: Duration = Duration::from_secs(20);
const AGAIN: &str = "restart = { delay = \"20ms\", max_delay = \"40ms\", max = 1000000000 }";

fn services(w: &World) {
    w.service("plain", &["wait"], AGAIN);
    w.service(
        "family",
        &["child", "wait", "orphan", "ignore-term,wait", "orphan", "child,wait,wait", "wait"],
        AGAIN,
    );
    w.service("notifies", &["ready", "wait"], &format!("ready = {{ notify = true }}\n{AGAIN}"));
    let probe = ["/bin/sh", "-c", "sleep 0.03 & sleep 0.02"];
    w.service(
        "probed",
        &["wait"],
        &format!("ready = {{ exec = {probe:?}, every = \"600ms\", timeout = \"500ms\" }}\n{AGAIN}"),
    );
    w.service("loud", &["flood", "200", "wait"], AGAIN);
    w.service("flaky", &["sleep", "150", "orphan", "wait", "exit", "3"], AGAIN);
    w.service("needy", &["wait"], &format!("requires = [\"notifies\", \"probed\"]\n{AGAIN}"));
}

const STEADY: [&str; 6] = ["plain", "family", "notifies", "probed", "loud", "needy"];

fn below(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut level = procs::children(pid);
    while !level.is_empty() {
        found.extend_from_slice(&level);
        level = level.into_iter().flat_map(procs::children).collect();
    }
    found
}

fn strike(w: &World, random: &mut StdRng, clients: &mut Vec<UnixStream>) {
    match random.random_range(0..10) {
        // A client: asks and goes, says half a word and stays, or babbles.
        0 => {
            if let Ok(mut client) = UnixStream::connect(w.path("run/control.sock")) {
                let _ = client.write_all(b"{\"v\":1,\"verb\":\"status\"}\n");
            }
        }
        1 => {
            clients.extend(UnixStream::connect(w.path("run/control.sock")).ok());
            if let Some(client) = clients.last_mut() {
                let _ = client.write_all(b"{\"v\":1,");
            }
            if clients.len() > 20 {
                clients.clear();
            }
        }
        2 => drop(
            std::os::unix::net::UnixDatagram::unbound()
                .and_then(|s| s.send_to(b"READY=1", w.path("run/notify.sock"))),
        ),
        // Anybody: a leader, a child of one, an orphan, a probe.
        _ => {
            let all = below(w.pid());
            if let Some(victim) = all.get(random.random_range(0..all.len().max(1))) {
                let deaths = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV, Signal::SIGSTOP];
                let signal = deaths[random.random_range(0..deaths.len())];
                procs::kill(*victim, signal);
                if signal == Signal::SIGSTOP {
                    std::thread::sleep(Duration::from_millis(5));
                    procs::kill(*victim, Signal::SIGKILL);
                }
            }
        }
    }
}

fn until_back(w: &World) {
    until("every service to be back", || {
        let status = w.status()?;
        let steady = |s: &&serde_json::Value| STEADY.iter().any(|name| s["name"] == *name);
        status["services"].as_array()?.iter().filter(steady).all(|s| s["state"] == "ready").then_some(())
    });
}

scenario!(under_a_random_killer_nothing_grows_and_everybody_comes_back, |w| {
    let length = Duration::from_secs(asked("SUPAFLY_SOAK_SECONDS").unwrap_or(10));
    let seed = asked("SUPAFLY_SOAK_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("SUPAFLY_SOAK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    services(w);
    w.start();
    until_back(w);
    let descriptors = procs::descriptors(w.pid());
    let (begun, warm) = (Instant::now(), length / 4);
    let (mut clients, mut strikes, mut at_first) = (Vec::new(), 0_u64, None);
    let mut look = begun + Duration::from_secs(1);
    while begun.elapsed() < length {
        strike(w, &mut random, &mut clients);
        strikes += 1;
        std::thread::sleep(Duration::from_millis(random.random_range(1..25)));
        if Instant::now() >= look {
            look += Duration::from_secs(1);
            within(SOON, "a moment without zombies", || (w.zombies() == 0).then_some(()));
            let open = procs::descriptors(w.pid());
            assert!(open < descriptors + 80, "seed {seed}: {descriptors} descriptors became {open}");
            if begun.elapsed() > warm && at_first.is_none() {
                at_first = Some(procs::rss(w.pid()));
            }
        }
    }
    drop(clients);
    until_back(w);
    until("descriptors as in the beginning", || {
        // The flaky one comes and goes with its two.
        (procs::descriptors(w.pid()) <= descriptors + 2).then_some(())
    });
    let (first, last) = (at_first.unwrap(), procs::rss(w.pid()));
    eprintln!("{strikes} strikes in {length:?}: {first} kB after the warm-up, {last} kB at the end");
    assert!(last <= first + first / 5 + 1_024, "seed {seed}: {first} kB became {last} kB");
    within(SOON, "no zombie", || (w.zombies() == 0).then_some(()));
    assert_eq!(w.stop(), 0, "seed {seed}: {}", w.log());
});
