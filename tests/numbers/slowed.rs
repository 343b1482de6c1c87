//! A build that is slower on purpose must lose against the one that is not, by what it was slowed.

use super::contest::context;
use super::numbers::row::Depth;
use super::numbers::rows::ROWS;
use std::os::unix::fs::PermissionsExt;

const SLOWED_MS: f64 = 300.0;

#[test]
fn a_slowed_build_shows_as_slower() {
    let dir = tempfile::tempdir().unwrap();
    let slowed = dir.path().join("slowed");
    let honest = env!("CARGO_BIN_EXE_supafly");
    std::fs::write(&slowed, format!("#!/bin/sh\nsleep 0.3\nexec {honest} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&slowed, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut context = context(Depth::Quick);
    context.binary = slowed;
    context.baseline = Some(honest.into());
    let row = ROWS.iter().find(|r| r.name == "start_six").unwrap();
    // The quickest of three: a start on a busy machine may take as long as it likes.
    let (mut slow, mut fast) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        let measured = (row.run)(&context).unwrap();
        let baseline = measured.peers.iter().find(|p| p.name == "baseline").unwrap();
        slow = slow.min(measured.ours.median());
        fast = fast.min(baseline.samples.as_ref().unwrap().median());
    }
    assert!(slow >= SLOWED_MS, "slowed by {SLOWED_MS} ms, and {slow} ms were measured");
    assert!(slow > fast, "the slowed build took {slow} ms, the other {fast} ms");
}
