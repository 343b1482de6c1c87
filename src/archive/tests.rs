//! The archive against real WAL and a store that fails in every way it can.

use super::codec::{self, Codec};
use super::fetch::{FetchError, Fetched, fetch};
use super::names;
use super::push::{self, PushError, Pushed};
use super::records::{last_record_end, walk};
use super::segment::{self, Damage};
use super::testkit::real;
use crate::owner::Epoch;
use crate::owner::lineage::Link;
use crate::postgres::lsn::{Lsn, Segment, Timeline, WalFile};
use crate::store::memory::{Fate, Memory};
use crate::store::{Kind, Store};
use proptest::prelude::*;
use std::sync::Arc;

const KINDS: [Kind; 4] = [Kind::Conflict, Kind::Denied, Kind::Transient, Kind::Broken];

fn memory() -> (Memory, Store) {
    let memory = Memory::default();
    let store = Store::new(Arc::new(memory.clone()));
    (memory, store)
}

fn own(epoch: u32) -> Link {
    Link::whole(Epoch(epoch))
}

fn parent(epoch: u32, until: Lsn) -> Link {
    Link { epoch: Epoch(epoch), until: Some(until), newest: None }
}

/// The first real segment as a file.
fn sample() -> (WalFile, Vec<u8>) {
    (WalFile::Segment(real().name(0)), real().segments[0].bytes.clone())
}

fn plant(memory: &Memory, epoch: u32, file: &WalFile, bytes: &[u8]) -> String {
    let key = names::key(Epoch(epoch), file, Codec::Zstd);
    memory.plant(&key, codec::pack(bytes).unwrap());
    key
}

async fn look(store: &Store, chain: &[Link], file: &WalFile) -> Result<Fetched, FetchError> {
    fetch(store, chain, file, real().size, real().system).await
}

#[test]
fn every_segment_that_postgres_wrote_is_sound() {
    let real = real();
    assert!(real.segments.len() >= 4, "{} segments", real.segments.len());
    for s in &real.segments {
        segment::check(&s.bytes, s.segment, real.size, real.system)
            .unwrap_or_else(|e| panic!("{}: {e}", s.segment.name(real.size)));
    }
}

#[test]
fn the_records_found_are_those_of_pg_waldump() {
    let real = real();
    let mut switched = 0;
    for s in &real.segments {
        let found = walk(&s.bytes, s.segment, real.size).unwrap();
        // pg_waldump leaves out the record that began in the segment before; the walk counts it.
        let carried_in = usize::from(s.bytes[2] & 1 == 1);
        assert_eq!(found.records - carried_in, s.records.len(), "{}", s.segment.name(real.size));
        switched += usize::from(s.bytes[s.bytes.len() - 4096..].iter().all(|b| *b == 0));
    }
    assert!(switched >= 2, "the switches of the script were seen");
    assert_eq!(last_record_end(&real.open.bytes, real.open.segment, real.size), real.end);
}

#[test]
fn a_segment_of_another_place_cluster_size_or_timeline_is_refused() {
    let real = real();
    let s = &real.segments[1];
    let check = |bytes: &[u8], at: Segment, system| segment::check(bytes, at, real.size, system);
    assert!(matches!(check(&s.bytes[..100], s.segment, real.system), Err(Damage::Size { .. })));
    assert!(matches!(check(&s.bytes, s.segment.next(), real.system), Err(Damage::Page { .. })));
    assert!(matches!(check(&s.bytes, s.segment, real.system + 1), Err(Damage::System { .. })));
    assert!(matches!(check(&vec![0; s.bytes.len()], s.segment, real.system), Err(Damage::Page { .. })));
    // A later timeline may begin with pages of its parent; an earlier one may not hold a later one's.
    let later = Segment { timeline: Timeline(2), ..s.segment };
    assert_eq!(check(&s.bytes, later, real.system), Ok(()));
    let mut foreign = s.bytes.clone();
    foreign[4] = 9;
    assert!(matches!(check(&foreign, s.segment, real.system), Err(Damage::Page { .. })));
}

