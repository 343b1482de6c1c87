//! Killed, hung, missing, misconfigured, and well by its own word only.

use crate::support::machine::until;
use crate::world::{Pooled, SOON, field, lives, signal};
use nix::sys::signal::Signal;
use std::net::TcpListener;

#[test]
fn whoever_of_the_two_is_killed_both_go_and_come_again() {
    let mut machine = Pooled::new();
    machine.up();
    for victim in ["supavisor", "resident"] {
        let (resident, supavisor) = (machine.resident().unwrap(), machine.supavisor().unwrap());
        signal(if victim == "resident" { resident } else { supavisor }, Signal::SIGKILL);
        until("the end of both", SOON, || (!lives(resident) && !lives(supavisor)).then_some(()));
        machine.wait("another resident", |m| {
            (field(m, "pooler", "state")? == "ready" && m.row("tenant").is_some()).then_some(())
        });
        assert_ne!(machine.resident(), Some(resident), "{victim}");
        assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    }
    assert_eq!(machine.puts(), 1);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

/// Without root a process has no group by which its run is known, and one whose parent was killed has no parent either.
#[test]
fn without_root_a_killed_resident_leaves_nobody_who_keeps_its_ports() {
    let mut machine = Pooled::new();
    machine.boot_unprivileged();
    machine.wait_ready();
    machine.wait_pooler("ready");
    let (resident, supavisor) = (machine.resident().unwrap(), machine.supavisor().unwrap());
    signal(resident, Signal::SIGKILL);
    until("the end of both", SOON, || (!lives(resident) && !lives(supavisor)).then_some(()));
    machine.wait("another resident that serves", |m| {
        (field(m, "pooler", "state")? == "ready" && m.row("tenant").is_some()).then_some(())
    });
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn one_that_hangs_is_ended_and_started_again() {
    let mut machine = Pooled::new();
    machine.up();
    let supavisor = machine.supavisor().unwrap();
    signal(supavisor, Signal::SIGSTOP);
    machine.wait("another Supavisor", |m| {
        (field(m, "pooler", "state")? == "ready" && !lives(supavisor)).then_some(())
    });
    assert_eq!(machine.enter().ask("select 1").unwrap(), "1");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn one_that_says_it_is_well_and_serves_nobody_is_not_ready() {
    let mut machine = Pooled::with_stand_in();
    machine.up();
    machine.sql("create table public.keep as select 1 as one").unwrap();
    let database = ["-d", "_supabase", "-c", "alter schema _supavisor rename to gone"];
    assert!(machine.psql(&database), "the tables of Supavisor could not be hidden");
    machine.wait_pooler("unready");
    assert_eq!(crate::habits::http(machine.api, "GET", "/api/health", None, "").0, 204, "it lies");
    assert!(machine.psql(&["-d", "_supabase", "-c", "alter schema gone rename to _supavisor"]));
    machine.wait_pooler("ready");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn one_that_is_missing_is_absent_and_nobody_waits_for_it() {
    let mut machine = Pooled::with(std::path::Path::new("/nowhere/bin/supavisor"));
    machine.boot_as_child();
    machine.wait_ready();
    machine.wait_pooler("absent");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn one_whose_port_is_taken_says_which_and_keeps_nobody_down() {
    let mut machine = Pooled::new();
    let holder = TcpListener::bind(("0.0.0.0", machine.session)).unwrap();
    machine.boot_as_child();
    machine.wait("the reason", |m| {
        m.log().contains(":listen_error, :pg_proxy_session, :eaddrinuse").then_some(())
    });
    assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
    drop(holder);
    machine.wait_pooler("ready");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_release_without_its_programs_is_told_by_its_name() {
    let dir = crate::world::scratch();
    let program = dir.path().join("supavisor");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut machine = Pooled::with(&program);
    machine.boot_as_child();
    let reason = format!("{}/: `migrate` cannot be run", dir.path().display());
    machine.wait("the reason", |m| m.log().contains(&reason).then_some(()));
    assert_eq!(machine.sql("select 1").unwrap(), [["1"]]);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
