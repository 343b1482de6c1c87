//! What clients see, cell by cell: the table of `docs/behaviour.md`.

use crate::client::{Client, Login};
use crate::rig::Rig;
use crate::support::machine::PATIENCE;
use nix::sys::signal::{Signal, kill};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// An answer that comes when it comes.
struct Pending(Receiver<Result<String, String>>);

impl Pending {
    fn of(work: impl FnOnce() -> Result<String, String> + Send + 'static) -> Pending {
        let (to, answer) = channel();
        std::thread::spawn(move || drop(to.send(work())));
        Pending(answer)
    }

    fn ask(client: Client, statement: &'static str) -> Pending {
        Pending::of(move || client.ask(statement))
    }

    /// Somebody new.
    fn login(login: &Login) -> Pending {
        let login = login.clone();
        Pending::of(move || login.ask("select 'new'"))
    }

    /// There is no answer for a while.
    fn waits(&self, who: &str) {
        let early = self.0.recv_timeout(Duration::from_millis(300));
        assert_eq!(early, Err(RecvTimeoutError::Timeout), "{who} should wait");
    }

    fn end(self) -> Result<String, String> {
        self.0.recv_timeout(PATIENCE).unwrap()
    }

    fn is(self, who: &str, wanted: &str) {
        assert_eq!(self.end(), Ok(wanted.to_owned()), "{who}");
    }

    /// The connection is gone, and it is said which way.
    fn cut(self, who: &str, ways: &[&str]) {
        let said = self.end().expect_err(who);
        assert!(ways.iter().any(|way| said.contains(way)), "{who}: {said}");
    }
}

/// A connection that ended without a word of the server's.
const GONE: &[&str] = &["connection closed", "reset by peer", "unexpected EOF"];
/// The same, or with Postgres's or PgBouncer's word for the server connection that is gone.
const ENDED: &[&str] =
    &["57P01", "server conn crashed", "connection closed", "reset by peer", "unexpected EOF"];

/// Those who are there when something happens on one port.
struct Clients {
    login: Login,
    /// A statement that would take a minute.
    busy: Pending,
    /// In the middle of a transaction, with nothing under way.
    open: Client,
    /// Outside any transaction.
    idle: Client,
    /// The same, for later.
    later: Client,
}

impl Clients {
    fn come(rig: &Rig, port: u16, busy: &'static str) -> Clients {
        let login = rig.login(port);
        let come = |first: &str| {
            let client = login.connect().unwrap();
            client.ask(first).unwrap();
            client
        };
        let (open, idle, later) = (come("begin; select 1"), come("select 1"), come("select 1"));
        let busy = Pending::ask(come("select 1"), busy);
        crate::support::machine::until("the long statement to run", PATIENCE, || {
            let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%busy%' and pid <> pg_backend_pid()";
            (rig.machine.sql(running).ok()?[0][0] != "0").then_some(())
        });
        Clients { login, busy, open, idle, later }
    }
}

/// Postgres ends by order and comes back: who is in the middle of something loses it, everybody else waits.
#[test]
fn while_postgres_is_started_again_transactions_are_cut_and_the_others_wait() {
    let mut rig = Rig::start(&[]);
    let transaction = Clients::come(&rig, rig.transaction, "select pg_sleep(60), 'busy'");
    let session = Clients::come(&rig, rig.session, "select pg_sleep(60), 'busy too'");
    let runs = ["pooler", "pooler-session"].map(|name| rig.run(name));
    // It cannot end as long as this one stands.
    let checkpointer =
        rig.machine.sql("select pid from pg_stat_activity where backend_type = 'checkpointer'");
    let checkpointer = rig.outer(&checkpointer.unwrap()[0][0]);
    kill(checkpointer, Signal::SIGSTOP).unwrap();
    let from = rig.machine.log().len();
    rig.says(&["restart", "postgres", "--no-wait"]);
    rig.wait_said(from, "postgres is stopping");

    transaction.busy.cut("busy, transaction", ENDED);
    session.busy.cut("busy, session", ENDED);
    Pending::ask(transaction.open, "select 1").cut("open, transaction", ENDED);
    Pending::ask(session.open, "select 1").cut("open, session", ENDED);
    Pending::ask(session.idle, "select 1").cut("idle, session", ENDED);
    let waiting = [
        ("idle, transaction", Pending::ask(transaction.idle, "select 'new'")),
        ("new, transaction", Pending::login(&transaction.login)),
        ("new, session", Pending::login(&session.login)),
    ];
    waiting.iter().for_each(|(who, pending)| pending.waits(who));
    let begun = Instant::now();
    kill(checkpointer, Signal::SIGCONT).unwrap();
    waiting.into_iter().for_each(|(who, pending)| pending.is(who, "new"));
    eprintln!("they were served {:?} after Postgres could go on", begun.elapsed());
    Pending::ask(transaction.later, "select 'later'").is("idle all the time, transaction", "later");
    Pending::login(&session.login).is("new afterwards", "new");
    rig.wait_state("postgres", "ready");
    assert_eq!(["pooler", "pooler-session"].map(|name| rig.run(name)), runs, "the pooler stayed");
    rig.stop();
}