#[test]
fn a_page_left_from_an_earlier_use_of_the_file_is_found() {
    let real = real();
    let s = real.full();
    let mut stale = s.bytes.clone();
    let old = s.bytes[segment::PAGE * 4..segment::PAGE * 5].to_vec();
    stale[segment::PAGE * 5..segment::PAGE * 6].copy_from_slice(&old);
    assert!(segment::check(&stale, s.segment, real.size, real.system).is_err());
    let end = last_record_end(&stale, s.segment, real.size);
    assert!(end <= Lsn(s.segment.start(real.size).0 + segment::PAGE as u64 * 5), "{end}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_inside_a_whole_record_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let real = real();
        let s = real.full();
        // Between the first record that begins here and the last one that ends here.
        let first = (s.records[0].0 - s.segment.start(real.size).0) as usize;
        let last = (s.records.last().unwrap().0 - s.segment.start(real.size).0) as usize;
        let at = first + at.index(last - first);
        let mut flipped = s.bytes.clone();
        flipped[at] ^= 1 << bit;
        let sound = segment::check(&flipped, s.segment, real.size, real.system);
        // Only padding and two hints of a page header may differ unseen: nobody reads them.
        let in_page = at % segment::PAGE;
        let hint = in_page < 40;
        let padding = at.next_multiple_of(8);
        let before_a_record = s.records.iter().any(|r| (r.0 - s.segment.start(real.size).0) as usize == padding)
            || padding.is_multiple_of(segment::PAGE);
        let in_header_padding = s.records.iter().any(|r| {
            let begin = (r.0 - s.segment.start(real.size).0) as usize;
            (begin + 18..begin + 20).contains(&at)
        });
        prop_assert!(sound.is_err() || hint || before_a_record || in_header_padding, "byte {at} bit {bit}");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40_000), number in 0u64..100) {
        let at = Segment { timeline: Timeline(1), number };
        let _ = segment::check(&bytes, at, real().size, real().system);
        let _ = last_record_end(&bytes, at, real().size);
        let mut whole = real().segments[0].bytes.clone();
        let length = bytes.len().min(whole.len());
        whole[20_000..20_000 + length].copy_from_slice(&bytes[..length]);
        let _ = walk(&whole, real().segments[0].segment, real().size);
        let _ = last_record_end(&whole, real().segments[0].segment, real().size);
    }
}

/// Packs and pushes, as keeper does.
async fn push_bytes(
    store: &Store,
    epoch: Epoch,
    file: &WalFile,
    bytes: Vec<u8>,
) -> Result<Pushed, PushError> {
    let object = codec::pack(&bytes).unwrap();
    push::push(store, epoch, file, object, move || Ok(bytes.clone())).await
}

#[tokio::test]
async fn equal_content_is_success_whatever_its_packing_and_other_content_is_never_overwritten() {
    let (memory, store) = memory();
    let (file, bytes) = sample();
    assert_eq!(push_bytes(&store, Epoch(1), &file, bytes.clone()).await.unwrap(), Pushed::New);
    assert_eq!(push_bytes(&store, Epoch(1), &file, bytes.clone()).await.unwrap(), Pushed::Same);
    let key = names::key(Epoch(1), &file, Codec::Zstd);
    memory.plant(&key, zstd::stream::encode_all(&bytes[..], 9).unwrap());
    let other_bytes = memory.objects();
    assert_eq!(push_bytes(&store, Epoch(1), &file, bytes.clone()).await.unwrap(), Pushed::Same);
    let mut different = bytes.clone();
    different[30_000] ^= 1;
    let refused = push_bytes(&store, Epoch(1), &file, different).await.unwrap_err();
    assert!(matches!(refused, PushError::Different { .. }), "{refused}");
    memory.plant(&key, "garbage");
    let refused = push_bytes(&store, Epoch(1), &file, bytes).await.unwrap_err();
    assert!(matches!(refused, PushError::Different { .. }), "{refused}");
    assert_eq!(memory.objects()[&key], "garbage");
    assert_eq!(memory.objects().len(), other_bytes.len());
}

#[tokio::test]
async fn a_history_stored_bare_by_the_engine_is_read_and_gets_no_twin() {
    let (memory, store) = memory();
    let file: WalFile = "00000002.history".parse().unwrap();
    let text = b"1\t0/3000000\tno recovery target specified\n";
    memory.plant(&names::key(Epoch(1), &file, Codec::Bare), &text[..]);
    assert_eq!(push_bytes(&store, Epoch(1), &file, text.to_vec()).await.unwrap(), Pushed::Same);
    assert_eq!(look(&store, &[own(1)], &file).await.unwrap(), Fetched::Bytes(text.to_vec()));
    let other = b"1\t0/4000000\tother\n".to_vec();
    assert!(matches!(push_bytes(&store, Epoch(1), &file, other).await, Err(PushError::Different { .. })));
    assert_eq!(memory.objects().len(), 1);
}

