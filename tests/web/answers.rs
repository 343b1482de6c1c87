//! What is said, in which state of the whole, and to whom.

use crate::client::{get, get_with_token, raw, try_get};
use crate::harness::{World, until};
use crate::strict::samples;
use crate::{address, start, started};
use std::net::TcpListener;

#[test]
fn it_answers_while_the_rest_is_still_on_its_way_up_and_says_ready_when_it_is() {
    let world = World::new();
    let gate = world.file("gate");
    // Ready only once the test has made the file.
    let script = ["until", &gate, "ready", "wait"];
    world.service("slow", &script, "ready = { notify = true }");
    let (world, open, _) = started(world);
    assert_eq!(get(open, "/health/live").code, 200);
    let early = get(open, "/health/ready");
    assert_eq!((early.code, early.json()["state"].as_str()), (503, Some("starting")), "{early:?}");
    assert!(early.json()["reason"].as_str().unwrap().contains("slow"), "{early:?}");
    std::fs::write(gate, "").unwrap();
    until("ready", || (get(open, "/health/ready").code == 200).then_some(()));
    let ready = get(open, "/health/ready");
    assert_eq!((ready.json()["state"].as_str(), ready.json()["reason"].as_str()), (Some("ready"), Some("")));
    assert!(ready.json()["facts_age_ms"].as_u64().unwrap() < 5_000, "{ready:?}");
    assert_eq!(ready.header("cache-control"), Some("no-store"));
    drop(world);
}

#[test]
fn a_service_that_gave_up_makes_it_degraded_and_what_it_printed_is_shown_by_no_route() {
    let world = World::new();
    let script = ["say", "LINE-WITH-A-STATEMENT", "exit", "3"];
    world.service("broken", &script, "restart = { when = \"never\" }");
    let (world, open, private) = started(world);
    let failed = world.until_state("broken", "failed");
    assert_eq!(failed["output"][0], "LINE-WITH-A-STATEMENT", "the status has it");
    until("degraded", || (get(open, "/health/ready").json()["state"] == "degraded").then_some(()));
    assert_eq!(get(open, "/health/live").code, 200);
    let services = get(open, "/health/services");
    assert_eq!(services.code, 503);
    let row =
        |name: &str| services.json().as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap();
    assert_eq!(row("broken"), serde_json::json!({"name": "broken", "state": "failed", "ok": false}));
    assert_eq!(row("web")["ok"], true);
    assert_eq!((&row("addresses")["ok"], &row("addresses")["of"]), (&true.into(), &"web".into()));
    let status = get(private, "/status");
    assert_eq!((status.code, &status.json()["state"]), (200, &"degraded".into()));
    assert!(status.body.contains("exit 3") && status.json()["facts_age_ms"].is_u64(), "{status:?}");
    // The cause is told, the words are not.
    for path in ["/status", "/metrics", "/", "/health/live", "/health/ready", "/health/services"] {
        let body = get(private, path).body;
        assert!(!body.contains("LINE-WITH"), "{path}: {body}");
    }
}

#[test]
fn it_says_stopping_until_the_others_are_down_and_holds_nothing_up() {
    let world = World::new().budget("30s");
    let deaf = world.file("deaf");
    let script = ["ignore-term", "mark", &deaf, "deaf", "wait"];
    world.service("stubborn", &script, "stop = [{ signal = \"SIGTERM\", wait = \"8s\" }]");
    let (mut world, open, _) = started(world);
    world.until_marked("deaf", "deaf");
    until("ready", || (get(open, "/health/ready").code == 200).then_some(()));
    world.term();
    until("stopping", || {
        let answer = get(open, "/health/ready");
        (answer.code == 503 && answer.json()["state"] == "stopping").then_some(())
    });
    assert_eq!(get(open, "/health/live").code, 200, "it must not be killed for stopping");
    let begun = std::time::Instant::now();
    assert_eq!(world.ended().code(), Some(75), "{}", world.log());
    // Its own time would be 28.5 s.
    assert!(begun.elapsed() < std::time::Duration::from_secs(25), "it held the stop up");
    assert!(try_get(open, "/health/live").is_none());
}

#[test]
fn a_stop_that_takes_nearly_all_its_time_is_not_called_forced_because_of_it() {
    let world = World::new().budget("60s");
    // Of 57 s, `web` has 9.12 (8 of 50 parts): it must go by itself before that, and the other one takes longer.
    let up = world.file("up");
    let script = ["mark", &up, "up", "fade", "10500"];
    world.service("slow", &script, "stop = [{ signal = \"SIGTERM\", share = 50 }]");
    let (mut world, open, _) = started(world);
    world.until_marked("up", "up");
    until("ready", || (get(open, "/health/ready").code == 200).then_some(()));
    assert_eq!(world.stop(), 0, "{}", world.log());
}

#[test]
fn alone_it_ends_at_once_and_cleanly() {
    let (mut world, _, _) = started(World::new());
    let begun = std::time::Instant::now();
    assert_eq!(world.stop(), 0, "{}", world.log());
    assert!(begun.elapsed() < std::time::Duration::from_secs(4));
}

