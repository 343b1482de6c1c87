//! The bucket store against a real S3 server, and through a proxy that breaks single requests: a failure is never taken
//! for absence, nothing hangs, and a create whose reply was lost is recognised as our own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use supafly::store::credentials::Credentials;
use supafly::store::s3::{Bucket, Limits};
use supafly::store::{Created, Kind, Store, Unusable, probe};
use support::S3;
use support::proxy::{Fault, Proxy, Rule};

/// For a server that answers, at once or on a loaded host after a while.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(20),
    attempt: Duration::from_secs(20),
    total: Duration::from_secs(60),
    attempts: 3,
};

/// For a server that never answers, so that the test need not wait for what is known.
const IMPATIENT: Limits = Limits {
    connect: Duration::from_secs(2),
    attempt: Duration::from_millis(300),
    total: Duration::from_secs(1),
    attempts: 3,
};

fn store_of(s3: &S3, endpoint: &str, bucket: &str) -> Store {
    store_with(s3, endpoint, bucket, LIMITS)
}

fn store_with(s3: &S3, endpoint: &str, bucket: &str, limits: Limits) -> Store {
    let env: BTreeMap<_, _> = s3.environment(endpoint).into_iter().collect();
    let given = Credentials::from_environment(&env);
    Store::new(Arc::new(Bucket::new(bucket, s3.prefix(), &given, limits).unwrap()))
}

fn direct(s3: &S3) -> Store {
    store_of(s3, s3.endpoint(), s3.bucket())
}

fn through_proxy() -> (S3, Proxy, Store) {
    let s3 = S3::start();
    let proxy = Proxy::start(s3.address());
    let store = store_of(&s3, &proxy.endpoint(), s3.bucket());
    (s3, proxy, store)
}

#[tokio::test]
async fn the_real_server_passes_the_probe_and_behaves_as_the_store_needs() {
    let s3 = S3::start();
    let store = direct(&s3);
    probe(&store).await.unwrap();
    assert!(store.list("").await.unwrap().is_empty());
    assert_eq!(store.get("owner/0000000001.json").await.unwrap_err().kind, Kind::Absent);
    store.create("owner/0000000001.json", "a").await.unwrap();
    let e = store.create("owner/0000000001.json", "b").await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict, "{e}");
    assert_eq!(store.create_or_compare("owner/0000000001.json", "a").await.unwrap(), Created::Same);
    assert_eq!(store.create_or_compare("owner/0000000001.json", "b").await.unwrap(), Created::Different);
    assert_eq!(store.get("owner/0000000001.json").await.unwrap(), "a");
    let listed = store.list("owner/").await.unwrap();
    assert_eq!((listed.len(), listed[0].key.as_str(), listed[0].size), (1, "owner/0000000001.json", 1));
    assert!(store.list("own/").await.unwrap().is_empty());
    store.delete("owner/0000000001.json").await.unwrap();
    store.delete("owner/0000000001.json").await.unwrap();
}

#[tokio::test]
async fn a_listing_of_several_pages_is_complete_and_in_order() {
    let s3 = S3::start();
    let store = direct(&s3);
    let keys: Vec<_> = (0..1205).map(|n| format!("e1/wal_005/{n:024X}")).collect();
    for some in keys.chunks(48) {
        for made in futures::future::join_all(some.iter().map(|key| store.create(key, "x"))).await {
            made.unwrap();
        }
    }
    let listed: Vec<_> = store.list("e1/").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(listed, keys);
}

#[tokio::test]
async fn of_sixteen_writers_racing_for_a_key_one_wins() {
    let s3 = S3::start();
    let store = direct(&s3);
    let writers = (0..16).map(|n| store.create("owner/0000000002.json", format!("{n}")));
    let won: Vec<_> = futures::future::join_all(writers)
        .await
        .into_iter()
        .filter(|made| match made {
            Ok(()) => true,
            Err(e) => {
                assert_eq!(e.kind, Kind::Conflict, "{e}");
                false
            }
        })
        .collect();
    assert_eq!(won.len(), 1);
}