#[tokio::test]
async fn no_failure_of_the_store_makes_a_push_a_success_that_is_not_there() {
    for operation in ["create", "get"] {
        for kind in KINDS {
            let (memory, store) = memory();
            let (file, bytes) = sample();
            memory.faults(move |op, _| if op == operation { Fate::Fail(kind) } else { Fate::Pass });
            let pushed = push_bytes(&store, Epoch(1), &file, bytes).await;
            let there = memory.objects().contains_key(&names::key(Epoch(1), &file, Codec::Zstd));
            assert!(pushed.is_err() || there, "{operation} {kind:?}: {pushed:?}");
            assert!(!matches!(pushed, Err(PushError::Different { .. })), "{operation} {kind:?}");
        }
    }
    let (memory, store) = memory();
    let (file, bytes) = sample();
    let mut lost = 0;
    memory.faults(move |op, _| {
        lost += usize::from(op == "create");
        if op == "create" && lost == 1 { Fate::LostReply } else { Fate::Pass }
    });
    push_bytes(&store, Epoch(1), &file, bytes).await.unwrap();
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_not_taken_into_the_archive() {
    let real = real();
    let inspect =
        |name: &str, bytes: &[u8]| push::inspect(&name.parse().unwrap(), bytes, real.size, real.system);
    let bytes = &real.segments[0].bytes;
    assert!(inspect(&real.name(0), bytes).is_ok());
    assert!(inspect(&real.name(1), bytes).is_err());
    assert!(inspect(&real.name(0), b"short").is_err());
    assert!(inspect("00000002.history", b"").is_err());
    assert!(inspect(&format!("{}.partial", real.name(0)), bytes).is_ok());
    assert!(inspect(&format!("{}.00000028.backup", real.name(0)), b"START WAL LOCATION").is_ok());
}

#[tokio::test]
async fn a_parents_segment_counts_only_when_it_begins_below_the_branch() {
    let (memory, store) = memory();
    let real = real();
    for index in 0..3 {
        plant(&memory, 1, &WalFile::Segment(real.name(index)), &real.segments[index].bytes);
    }
    let chain = [own(2), parent(1, Lsn(real.segments[1].segment.start(real.size).0 + 8))];
    for (index, there) in [(0, true), (1, true), (2, false)] {
        let found = look(&store, &chain, &WalFile::Segment(real.name(index))).await.unwrap();
        assert_eq!(found == Fetched::Absent, !there, "{index}");
    }
    // A grandparent counts no further than its child did, whatever its own branch says.
    let chain = [own(3), parent(2, real.segments[1].segment.start(real.size)), parent(1, Lsn(u64::MAX))];
    assert_eq!(look(&store, &chain, &WalFile::Segment(real.name(1))).await.unwrap(), Fetched::Absent);
    // The own epoch's object goes before: when it is damaged, no other is taken for it.
    plant(&memory, 2, &WalFile::Segment(real.name(0)), b"other");
    let chain = [own(2), parent(1, Lsn(u64::MAX))];
    assert!(look(&store, &chain, &WalFile::Segment(real.name(0))).await.is_err());
}

#[tokio::test]
async fn a_timeline_that_a_former_owner_began_after_the_branch_does_not_exist_for_us() {
    let (memory, store) = memory();
    let file: WalFile = "00000002.history".parse().unwrap();
    plant(&memory, 1, &file, b"1\t0/3000000\tx\n");
    let before = [own(2), parent(1, Lsn(0x400_0000))];
    assert!(matches!(look(&store, &before, &file).await, Ok(Fetched::Bytes(_))));
    let after = [own(2), parent(1, Lsn(0x300_0000))];
    assert_eq!(look(&store, &after, &file).await.unwrap(), Fetched::Absent);
    plant(&memory, 2, &file, b"garbage\n");
    assert!(look(&store, &after, &file).await.is_err());
}

#[tokio::test]
async fn a_timeline_later_than_the_one_restored_along_does_not_exist_for_us_also_below_the_branch() {
    let (memory, store) = memory();
    let real = real();
    let file: WalFile = "00000002.history".parse().unwrap();
    plant(&memory, 1, &file, b"1\t0/3000000\tx\n");
    let later = Segment { timeline: Timeline(2), ..real.segments[0].segment };
    let segment = WalFile::Segment(later.name(real.size));
    plant(&memory, 1, &segment, &real.segments[0].bytes);
    let branch = parent(1, Lsn(u64::MAX));
    for file in [&file, &segment] {
        assert!(
            matches!(look(&store, &[own(2), branch], file).await, Ok(Fetched::Bytes(_))),
            "an old lineage"
        );
        let bounded = Link { newest: Some(Timeline(1)), ..branch };
        assert_eq!(look(&store, &[own(2), bounded], file).await.unwrap(), Fetched::Absent, "{file}");
        // A bound of a child holds for every epoch beneath it.
        let chain = [own(3), Link { epoch: Epoch(2), ..bounded }, branch];
        assert_eq!(look(&store, &chain, file).await.unwrap(), Fetched::Absent, "{file}");
    }
    // Our own timeline of the same number is found.
    plant(&memory, 2, &file, b"1\t0/3000000\tours\n");
    let bounded = Link { newest: Some(Timeline(1)), ..branch };
    assert!(matches!(look(&store, &[own(2), bounded], &file).await, Ok(Fetched::Bytes(_))));
}

#[tokio::test]
async fn damage_is_never_absence() {
    let (file, bytes) = sample();
    let whole = codec::pack(&bytes).unwrap();
    let mut flipped_content = bytes.clone();
    flipped_content[100_000] ^= 4;
    let mut flipped_object = whole.clone();
    let middle = whole.len() / 2;
    flipped_object[middle] ^= 4;
    let half = whole[..middle].to_vec();
    let damaged: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("cut", half),
        ("flipped", flipped_object),
        ("flipped before packing", codec::pack(&flipped_content).unwrap()),
        ("zeros", codec::pack(&vec![0; bytes.len()]).unwrap()),
        ("short", codec::pack(&bytes[..8192]).unwrap()),
    ];
    for (what, object) in damaged {
        let (memory, store) = memory();
        memory.plant(&names::key(Epoch(1), &file, Codec::Zstd), object);
        let got = look(&store, &[own(1)], &file).await;
        assert!(
            matches!(got, Err(FetchError::Damaged { .. } | FetchError::Unreadable { .. })),
            "{what}: {got:?}"
        );
    }
    let (memory, store) = memory();
    memory.plant(&format!("{}{file}.lz4", names::directory(Epoch(1))), "lz4");
    assert!(matches!(look(&store, &[own(1)], &file).await, Err(FetchError::Unreadable { .. })));
    assert!(matches!(look(&store, &[], &file).await, Err(FetchError::NoChain)));
}

