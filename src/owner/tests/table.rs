//! Every row of `protocol::decide`.

use crate::config::{Mode, Takeover};
use crate::owner::protocol::{Archived, Awaited, Data, Decision, Facts, Means, Seen, Strangers, decide};
use crate::owner::{Epoch, Identity, Origin, Record};
use uuid::Uuid;

const OURS: Uuid = Uuid::from_u128(1);
const THEIRS: Uuid = Uuid::from_u128(2);

fn record(epoch: u32, incarnation: Uuid) -> Record {
    Record {
        project: "app".into(),
        epoch: Epoch(epoch),
        incarnation,
        machine: "m7".into(),
        mode: Mode::Available,
        ttl_ms: 20_000,
    }
}

fn identity(epoch: Option<u32>, origin: Origin) -> Identity {
    let store = if epoch.is_some() { "s3://b/p" } else { "" };
    Identity {
        project: "app".into(),
        epoch: epoch.map(Epoch),
        incarnation: OURS,
        origin,
        system_identifier: None,
        store: store.into(),
    }
}

fn facts(identity: Option<Identity>, data: Data, seen: Seen) -> Facts {
    Facts {
        project: "app".into(),
        store: "s3://b/p".into(),
        takeover: Takeover::Never,
        mode: Mode::Available,
        identity,
        data,
        awaited: Awaited::Nothing,
        means: Means::NotAsked,
        seen,
        archived: Archived::NotAsked,
    }
}

fn reached(highest: Option<Record>, own: Option<Record>) -> Seen {
    Seen::Reached { highest, own, strangers: Strangers::None }
}

fn strangers() -> Seen {
    let strangers = Strangers::Some("photos/cat.jpg".into());
    Seen::Reached { highest: None, own: None, strangers }
}

fn owner(epoch: u32) -> Option<Identity> {
    Some(identity(Some(epoch), Origin::Fresh))
}

/// An owner whose cluster is recorded in the store: proof that it ever owned its epoch.
fn settled(epoch: u32) -> Option<Identity> {
    owner(epoch).map(|i| Identity { system_identifier: Some(7), ..i })
}

fn taker(epoch: u32) -> Option<Identity> {
    Some(identity(Some(epoch), Origin::Takeover { from: Epoch(epoch - 1) }))
}

fn allow(takeover: Takeover, facts: Facts) -> Facts {
    Facts { takeover, ..facts }
}

fn claim(epoch: u32) -> Decision {
    let origin = match epoch {
        1 => Origin::Fresh,
        n => Origin::Takeover { from: Epoch(n - 1) },
    };
    Decision::Claim { epoch: Epoch(epoch), origin }
}

fn proceed(epoch: u32) -> Decision {
    Decision::Proceed { epoch: Epoch(epoch), unconfirmed: None }
}

#[track_caller]
fn refused(facts: &Facts, says: &[&str]) {
    let decided = decide(facts);
    let Decision::Refuse(why) = decided else { panic!("not refused: {decided:?} for {facts:?}") };
    for part in says {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }
}

const BOTH: [Data; 2] = [Data::Present, Data::Missing];

#[test]
fn without_a_store_a_volume_is_local_unless_it_owns_an_epoch() {
    for data in BOTH {
        assert_eq!(decide(&facts(None, data, Seen::NoStore)), Decision::Local);
        let local = Some(identity(None, Origin::Fresh));
        assert_eq!(decide(&facts(local, data, Seen::NoStore)), Decision::Local);
        refused(
            &facts(owner(3), data, Seen::NoStore),
            &["SUPAFLY_STORE is not set", "set SUPAFLY_STORE=s3://b/p"],
        );
    }
}

#[test]
fn an_unreachable_store_is_waited_for_unless_an_available_owner_has_its_data() {
    let seen = || Seen::Unreachable("down".into());
    let wait = Decision::Wait("down".into());
    let on = Decision::Proceed { epoch: Epoch(3), unconfirmed: Some("down".into()) };
    for mode in [Mode::Available, Mode::Strict] {
        for data in BOTH {
            let with = |identity| Facts { mode, ..facts(identity, data, seen()) };
            assert_eq!(decide(&with(None)), wait);
            assert_eq!(decide(&with(Some(identity(None, Origin::Fresh)))), wait);
            let expected = match (mode, data) {
                (Mode::Available, Data::Present) => &on,
                (Mode::Available, Data::Missing) | (Mode::Strict, Data::Present | Data::Missing) => &wait,
            };
            assert_eq!(&decide(&with(settled(3))), expected, "{mode:?} {data:?}");
            assert_eq!(decide(&with(owner(3))), wait, "nothing proves that it ever owned its epoch");
            assert_eq!(decide(&Facts { project: "other".into(), ..with(settled(3)) }), wait);
            assert_eq!(decide(&Facts { store: "s3://c/p".into(), ..with(settled(3)) }), wait);
        }
    }
}

