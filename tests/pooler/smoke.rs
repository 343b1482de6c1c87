use crate::client::Login;
use crate::support::machine::Machine;
use std::time::{Duration, Instant};

fn ready(m: &mut Machine) {
    for s in ["pooler", "pooler-session"] {
        m.wait("pooler", |m| m.supafly(&["health", "--service", s]).status.success().then_some(()));
    }
}

fn event(machine: &mut Machine, name: &str, ports: (u16, u16), act: impl Fn(&Machine)) {
    for (mode, port) in [("T", ports.0), ("S", ports.1)] {
        ready(machine);
        let login = Login::postgres(machine, port);
        let idle = login.connect().unwrap();
        idle.ask("select 1").unwrap();
        let idle_during = login.connect().unwrap();
        idle_during.ask("select 1").unwrap();
        let tx = login.connect().unwrap();
        tx.ask("begin; select 1").unwrap();
        let run_short = login.connect().unwrap();
        let run_long = login.connect().unwrap();
        let t = Instant::now();
        let (a, b, c, d) = std::thread::scope(|s| {
            let short = s.spawn(move || (run_short.ask("select pg_sleep(0.5), 7"), t.elapsed()));
            let long = s.spawn(move || (run_long.ask("select pg_sleep(6)"), t.elapsed()));
            std::thread::sleep(Duration::from_millis(100));
            let (during, new) = (
                s.spawn(move || {
                    std::thread::sleep(Duration::from_millis(150));
                    let mut all = vec![];
                    for _ in 0..12 {
                        let r = idle_during.ask("select 1");
                        let done = matches!(&r, Err(e) if e.contains("closed"));
                        all.push((r, t.elapsed()));
                        if done {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    all
                }),
                {
                    let login = login.clone();
                    s.spawn(move || {
                        let mut all = vec![];
                        for _ in 0..20 {
                            all.push((login.ask("select 1"), t.elapsed()));
                            std::thread::sleep(Duration::from_millis(100));
                        }
                        all
                    })
                },
            );
            act(machine);
            eprintln!("{name} {mode} act done {:?}", t.elapsed());
            eprintln!("{name} {mode} idle after: {:?}", idle.ask("select 1"));
            eprintln!("{name} {mode} in tx after: {:?}", tx.ask("select 1"));
            (short.join().unwrap(), long.join().unwrap(), during.join().unwrap(), new.join().unwrap())
        });
        eprintln!("{name} {mode} short {a:?}\n{name} {mode} long {b:?}");
        eprintln!("{name} {mode} during {c:?}\n{name} {mode} new {d:?}");
    }
}

#[test]
fn smoke() {
    let mut machine = Machine::new(&[]);
    let ports = machine.add_pgbouncer();
    machine.boot();
    machine.wait_ready();
    event(&mut machine, "restart postgres", ports, |m| {
        eprintln!("{:?}", m.supafly(&["restart", "postgres", "--wait", "30s"]));
    });
    event(&mut machine, "kill postgres", ports, |m| {
        let pid = m.status().unwrap()["services"]
            .as_array()
            .unwrap()
            .iter()
            .find(|x| x["name"] == "postgres")
            .unwrap()["pid"]
            .as_i64()
            .unwrap();
        std::process::Command::new("nsenter")
            .args(["-t", &m.pid().to_string(), "-p", "-m", "kill", "-9", &pid.to_string()])
            .status()
            .unwrap();
    });
    assert_eq!(machine.stop().code(), Some(0));
    std::fs::write("/tmp/bouncer-smoke.log", machine.log()).unwrap();
}