#[tokio::test]
async fn no_fault_on_the_way_is_taken_for_absence_and_none_hangs() {
    let (s3, proxy, patient) = through_proxy();
    let impatient = store_with(&s3, &proxy.endpoint(), s3.bucket(), IMPATIENT);
    patient.create("e1/wal/there", "object").await.unwrap();
    let kinds = [
        (Fault::Reset, Kind::Transient),
        (Fault::Forbidden, Kind::Denied),
        (Fault::NoSuchBucket, Kind::Broken),
        (Fault::SlowDown, Kind::Transient),
        (Fault::InternalError, Kind::Transient),
        (Fault::BlackHole, Kind::Transient),
        (Fault::LostReply, Kind::Transient),
        (Fault::Truncated, Kind::Transient),
    ];
    for (fault, kind) in kinds {
        proxy.rules([Rule::new(fault)]);
        // Six requests, and what the host takes: each is answered at once, but for the one that is never.
        let (store, most) = if fault == Fault::BlackHole {
            (&impatient, 6 * IMPATIENT.total + Duration::from_secs(34))
        } else {
            (&patient, LIMITS.total)
        };
        let began = Instant::now();
        for key in ["e1/wal/there", "e1/wal/not-there"] {
            let e = store.get(key).await.unwrap_err();
            // A refusal that is cut short says nothing; a whole one is as good as a longer body would be.
            assert_eq!(e.kind, kind, "{fault:?}: {e}");
            assert!(store.get_optional(key).await.is_err(), "{fault:?}");
        }
        assert_eq!(store.list("e1/").await.unwrap_err().kind, kind, "{fault:?}");
        assert_eq!(store.create("e1/wal/new", "x").await.unwrap_err().kind, kind, "{fault:?}");
        assert!(began.elapsed() < most, "{fault:?} took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_404_that_does_not_name_the_key_is_settled_by_a_listing() {
    let (_s3, proxy, store) = through_proxy();
    store.create("e1/there", "object").await.unwrap();
    proxy.rules([Rule::new(Fault::BareNotFound).key("e1/there").times(1)]);
    assert_eq!(store.get("e1/there").await.unwrap_err().kind, Kind::Transient);
    proxy.rules([Rule::new(Fault::BareNotFound).key("e1/gone").times(1)]);
    assert_eq!(store.get("e1/gone").await.unwrap_err().kind, Kind::Absent);
    proxy.rules([Rule::new(Fault::BareNotFound)]);
    assert_eq!(store.get("e1/gone").await.unwrap_err().kind, Kind::Broken, "no S3 server answers so");
    proxy.rules([Rule::new(Fault::Portal)]);
    assert_eq!(store.list("e1/").await.unwrap_err().kind, Kind::Broken, "no listing");
    proxy.rules([Rule::new(Fault::Portal).key("list-type"), Rule::new(Fault::BareNotFound)]);
    let e = store.get("e1/there").await.unwrap_err();
    assert_eq!(e.kind, Kind::Broken, "a sign-in page proves nothing: {e}");
}

#[tokio::test]
async fn a_create_whose_reply_was_lost_is_our_own_and_is_not_sent_again() {
    let (_s3, proxy, store) = through_proxy();
    proxy.rules([Rule::new(Fault::LostReply).method("PUT")]);
    assert_eq!(store.create_or_compare("owner/0000000001.json", "us").await.unwrap(), Created::Same);
    assert_eq!(proxy.seen().iter().filter(|(method, _)| method == "PUT").count(), 1);
    assert_eq!(store.create_or_compare("owner/0000000001.json", "them").await.unwrap(), Created::Different);
}

#[tokio::test]
async fn what_was_certainly_not_carried_out_is_sent_again() {
    let (_s3, proxy, store) = through_proxy();
    for (n, fault) in [Fault::SlowDown, Fault::ConditionalConflict].into_iter().enumerate() {
        proxy.rules([Rule::new(fault).times(2)]);
        store.create(&format!("e1/{n}"), "x").await.unwrap();
        assert_eq!(proxy.seen().len(), 3);
    }
    for fault in [Fault::Reset, Fault::InternalError, Fault::LostReply, Fault::Truncated] {
        proxy.rules([Rule::new(fault).times(2)]);
        assert_eq!(store.get("e1/0").await.unwrap(), "x", "{fault:?}");
    }
    proxy.rules([Rule::new(Fault::Slow(Duration::from_millis(300)))]);
    assert_eq!(store.get("e1/0").await.unwrap(), "x");
}

#[tokio::test]
async fn a_conflict_that_cannot_be_looked_at_decides_nothing() {
    let (_s3, proxy, store) = through_proxy();
    store.create("e1/a", "x").await.unwrap();
    proxy.rules([Rule::new(Fault::Forbidden).method("GET")]);
    assert_eq!(store.create_or_compare("e1/a", "x").await.unwrap_err().kind, Kind::Denied);
    proxy.rules([Rule::new(Fault::Flipped).method("GET")]);
    assert_eq!(store.create_or_compare("e1/a", "x").await.unwrap(), Created::Different);
}

#[tokio::test]
async fn the_probe_refuses_what_it_must_and_waits_for_what_may_pass() {
    let (s3, proxy, store) = through_proxy();
    let refused = |e: Unusable| match e {
        Unusable::Refused(failure) => failure.message,
        Unusable::Unreachable(e) => panic!("should be refused: {e}"),
    };
    proxy.rules([Rule::new(Fault::IgnoredCondition)]);
    let message = refused(probe(&store).await.unwrap_err());
    assert!(message.contains("If-None-Match"), "{message}");
    proxy.rules([Rule::new(Fault::Forbidden)]);
    let message = refused(probe(&store).await.unwrap_err());
    assert!(message.contains("AWS_ACCESS_KEY_ID") && message.contains("PROXY1"), "{message}");
    let message = refused(probe(&store_of(&s3, s3.endpoint(), "no-such-bucket")).await.unwrap_err());
    assert!(message.contains("NoSuchBucket") && message.contains("SUPAFLY_STORE"), "{message}");
    let impatient = store_with(&s3, &proxy.endpoint(), s3.bucket(), IMPATIENT);
    for fault in [Fault::SlowDown, Fault::Reset, Fault::BlackHole] {
        proxy.rules([Rule::new(fault)]);
        let e = probe(if fault == Fault::BlackHole { &impatient } else { &store }).await.unwrap_err();
        assert!(matches!(e, Unusable::Unreachable(_)), "{fault:?}: {e}");
    }
    proxy.rules([]);
    probe(&store).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let s3 = S3::start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = store_of(&s3, &format!("http://{nobody}"), s3.bucket());
    let e = store.get("a").await.unwrap_err();
    assert_eq!(e.kind, Kind::Transient, "{e}");
    assert!(matches!(probe(&store).await, Err(Unusable::Unreachable(_))));
}

#[tokio::test]
async fn wrong_keys_are_denied_and_do_not_appear_in_the_message() {
    let s3 = S3::start();
    let mut env: BTreeMap<_, _> = s3.environment(s3.endpoint()).into_iter().collect();
    env.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2hunter2".to_owned());
    let given = Credentials::from_environment(&env);
    let store = Store::new(Arc::new(Bucket::new(s3.bucket(), s3.prefix(), &given, LIMITS).unwrap()));
    let e = store.get("a").await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied, "{e}");
    assert!(!e.to_string().contains("hunter2") && !format!("{store:?}").contains("hunter2"), "{e} {store:?}");
}
