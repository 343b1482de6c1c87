//! The `web` role as its clients meet it: the real binary under a real supervisor, asked over TCP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by a panic"
)]

#[allow(dead_code, unused_macros, unused_imports, reason = "this target uses a part of it")]
#[path = "../supervisor/harness.rs"]
mod harness;
#[allow(dead_code, reason = "this target uses a part of it")]
#[path = "../supervisor/procs.rs"]
mod procs;
#[allow(dead_code, reason = "this target uses a part of it")]
#[path = "../supervisor/sight.rs"]
mod sight;

mod answers;
mod client;
mod hostile;
mod silence;
#[path = "../../src/web/strict.rs"]
mod strict;

use harness::{World, until};
use std::net::SocketAddr;

/// As `services/web.toml`, but as ourselves: the binary under test need not be readable for others.
fn web_toml() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/services/web.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("user =") && !l.starts_with("groups ="));
    lines.map(|l| format!("{l}\n")).collect()
}

/// Starts a supervisor of `web` and what else the world has; the settings are `off`, an address, or any free port.
fn start(world: &mut World, open: &str, private: &str) {
    world.raw("web", &web_toml());
    let mut command = world.command(&["run"]);
    command.env("SUPAFLY_WEB_LISTEN", open).env("SUPAFLY_WEB_PRIVATE", private);
    command.env("SUPAFLY_DATA", world.path("data"));
    world.start_as(command);
}

/// Where it listens, as the supervisor was told; `0.0.0.0` is reached on loopback.
fn address(world: &World, key: &str) -> SocketAddr {
    until("web's address", || {
        let web = world.state_of("web")?;
        let mut address: SocketAddr = web["values"][key].as_str()?.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Some(address)
    })
}

/// Both listeners on free ports of loopback.
fn started(mut world: World) -> (World, SocketAddr, SocketAddr) {
    start(&mut world, "127.0.0.1:0", "127.0.0.1:0");
    let (open, private) = (address(&world, "health_address"), address(&world, "private_address"));
    (world, open, private)
}