/// Postgres is killed.
#[test]
fn while_postgres_recovers_from_a_crash_transactions_are_cut_and_the_others_wait() {
    let mut rig = Rig::start(&[]);
    let transaction = Clients::come(&rig, rig.transaction, "select pg_sleep(60), 'busy'");
    let session = Clients::come(&rig, rig.session, "select pg_sleep(60), 'busy too'");
    let (from, run) = (rig.machine.log().len(), rig.run("postgres"));
    rig.signal("postgres", Signal::SIGKILL);
    rig.wait_said(from, "postgres ended unasked");
    transaction.busy.cut("busy, transaction", ENDED);
    session.busy.cut("busy, session", ENDED);
    let waiting = [
        ("idle, transaction", Pending::ask(transaction.idle, "select 'new'")),
        ("new, transaction", Pending::login(&transaction.login)),
        ("new, session", Pending::login(&session.login)),
    ];
    rig.wait_another("postgres", run);
    Pending::ask(transaction.open, "select 1").cut("open, transaction", ENDED);
    Pending::ask(session.open, "select 1").cut("open, session", ENDED);
    Pending::ask(session.idle, "select 1").cut("idle, session", ENDED);
    waiting.into_iter().for_each(|(who, pending)| pending.is(who, "new"));
    Pending::ask(transaction.later, "select 'later'").is("idle all the time, transaction", "later");
    rig.stop();
}

/// Everything stands still and goes on: nobody notices but by the clock.
#[test]
fn a_freeze_costs_clients_nothing_but_time() {
    let rig = Rig::start(&[]);
    let both = [rig.transaction, rig.session]
        .map(|port| Clients::come(&rig, port, "select 'busy' from pg_sleep(6)"));
    rig.says(&["freeze", "--wait", "60s"]);
    let mut waiting = Vec::new();
    let mut open = Vec::new();
    for Clients { login, busy, open: in_transaction, idle, later } in both {
        waiting.push((Pending::ask(in_transaction, "select 'x'; commit"), "x"));
        waiting.push((Pending::ask(idle, "select 'x'"), "x"));
        waiting.push((Pending::login(&login), "new"));
        waiting.push((busy, "busy"));
        open.push(later);
    }
    waiting.iter().for_each(|(pending, _)| pending.waits("everybody"));
    rig.says(&["thaw"]);
    waiting.into_iter().for_each(|(pending, wanted)| pending.is("after the thaw", wanted));
    open.into_iter().for_each(|client| Pending::ask(client, "select 'later'").is("idle", "later"));
    rig.stop();
}

/// The pooler ends by order: what is under way has its share of the stop to end in.
#[test]
fn when_the_pooler_is_started_again_its_clients_are_cut_and_running_statements_may_end() {
    // Its share is then more than three seconds.
    let mut rig = Rig::start(&[("SUPAFLY_STOP_BUDGET", "30s".to_owned())]);
    let direct = rig.login(rig.machine.port).connect().unwrap();
    for (name, other, port) in
        [("pooler", "pooler-session", rig.transaction), ("pooler-session", "pooler", rig.session)]
    {
        let clients = Clients::come(&rig, port, "select pg_sleep(60), 'busy'");
        direct.ask("select pg_advisory_lock(7)").unwrap();
        let short = clients.login.connect().unwrap();
        let short = Pending::ask(short, "select 'short' from pg_advisory_xact_lock(7)");
        let (run, others, postgres) = (rig.run(name), rig.run(other), rig.run("postgres"));
        crate::support::machine::until("the short statement to run", PATIENCE, || {
            let running = "select count(*) from pg_stat_activity where wait_event = 'advisory'";
            (rig.machine.sql(running).ok()?[0][0] != "0").then_some(())
        });
        let (begun, from) = (Instant::now(), rig.machine.log().len());
        rig.says(&["restart", name, "--no-wait"]);
        rig.wait_said(from, &format!("{name} is stopping"));
        direct.ask("select pg_advisory_unlock(7)").unwrap();
        short.is("a statement that ends soon", "short");
        clients.busy.cut("busy", GONE);
        Pending::ask(clients.open, "select 1").cut("open", GONE);
        Pending::ask(clients.idle, "select 1").cut("idle", GONE);
        back(&clients.login, begun);
        rig.wait_another(name, run);
        assert_eq!((rig.run(other), rig.run("postgres")), (others, postgres), "nobody else was touched");
        // What it had open in Postgres is gone: nobody holds locks for a client that is not there.
        crate::support::machine::until("no open transaction", PATIENCE, || {
            let open =
                "select count(*) from pg_stat_activity where state like 'idle in%' and application_name = ''";
            (rig.machine.sql(open).ok()?[0][0] == "0").then_some(())
        });
    }
    rig.stop();
}

/// The pooler is killed.
#[test]
fn when_the_pooler_is_killed_its_clients_are_cut_and_it_is_back_at_once() {
    let mut rig = Rig::start(&[]);
    for (name, other, port) in
        [("pooler", "pooler-session", rig.transaction), ("pooler-session", "pooler", rig.session)]
    {
        let clients = Clients::come(&rig, port, "select pg_sleep(60), 'busy'");
        let (run, others, postgres) = (rig.run(name), rig.run(other), rig.run("postgres"));
        let begun = Instant::now();
        rig.signal(name, Signal::SIGKILL);
        clients.busy.cut("busy", GONE);
        Pending::ask(clients.open, "select 1").cut("open", GONE);
        Pending::ask(clients.idle, "select 1").cut("idle", GONE);
        back(&clients.login, begun);
        rig.wait_another(name, run);
        assert_eq!((rig.run(other), rig.run("postgres")), (others, postgres), "nobody else was touched");
    }
    rig.stop();
}

/// New clients are refused or cut, never refused for another reason, until it is back.
fn back(login: &Login, begun: Instant) {
    let end = Instant::now() + PATIENCE;
    loop {
        match login.ask("select 'new'") {
            Ok(answer) => {
                assert_eq!(answer, "new");
                eprintln!("new clients get through {:?} after it was told to end", begun.elapsed());
                return;
            }
            Err(e) => {
                assert!(e.contains("refused") || GONE.iter().any(|way| e.contains(way)), "{e}");
                assert!(Instant::now() < end, "it does not come back: {e}");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}
