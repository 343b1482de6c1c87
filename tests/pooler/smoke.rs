use crate::client::Login;
use crate::support::machine::Machine;
use std::time::Instant;

#[test]
fn smoke() {
    let mut machine = Machine::new(&[]);
    let (port, session) = machine.add_pgbouncer();
    machine.boot();
    machine.wait_ready();
    let t = Instant::now();
    machine.wait("pooler", |m| m.supafly(&["health", "--service", "pooler"]).status.success().then_some(()));
    machine.wait("pooler", |m| {
        m.supafly(&["health", "--service", "pooler-session"]).status.success().then_some(())
    });
    eprintln!("pooler ready {:?} after ready", t.elapsed());
    eprintln!("{}", String::from_utf8_lossy(&machine.supafly(&["status"]).stdout));
    eprintln!("{:?}", Login::postgres(&machine, port).ask("select 42"));
    eprintln!("{:?}", Login::postgres(&machine, session).ask("select 42"));
    machine.sql("create database other").unwrap();
    let mut other = Login::postgres(&machine, port);
    other.database = "other".into();
    eprintln!("other: {:?}", other.ask("select current_database()"));
    let held = Login::postgres(&machine, session).connect().unwrap();
    eprintln!("{:?}", held.ask("select 1"));
    let t = Instant::now();
    eprintln!("{:?}", machine.supafly(&["restart", "pooler-session"]));
    eprintln!("restart of session {:?}; held {:?}", t.elapsed(), held.ask("select 1"));
    let t = Instant::now();
    eprintln!("freeze {:?}", machine.supafly(&["freeze", "--wait", "60s"]));
    eprintln!("{:?}", t.elapsed());
    eprintln!("{:?}", machine.supafly(&["thaw"]));
    eprintln!("{}", machine.tail());
    assert_eq!(machine.stop().code(), Some(0));
    eprintln!("{}", machine.tail());
}
