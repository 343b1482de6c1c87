//! What a supervisor keeps in memory while nothing happens.

use crate::harness::{scenario, until};
use std::path::Path;

/// What of our own file is mapped, in KiB.
fn mapped(pid: i32) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut ours = false;
    let mut sum = 0;
    for line in smaps.lines() {
        if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            ours = line
                .rsplit(' ')
                .next()
                .and_then(|f| Path::new(f).file_name())
                .is_some_and(|f| f == "supafly");
        } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| ours) {
            sum += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    sum
}

scenario!(what_the_start_needed_is_given_back_and_all_works_as_before, |w| {
    let pids = w.file("pids");
    w.service("a", &["pid", &pids, "serve", &w.file("marks"), "a"], "");
    w.start();
    w.until_state("a", "ready");
    let us = w.pid();
    let asked = mapped(us);
    assert!(asked > 2_000, "nothing can be given back of {asked} KiB");
    until("half of it to be given back", || (mapped(us) < asked / 2).then_some(()));
    assert_eq!(w.says(&["restart", "a"]).0, 0);
    until("its second life", || (w.pids_in("pids").len() == 2).then_some(()));
    assert_eq!(w.stop(), 0);
});
