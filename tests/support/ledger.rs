//! A client that writes rows and keeps its own ledger: which rows were acknowledged, and the WAL position that the
//! server gave after each acknowledgement. The oracle of the end-to-end tests is this ledger and the bucket, not what
//! the restored Postgres says of itself.

use super::machine::{Machine, PATIENCE};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use supafly::postgres::lsn::Lsn;

/// Rows up to `last` were acknowledged before the server's WAL had passed `lsn`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) last: u64,
    pub(crate) lsn: Lsn,
}

/// A running writer.
pub(crate) struct Writer {
    ledger: Arc<Mutex<Vec<Acknowledged>>>,
    rows: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What row `id` holds: reproducible, and hard to compress, so that rows fill WAL segments.
pub(crate) fn payload(id: u64, length: usize) -> String {
    let mut x = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        text.push_str(&format!("{x:016x}"));
    }
    text.truncate(length);
    text
}

/// How many characters each row carries.
pub(crate) const ROW: usize = 5_000;

/// The table of the ledger.
pub(crate) fn create_table(machine: &Machine) {
    machine.sql("create table ledger (id bigint primary key, payload text not null)").unwrap();
    machine.sql("alter table ledger alter column payload set storage external").unwrap();
}

impl Writer {
    /// Writes batches of rows, as fast as the server acknowledges them, until stopped or cut off.
    pub(crate) fn start(machine: &Machine, batch: u64, pause: Duration) -> Writer {
        let ledger = Arc::new(Mutex::new(Vec::new()));
        let (rows, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (socket, port) = (machine.run_dir().join("postgres"), machine.port);
        let (l, r, s) = (ledger.clone(), rows.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(write(socket, port, batch, pause, &l, &r, &s));
        });
        Writer { ledger, rows, stop, thread: Some(thread) }
    }

    /// Waits until so many rows were acknowledged.
    pub(crate) fn wait_rows(&self, rows: u64) {
        let end = Instant::now() + PATIENCE;
        while self.rows.load(Ordering::SeqCst) < rows {
            assert!(Instant::now() < end, "only {} rows of {rows}", self.rows.load(Ordering::SeqCst));
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The position after the last acknowledged row.
    pub(crate) fn lsn(&self) -> Lsn {
        self.ledger.lock().unwrap().last().map_or(Lsn(0), |a| a.lsn)
    }

    /// Ends the writer, whose server may be dead by now, and gives the ledger.
    pub(crate) fn finish(mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.ledger.lock().unwrap())
    }
}

async fn write(
    socket: PathBuf,
    port: u16,
    batch: u64,
    pause: Duration,
    ledger: &Mutex<Vec<Acknowledged>>,
    rows: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket).port(port).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut next = 1;
    while !stop.load(Ordering::SeqCst) {
        let values: Vec<_> =
            (next..next + batch).map(|id| format!("({id},'{}')", payload(id, ROW))).collect();
        // Any failure is the power cut or the end of the test: what was not acknowledged is not in the ledger.
        if client.simple_query(&format!("insert into ledger values {}", values.join(","))).await.is_err() {
            break;
        }
        let Ok(row) = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await else { break };
        let lsn = row.get::<_, String>(0).parse().unwrap();
        next += batch;
        ledger.lock().unwrap().push(Acknowledged { last: next - 1, lsn });
        rows.store(next - 1, Ordering::SeqCst);
        tokio::time::sleep(pause).await;
    }
    drop(client);
    let _ = connection.await;
}

/// The last row whose acknowledgement lies wholly before `end`: what must be there after a restore up to `end`.
pub(crate) fn must_survive(ledger: &[Acknowledged], end: Lsn) -> u64 {
    ledger.iter().filter(|a| a.lsn <= end).map(|a| a.last).max().unwrap_or(0)
}

/// Every row from 1 to `last` is there, with the bytes that were written, and no row has other bytes.
pub(crate) fn assert_rows(sql: impl Fn(&str) -> Result<Vec<Vec<String>>, String>, last: u64) {
    let there = sql("select id, md5(payload), length(payload) from ledger order by id").unwrap();
    assert!(there.len() as u64 >= last, "{} rows of the {last} that were archived", there.len());
    let hash = |text: &str| sql(&format!("select md5('{text}')")).unwrap()[0][0].clone();
    for (i, row) in there.iter().enumerate() {
        assert_eq!(row[0], (i as u64 + 1).to_string(), "a hole in the rows");
        assert_eq!(row[2], ROW.to_string());
    }
    // The server computes md5 for all; we compute what each should be for a spread of them, ends included.
    let step = (there.len() / 40).max(1);
    for row in there.iter().step_by(step).chain(there.last()) {
        let id = row[0].parse().unwrap();
        assert_eq!(row[1], hash(&payload(id, ROW)), "row {id} has other bytes than were written");
    }
}
