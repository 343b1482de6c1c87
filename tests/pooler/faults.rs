//! The pooler fails in each way there is: the others go on, the status says which and why, and it is back without a hand
//! when the cause has gone.

use crate::rig::Rig;
use crate::support::machine::{children, open_directory, root};
use crate::support::programs::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::TcpListener;
use std::process::Command;

/// The database serves, whatever the pooler does; a whole without its pooler is degraded.
fn the_rest_is_well(rig: &Rig) {
    rig.says(&["health", "--live"]);
    rig.says(&["health", "--service", "postgres"]);
    assert_eq!(rig.machine.sql("select 1").unwrap(), [["1"]]);
}

#[test]
fn a_pooler_that_hangs_is_started_again_and_its_neighbours_are_not() {
    // One that hangs is ended by the last rung of its stop: in a quarter of this.
    let mut rig = Rig::start(&[("SUPAFLY_STOP_BUDGET", "20s".to_owned())]);
    let (run, session, postgres) = (rig.run("pooler"), rig.run("pooler-session"), rig.run("postgres"));
    rig.signal("pooler", Signal::SIGSTOP);
    the_rest_is_well(&rig);
    // Whether it is `unready` before that is a matter of which of two questions is asked first.
    rig.wait_another("pooler", run);
    assert!(rig.machine.log().contains("not live: the probe command"), "{}", rig.machine.tail());
    assert_eq!((rig.run("pooler-session"), rig.run("postgres")), (session, postgres));
    assert_eq!(rig.login(rig.transaction).ask("select 'back'"), Ok("back".to_owned()));
    rig.stop();
}

#[test]
fn a_database_that_hangs_makes_the_pooler_unready_and_does_not_restart_it() {
    let mut rig = Rig::start(&[]);
    let run = rig.run("pooler");
    let postmaster = rig.process("postgres");
    let backends = children(u32::try_from(postmaster.as_raw()).unwrap());
    let backends = backends.into_iter().map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()));
    let stopped: Vec<_> = std::iter::once(postmaster).chain(backends).collect();
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
    // Which it says depends on whether PgBouncer is still trying to log in when it is asked, or has just given that up.
    let words = ["(transaction): no answer in 2500 ms", "(transaction): server login has been failing"];
    rig.machine.wait("an unready pooler that says why", |m| {
        let pooler = Rig::service(m, "pooler")?;
        let said = words.iter().any(|w| pooler["detail"].as_str().unwrap_or_default().contains(w));
        (pooler["state"] == "unready" && said).then_some(())
    });
    // Long enough to have been asked more often whether it lives than it takes to be ended for silence.
    rig.machine.wait("twenty seconds of it", |m| {
        let pooler = Rig::service(m, "pooler")?;
        (pooler["state"] == "unready" && pooler["for_ms"].as_u64()? > 20_000).then_some(())
    });
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
    rig.wait_state("pooler", "ready");
    assert_eq!(rig.run("pooler"), run, "it was not started again");
    rig.stop();
}

#[test]
fn a_taken_port_is_named_and_taken_back_when_it_is_free() {
    let mut rig = Rig::new(&[]);
    let port = rig.session;
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    rig.machine.boot();
    rig.wait_state("pooler", "ready");
    rig.wait_detail("pooler-session", "backoff", &format!("port {port} is taken"));
    rig.wait_detail("pooler-session", "backoff", "SUPAFLY_POOLER_SESSION_PORT");
    the_rest_is_well(&rig);
    assert_eq!(rig.login(rig.transaction).ask("select 'here'"), Ok("here".to_owned()));
    drop(holder);
    rig.wait_state("pooler-session", "ready");
    assert_eq!(rig.login(port).ask("select 'back'"), Ok("back".to_owned()));
    rig.stop();
}

#[test]
fn a_damaged_file_of_secrets_is_named_never_shown_and_read_again_when_it_is_mended() {
    let mut rig = Rig::start(&[]);
    let file = rig.machine.data().join("supafly/secrets/pooler.json");
    let good = fs::read(&file).unwrap();
    let session = rig.run("pooler-session");
    for (broken, words) in [
        (&b"{\"pgbouncer\": \"hunter2"[..], "is not one JSON object"),
        (b"{\"hunter2\": \"x\"}", "`pgbouncer` is not in it"),
    ] {
        // In its place, so that owner and mode stay.
        fs::write(&file, broken).unwrap();
        rig.says(&["restart", "pooler", "--no-wait"]);
        rig.wait_detail("pooler", "backoff", words);
        rig.wait_detail("pooler", "backoff", "pooler.json");
        the_rest_is_well(&rig);
        // Who runs already is not ended for it, but cannot be asked.
        assert_eq!(rig.login(rig.session).ask("select 'here'"), Ok("here".to_owned()));
        fs::write(&file, &good).unwrap();
        rig.wait_state("pooler", "ready");
    }
    rig.wait_state("pooler-session", "ready");
    assert_eq!(rig.run("pooler-session"), session);
    assert!(!rig.machine.log().contains("hunter2"));
    rig.stop();
}

