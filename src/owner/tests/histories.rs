//! Random histories of a few machines over one store: every request of each may pass, fail or lose its reply, and every
//! machine may be killed between any two of its requests, in any interleaving.

use super::invariants::{Event, check};
use crate::config::{Mode, Takeover};
use crate::exit::{Exit, Failure};
use crate::owner::claim::{Terms, Trial, Tried, Volume, attempt};
use crate::owner::protocol::{Awaited, Means};
use crate::owner::{Confirmation, Epoch, Identity, Record, confirm};
use crate::store::memory::{Fate, Memory};
use crate::store::{Backend, Entry, Kind, Store, StoreError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Stops before each request, so that one poll of a machine is at most one request.
#[derive(Clone, Debug)]
struct Gate(Memory);

async fn turn() {
    let mut waited = false;
    std::future::poll_fn(
        |_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

impl Backend for Gate {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            turn().await;
            self.0.create(key, body).await
        })
    }
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        Box::pin(async move {
            turn().await;
            self.0.get(key).await
        })
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            turn().await;
            self.0.list(prefix).await
        })
    }
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.delete(key)
    }
    fn url(&self) -> String {
        self.0.url()
    }
}

/// What a machine has that can restore.
const WHOLE: Means = Means::Whole { major: 15 };

type Attempt = Pin<Box<dyn Future<Output = Result<Tried, Failure>>>>;

pub(super) struct Machine {
    dir: tempfile::TempDir,
    terms: Terms,
    awaited: Awaited,
    means: Means,
    running: Option<Attempt>,
}

impl Machine {
    fn new(number: usize, takeover: Takeover, awaited: Awaited, means: Means) -> Machine {
        let terms = Terms {
            project: "app".into(),
            store: "memory:".into(),
            takeover,
            mode: Mode::Available,
            ttl: Duration::ZERO,
            machine: format!("m{number}"),
        };
        Machine { dir: tempfile::tempdir().unwrap(), terms, awaited, means, running: None }
    }

