//! The stop: clients are drained before Supavisor is told to end, as far as there is time.

use crate::support::machine::until;
use crate::world::{Pooled, SOON, lives, signal};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

#[test]
fn a_stop_lets_queries_end_and_says_goodbye_to_the_others() {
    let mut machine = Pooled::new();
    machine.up();
    let (idle, busy, inside) = (machine.enter(), machine.enter(), machine.enter());
    assert_eq!(idle.ask("select 1").unwrap(), "1");
    assert_eq!(inside.ask("begin; select 1").unwrap(), "1");
    let query = std::thread::spawn(move || busy.ask("select 'done' from pg_sleep(3)"));
    let there = "select count(*) from pg_stat_activity where query like '%pg_sleep(3)%' and pid <> pg_backend_pid() and state = 'active'";
    until("the query to run", SOON, || (machine.sql(there).ok()? == [["1"]]).then_some(()));
    let begun = Instant::now();
    let stopped = std::thread::scope(|scope| {
        let stop = scope.spawn(|| machine.supafly(&["stop", "pooler"]).status.success());
        // Whoever is idle goes at once, whoever works may end it.
        let gone = until("the idle client to be told", SOON, || idle.ask("select 1").err());
        assert!(gone.contains("57P01") || gone.contains("closed"), "{gone}");
        assert_eq!(inside.ask("select 2").unwrap(), "2", "an open transaction has five seconds");
        assert_eq!(query.join().unwrap().as_deref(), Ok("done"));
        let gone = until("the transaction to be ended", SOON, || inside.ask("select 3").err());
        assert!(gone.contains("57P01") || gone.contains("closed"), "{gone}");
        stop.join().unwrap()
    });
    assert!(stopped, "{}", machine.tail());
    let took = begun.elapsed();
    eprintln!("drained and ended in {took:?}");
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(40), "{took:?}");
    until("its word of that", SOON, || machine.log().contains("its clients have gone").then_some(()));
    assert_eq!(machine.puts(), 1);
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_second_signal_ends_it_without_waiting_for_transactions() {
    let mut machine = Pooled::new();
    machine.up();
    let inside = machine.enter();
    assert_eq!(inside.ask("begin; select 1").unwrap(), "1");
    let (resident, supavisor) = (machine.resident().unwrap(), machine.supavisor().unwrap());
    let begun = Instant::now();
    signal(resident, Signal::SIGINT);
    until("the drain to have begun", SOON, || machine.log().contains("/terminate").then_some(()));
    assert!(lives(supavisor));
    signal(resident, Signal::SIGQUIT);
    until("Supavisor's end", SOON, || (!lives(supavisor)).then_some(()));
    eprintln!("ended by two signals in {:?}", begun.elapsed());
    assert!(inside.ask("select 1").is_err());
    until("the resident's end", SOON, || (!lives(resident)).then_some(()));
    machine.wait_pooler("ready");
    // It would have been said before Supavisor was told to end, so it is in the log by now.
    assert!(!machine.log().contains("its clients have gone"), "it drained to its end: {}", machine.tail());
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}

#[test]
fn a_stop_with_little_time_still_ends_it_in_order() {
    let mut machine = Pooled::new();
    machine.env.insert("SUPAFLY_STOP_BUDGET".into(), "9s".into());
    machine.up();
    let inside = machine.enter();
    assert_eq!(inside.ask("begin; select 1").unwrap(), "1");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
    let log = machine.log();
    assert!(log.contains("not all have gone in time"), "{}", machine.tail());
    assert!(!log.contains("forced"), "{}", machine.tail());
}