#[test]
fn an_address_that_cannot_be_gives_up_with_the_reason_and_one_that_may_come_is_waited_for() {
    for (listen, state, words) in [
        ("300.1.1.1", "failed", "SUPAFLY_POOLER_LISTEN: `300.1.1.1` is no address of ours"),
        ("127.0.0.1 ::1", "failed", "SUPAFLY_POOLER_LISTEN"),
        // Set aside for documentation: no machine has it.
        ("192.0.2.1", "backoff", "SUPAFLY_POOLER_LISTEN: this machine has no address 192.0.2.1"),
    ] {
        let mut rig = Rig::new(&[("SUPAFLY_POOLER_LISTEN", listen.to_owned())]);
        rig.machine.boot();
        crate::rig::BOTH.iter().for_each(|name| rig.wait_detail(name, state, words));
        the_rest_is_well(&rig);
        rig.stop();
    }
}

#[test]
fn a_pooler_that_is_not_there_or_not_wanted_is_absent_without_noise() {
    for (name, value, words) in [
        ("SUPAFLY_PGBOUNCER", "/nowhere/pgbouncer", "/nowhere/pgbouncer is not installed"),
        ("SUPAFLY_POOLER", "off", "switched off, or not installed"),
    ] {
        let mut rig = Rig::new(&[(name, value.to_owned())]);
        rig.says(&["check"]);
        rig.machine.boot();
        rig.machine.wait_ready();
        crate::rig::BOTH.iter().for_each(|service| rig.wait_detail(service, "absent", words));
        rig.says(&["health", "--ready"]);
        let log = rig.machine.log();
        for service in crate::rig::BOTH {
            let of_it = format!("\"service\":\"{service}\"");
            let lines: Vec<_> = log.lines().filter(|l| l.contains(&of_it)).collect();
            assert!(lines.len() == 1 && lines[0].contains("\"level\":\"info\""), "{lines:?}");
        }
        rig.stop();
    }
}

#[test]
fn a_pooler_that_may_not_log_in_says_so_and_is_ready_when_it_may() {
    let mut rig = Rig::start(&[]);
    rig.machine.sql("alter role pgbouncer nologin").unwrap();
    rig.machine
        .sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'pgbouncer'")
        .unwrap();
    let run = rig.run("pooler");
    // These are PgBouncer's words; Postgres's own are in the log.
    rig.wait_detail("pooler", "unready", "server login has been failing");
    assert!(rig.machine.log().contains("is not permitted to log in"), "{}", rig.machine.tail());
    the_rest_is_well(&rig);
    rig.machine.sql("alter role pgbouncer login").unwrap();
    rig.wait_state("pooler", "ready");
    assert_eq!(rig.run("pooler"), run);
    rig.stop();
}

#[test]
fn one_port_for_both_is_refused() {
    let mut rig = Rig::new(&[]);
    rig.machine.env.insert("SUPAFLY_POOLER_SESSION_PORT".to_owned(), rig.transaction.to_string());
    rig.machine.boot();
    for name in crate::rig::BOTH {
        rig.wait_detail(name, "failed", "SUPAFLY_POOLER_PORT and SUPAFLY_POOLER_SESSION_PORT are the same");
    }
    the_rest_is_well(&rig);
    rig.stop();
}

/// A machine that wants no pooler need not have its user, and hears nothing of that.
#[test]
fn without_the_poolers_user_all_is_well_where_no_pooler_is_wanted() {
    if !root() {
        eprintln!("skipped: not root, everything runs as one user");
        return;
    }
    let users = open_directory();
    let file = users.path().join("passwd");
    let all = fs::read_to_string("/etc/passwd").unwrap();
    let others: Vec<_> = all.lines().filter(|l| !l.starts_with("supafly-pool:")).collect();
    assert!(others.len() < all.lines().count(), "make test makes this user");
    fs::write(&file, others.join("\n") + "\n").unwrap();
    let said = |rig: &Rig, command: &str| {
        let out = Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/passwd && exec \"$@\""])
            .args([&file, &programs().join("supafly"), &command.into()])
            .env_clear()
            .envs(&rig.machine.env)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code(), text)
    };
    let off = Rig::new(&[("SUPAFLY_POOLER", "off".to_owned())]);
    for command in ["check", "secrets"] {
        let (code, text) = said(&off, command);
        assert!(code == Some(0) && !text.contains("supafly-pool"), "{command}: {text}");
    }
    let wanted = Rig::new(&[]);
    let (code, text) = said(&wanted, "check");
    assert!(code == Some(78) && text.contains("there is no user `supafly-pool`"), "{text}");
    let (code, text) = said(&wanted, "secrets");
    assert!(code == Some(0) && text.contains("no secrets for `pooler`: user `supafly-pool`"), "{text}");
}

/// Who is inside cannot be waited for longer than there is time; that is no failure of the stop.
#[test]
fn a_stop_of_everything_with_clients_inside_is_as_orderly_as_any_other() {
    for budget in ["60s", "20s"] {
        let mut rig = Rig::start(&[("SUPAFLY_STOP_BUDGET", budget.to_owned())]);
        let come = |port: u16, first: &str| {
            let client = rig.login(port).connect().unwrap();
            client.ask(first).unwrap();
            client
        };
        let clients = [
            come(rig.transaction, "begin; select 1"),
            come(rig.session, "begin; select 1"),
            come(rig.session, "select 1"),
        ];
        assert_eq!(rig.machine.stop().code(), Some(0), "{}", rig.machine.tail());
        clients.iter().for_each(|client| assert!(client.ask("select 1").is_err()));
    }
}
