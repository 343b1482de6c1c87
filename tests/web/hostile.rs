//! Clients that are slow, many or wrong: each costs its own connection and nobody else's.

use crate::client::{connect, get, raw};
use crate::harness::{World, until};
use crate::started;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn more_slow_clients_than_there_is_room_for_keep_nobody_out() {
    let (world, open, _) = started(World::new());
    let pid = world.state_of("web").unwrap()["pid"].as_i64().unwrap();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let alone = descriptors();
    let slow: Vec<_> = (0..200)
        .map(|i| {
            let mut stream = connect(open);
            // Some send half a request, some nothing at all.
            if i % 2 == 0 {
                let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: sl");
            }
            let begun = Instant::now();
            if i % 20 == 19 {
                assert_eq!(get(open, "/health/live").code, 200);
                assert!(
                    begun.elapsed() < Duration::from_secs(4),
                    "after {i} slow ones: {:?}",
                    begun.elapsed()
                );
            }
            stream
        })
        .collect();
    assert!(descriptors() <= alone + 64 + 1, "{} connections are held", descriptors() - alone);
    // The last of them, who was not pushed out, is closed when its time for headers is over.
    let mut last = slow.into_iter().next_back().unwrap();
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = last.read_to_end(&mut rest);
    // After five seconds; after fifteen its connection would be too old whatever it had sent.
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[test]
fn headers_without_end_and_noise_are_refused_and_it_lives_on() {
    let (world, open, _) = started(World::new());
    let long = format!("GET /health/live HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "y".repeat(9_000));
    // The refusal may be lost to the reset that follows it; an answer of 200 may not come.
    if let Some(answer) = raw(open, long.as_bytes()) {
        assert!(matches!(answer.code, 400 | 431), "{answer:?}");
    }
    for noise in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut stream = connect(open);
        let _ = stream.write_all(noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(!String::from_utf8_lossy(&all).contains("200 OK"));
    }
    // Those who hang up early, in a crowd.
    for _ in 0..100 {
        let _ = connect(open).write_all(b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    until("an answer", || (get(open, "/health/live").code == 200).then_some(()));
    assert_eq!(world.state_of("web").unwrap()["restarts"], 0);
}

#[test]
fn slow_clients_that_hold_every_descriptor_keep_nobody_out() {
    let mut world = World::new();
    world.raw("web", &format!("{}nofile = 20\n", crate::web_toml()));
    let mut command = world.command(&["run"]);
    command.env("SUPAFLY_WEB_LISTEN", "127.0.0.1:0").env("SUPAFLY_WEB_PRIVATE", "off");
    command.env("SUPAFLY_DATA", world.path("data"));
    world.start_as(command);
    let open = crate::address(&world, "health_address");
    let _slow: Vec<_> = (0..60).map(|_| connect(open)).collect();
    let begun = Instant::now();
    assert_eq!(get(open, "/health/live").code, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
