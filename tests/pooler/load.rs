//! pgbench through the port for transactions while things happen: nothing is done by halves, and afterwards all is well.

use crate::rig::Rig;
use crate::support::machine::{PATIENCE, lines, until};
use crate::support::programs::pg_bin;
use std::process::{Child, Command, Stdio};

fn pgbench(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = Command::new(pg_bin().join("pgbench"));
    let login = rig.login(rig.transaction);
    command.env("PGPASSWORD", login.password).args(["-U", "postgres", "-h", "127.0.0.1"]);
    command.args(["-p", &rig.transaction.to_string()]).args(arguments).arg("postgres").stdin(Stdio::null());
    command
}

fn done(rig: &Rig) -> u64 {
    rig.machine.sql("select count(*) from pgbench_history").unwrap()[0][0].parse().unwrap()
}

/// Load that has begun; `how` is for how long or how often.
fn load(rig: &Rig, how: [&str; 2]) -> Child {
    let before = done(rig);
    let load = pgbench(rig, &["-n", "-c", "4", "-j", "2"])
        .args(how)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("load", PATIENCE, || (done(rig) > before + 50).then_some(()));
    load
}

/// Runs to its end while `event` happens under load; whether everything went through, and what pgbench said.
fn under_load(rig: &Rig, how: [&str; 2], event: impl Fn(&Rig)) -> (bool, String) {
    let load = load(rig, how);
    event(rig);
    let ended = load.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    let whole = ended.status.success() && said.contains("number of failed transactions: 0 ");
    (whole, said)
}

/// `event` happens under load until somebody is cut; what pgbench said until then.
fn cut_under_load(rig: &Rig, event: impl Fn(&Rig)) -> String {
    // Counted from its start, however late that takes effect: longer than anything before the event.
    let mut load = load(rig, ["-T", "120"]);
    let words = lines(load.stderr.take().unwrap());
    event(rig);
    let mut said = String::new();
    while !said.contains("aborted") {
        let Ok(line) = words.recv_timeout(PATIENCE) else { break };
        said += &line;
        said.push('\n');
    }
    // Nobody need wait for the time of the others to be over.
    load.kill().unwrap();
    load.wait().unwrap();
    said
}

/// Every transaction adds one number in four tables: all of them, or none.
fn the_books_balance(rig: &Rig) {
    let sums = "select (select sum(delta) from pgbench_history) = all (array[(select sum(abalance) from \
                pgbench_accounts), (select sum(bbalance) from pgbench_branches), (select sum(tbalance) from \
                pgbench_tellers)])";
    assert_eq!(rig.machine.sql(sums).unwrap(), [["t"]]);
}

#[test]
fn load_goes_through_a_freeze_whole_and_through_restarts_without_halves() {
    let mut rig = Rig::start(&[]);
    let made = pgbench(&rig, &["-i", "-q", "-s", "1"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let (whole, said) = under_load(&rig, ["-T", "20"], |rig| {
        rig.says(&["freeze", "--wait", "60s"]);
        let begun = std::time::Instant::now();
        until("two seconds of standing still", PATIENCE, || (begun.elapsed().as_secs() >= 2).then_some(()));
        rig.says(&["thaw"]);
    });
    assert!(whole, "{said}");
    the_books_balance(&rig);

    for service in ["postgres", "pooler"] {
        let run = rig.run(service);
        let said = cut_under_load(&rig, |rig| drop(rig.says(&["restart", service])));
        // Under load somebody is always in the middle of a transaction.
        assert!(said.contains("aborted"), "{service}: {said}");
        rig.wait_another(service, run);
        rig.wait_state("pooler", "ready");
        the_books_balance(&rig);
        let (whole, said) = under_load(&rig, ["-t", "250"], |_| {});
        assert!(whole, "after the restart of {service}: {said}");
    }
    rig.stop();
}
