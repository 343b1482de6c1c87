//! Histories of an owner that writes, checkpoints, recycles, uploads out of order, crashes and restores itself, with
//! copies of its volume taken at any time: the owner is never refused, and a copy exactly when the archive has seen more.

use super::*;
use crate::archive::AHEAD;
use crate::archive::testkit::real;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn segment(timeline: u32, number: u64) -> Segment {
    Segment { timeline: Timeline(timeline), number }
}

/// A file of `pg_wal`: what its first page says, and which bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    address: u64,
    content: u64,
}

#[derive(Clone, Debug)]
struct Disk {
    timeline: u32,
    files: BTreeMap<u64, File>,
    ready: BTreeSet<u64>,
    /// Where redo is, and where is written.
    redo: u64,
    at: u64,
    /// Everything that it ever finished on this timeline.
    finished: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct World {
    disk: Disk,
    copies: Vec<Disk>,
    archive: BTreeMap<Segment, u64>,
    histories: BTreeSet<Timeline>,
    clock: u64,
    /// Two copies have been the owner in turn.
    swapped: bool,
}

impl Disk {
    fn new(timeline: u32, at: u64) -> Disk {
        let (files, ready, finished) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Disk { timeline, files, ready, redo: at, at, finished }
    }

    fn write(&mut self, content: u64) {
        self.files.insert(self.at, File { address: self.at, content });
    }

    /// A full segment, or a switch.
    fn close(&mut self, content: u64) {
        self.write(content);
        self.finished.insert(self.at, content);
        self.ready.insert(self.at);
        self.at += 1;
    }

    /// Redo moves, and what lies before it and is archived is recycled: renamed to a later number, its bytes unchanged.
    fn checkpoint(&mut self, recycle: bool) {
        self.redo = self.at;
        let old: Vec<u64> = self.files.range(..self.redo).map(|(n, _)| *n).collect();
        for number in old.into_iter().filter(|n| !self.ready.contains(n)) {
            let Some(file) = self.files.remove(&number) else { continue };
            if recycle {
                let next = self.files.keys().next_back().map_or(self.at, |n| n.max(&self.at) + 1);
                self.files.insert(next, file);
            }
        }
    }
}

impl World {
    fn new() -> World {
        let (archive, histories) = (BTreeMap::new(), BTreeSet::new());
        World { disk: Disk::new(1, 1), copies: Vec::new(), archive, histories, clock: 0, swapped: false }
    }

    fn archived(&self) -> Archived {
        Archived { segments: self.archive.keys().copied().collect(), histories: self.histories.clone() }
    }

    /// As `compare.rs` does it.
    fn judge(&self, disk: &Disk) -> Result<(), RolledBack> {
        let timeline = Timeline(disk.timeline);
        let position = Position { system: 7, size: SIZE, timeline, redo: Lsn(disk.redo * SIZE.bytes() + 40) };
        let archived = self.archived();
        let owed = owed(&position, &archived)?;
        all_there(&position, &owed, |s| match disk.files.get(&s.number) {
            None => Local::Absent,
            Some(file) if file.address == s.number => Local::Written,
            Some(_) => Local::Other("of an earlier use".into()),
        })?;
        let ready = disk.ready.iter().map(|n| segment(disk.timeline, *n)).collect();
        for s in to_compare(&owed, &archived, &ready) {
            if disk.files[&s.number].content != self.archive[&s] {
                return Err(RolledBack::Content { name: s.name(SIZE) });
            }
        }
        Ok(())
    }

    /// A copy has everything that is archived.
    fn has_all(&self, disk: &Disk) -> bool {
        let newest = self.archive.keys().map(|s| s.timeline).chain(self.histories.iter().copied()).max();
        let own = |s: &Segment| s.timeline.0 == disk.timeline;
        newest.is_none_or(|t| t.0 <= disk.timeline)
            && self
                .archive
                .iter()
                .filter(|(s, _)| own(s))
                .all(|(s, c)| disk.finished.get(&s.number) == Some(c))
    }