#[test]
fn a_volume_of_another_project_or_store_is_refused_by_the_settings_name() {
    for data in BOTH {
        let own = || reached(Some(record(3, OURS)), Some(record(3, OURS)));
        let project = Facts { project: "other".into(), ..facts(owner(3), data, own()) };
        refused(&project, &["SUPAFLY_PROJECT says `other`", "`app`", "mount the right volume"]);
        let store = Facts { store: "s3://c/p".into(), ..facts(owner(3), data, own()) };
        refused(&store, &["s3://b/p", "SUPAFLY_STORE says s3://c/p", "set SUPAFLY_STORE back"]);
    }
}

#[test]
fn an_owner_proceeds_with_its_data_and_restores_within_its_epoch_without() {
    for data in BOTH {
        for identity in [owner(3), settled(3)] {
            let seen = reached(Some(record(3, OURS)), Some(record(3, OURS)));
            assert_eq!(decide(&facts(identity, data, seen)), proceed(3));
        }
    }
}

#[test]
fn a_former_owner_is_refused_whatever_it_has_and_may() {
    for takeover in [Takeover::Never, Takeover::Auto, Takeover::Epoch(4), Takeover::Epoch(3)] {
        for data in BOTH {
            let seen = reached(Some(record(4, THEIRS)), Some(record(3, OURS)));
            refused(
                &allow(takeover, facts(settled(3), data, seen)),
                &["taken over", "0000000004", "machine m7", "empty {data}"],
            );
        }
    }
}

#[test]
fn a_volume_whose_epoch_another_claim_won_is_refused_with_data_and_as_new_without() {
    let seen = || reached(Some(record(3, THEIRS)), Some(record(3, THEIRS)));
    refused(
        &allow(Takeover::Auto, facts(owner(3), Data::Present, seen())),
        &["owned by another claim", "machine m7", "empty {data}"],
    );
    let new = || facts(owner(3), Data::Missing, seen());
    refused(&new(), &["SUPAFLY_TAKEOVER=3", "machine m7"]);
    assert_eq!(decide(&allow(Takeover::Auto, new())), claim(4));
}

#[test]
fn a_claim_without_object_is_finished_only_from_where_it_began() {
    for data in BOTH {
        assert_eq!(decide(&facts(owner(1), data, reached(None, None))), Decision::Finish { epoch: Epoch(1) });
        let begun = || facts(taker(3), data, reached(Some(record(2, THEIRS)), None));
        assert_eq!(decide(&allow(Takeover::Epoch(2), begun())), Decision::Finish { epoch: Epoch(3) });
        refused(&begun(), &["SUPAFLY_TAKEOVER=2"]);
        let emptied = ["no object of it", "SUPAFLY_STORE", "bucket emptied"];
        refused(&allow(Takeover::Auto, facts(taker(3), data, reached(None, None))), &emptied);
        refused(&facts(owner(1), data, strangers()), &emptied);
        refused(&facts(settled(1), data, reached(None, None)), &emptied);
    }
    let behind = |data| facts(taker(3), data, reached(Some(record(1, THEIRS)), None));
    refused(
        &allow(Takeover::Auto, behind(Data::Present)),
        &["no object of it", "0000000001", "SUPAFLY_STORE"],
    );
    refused(&behind(Data::Missing), &["SUPAFLY_TAKEOVER=1"]);
    assert_eq!(decide(&allow(Takeover::Auto, behind(Data::Missing))), claim(2));
}

#[test]
fn a_local_cluster_whose_data_is_gone_is_not_replaced_by_a_new_one() {
    let gone = Some(Identity { system_identifier: Some(7), ..identity(None, Origin::Fresh) });
    let with = |data| allow(Takeover::Auto, facts(gone.clone(), data, reached(None, None)));
    refused(&with(Data::Missing), &["cluster 7 is gone", "empty {data}", "SUPAFLY_STORE"]);
    assert_eq!(decide(&with(Data::Present)), claim(1));
}

