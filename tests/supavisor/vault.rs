//! Keys and rows that do not fit each other.

use crate::support::bucket::{Bucket, Kind};
use crate::world::{PASSWORD, Pooled, Session, command_line, free_ports, signal, stand_in};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Changes what is kept, as a volume would that was lost or restored from elsewhere.
fn lose(machine: &Pooled, name: &str) {
    let path = machine.data().join("supafly/secrets/keys.json");
    let mut all: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(all.as_object_mut().unwrap().remove(name).is_some());
    fs::remove_file(&path).unwrap();
    fs::write(&path, all.to_string()).unwrap();
}

#[test]
fn with_another_vault_key_or_password_the_row_is_made_anew_and_nobody_hangs() {
    let mut machine = Pooled::new();
    machine.up();
    let before = machine.secret("vault_enc_key");
    for (at, name) in ["vault_enc_key", "pgbouncer"].into_iter().enumerate() {
        assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
        lose(&machine, name);
        machine.up();
        assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
        let anew = machine.log().matches("it is made anew").count();
        assert_eq!((machine.puts(), anew), (2 + at, 1 + at), "{name}");
    }
    assert_ne!(machine.secret("vault_enc_key"), before);
    // A database that knows nothing of keys, as one that was made anew.
    machine.sql("drop database _supabase with (force)").unwrap();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.up();
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    assert_eq!(machine.puts(), 4);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_database_that_was_restored_on_a_machine_with_other_keys_serves_clients() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Pooled::new();
    machine.env.extend(bucket.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
    machine.up();
    machine.wait_protected();
    machine.sql("create table public.kept as select 42 as answer").unwrap();
    let before = machine.secret("vault_enc_key");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.lose_volume();
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    machine.up();
    assert_ne!(machine.secret("vault_enc_key"), before);
    assert_eq!(machine.enter().ask("select answer from public.kept").unwrap(), "42");
    assert_eq!(machine.puts(), 2);
    assert!(machine.log().contains("it is made anew"), "{}", machine.tail());
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// What the resident spares its clients: the same database, another key, nobody who looks at the fingerprint.
#[test]
fn without_that_care_clients_hang_while_all_says_that_it_is_well() {
    let mut machine = Pooled::with_stand_in();
    machine.up();
    let ports = free_ports(12);
    let url = format!(
        "ecto://supavisor_admin:{}@127.0.0.1:{}/_supabase",
        machine.secret("supavisor_admin"),
        machine.port
    );
    let list = |from: usize| ports[from..from + 4].iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let start = |key: &str| {
        let mut command = Command::new(stand_in().with_file_name("server"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DATABASE_URL", &url)
            .env("NODE_IP", "127.0.0.1");
        command.env("SECRET_KEY_BASE", "k").env("VAULT_ENC_KEY", key);
        command.env("API_JWT_SECRET", machine.secret("api_jwt_secret"));
        for (name, port) in
            [("PORT", 0), ("PROXY_PORT", 1), ("PROXY_PORT_TRANSACTION", 2), ("PROXY_PORT_SESSION", 3)]
        {
            command.env(name, ports[port].to_string());
        }
        command.env("SESSION_PROXY_PORTS", list(4)).env("TRANSACTION_PROXY_PORTS", list(8));
        command.env("ERL_ZFLAGS", "+Bi +JPperf false -start_epmd false");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        crate::support::machine::until("its port for clients", crate::world::SOON, || {
            std::net::TcpStream::connect(("127.0.0.1", ports[2])).ok().map(drop)
        });
        child
    };
    let end = |mut child: std::process::Child| {
        assert!(command_line(child.id()).contains("server"));
        signal(child.id(), nix::sys::signal::Signal::SIGTERM);
        assert!(child.wait().unwrap().success());
    };
    let api = |verb: &str, path: &str, body: &str| {
        crate::habits::http(ports[0], verb, path, Some(&machine.secret("api_jwt_secret")), body).0
    };
    let within = |patience| Session::open_within(patience, "127.0.0.1", ports[2], "postgres.local", PASSWORD);
    let enter = || within(Duration::from_secs(30));

    let other = start("another key, with 32 characters.");
    assert_eq!(api("GET", "/api/health", ""), 204);
    assert_eq!(api("GET", "/api/tenants/local", ""), 200);
    assert_eq!(within(Duration::from_secs(5)).err().as_deref(), Some("it hangs"));
    end(other);
    let short = start("31 characters, and that is bad.");
    assert_eq!(api("GET", "/api/health", ""), 204);
    let body = r#"{"tenant":{"db_host":"127.0.0.1","db_port":1,"users":[{"db_user":"pgbouncer","db_password":"x"}]}}"#;
    assert_eq!(api("PUT", "/api/tenants/local", body), 500);
    let why = enter().err().unwrap();
    assert!(why != "it hangs" && !why.starts_with("08"), "cut without a word: {why}");
    end(short);
    let right = start(&machine.secret("vault_enc_key"));
    assert_eq!(enter().unwrap().ask("select 1").unwrap(), "1");
    end(right);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