    pub(super) fn volume(&self) -> Volume {
        Volume {
            identity: self.dir.path().join("identity.json"),
            pgdata: self.dir.path().join("pgdata"),
            awaited: self.awaited.clone(),
            means: std::rc::Rc::new({
                let means = self.means.clone();
                move || means.clone()
            }),
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        Identity::load(&self.volume().identity).unwrap()
    }

    fn boot(&self, store: &Store) -> Attempt {
        let (store, volume, terms) = (store.clone(), self.volume(), self.terms.clone());
        let data = self.dir.path().to_path_buf();
        Box::pin(async move { attempt(Some(&store), Ok(()), Trial::Passed, &volume, &terms, &data).await })
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// One request further, or a boot.
    Step(Fate),
    /// Killed where it stands.
    Kill,
    /// Its volume is lost; an empty one takes its place.
    Wipe,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Settled,
    Refused,
}

pub(super) struct World {
    pub(super) memory: Memory,
    fate: Arc<Mutex<Fate>>,
    gated: Store,
    pub(super) plain: Store,
    pub(super) machines: Vec<Machine>,
    pub(super) events: Vec<Event>,
}

impl World {
    pub(super) fn new(takeovers: &[Takeover]) -> World {
        let machines: Vec<_> =
            takeovers.iter().map(|takeover| (*takeover, Awaited::Nothing, WHOLE)).collect();
        World::of(&machines)
    }

    /// The same with clusters that are to be adopted.
    fn of(machines: &[(Takeover, Awaited, Means)]) -> World {
        let (memory, fate) = (Memory::default(), Arc::new(Mutex::new(Fate::Pass)));
        let now = fate.clone();
        memory.faults(move |_, _| *now.lock().unwrap());
        World {
            gated: Store::new(Arc::new(Gate(memory.clone()))),
            plain: Store::new(Arc::new(memory.clone())),
            machines: machines
                .iter()
                .enumerate()
                .map(|(n, (t, a, m))| Machine::new(n, *t, a.clone(), m.clone()))
                .collect(),
            events: Vec::new(),
            memory,
            fate,
        }
    }

    pub(super) fn owners(&self) -> BTreeMap<Epoch, Record> {
        let objects = self.memory.objects();
        let owners = objects.iter().filter(|(key, _)| key.starts_with("owner/"));
        owners
            .map(|(_, body)| serde_json::from_slice::<Record>(body).unwrap())
            .map(|r| (r.epoch, r))
            .collect()
    }

    /// Volumes first: an identity must have been durable at the end of an earlier step than its object appears.
    pub(super) fn observe(&mut self) {
        let store = self.owners().into_iter().map(|(epoch, r)| (epoch, r.incarnation)).collect();
        self.events.push(Event::Store(store));
        for identity in self.machines.iter().filter_map(Machine::identity) {
            self.events.push(Event::Durable(identity.incarnation));
        }
    }

    fn act(&mut self, number: usize, act: Act) -> Option<End> {
        let mut end = None;
        let number = number % self.machines.len();
        let machine = &mut self.machines[number];
        match act {
            Act::Kill => machine.running = None,
            Act::Wipe => {
                let (awaited, means) = (machine.awaited.clone(), machine.means.clone());
                *machine = Machine::new(number, machine.terms.takeover, awaited, means);
            }
            Act::Step(fate) => {
                let mut running = machine.running.take().unwrap_or_else(|| machine.boot(&self.gated));
                *self.fate.lock().unwrap() = fate;
                let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                *self.fate.lock().unwrap() = Fate::Pass;
                match polled {
                    Poll::Pending => machine.running = Some(running),
                    Poll::Ready(Ok(Tried::Settled(how))) if how.starts_with("owns") => {
                        self.settled(number);
                        end = Some(End::Settled);
                    }
                    Poll::Ready(Ok(Tried::Settled(_) | Tried::Wait(_) | Tried::Again)) => {}
                    Poll::Ready(Ok(Tried::Untried)) => panic!("the store was tried out"),
                    Poll::Ready(Err(e)) => {
                        assert_eq!(e.exit, Exit::Refused, "{e}");
                        end = Some(End::Refused);
                    }
                }
            }
        }
        self.observe();
        end
    }

    /// What `datadir` does next: the cluster object, then the data; and keeper's base backup.
    pub(super) fn settled(&mut self, number: usize) {
        let machine = &self.machines[number];
        let identity = machine.identity().unwrap();
        let epoch = identity.epoch.unwrap();
        self.events.push(Event::Settled { epoch, incarnation: identity.incarnation });
        let cluster = serde_json::json!({"system_identifier": 7, "major": 15, "wal_segment_size": 16 << 20,
            "checksums": true, "engine": "wal-g"});
        self.memory.plant(&format!("{}/cluster.json", epoch.dir()), cluster.to_string());
        let mark = "basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json";
        self.memory.plant(&format!("{}/{mark}", epoch.dir()), String::new());
        std::fs::create_dir_all(machine.volume().pgdata.join("base")).unwrap();
    }

    /// Boots a machine without faults until it is settled or refused, and says whether it is settled.
    pub(super) fn boot_calmly(&mut self, number: usize) -> bool {
        self.act(number, Act::Kill);
        for _ in 0..64 {
            if let Some(end) = self.act(number, Act::Step(Fate::Pass)) {
                return end == End::Settled;
            }
        }
        panic!("a machine does not come to an end");
    }

    /// Faults end: former owners look and reboot, then everybody does.
    pub(super) fn end(&mut self) {
        self.machines.iter_mut().for_each(|m| m.running = None);
        let owners = self.owners();
        for epoch in owners.keys().copied() {
            let lost = confirm(&self.plain, epoch).now_or_never().unwrap().unwrap() != Confirmation::Owner;
            self.events.push(Event::Confirmed { epoch, lost });
        }
        for number in 0..self.machines.len() {
            let Some(before) = self.machines[number].identity() else { continue };
            let former = before.epoch.is_some_and(|e| {
                owners.contains_key(&e.next()) && owners[&e].incarnation == before.incarnation
            });
            if former {
                let objects = self.memory.objects();
                let ended = self.machines[number].boot(&self.plain).now_or_never().unwrap();
                self.events.push(Event::FormerBooted {
                    refused: ended.is_err_and(|e| e.exit == Exit::Refused),
                    unchanged: self.machines[number].identity() == Some(before)
                        && self.memory.objects() == objects,
                });
            }
        }
        // A machine that may take over and is new comes last: whatever the history, it can own what anybody opened.
        self.machines.push(Machine::new(99, Takeover::Auto, Awaited::Nothing, WHOLE));
        // A takeover may allow another (`SUPAFLY_TAKEOVER=2`); each machine takes once, so this comes to rest.
        let mut settled = 0;
        for _ in 0..=self.machines.len() {
            settled = (0..self.machines.len()).filter(|n| self.boot_calmly(*n)).count();
        }
        // What nobody ever opened, and whose claimers have lost their volumes, is of use to nobody.
        let opened = self.memory.objects().keys().any(|key| key.ends_with("/cluster.json"));
        if opened || settled > 0 {
            self.events.push(Event::Converged { settled });
        }
    }
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Pass), 1 => Just(Fate::Fail(Kind::Transient)), 1 => Just(Fate::LostReply)]
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![16 => fates().prop_map(Act::Step), 2 => Just(Act::Kill), 1 => Just(Act::Wipe)]
}

fn takeovers() -> impl Strategy<Value = Takeover> {
    prop_oneof![3 => Just(Takeover::Auto), 1 => Just(Takeover::Never), 1 => (1u32..4).prop_map(Takeover::Epoch)]
}