#[test]
fn an_empty_prefix_is_claimed_and_one_with_strangers_refused() {
    for identity in [None, Some(identity(None, Origin::Fresh))] {
        for data in BOTH {
            assert_eq!(decide(&facts(identity.clone(), data, reached(None, None))), claim(1));
            let foreign = allow(Takeover::Auto, facts(identity.clone(), data, strangers()));
            refused(&foreign, &["photos/cat.jpg", "set SUPAFLY_STORE to an empty prefix"]);
        }
    }
}

#[test]
fn an_owned_prefix_is_taken_by_an_empty_volume_of_its_project_when_allowed() {
    for identity in [None, Some(identity(None, Origin::Fresh))] {
        let with = |takeover, data| {
            allow(takeover, facts(identity.clone(), data, reached(Some(record(5, THEIRS)), None)))
        };
        refused(
            &with(Takeover::Auto, Data::Present),
            &["data of its own", "0000000005", "set SUPAFLY_STORE", "empty the volume"],
        );
        refused(&with(Takeover::Never, Data::Missing), &["machine m7", "SUPAFLY_TAKEOVER=5"]);
        refused(&with(Takeover::Epoch(4), Data::Missing), &["SUPAFLY_TAKEOVER=5", "it says 4 now"]);
        assert_eq!(decide(&with(Takeover::Epoch(5), Data::Missing)), claim(6));
        assert_eq!(decide(&with(Takeover::Auto, Data::Missing)), claim(6));
        let other = Facts { project: "other".into(), ..with(Takeover::Auto, Data::Missing) };
        refused(&other, &["project `app`", "`other`", "SUPAFLY_STORE", "SUPAFLY_PROJECT=app"]);
    }
}

/// Who was taken over stops for good: not for a machine that cannot restore what is archived.
#[test]
fn who_could_not_restore_takes_nothing_over() {
    let lacking = || Means::Lacking("a restore needs the backup engine".into());
    let kept = ["epoch 0000000005", "machine m7", "nothing was taken over"];
    for identity in [None, Some(identity(None, Origin::Fresh))] {
        for takeover in [Takeover::Auto, Takeover::Epoch(5)] {
            let with = |means, archived| {
                let owned = reached(Some(record(5, THEIRS)), None);
                Facts { means, archived, ..allow(takeover, facts(identity.clone(), Data::Missing, owned)) }
            };
            let whole = |major| Means::Whole { major };
            for (means, archived, words) in [
                (lacking(), Archived::NotAsked, "a restore needs the backup engine"),
                (whole(18), Archived::Cluster { major: 17 }, "holds Postgres 17, installed is 18"),
                (whole(18), Archived::NoBackup { major: 17 }, "holds Postgres 17, installed is 18"),
                (whole(17), Archived::NoBackup { major: 17 }, "there is no base backup yet"),
                (whole(17), Archived::Nothing, "no epoch there ever opened a cluster"),
            ] {
                refused(&with(means.clone(), archived), &kept);
                refused(&with(means, archived), &[words]);
            }
            // Before and after it was looked at.
            for archived in [Archived::NotAsked, Archived::Cluster { major: 17 }] {
                assert_eq!(decide(&with(whole(17), archived)), claim(6));
            }
        }
    }
    // A claim that was cut off before its object was there is not finished by a machine that has lost the means meanwhile.
    let cut = allow(Takeover::Auto, facts(taker(3), Data::Missing, reached(Some(record(2, THEIRS)), None)));
    assert_eq!(decide(&cut), Decision::Finish { epoch: Epoch(3) });
    refused(&Facts { means: lacking(), ..cut }, &["nothing was taken over"]);
    // To be the first, and to go on as the owner, needs nothing of another's.
    let first = facts(None, Data::Missing, reached(None, None));
    assert_eq!(decide(&Facts { means: lacking(), ..first }), claim(1));
    let own = reached(Some(record(3, OURS)), Some(record(3, OURS)));
    assert_eq!(decide(&Facts { means: lacking(), ..facts(owner(3), Data::Missing, own) }), proceed(3));
}

