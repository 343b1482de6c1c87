//! The stand-in's own habits, without any supervisor: what the other tests stand on. Always the stand-in; there is no
//! Postgres behind it here.

use crate::support::machine::until;
use crate::world::{SOON, command_line, free_ports, lives, signal, stand_in};
use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One request: status and body.
pub(crate) fn http(port: u16, verb: &str, path: &str, secret: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let token = secret.map(|s| format!("Authorization: Bearer {}\r\n", token(s))).unwrap_or_default();
    let length = body.len();
    write!(stream, "{verb} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0), body.to_owned())
}

/// Without `exp`, which it takes for ever.
fn token(secret: &str) -> String {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part("{}"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let signature = mac.finalize().into_bytes();
    format!("{text}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature))
}

struct Alone {
    child: Child,
    ports: Vec<u16>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server with the least that it needs, and this.
fn command(ports: &[u16], further: &[(&str, &str)]) -> Command {
    let mut command = Command::new(stand_in().with_file_name("server"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("SECRET_KEY_BASE", "k").env("NODE_IP", "127.0.0.1");
    command.env("VAULT_ENC_KEY", "0123456789abcdef0123456789abcdef").env("API_JWT_SECRET", "s");
    // Nobody is there.
    command.env("DATABASE_URL", "ecto://u:p@127.0.0.1:1/d");
    command.env("ERL_ZFLAGS", "+Bi +JPperf false -start_epmd false");
    for (name, at) in
        [("PORT", 0), ("PROXY_PORT_TRANSACTION", 1), ("PROXY_PORT_SESSION", 2), ("PROXY_PORT", 3)]
    {
        command.env(name, ports[at].to_string());
    }
    for (name, at) in [("SESSION_PROXY_PORTS", 4), ("TRANSACTION_PROXY_PORTS", 5)] {
        command.env(name, ports[at].to_string());
    }
    command.envs(further.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn start(further: &[(&str, &str)], change: impl FnOnce(&mut Command)) -> Alone {
    let ports = free_ports(6);
    let mut command = command(&ports, further);
    change(&mut command);
    let alone = Alone { child: command.spawn().unwrap(), ports };
    until("its last port", SOON, || TcpStream::connect(("127.0.0.1", alone.ports[5])).ok().map(drop));
    alone
}

impl Alone {
    fn ended_by(&mut self, with: Signal, within: Duration) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        signal(self.child.id(), with);
        until("its end", within, || self.child.try_wait().unwrap().map(|s| (s.code(), begun.elapsed())))
    }

    fn stays(&mut self, moment: Duration) -> bool {
        std::thread::park_timeout(moment);
        self.child.try_wait().unwrap().is_none()
    }
}

#[test]
fn without_what_it_needs_it_does_not_start() {
    let ports = free_ports(6);
    for (name, code) in [("SECRET_KEY_BASE", 1), ("NODE_IP", 1)] {
        let status = command(&ports, &[]).env_remove(name).status().unwrap();
        assert_eq!(status.code(), Some(code), "{name}");
    }
    assert_eq!(command(&ports, &[("PATH", "/nowhere")]).status().unwrap().code(), Some(127));
    let begun = Instant::now();
    let migrate =
        std::os::unix::process::CommandExt::arg0(&mut command(&ports, &[]), "migrate").status().unwrap();
    assert_eq!(migrate.code(), Some(1));
    assert!(begun.elapsed() > Duration::from_secs(9), "the database is out of reach: it takes ten seconds");
}

#[test]
fn term_takes_a_second_int_depends_and_quit_is_at_once() {
    let (code, took) = start(&[], |_| {}).ended_by(Signal::SIGTERM, SOON);
    assert!(code == Some(0) && took > Duration::from_millis(1_000), "{code:?} {took:?}");
    let mut ignores = start(&[], |_| {});
    signal(ignores.child.id(), Signal::SIGINT);
    assert!(ignores.stays(Duration::from_millis(300)));
    let (code, took) = ignores.ended_by(Signal::SIGQUIT, SOON);
    assert!(code == Some(0) && took < Duration::from_millis(900), "{code:?} {took:?}");
    let plain = [("ERL_ZFLAGS", "+JPperf false -start_epmd false")];
    let (code, took) = start(&plain, |_| {}).ended_by(Signal::SIGINT, SOON);
    assert!(code == Some(0) && took < Duration::from_millis(900), "{code:?} {took:?}");
    // With an open stdin its prompt freezes everything, TERM too.
    let mut frozen = start(&plain, |c| {
        c.stdin(Stdio::piped());
    });
    signal(frozen.child.id(), Signal::SIGINT);
    let stat = format!("/proc/{}/stat", frozen.child.id());
    until("it to stand", SOON, || std::fs::read_to_string(&stat).unwrap().contains(") T ").then_some(()));
    signal(frozen.child.id(), Signal::SIGTERM);
    assert!(frozen.stays(Duration::from_millis(1_500)));
}

#[test]
fn unread_it_serves_and_never_ends() {
    let mut alone = start(&[], |c| {
        c.stdout(Stdio::piped());
    });
    let port = alone.ports[0];
    for _ in 0..600 {
        assert_eq!(http(port, "GET", "/api/nothing", None, "").0, 403);
    }
    signal(alone.child.id(), Signal::SIGTERM);
    assert!(alone.stays(Duration::from_millis(2_500)), "it ended although nobody read it");
    let mut out = alone.child.stdout.take().unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert!(text.contains("stand-in for Supavisor") && alone.child.wait().unwrap().success());
}

#[test]
fn its_ports_speak_as_the_real_ones_do() {
    let alone = start(&[], |_| {});
    let talk = |port: u16, parts: &[&[u8]]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut answer = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                // Until the first part was answered, which is what is expected; else for a while.
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let _ = stream.peek(&mut [0]);
                stream.set_read_timeout(None).unwrap();
            }
            let _ = stream.write_all(part);
        }
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(
        talk(alone.ports[1], &[b"GET / HTTP/1.0\r\n\r\n"])
            .starts_with("HTTP/1.1 204 OK\r\nx-app-version: 2.9.10")
    );
    let mut startup = vec![0, 0, 0, 24, 0, 3, 0, 0];
    startup.extend(b"user\0postgres\0\0\0");
    startup[3] = u8::try_from(startup.len()).unwrap();
    let nobody = talk(alone.ports[2], &[&startup]);
    assert!(
        nobody.contains("XX000") && nobody.contains("ENOIDENTIFIER") && !nobody.contains("VFATAL"),
        "{nobody}"
    );
    let (first, rest) = startup.split_at(9);
    assert!(talk(alone.ports[2], &[first, rest]).contains("08P01"));
    assert_eq!(talk(alone.ports[3], &[]), "", "its proxy cuts everybody");
    // A tenant cannot be looked up without a database: cut without a word, four seconds later.
    let mut of = vec![0, 0, 0, 0, 0, 3, 0, 0];
    of.extend(b"user\0postgres.local\0\0");
    of[3] = u8::try_from(of.len()).unwrap();
    assert_eq!(talk(alone.ports[1], &[&of]), "");
    // Nobody behind it: 500 after five seconds, later 503.
    let begun = Instant::now();
    assert_eq!(http(alone.ports[0], "GET", "/api/health", None, "").0, 500);
    assert!(begun.elapsed() > Duration::from_millis(4_900));
    let (status, body) = http(alone.ports[0], "GET", "/api/health", None, "");
    assert!(status == 503 && body.contains("database_reachable"), "{status} {body}");
    assert_eq!(http(alone.ports[0], "GET", "/api/tenants/t", Some("wrong"), ""), (403, String::new()));
    assert_eq!(http(alone.ports[0], "GET", "/api/tenants/t", Some("s"), "").0, 500);
}

#[test]
fn it_leaves_an_epmd_and_files_and_its_helpers_go_by_themselves() {
    let mut alone = start(&[("ERL_ZFLAGS", "")], |_| {});
    let pid = alone.child.id();
    let files = [format!("/tmp/jit-{pid}.dump"), format!("/tmp/perf-{pid}.map")];
    let port = alone.ports[0];
    let ours = || {
        let all = std::fs::read_dir("/proc").unwrap();
        let all = all.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let of = |p: &u32| {
            let env = std::fs::read(format!("/proc/{p}/environ")).unwrap_or_default();
            *p != pid && lives(*p) && String::from_utf8_lossy(&env).contains(&format!("PORT={port}\0"))
        };
        all.filter(of).map(|p| (p, command_line(p))).collect::<Vec<_>>()
    };
    until("its helpers", SOON, || (ours().len() == 4).then_some(()));
    let sessions: std::collections::BTreeSet<_> = ours()
        .iter()
        .map(|(p, _)| {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(*p).unwrap());
            nix::unistd::getsid(Some(pid)).unwrap()
        })
        .collect();
    assert_eq!(sessions.len(), 4, "each in a session of its own");
    assert_eq!(alone.ended_by(Signal::SIGTERM, SOON).0, Some(0));
    until("the helpers' end", SOON, || (ours().len() == 1).then_some(()));
    let (epmd, line) = ours().remove(0);
    assert!(line.starts_with("epmd"), "{line}");
    signal(epmd, Signal::SIGKILL);
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
}
