//! Wrong protocols, each played over the same world and seen by the same check.

use super::histories::World;
use super::invariants::{Event, check};
use crate::config::{Mode, Takeover};
use crate::owner::{Epoch, Identity, Origin, Record, read, record};
use futures::FutureExt;
use uuid::Uuid;

fn identity(epoch: Epoch) -> Identity {
    Identity {
        project: "app".into(),
        epoch: Some(epoch),
        incarnation: Uuid::new_v4(),
        origin: Origin::Fresh,
        system_identifier: None,
        store: "memory:".into(),
    }
}

fn object(identity: &Identity) -> (String, Vec<u8>) {
    let epoch = identity.epoch.unwrap();
    let record = Record {
        project: "app".into(),
        epoch,
        incarnation: identity.incarnation,
        machine: "wrong".into(),
        mode: Mode::Available,
        ttl_ms: 20_000,
    };
    (record::key(epoch), serde_json::to_vec(&record).unwrap())
}

fn save(world: &World, machine: usize, identity: &Identity) {
    identity.save(&world.machines[machine].volume().identity).unwrap();
}

/// Machine 0 owns epoch 1; with `taken`, machine 1 has taken over.
fn world(taken: bool) -> World {
    let mut world = World::new(&[Takeover::Auto, Takeover::Auto]);
    assert!(world.boot_calmly(0));
    if taken {
        assert!(world.boot_calmly(1));
    }
    assert_eq!(check(&world.events), Ok(()));
    world
}

#[track_caller]
fn caught(world: &World, says: &str) {
    let found = check(&world.events).unwrap_err();
    assert!(found.contains(says), "{found}");
}

#[test]
fn a_protocol_that_overwrites_an_owner_object_is_caught() {
    let mut world = world(false);
    let wrong = identity(Epoch(1));
    save(&world, 1, &wrong);
    world.observe();
    let (key, body) = object(&wrong);
    world.memory.plant(&key, body);
    world.observe();
    caught(&world, "changed");
}

#[test]
fn a_protocol_that_creates_the_object_before_its_identity_is_durable_is_caught() {
    let mut world = world(false);
    let wrong = identity(Epoch(2));
    let (key, body) = object(&wrong);
    world.plain.create(&key, body).now_or_never().unwrap().unwrap();
    world.observe();
    save(&world, 1, &wrong);
    world.observe();
    caught(&world, "before its identity was durable");
}

#[test]
fn a_protocol_that_takes_a_conflict_for_its_own_success_is_caught() {
    let mut world = world(false);
    let wrong = identity(Epoch(1));
    save(&world, 1, &wrong);
    world.observe();
    let (key, body) = object(&wrong);
    let _conflict = world.plain.create(&key, body).now_or_never().unwrap().unwrap_err();
    world.settled(1);
    world.observe();
    caught(&world, "does not own it");
}

#[test]
fn a_protocol_that_confirms_by_its_own_object_is_caught() {
    let mut world = world(true);
    let there = read(&world.plain, Epoch(1)).now_or_never().unwrap().unwrap();
    world.events.push(Event::Confirmed { epoch: Epoch(1), lost: there.is_none() });
    caught(&world, "lost=false");
}

#[test]
fn a_protocol_that_lets_a_former_owner_claim_again_is_caught() {
    let mut world = world(true);
    let before = world.machines[0].identity();
    let wrong = identity(Epoch(3));
    save(&world, 0, &wrong);
    world.observe();
    let (key, body) = object(&wrong);
    world.plain.create(&key, body).now_or_never().unwrap().unwrap();
    world.observe();
    let unchanged = world.machines[0].identity() == before;
    world.events.push(Event::FormerBooted { refused: true, unchanged });
    caught(&world, "changed something");
}

#[test]
fn a_protocol_that_lets_a_former_owner_go_on_is_caught() {
    let mut world = world(true);
    // What it would be without the look for a successor: its own object is there and its own.
    let own = world.machines[0].identity().unwrap();
    let there = read(&world.plain, Epoch(1)).now_or_never().unwrap().unwrap().unwrap();
    world.events.push(Event::FormerBooted { refused: there.incarnation != own.incarnation, unchanged: true });
    caught(&world, "goes on");
}