fn awaited() -> impl Strategy<Value = Awaited> {
    prop_oneof![
        4 => Just(Awaited::Nothing),
        1 => Just(Awaited::Named("/data/old".into())),
        1 => Just(Awaited::Begun("/data/pgdata.adopting".into())),
        1 => Just(Awaited::Absent("/data/gone".into())),
    ]
}

fn means() -> impl Strategy<Value = Means> {
    prop_oneof![4 => Just(WHOLE), 1 => Just(Means::Lacking("no engine".into()))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_of_faults_and_kills_makes_two_owners_of_an_epoch_and_each_converges(
        machines in prop::collection::vec((takeovers(), awaited(), means()), 2..=4),
        history in prop::collection::vec((0usize..4, acts()), 0..90),
    ) {
        let mut world = World::of(&machines);
        for (number, act) in history {
            world.act(number, act);
        }
        world.end();
        prop_assert_eq!(check(&world.events), Ok(()));
        // Who is to adopt may be the first in a prefix, and takes from nobody. Who cannot is never the first, and may restore.
        for record in world.owners().into_values() {
            let owner = world.machines.iter().find(|m| m.terms.machine == record.machine).unwrap();
            let may = match &owner.awaited {
                Awaited::Nothing => true,
                Awaited::Named(_) | Awaited::Begun(_) => record.epoch == Epoch::FIRST,
                Awaited::Absent(_) => record.epoch > Epoch::FIRST,
            };
            prop_assert!(may, "{:?}: {:?}", owner.awaited, record);
            // And who could not restore takes from nobody.
            let able = owner.means == WHOLE || record.epoch == Epoch::FIRST;
            prop_assert!(able, "{:?}: {:?}", owner.means, record);
        }
    }
}

#[test]
fn a_claim_killed_after_each_of_its_requests_ends_as_the_one_owner() {
    for kill_after in 0..12 {
        for fate in [Fate::Pass, Fate::Fail(Kind::Transient), Fate::LostReply] {
            let mut world = World::new(&[Takeover::Never, Takeover::Never]);
            for step in 0..=kill_after {
                world.act(0, Act::Step(if step == kill_after { fate } else { Fate::Pass }));
            }
            world.act(0, Act::Kill);
            world.observe();
            assert!(world.boot_calmly(0), "killed after {kill_after}, {fate:?}");
            assert!(!world.boot_calmly(1));
            assert_eq!(world.owners().len(), 1);
            assert_eq!(check(&world.events), Ok(()));
        }
    }
}

#[test]
fn who_goes_on_in_his_epoch_waits_for_no_trial_and_nothing_is_created_without_one() {
    let mut world = World::new(&[Takeover::Auto]);
    let boot = |world: &World| {
        let (machine, store) = (&world.machines[0], world.plain.clone());
        let (volume, terms) = (machine.volume(), machine.terms.clone());
        let tried = attempt(Some(&store), Ok(()), Trial::Owed, &volume, &terms, machine.dir.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tried).unwrap()
    };
    assert_eq!(boot(&world), Tried::Untried, "an empty prefix is claimed only after a trial");
    assert!(world.owners().is_empty() && world.machines[0].identity().is_none());
    assert!(world.boot_calmly(0));
    assert!(matches!(boot(&world), Tried::Settled(how) if how.starts_with("owns")));
    // Killed before its object was there: that is to be created, so the store is tried out first.
    let identity = world.machines[0].identity().unwrap();
    let from = identity.epoch.unwrap();
    let origin = crate::owner::Origin::Takeover { from };
    let next = Identity { epoch: Some(from.next()), origin, ..identity };
    next.save(&world.machines[0].volume().identity).unwrap();
    assert_eq!(boot(&world), Tried::Untried);
    assert_eq!(world.owners().len(), 1);
}

#[test]
fn a_volume_with_data_that_loses_the_race_for_its_claim_is_again_what_it_was() {
    let mut world = World::new(&[Takeover::Never, Takeover::Never]);
    let local = Identity {
        project: "app".into(),
        epoch: None,
        incarnation: uuid::Uuid::new_v4(),
        origin: crate::owner::Origin::Fresh,
        system_identifier: Some(7),
        store: String::new(),
    };
    local.save(&world.machines[1].volume().identity).unwrap();
    std::fs::create_dir_all(world.machines[1].volume().pgdata.join("base")).unwrap();
    for _ in 0..16 {
        if world.machines[1].identity().as_ref() != Some(&local) {
            break;
        }
        world.act(1, Act::Step(Fate::Pass));
    }
    assert_ne!(world.machines[1].identity().as_ref(), Some(&local), "it is about to create its object");
    assert!(world.boot_calmly(0));
    for _ in 0..16 {
        if world.act(1, Act::Step(Fate::Pass)) == Some(End::Refused) {
            break;
        }
    }
    assert_eq!(world.machines[1].identity(), Some(local));
    assert!(!world.boot_calmly(1));
    assert_eq!(world.owners().len(), 1);
    assert_eq!(check(&world.events), Ok(()));
}