/// Who may take over and adopt does neither: the former owner keeps its prefix until it is known which one was meant.
#[test]
fn who_is_to_adopt_a_cluster_takes_nothing_from_anybody() {
    let named = || Awaited::Named("/data/old".into());
    let begun = || Awaited::Begun("/data/pgdata.adopting".into());
    let owned = || reached(Some(record(5, THEIRS)), None);
    for identity in [None, Some(identity(None, Origin::Fresh))] {
        for takeover in [Takeover::Never, Takeover::Auto, Takeover::Epoch(4), Takeover::Epoch(5)] {
            let with = |awaited, seen| Facts {
                awaited,
                ..allow(takeover, facts(identity.clone(), Data::Missing, seen))
            };
            let what = ["epoch 0000000005", "machine m7", "nothing was taken", "empty prefix"];
            refused(&with(named(), owned()), &what);
            refused(&with(named(), owned()), &["SUPAFLY_ADOPT", "/data/old", "take SUPAFLY_ADOPT away"]);
            refused(&with(begun(), owned()), &what);
            refused(&with(begun(), owned()), &["/data/pgdata.adopting", "was cut off"]);
            for awaited in [named(), begun()] {
                assert_eq!(decide(&with(awaited, reached(None, None))), claim(1), "it takes from nobody");
            }
        }
    }
    let both = Facts { awaited: named(), ..allow(Takeover::Epoch(5), facts(None, Data::Missing, owned())) };
    refused(&both, &["SUPAFLY_ADOPT=/data/old and SUPAFLY_TAKEOVER=5 contradict each other"]);
    // Its identity was durable before the setting was there; its object was not.
    let taker = || facts(taker(3), Data::Missing, reached(Some(record(2, THEIRS)), None));
    refused(&Facts { awaited: named(), ..allow(Takeover::Auto, taker()) }, &["contradict each other"]);
    // Who owns his epoch takes nothing by going on; what becomes of the cluster, `datadir` says.
    let own = || reached(Some(record(3, OURS)), Some(record(3, OURS)));
    for data in BOTH {
        assert_eq!(decide(&Facts { awaited: named(), ..facts(owner(3), data, own()) }), proceed(3));
    }
}

/// Else the prefix is owned by a volume that then holds nothing, and refused to the one that is brought for it.
#[test]
fn an_empty_prefix_is_not_claimed_for_a_cluster_that_is_not_there() {
    let absent = || Awaited::Absent("/data/gone".into());
    let words =
        ["SUPAFLY_ADOPT=/data/gone", "no cluster to adopt", "s3://b/p is empty", "nothing was claimed"];
    for takeover in [Takeover::Never, Takeover::Auto, Takeover::Epoch(5)] {
        let with = |identity, data, seen| Facts {
            awaited: absent(),
            ..allow(takeover, facts(identity, data, seen))
        };
        for data in BOTH {
            // Killed before its object was there, it has claimed nothing either.
            for identity in [None, Some(identity(None, Origin::Fresh)), owner(1)] {
                refused(&with(identity, data, reached(None, None)), &words);
            }
        }
        // The setting was followed, and the volume is given a store afterwards.
        let settled = Identity { system_identifier: Some(7), ..identity(None, Origin::Fresh) };
        assert_eq!(decide(&with(Some(settled), Data::Present, reached(None, None))), claim(1));
        let own = || reached(Some(record(3, OURS)), Some(record(3, OURS)));
        assert_eq!(decide(&with(owner(3), Data::Missing, own())), proceed(3));
        // It has outlived its volume: what is archived is restored by whoever may.
        let owned = decide(&with(None, Data::Missing, reached(Some(record(5, THEIRS)), None)));
        if takeover == Takeover::Never {
            assert!(
                matches!(&owned, Decision::Refuse(why) if why.contains("SUPAFLY_TAKEOVER=5")),
                "{owned:?}"
            );
        } else {
            assert_eq!(owned, claim(6));
        }
    }
}

/// An identity that was durable before its object binds a volume to its prefix: another one alone would be refused.
#[test]
fn who_has_begun_a_claim_is_told_a_way_to_adopt_that_works() {
    for awaited in [Awaited::Named("/data/old".into()), Awaited::Begun("/data/pgdata.adopting".into())] {
        for takeover in [Takeover::Auto, Takeover::Never] {
            let begun = facts(taker(3), Data::Missing, reached(Some(record(2, THEIRS)), None));
            let begun = Facts { awaited: awaited.clone(), ..allow(takeover, begun) };
            let way = ["set SUPAFLY_STORE to an empty prefix", "remove {data}/supafly/identity.json"];
            refused(&begun, &way);
            let elsewhere = |identity| Facts {
                identity,
                store: "s3://c/p".into(),
                seen: reached(None, None),
                ..begun.clone()
            };
            refused(&elsewhere(taker(3)), &["set SUPAFLY_STORE back"]);
            assert_eq!(decide(&elsewhere(None)), claim(1));
        }
    }
}
