//! What goes out is what was read, and nobody is forgotten who asked and went away.

use super::home::{BRIEF, Home, exit};
use crate::archive::codec;
use crate::archive::testkit::real;
use crate::exit::Exit;
use crate::owner::Origin;
use crate::postgres::lsn::WalFile;
use crate::store::memory::Fate;
use std::fs::File;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_file_that_changes_while_it_is_archived_is_not_taken_for_what_is_there() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    let ours = real().segments[0].bytes.clone();
    let mut other = ours.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    home.memory.plant(&home.key(0), codec::pack(&other).unwrap());
    // Read once before the object is offered, and once to be compared with the one that is there.
    let (path, object) = (home.path(0), home.key(0));
    home.memory.faults(move |op, key| {
        if op == "create" && key == object {
            std::fs::write(&path, &other).unwrap();
        }
        Fate::Pass
    });
    assert_eq!(exit(&home.push(0).await), Exit::No);
    home.memory.faults(|_, _| Fate::Pass);
    std::fs::write(home.path(0), &ours).unwrap();
    assert_eq!(exit(&home.push(0).await), Exit::No, "the archive has other content");
}

#[tokio::test]
async fn a_request_that_was_given_up_does_not_keep_its_file_from_being_shipped_unasked() {
    let home = Home::new(Origin::Fresh).await;
    home.ready(0..1);
    let (outbox, file) = (&home.keeper.archive().unwrap().outbox, WalFile::Segment(real().name(0)));
    home.hangs.store(true, Ordering::SeqCst);
    let asked = outbox.archive(&file, File::open(home.path(0)).unwrap());
    tokio::time::timeout(BRIEF, asked).await.unwrap_err();
    home.hangs.store(false, Ordering::SeqCst);
    outbox.run_ahead(&home.settings.pgdata().join("pg_wal"), None);
    home.until("shipped", |home| home.stored(0)).await;
}
