//! A stand-in for Supavisor 2.9.10 that has its habits, the bad ones above all; it says so when it starts.
//!
//! It is a whole release in one program: called as `migrate` it makes its tables, as `server` (or `supavisor start`) it
//! serves. What it does not do is pooling: each client gets a connection of its own to the real Postgres, which also does
//! the authentication. What it does as measured on the real one:
//!
//! - without `SECRET_KEY_BASE` or `NODE_IP` it exits with 1; with a vault key that is wrong it says that it is well;
//! - HTTP answers before the pooler's ports do, and `/api/health` knows nothing of migrations, keys or listeners;
//! - a PUT that changes nothing throws every client out; TERM cuts them all at once and takes 1.1 s, and does not come to
//!   its end while nobody reads what it prints; INT ends it at once, unless `+Bi`;
//! - it leaves an epmd, helpers with sessions of their own and files in `/tmp`, each unless told otherwise.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::exit,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::zombie_processes,
    reason = "part of the tests: what is broken must be seen, and the real one ends as abruptly"
)]

mod api;
mod household;
mod proxy;
mod store;

use household::{Flags, say};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// All that its parts share.
struct World {
    env: BTreeMap<String, String>,
    store: Store,
    clients: proxy::Clients,
    health: tokio::sync::Mutex<api::Health>,
}

impl World {
    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    fn port(&self, name: &str, default: u16) -> u16 {
        self.var(name).and_then(|p| p.parse().ok()).unwrap_or(default)
    }

    fn ports(&self, name: &str, default: [u16; 4]) -> Vec<u16> {
        let given = |list: &str| list.split(',').filter_map(|p| p.trim().parse().ok()).collect();
        self.var(name).map_or_else(|| default.to_vec(), given)
    }
}

fn main() {
    let mut words = std::env::args();
    let called = words.next().expect("a name");
    let name = called.rsplit('/').next().unwrap_or_default().to_owned();
    let first = words.next();
    match (name.as_str(), first.as_deref()) {
        (_, Some("helper")) => household::helper(),
        (_, Some("epmd-launcher")) => household::launch_epmd(),
        (_, Some("epmd")) => household::epmd(),
        ("migrate", None) => boot(true),
        ("server", None) | (_, Some("start")) => boot(false),
        (_, Some("version")) => println!("supavisor 2.9.10 (stand-in for Supavisor)"),
        (_, other) => {
            eprintln!("stand-in for Supavisor: unknown command {other:?}");
            std::process::exit(i32::from(other.is_some()));
        }
    }
}

fn boot(migrate: bool) {
    let env = supafly::facts::environment();
    let there = |name: &str| env.get(name).is_some_and(|v| !v.is_empty());
    household::start_logger();
    say("info", "this is a stand-in for Supavisor, which is on no package registry");
    if which::which("dirname").is_err() {
        std::process::exit(127);
    }
    if !there("NODE_IP") {
        eprintln!("hostname: Temporary failure in name resolution");
        std::process::exit(1);
    }
    if !there("SECRET_KEY_BASE") {
        eprintln!("Runtime terminating during boot ({{[118,97,114,105,97,98,108,101],[]}})");
        std::process::exit(1);
    }
    let flags = Flags::of(env.get("ERL_ZFLAGS").map(String::as_str).unwrap_or_default());
    household::leave_behind(&flags, !migrate);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let url = env.get("DATABASE_URL").cloned();
    let url = url.unwrap_or_else(|| "ecto://postgres:postgres@localhost:6432/postgres".to_owned());
    let store = Store::new(&url, env.get("VAULT_ENC_KEY").cloned().unwrap_or_default());
    if migrate {
        let code = runtime.block_on(async {
            match tokio::time::timeout(Duration::from_secs(10), store.migrate_in_the_end()).await {
                Ok(()) => 0,
                Err(_) => 1,
            }
        });
        household::flush();
        std::process::exit(code);
    }
    let world = Arc::new(World {
        env,
        store,
        clients: proxy::Clients::default(),
        health: tokio::sync::Mutex::new(api::Health::Good),
    });
    let code = runtime.block_on(serve(world, flags));
    household::flush();
    std::process::exit(code);
}

async fn bound(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("0.0.0.0", port)).await.ok()
}

async fn serve(world: Arc<World>, flags: Flags) -> i32 {
    let mut term = signal(SignalKind::terminate()).expect("signals");
    let mut int = signal(SignalKind::interrupt()).expect("signals");
    let mut quit = signal(SignalKind::quit()).expect("signals");
    let mut usr1 = signal(SignalKind::user_defined1()).expect("signals");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let Some(http) = bound(world.port("PORT", 4000)).await else {
        eprintln!("{{:listen_error, :endpoint, :eaddrinuse}}");
        return 1;
    };
    tokio::spawn(api::serve(http, world.clone()));
    // The real one's HTTP is up to 50 ms ahead.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut listeners = vec![
        ("pg_proxy_transaction", world.port("PROXY_PORT_TRANSACTION", 6543), false),
        ("pg_proxy_session", world.port("PROXY_PORT_SESSION", 5432), false),
        ("pg_proxy", world.port("PROXY_PORT", 5412), true),
    ];
    let inner = [
        ("SESSION_PROXY_PORTS", [12100, 12101, 12102, 12103]),
        ("TRANSACTION_PROXY_PORTS", [12104, 12105, 12106, 12107]),
    ];
    for (name, default) in inner {
        listeners
            .extend(world.ports(name, default).into_iter().map(|port| ("pg_proxy_internal", port, false)));
    }
    for (name, port, cuts) in listeners {
        let Some(listener) = bound(port).await else {
            eprintln!("{{:listen_error, :{name}, :eaddrinuse}}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            return 1;
        };
        tokio::spawn(proxy::serve(listener, world.clone(), cuts));
    }
    say("info", "stand-in for Supavisor: it listens");
    loop {
        tokio::select! {
            _ = term.recv() => {
                say("notice", "SIGTERM received - shutting down");
                world.clients.cut();
                tokio::time::sleep(Duration::from_millis(1_070)).await;
                return 0;
            }
            _ = int.recv() => match (flags.ignores_int, household::stdin_ends()) {
                (true, _) => {}
                (false, true) => std::process::exit(0),
                // Its prompt: the whole machine of Erlang stands, and no TERM moves it.
                (false, false) => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)),
            },
            _ = quit.recv() => std::process::exit(0),
            _ = usr1.recv() => std::process::exit(1),
        }
    }
}