    fn step(&mut self, what: u8, which: usize) -> Result<(), TestCaseError> {
        self.clock += 1;
        let timeline = self.disk.timeline;
        match what {
            0..=2 => self.disk.write(self.clock),
            3..=6 => self.disk.close(self.clock),
            7..=8 => self.disk.checkpoint(which.is_multiple_of(2)),
            // Uploads run ahead, in any order, but never far.
            9..=13 => {
                let ahead: Vec<u64> = self.disk.ready.iter().take(AHEAD).copied().collect();
                if let Some(number) = ahead.get(which % AHEAD) {
                    let content = self.disk.files[number].content;
                    let there = *self.archive.entry(segment(timeline, *number)).or_insert(content);
                    prop_assert_eq!(there, content, "an owner that was accepted meets another history");
                }
            }
            14..=16 => {
                let oldest = self.disk.ready.first().copied();
                if let Some(oldest) = oldest.filter(|n| self.archive.contains_key(&segment(timeline, *n))) {
                    self.disk.ready.remove(&oldest);
                }
            }
            17..=18 => self.copies.push(self.disk.clone()),
            // The data directory is lost, and restored within the epoch up to the first gap.
            19 if !self.archive.is_empty() => {
                let on = |n: u64| self.archive.contains_key(&segment(timeline, n));
                let end = (self.disk.redo.min(1)..).find(|n| *n > 0 && !on(*n)).unwrap();
                self.disk = Disk::new(timeline + 1, end);
                self.histories.insert(Timeline(timeline + 1));
            }
            // Another copy is started instead, when it is taken.
            20 if !self.copies.is_empty() => {
                let which = which % self.copies.len();
                if self.judge(&self.copies[which]).is_ok() {
                    std::mem::swap(&mut self.copies[which], &mut self.disk);
                    self.swapped = true;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn an_owner_is_never_refused_and_a_copy_exactly_when_the_archive_has_more(
        steps in prop::collection::vec((0u8..20, any::<prop::sample::Index>()), 0..120),
    ) {
        let mut world = World::new();
        for (what, which) in steps {
            world.step(what, which.index(1000))?;
            // A crash, or an orderly stop, leaves what is there.
            prop_assert_eq!(world.judge(&world.disk), Ok(()));
            for copy in &world.copies {
                prop_assert_eq!(world.judge(copy).is_ok(), world.has_all(copy), "{:?}\n{:?}", copy, world);
            }
        }
    }

    #[test]
    fn whoever_is_accepted_never_archives_over_another_history(
        steps in prop::collection::vec((0u8..21, any::<prop::sample::Index>()), 0..160),
    ) {
        let mut world = World::new();
        for (what, which) in steps {
            world.step(what, which.index(1000))?;
            prop_assert_eq!(world.judge(&world.disk), Ok(()));
        }
    }
}

#[test]
fn of_two_copies_that_both_went_on_the_one_whose_segment_is_not_the_archives_is_refused() {
    let mut world = World::new();
    let mut other = world.disk.clone();
    // Both were the owner in turn while nothing was archived; the other's redo lies behind what it wrote.
    other.close(1);
    other.checkpoint(false);
    world.disk.close(2);
    world.archive.insert(segment(1, 1), 2);
    assert_eq!(world.judge(&world.disk), Ok(()));
    assert!(matches!(world.judge(&other), Err(RolledBack::Content { .. })));
}

#[test]
fn a_first_page_is_believed_only_at_its_place() {
    let real = real();
    let s = &real.segments[1];
    let length = real.size.bytes();
    let position = Position { system: real.system, size: real.size, timeline: Timeline(1), redo: Lsn(0) };
    let page = &s.bytes[..8192];
    assert_eq!(first_page(page, length, s.segment, &position), Local::Written);
    // The first segment of a later timeline is a copy of its parent's.
    let later = Segment { timeline: Timeline(2), ..s.segment };
    assert_eq!(first_page(page, length, later, &position), Local::Written);
    let mut newer = page.to_vec();
    newer[4] = 2;
    assert!(matches!(first_page(&newer, length, s.segment, &position), Local::Other(_)));
    for (bytes, length, at, system) in [
        (page, length, s.segment.next(), real.system),
        (page, length - 1, s.segment, real.system),
        (page, length, s.segment, real.system + 1),
        (&[0; 8192][..], length, s.segment, real.system),
        (&[][..], length, s.segment, real.system),
    ] {
        let position = Position { system, ..position };
        assert!(matches!(first_page(bytes, length, at, &position), Local::Other(_)), "{length} {at:?}");
    }
}

#[test]
fn a_listing_is_read_whatever_the_packing_and_partial_files_say_nothing() {
    let keys = [
        "e0000000001/wal_005/000000010000000000000003.zst",
        "e0000000001/wal_005/000000010000000000000004.lz4",
        "e0000000001/wal_005/000000010000000000000005",
        "e0000000001/wal_005/000000090000000000000006.partial.zst",
        "e0000000001/wal_005/000000010000000000000003.00000028.backup.zst",
        "e0000000001/wal_005/00000002.history.zst",
        "e0000000001/wal_005/note.txt",
    ];
    let archived = Archived::listed(keys, SIZE);
    assert_eq!(archived.segments.iter().map(|s| s.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(archived.histories, BTreeSet::from([Timeline(2)]));
}

#[test]
fn each_finding_names_what_was_found() {
    let position = Position { system: 7, size: SIZE, timeline: Timeline(2), redo: Lsn(5 * SIZE.bytes()) };
    let mut archived = Archived::default();
    archived.segments.extend([segment(1, 99), segment(2, 4), segment(2, 5), segment(2, 6)]);
    let must = owed(&position, &archived).unwrap();
    assert_eq!(must, [segment(2, 5), segment(2, 6)], "neither older timelines nor what lies before redo");
    let e = all_there(&position, &must, |_| Local::Absent).unwrap_err().to_string();
    assert!(e.contains("000000020000000000000006") && e.contains("000000020000000000000005"), "{e}");
    archived.histories.insert(Timeline(3));
    let e = owed(&position, &archived).unwrap_err().to_string();
    assert!(e.contains("timeline 3") && e.contains("timeline 2"), "{e}");
}
