//! An ordinary life: up, used, started again, stopped; and nothing left.

use crate::support::machine::until;
use crate::support::programs::programs;
use crate::world::{PASSWORD, Pooled, SOON, command_line, field, processes_of};
use std::os::unix::fs::MetadataExt;

#[test]
fn both_ports_serve_every_role_by_its_own_password_and_a_restart_puts_no_tenant() {
    let mut machine = Pooled::new();
    machine.up();
    machine.sql("create role app login password 'of the app'").unwrap();
    for port in [machine.transaction, machine.session] {
        let session = machine.client(port, "postgres.local", PASSWORD).unwrap();
        assert_eq!(session.ask("select current_user").unwrap(), "postgres");
        let app = machine.client(port, "app.local", "of the app").unwrap();
        assert_eq!(
            app.ask("select concat(current_user, inet_server_port())").unwrap(),
            format!("app{}", machine.port)
        );
        assert!(machine.client(port, "app.local", "a wrong one").is_err());
    }
    let row = machine.wait("the row of the tenant", |m| m.row("tenant"));
    assert_eq!(row["state"], "ok", "{row}");
    assert!(row["detail"].as_str().unwrap().contains("ROLE.local; made"), "{row}");
    assert_eq!(machine.puts(), 1);

    // Started again with clients inside, by itself and with the whole machine: nobody puts anything.
    assert!(machine.supafly(&["restart", "pooler"]).status.success(), "{}", machine.tail());
    machine.wait_pooler("ready");
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.up();
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    let row = machine.wait("the row of the tenant", |m| m.row("tenant"));
    assert!(row["detail"].as_str().unwrap().ends_with("as it was"), "{row}");
    assert_eq!(machine.puts(), 1, "a restart threw clients out");

    // What differs is put once: here Postgres has moved.
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    machine.move_postgres();
    machine.up();
    assert_eq!(machine.enter().ask("select inet_server_port()").unwrap(), machine.port.to_string());
    assert_eq!(machine.puts(), 2);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn nothing_of_it_is_left_and_no_secret_is_where_others_can_read_it() {
    let mut machine = Pooled::new();
    machine.up();
    let (resident, supavisor) = (machine.resident().unwrap(), machine.supavisor().unwrap());
    let ours = processes_of(programs());
    eprintln!("resident: {} kB PSS; Supavisor itself: {} kB RSS", pss(resident), rss(supavisor));
    assert!(pss(resident) < 12_000, "the resident is fat");
    for (pid, line) in &ours {
        assert!(!line.contains("epmd"), "{pid}: {line}");
        for name in
            ["vault_enc_key", "secret_key_base", "api_jwt_secret", "metrics_jwt_secret", "supavisor_admin"]
        {
            assert!(!line.contains(&machine.secret(name)), "{name} in argv of {pid}");
        }
    }
    for name in ["vault_enc_key", "api_jwt_secret", "supavisor_admin", "pgbouncer"] {
        assert!(!machine.log().contains(&machine.secret(name)), "{name} is in the log");
    }
    let files = machine.data().join("supafly/secrets");
    for name in ["pooler.json", "keys.json"] {
        assert_eq!(std::fs::metadata(files.join(name)).unwrap().mode() & 0o777, 0o400, "{name}");
    }
    for pid in [supavisor] {
        for file in [format!("/tmp/jit-{pid}.dump"), format!("/tmp/perf-{pid}.map")] {
            assert!(!std::path::Path::new(&file).exists(), "{file}");
        }
    }
    // Ports of its own are shut, or the status says that they are open.
    let row = machine.wait("the row of the ports", |m| m.row("ports"));
    eprintln!("ports: {row}");
    assert!(row["detail"].as_str().unwrap().contains(&machine.api.to_string()), "{row}");
    let run = machine.run_dir().display().to_string();
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    until("everybody's end", SOON, || {
        let left = everybody_of(&run);
        left.is_empty().then_some(())
    });
    assert!(!std::path::Path::new(&format!("/proc/{supavisor}")).exists());
}

#[test]
fn without_root_it_serves_and_says_which_ports_are_open() {
    let mut machine = Pooled::new();
    machine.boot_unprivileged();
    machine.wait_ready();
    machine.wait_pooler("ready");
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    let row = machine.wait("the row of the ports", |m| m.row("ports"));
    let detail = row["detail"].as_str().unwrap();
    assert_eq!(row["state"], "open", "{row}");
    // Its own ten; and the pooler's two, because this Postgres listens on loopback only.
    for port in [machine.api, machine.transaction, machine.session] {
        assert!(detail.contains(&port.to_string()), "{row}");
    }
    assert!(detail.starts_with("open to the network: ") && detail.contains("CAP_NET_ADMIN"), "{row}");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// By their environment, which names the run directory in each service of ours; and Supavisor's by its port.
fn everybody_of(run: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap();
    let pids = pids.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let of = |pid: &u32| {
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&env).contains(run) && !command_line(*pid).is_empty()
    };
    pids.filter(of).collect()
}

fn pss(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn rss(pid: u32) -> u64 {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn kilobytes(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn postgres_goes_and_comes_and_so_do_its_clients() {
    let mut machine = Pooled::new();
    machine.up();
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    let before = machine.supavisor();
    assert!(machine.supafly(&["restart", "postgres"]).status.success(), "{}", machine.tail());
    assert_eq!(machine.enter().ask("select 2").unwrap(), "2");
    machine.wait_pooler("ready");
    assert_eq!(machine.supavisor(), before, "a short outage is no reason to start Supavisor anew");
    assert_eq!(field(&machine, "pooler", "state").as_deref(), Some("ready"));
    assert_eq!(machine.puts(), 1);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
