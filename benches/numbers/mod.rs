//! The harness of `make bench`: [`rows`] says what there is, a row's function measures ([`contest`] has the contestants
//! take turns), [`goal`] judges, [`report`] writes. It is a module of two programs: of the bench target, and of the
//! tests, which hold the harness to what it says.

mod cluster;
pub(crate) mod contest;
pub(crate) mod goal;
pub(crate) mod idle;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod orphans;
pub(crate) mod peers;
pub(crate) mod processes;
pub(crate) mod report;
pub(crate) mod restart;
pub(crate) mod row;
pub(crate) mod rows;
pub(crate) mod stack;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod watchdog;

use row::{Context, Line, Row};
use std::time::Instant;

/// Runs rows one after the other, and says how far it is.
pub(crate) fn run<'a>(context: &Context, rows: &[&'a Row]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        eprint!("[{:>2}/{}] {:<22} ", i + 1, rows.len(), row.name);
        let begun = Instant::now();
        let line = Line { row, outcome: contest::caught(|| (row.run)(context)) };
        eprintln!("{:>6.1} s  {}", begun.elapsed().as_secs_f64(), said(&line));
        lines.push(line);
    }
    lines
}

/// A line as progress shows it.
fn said(line: &Line<'_>) -> String {
    let Ok(measured) = &line.outcome else { return line.why() };
    let unit = line.row.unit;
    let peers = measured.peers.iter().map(|p| match &p.samples {
        Ok(s) => format!(", {} {}", p.name, unit.show(s.median())),
        Err(_) => format!(", {} –", p.name),
    });
    let verdict =
        if line.met() { "met".to_owned() } else { format!("MISSED: {}", line.failures().join("; ")) };
    format!("{}{} · {verdict}", unit.show(measured.ours.median()), peers.collect::<String>())
}

/// A variable of our environment.
pub(crate) fn var(name: &str) -> Option<String> {
    supafly::facts::environment().remove(name)
}