#[test]
fn beyond_loopback_the_private_routes_want_the_token_that_secrets_made() {
    let mut world = World::new();
    start(&mut world, "127.0.0.1:0", "0.0.0.0:0");
    let private = address(&world, "private_address");
    for path in ["/status", "/metrics", "/"] {
        let refused = get(private, path);
        assert_eq!((refused.code, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(get_with_token(private, path, ""), 401);
    }
    assert_eq!(get(private, "/health/live").code, 200);
    let secrets = world.path("data/supafly/secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("web-token"), "t0ken").unwrap();
    for path in ["/status", "/metrics", "/"] {
        assert_eq!(get_with_token(private, path, "t0ken"), 200, "{path}");
        for wrong in ["t0keN", "t0ke", "t0kenx", ""] {
            assert_eq!(get_with_token(private, path, wrong), 401, "{path} {wrong}");
        }
        assert_eq!(get(private, path).code, 401);
    }
}

#[test]
fn a_scraper_that_can_show_no_token_gets_metrics_alone_where_that_was_asked_for() {
    let mut world = World::new();
    world.raw("web", &crate::web_toml());
    let mut command = world.command(&["run"]);
    command.env("SUPAFLY_WEB_LISTEN", "127.0.0.1:0").env("SUPAFLY_WEB_PRIVATE", "0.0.0.0:0");
    command.env("SUPAFLY_WEB_METRICS", "0.0.0.0:0").env("SUPAFLY_DATA", world.path("data"));
    world.start_as(command);
    let scraper = address(&world, "metrics_address");
    let metrics = get(scraper, "/metrics");
    assert_eq!((metrics.code, samples(&metrics.body)["supafly_up"]), (200, 1.0));
    for path in ["/status", "/", "/health/live", "/health/ready", "/health/services"] {
        let lost = get(scraper, path);
        assert_eq!((lost.code, lost.body.as_str()), (404, "there are only:\n/metrics\n"), "{path}");
    }
    // The other doors are as they were.
    assert_eq!(get(address(&world, "private_address"), "/metrics").code, 401);
    assert_eq!(get(address(&world, "health_address"), "/metrics").code, 404);
}

#[test]
fn without_being_asked_for_there_is_no_door_for_scrapers() {
    let (world, _, _) = started(World::new());
    assert_eq!(world.state_of("web").unwrap()["values"]["metrics_address"], "off");
}

#[test]
fn methods_and_paths_that_it_does_not_know_are_refused_with_what_it_knows() {
    let (_world, open, private) = started(World::new());
    let lost = get(open, "/nowhere");
    assert_eq!(lost.code, 404);
    assert!(lost.body.contains("/health/services") && !lost.body.contains("/metrics"), "{lost:?}");
    assert!(get(private, "/nowhere").body.contains("/metrics"));
    for path in ["/status", "/metrics", "/"] {
        assert_eq!(get(open, path).code, 404, "{path} is not for everybody");
    }
    let body = "x".repeat(200_000);
    for (request, code) in [
        ("POST /health/live HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 405),
        (format!("PUT /status HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n{}", &body[..60_000]), 405),
        ("DELETE / HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 405),
        ("GET /health/live?x=1 HTTP/1.0\r\n\r\n".to_owned(), 200),
    ] {
        let answer = raw(private, request.as_bytes()).unwrap();
        assert_eq!(answer.code, code, "{}", &request[..40.min(request.len())]);
        assert!(code == 200 || answer.header("allow") == Some("GET, HEAD"), "{answer:?}");
    }
    let full = get(private, "/health/live");
    let head = raw(private, b"HEAD /health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!((head.code, head.body.as_str()), (200, ""));
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 20 && full.code == 200, "{head:?}");
}

#[test]
fn metrics_are_there_for_every_service_and_the_page_needs_nothing_else() {
    let world = World::new();
    world.service("one", &["child", "wait", "wait"], "");
    let (world, _, private) = started(world);
    world.until_state("one", "ready");
    let text = until("the child in the metrics", || {
        let answer = get(private, "/metrics");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        answer.body.contains("supafly_service_processes{service=\"one\"} 2\n").then_some(answer.body)
    });
    let samples = samples(&text);
    let value = |sample: &str| *samples.get(sample).unwrap_or_else(|| panic!("no {sample}:\n{text}"));
    assert_eq!((value("supafly_up"), value("supafly_ready")), (1.0, 1.0));
    assert_eq!(value("supafly_service_state{service=\"one\",state=\"ready\"}"), 1.0);
    assert_eq!(value("supafly_service_restarts_total{service=\"web\"}"), 0.0);
    assert!(value("supafly_service_resident_bytes{service=\"web\"}") > 500_000.0);
    assert!(value("supafly_service_cpu_seconds{service=\"web\"}") >= 0.0);
    let page = get(private, "/");
    assert_eq!((page.code, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert!(page.body.contains(">one<") && !page.body.contains("<script"), "{}", page.body);
}

#[test]
fn off_turns_a_listener_off() {
    let mut world = World::new();
    start(&mut world, "off", "127.0.0.1:0");
    let private = address(&world, "private_address");
    assert_eq!(get(private, "/health/live").code, 200);
    let web = world.until_state("web", "ready");
    assert_eq!(web["values"]["health_address"], "off");
}

#[test]
fn a_taken_port_is_said_and_tried_again() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let mut world = World::new();
    start(&mut world, &taken.to_string(), "off");
    let web = world.until_state("web", "backoff");
    assert_eq!(web["last"], "exit 70");
    let said = web["output"].to_string();
    for word in [&taken.to_string(), "SUPAFLY_WEB_LISTEN", "another port"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    drop(holder);
    world.until_state("web", "ready");
    assert_eq!(address(&world, "health_address"), taken);
    assert_eq!(get(taken, "/health/live").code, 200);
}