#[tokio::test]
async fn a_store_that_hides_what_it_lists_is_not_believed() {
    let (memory, store) = memory();
    let (file, bytes) = sample();
    plant(&memory, 1, &file, &bytes);
    memory.faults(|op, _| if op == "get" { Fate::Fail(Kind::Absent) } else { Fate::Pass });
    assert!(matches!(look(&store, &[own(1)], &file).await, Err(FetchError::Contradiction { .. })));
    // And a bucket that is gone answers no listing.
    memory.faults(|op, _| if op == "get" { Fate::Fail(Kind::Absent) } else { Fate::Fail(Kind::Broken) });
    assert!(matches!(look(&store, &[own(1)], &file).await, Err(FetchError::Store(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails, in whatever order: absence is only said when the file is in no epoch, and a file given is the file.
    #[test]
    fn absence_is_a_proof(
        fates in prop::collection::vec(0u8..8, 12), in_own in any::<bool>(), in_parent in any::<bool>(), history in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (memory, store) = memory();
        let (file, bytes) = if history {
            ("00000002.history".parse().unwrap(), b"1\t0/3000000\tx\n".to_vec())
        } else {
            sample()
        };
        for (epoch, there) in [(2, in_own), (1, in_parent)] {
            if there {
                plant(&memory, epoch, &file, &bytes);
            }
        }
        let mut fates = fates.into_iter();
        let mut faults = 0;
        let (counted, counter) = std::sync::mpsc::channel();
        memory.faults(move |_, _| {
            let fate = match fates.next() {
                Some(0) => Fate::Fail(Kind::Denied),
                Some(1) => Fate::Fail(Kind::Transient),
                Some(2) => Fate::Fail(Kind::Broken),
                Some(3) => Fate::LostReply,
                Some(_) | None => Fate::Pass,
            };
            if fate != Fate::Pass {
                faults += 1;
                counted.send(faults).unwrap();
            }
            fate
        });
        let chain = [own(2), parent(1, Lsn(u64::MAX))];
        let got = runtime.block_on(look(&store, &chain, &file));
        let failed = counter.try_iter().count() > 0;
        match got {
            Ok(Fetched::Bytes(got)) => prop_assert!(got == bytes && (in_own || in_parent)),
            Ok(Fetched::Absent) => prop_assert!(!in_own && !in_parent && !failed),
            Err(_) => prop_assert!(failed),
        }
    }
}
