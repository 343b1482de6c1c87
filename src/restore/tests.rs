use super::plan::{Base, Refusal, Wal, candidates, plan};
use crate::owner::Epoch;
use crate::owner::lineage::Link;
use crate::postgres::lsn::{Lsn, Segment, SegmentSize, Timeline};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn at(segment: u64) -> Lsn {
    Lsn(segment * SIZE.bytes())
}

fn base(epoch: u32, timeline: u32, segment: u64) -> Base {
    let start = Lsn(at(segment).0 + 40);
    Base {
        epoch: Epoch(epoch),
        name: format!("base_{epoch}_{segment}"),
        timeline: Timeline(timeline),
        start,
        finish: Lsn(start.0 + 200),
    }
}

fn add(wal: &mut Wal, epoch: u32, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
    let of = wal.segments.entry(Epoch(epoch)).or_default();
    of.extend(numbers.into_iter().map(|number| Segment { timeline: Timeline(timeline), number }));
}

fn link(epoch: u32, until: Option<u64>) -> Link {
    Link { epoch: Epoch(epoch), until: until.map(at), newest: None }
}

#[test]
fn the_newest_backup_of_the_newest_epoch_is_taken_and_none_from_behind_the_branch() {
    let chain = [link(3, None), link(2, Some(20)), link(1, Some(10))];
    let all = [base(1, 1, 2), base(1, 1, 12), base(2, 2, 11), base(2, 2, 15), base(2, 2, 25), base(7, 1, 1)];
    let names: Vec<_> = candidates(&chain, &all).into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["base_2_15", "base_2_11", "base_1_2"]);
}

#[test]
fn a_killed_restore_is_gone_on_with_over_its_own_timeline() {
    let chain = [link(2, None), link(1, Some(9))];
    let mut wal = Wal::default();
    add(&mut wal, 1, 1, 3..9);
    add(&mut wal, 1, 1, 9..14);
    wal.histories.insert(Timeline(2), vec![(Timeline(1), Lsn(at(8).0 + 77))]);
    let done = plan(&chain, &base(1, 1, 3), &wal, SIZE).unwrap();
    assert_eq!((done.timeline, done.last.number, done.end), (Timeline(2), 8, at(9)));
    add(&mut wal, 2, 2, [8]);
    let done = plan(&chain, &base(1, 1, 3), &wal, SIZE).unwrap();
    assert_eq!((done.last.timeline, done.last_epoch), (Timeline(2), Epoch(2)));
}

#[test]
fn a_timeline_that_a_zombie_begins_inside_the_branch_segment_is_not_followed() {
    // Epoch 2 was restored along timeline 1 up to segment 9; then epoch 1, which did not know, restored itself within
    // its own epoch: timeline 2 begins in segment 8, below the branch. Its history is not read (archive::fetch), and its
    // segments are neither planned with nor missed.
    let bounded = Link { newest: Some(Timeline(1)), ..link(1, Some(9)) };
    let mut wal = Wal::default();
    add(&mut wal, 1, 1, 3..9);
    let before = plan(&[link(2, None), bounded], &base(1, 1, 3), &wal, SIZE).unwrap();
    add(&mut wal, 1, 2, 8..12);
    assert_eq!(plan(&[link(2, None), bounded], &base(1, 1, 3), &wal, SIZE).unwrap(), before);
    // With epoch 2's own timeline 2, which has the same number, only epoch 2's segments count for it.
    wal.histories.insert(Timeline(2), vec![(Timeline(1), Lsn(at(8).0 + 77))]);
    let done = plan(&[link(2, None), bounded], &base(1, 1, 3), &wal, SIZE).unwrap();
    assert_eq!((done.last.timeline, done.last_epoch, done.end), (Timeline(1), Epoch(1), at(9)));
    // An old lineage without its timeline: as before, it cannot tell.
    let old = plan(&[link(2, None), link(1, Some(9))], &base(1, 1, 3), &wal, SIZE).unwrap();
    assert_eq!((old.last.timeline, old.last_epoch), (Timeline(2), Epoch(1)));
    let zombie = Base { timeline: Timeline(2), ..base(1, 2, 8) };
    assert!(candidates(&[link(2, None), bounded], std::slice::from_ref(&zombie)).is_empty());
}

