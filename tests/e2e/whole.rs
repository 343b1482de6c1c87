//! The whole stack outlives its volume: written through PostgREST, read through the pooler of another machine. And while a
//! neighbour of the database is down, nobody takes the database from its clients.

use crate::support::bucket::{Bucket, Kind};
use crate::support::ledger::{self, Acknowledged, ROW, payload};
use crate::support::machine::{Machine, PATIENCE, until};
use crate::support::programs::pg_bin;
use crate::support::rest::{Keys, Ports, try_call, with_rest};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use supafly::postgres::lsn::{Lsn, SegmentSize};

/// Given to both machines: nobody knows the password of a restored cluster else.
const PASSWORD: &str = "p@ss/word of the whole";

fn machine(bucket: &Bucket) -> (Machine, Ports) {
    let mut env = bucket.env();
    env.push(("POSTGRES_PASSWORD", PASSWORD.to_owned()));
    env.push(("SUPAFLY_AUTO_EXPOSE", "on".to_owned()));
    let (mut machine, ports) = with_rest(&env);
    machine.add_pgbouncer();
    (machine, ports)
}

/// One statement by the connection string that `supafly keys` gives.
fn through(machine: &Machine, url: &str, statement: &str) -> Result<Vec<Vec<String>>, String> {
    let keys = machine.supafly(&["keys", "--json"]);
    let keys: Value = serde_json::from_slice(&keys.stdout).unwrap();
    let out = Command::new(pg_bin().join("psql"))
        .args(["-XAtq", "-F", "\t", "-d", keys[url].as_str().unwrap(), "-c", statement])
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect())
}

/// A client of the API that writes batches of rows until it is told to stop or gets no answer; its ledger has the position
/// in the WAL after each acknowledgement.
struct Writer {
    ledger: Arc<Mutex<Vec<Acknowledged>>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(machine: &Machine, ports: Ports) -> Writer {
        let key = Keys::of(machine).service;
        let (ledger, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (l, s) = (ledger.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let bearer = format!("Bearer {key}");
            let headers = [("Authorization", bearer.as_str())];
            let post = |path: &str, body: &Value| try_call(ports.api, "POST", path, &headers, Some(body));
            let mut next = 1;
            while !s.load(Ordering::SeqCst) {
                let rows: Vec<Value> =
                    (next..next + 50).map(|id| json!({"id": id, "payload": payload(id, ROW)})).collect();
                // No answer is the power cut: what was not acknowledged is not in the ledger.
                let Some(answer) = post("/ledger", &rows.into()) else { break };
                assert_eq!(answer.code, 201, "{answer:?}");
                let Some(answer) = post("/rpc/wal", &json!({})) else { break };
                let lsn: Lsn = answer.json().as_str().unwrap().parse().unwrap();
                l.lock().unwrap().push(Acknowledged { last: next + 49, lsn });
                next += 50;
            }
        });
        Writer { ledger, stop, thread }
    }

    fn rows(&self) -> u64 {
        self.ledger.lock().unwrap().last().map_or(0, |a| a.last)
    }

    fn finish(self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.ledger.lock().unwrap())
    }
}

#[test]
fn what_was_written_through_postgrest_is_read_through_the_pooler_of_the_next_machine() {
    let bucket = Bucket::start(Kind::S3);
    let (mut first, ports) = machine(&bucket);
    first.boot();
    first.wait_ready();
    ledger::create_table(&first);
    let wal = "create function public.wal() returns text language sql as 'select pg_current_wal_insert_lsn()::text'";
    first.sql(wal).unwrap();
    until("the new function", PATIENCE, || {
        let key = format!("Bearer {}", Keys::of(&first).service);
        let answer = try_call(ports.api, "POST", "/rpc/wal", &[("Authorization", &key)], Some(&json!({})))?;
        (answer.code == 200).then_some(())
    });
    let writer = Writer::start(&first, ports);
    until("three archived segments and five thousand rows", PATIENCE, || {
        let archived = bucket.archived_end(1) >= Lsn(4 * SegmentSize::DEFAULT.bytes());
        (archived && writer.rows() >= 5_000).then_some(())
    });
    // Those who read are served meanwhile, by transactions and by sessions.
    for url in ["POOLER_URL", "POOLER_SESSION_URL"] {
        let there: u64 = through(&first, url, "select count(*) from ledger").unwrap()[0][0].parse().unwrap();
        assert!(there >= 5_000, "{there}");
    }
    first.cut_power();
    let ledger = writer.finish();
    let old = Keys::of(&first);
    first.lose_volume();
    let last = ledger::must_survive(&ledger, bucket.archived_end(1));
    assert!(last > 0, "the archived share is empty");
    eprintln!("{} rows acknowledged, {last} of them archived", ledger.last().unwrap().last);

    let (mut second, ports) = machine(&bucket);
    second.env.insert("SUPAFLY_TAKEOVER".into(), "1".into());
    second.boot();
    second.wait_ready();
    ledger::assert_rows(|s| through(&second, "POOLER_URL", s), last);
    // Its API serves the same rows, by keys of its own: what signed the old ones was on the volume.
    let last_row = |key: &str| {
        let path = format!("/ledger?select=id&id=eq.{last}");
        let key = format!("Bearer {key}");
        try_call(ports.api, "GET", &path, &[("Authorization", &key)], None).unwrap()
    };
    let row = last_row(&Keys::of(&second).service);
    assert_eq!((row.code, row.json()), (200, json!([{"id": last}])), "{row:?}");
    assert_eq!(last_row(&old.service).code, 401);
    assert_eq!(second.stop().code(), Some(0), "{}", second.tail());
}

#[test]
fn a_neighbour_that_is_down_degrades_the_whole_and_takes_the_database_from_nobody() {
    let (mut machine, _) = with_rest(&[]);
    let (transaction, _) = machine.add_pgbouncer();
    // Somebody else has the pooler's port.
    let taken = std::net::TcpListener::bind(("127.0.0.1", transaction)).unwrap();
    machine.boot();
    let detail = machine.wait("the pooler's reason", |m| {
        let status = m.status()?;
        let pooler = status["services"].as_array()?.iter().find(|s| s["name"] == "pooler")?.clone();
        let said = pooler.to_string();
        (status["state"] == "degraded" && said.contains("is taken")).then_some(said)
    });
    assert!(detail.contains("SUPAFLY_POOLER_PORT"), "{detail}");
    machine.wait("readiness", |m| m.supafly(&["health", "--ready"]).status.success().then_some(()));
    let said = machine.supafly(&["health", "--ready"]);
    assert!(String::from_utf8_lossy(&said.stdout).starts_with("ready; degraded: "), "{said:?}");
    assert!(!machine.supafly(&["health", "--service", "pooler"]).status.success());
    machine.wait("PostgREST", |m| {
        m.supafly(&["health", "--service", "postgrest"]).status.success().then_some(())
    });
    // Without a hand: the cause goes, and the whole is well.
    drop(taken);
    machine.wait_ready();
    // The database itself is another matter.
    machine.supafly(&["stop", "--with-dependents", "postgres"]);
    let said = machine.supafly(&["health", "--ready"]);
    assert!(!said.status.success(), "{said:?}");
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