#[test]
fn a_timeline_of_another_history_is_refused() {
    let mut wal = Wal::default();
    add(&mut wal, 1, 1, 3..9);
    wal.histories.insert(Timeline(2), vec![(Timeline(1), at(2))]);
    let e = plan(&[link(1, None)], &base(1, 1, 5), &wal, SIZE).unwrap_err();
    assert!(matches!(e, Refusal::Unrelated { .. }), "{e}");
}

#[test]
fn what_was_in_flight_at_a_power_cut_ends_the_history_before_it() {
    let mut wal = Wal::default();
    add(&mut wal, 1, 1, (3..10).chain([11]));
    let done = plan(&[link(1, None)], &base(1, 1, 5), &wal, SIZE).unwrap();
    assert_eq!(done.end, at(10));
    assert_eq!(done.in_flight.map(|s| s.number), Some(11));
}

#[test]
fn segments_of_a_timeline_without_its_history_are_not_passed_over() {
    let mut wal = Wal::default();
    add(&mut wal, 1, 1, 3..9);
    add(&mut wal, 1, 2, 8..11);
    let e = plan(&[link(1, None)], &base(1, 1, 5), &wal, SIZE).unwrap_err();
    assert!(e.to_string().contains("00000002.history"), "{e}");
}

#[test]
fn a_backup_without_its_own_wal_is_refused_by_the_segment_it_lacks() {
    let e = plan(&[link(1, None)], &base(1, 1, 5), &Wal::default(), SIZE).unwrap_err();
    assert!(e.to_string().contains("000000010000000000000005"), "{e}");
}

proptest! {
    #[test]
    fn every_hole_is_found_and_without_one_the_end_is_reached(
        from in 1u64..300, length in 1u64..300, absent in proptest::collection::btree_set(0u64..300, 0..4)
    ) {
        let mut wal = Wal::default();
        let there: BTreeSet<u64> = (from..from + length).filter(|n| !absent.contains(&(n - from))).collect();
        add(&mut wal, 1, 1, there.iter().copied());
        let first_gap = (from..).find(|n| !there.contains(n)).unwrap();
        let behind = there.range(first_gap..).next();
        match plan(&[link(1, None)], &base(1, 1, from), &wal, SIZE) {
            Ok(done) => {
                // Behind a gap at most what may have been in flight, never more.
                let furthest = there.range(first_gap..).next_back();
                prop_assert!(furthest.is_none_or(|n| n - first_gap < crate::archive::AHEAD as u64));
                prop_assert_eq!(done.in_flight.map(|s| s.number), behind.copied());
                prop_assert_eq!(done.end, at(first_gap));
            }
            Err(Refusal::Inconsistent { .. }) => prop_assert_eq!(first_gap, from),
            Err(Refusal::Hole { missing, reachable, .. }) => {
                let furthest = there.range(first_gap..).next_back().unwrap();
                prop_assert!(furthest - first_gap >= crate::archive::AHEAD as u64);
                prop_assert_eq!(missing, Segment { timeline: Timeline(1), number: first_gap }.name(SIZE));
                prop_assert_eq!(reachable, at(first_gap));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn what_a_zombie_archives_behind_the_branch_changes_nothing(branch in 5u64..50, more in 0u64..50) {
        let chain = [link(2, None), link(1, Some(branch))];
        let mut wal = Wal::default();
        add(&mut wal, 1, 1, 3..branch);
        let before = plan(&chain, &base(1, 1, 3), &wal, SIZE);
        add(&mut wal, 1, 1, branch..branch + more);
        prop_assert_eq!(plan(&chain, &base(1, 1, 3), &wal, SIZE), before);
    }
}
