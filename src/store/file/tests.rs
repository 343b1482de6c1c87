use super::*;
use crate::store::{Created, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn store(root: &Path) -> Store {
    Store::new(Arc::new(Directory::new(root)))
}

#[tokio::test]
async fn an_object_is_created_once_and_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    store.create("e1/wal/a", "one").await.unwrap();
    assert_eq!(store.create("e1/wal/a", "two").await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(store.get("e1/wal/a").await.unwrap(), "one");
    assert_eq!(store.create_or_compare("e1/wal/a", "one").await.unwrap(), Created::Same);
    assert_eq!(store.create_or_compare("e1/wal/a", "two").await.unwrap(), Created::Different);
    store.delete("e1/wal/a").await.unwrap();
    store.delete("e1/wal/a").await.unwrap();
    assert_eq!(store.get("e1/wal/a").await.unwrap_err().kind, Kind::Absent);
}

#[tokio::test]
async fn a_missing_root_is_never_absence_and_never_created() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("volume");
    let store = store(&root);
    assert_eq!(store.get("a").await.unwrap_err().kind, Kind::Broken);
    assert_eq!(store.list("").await.unwrap_err().kind, Kind::Broken);
    assert_eq!(store.delete("a").await.unwrap_err().kind, Kind::Broken);
    let e = store.create("a", "x").await.unwrap_err();
    assert_eq!(e.kind, Kind::Broken);
    assert!(e.message.contains("mounted"), "{e}");
    assert!(!root.exists());
}

#[tokio::test]
async fn another_directory_in_the_place_of_the_root_is_not_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("volume");
    fs::create_dir(&root).unwrap();
    let store = store(&root);
    store.create("a", "x").await.unwrap();
    fs::rename(&root, dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&root).unwrap();
    assert_eq!(store.get("a").await.unwrap_err().kind, Kind::Broken);
    assert_eq!(store.create("b", "x").await.unwrap_err().kind, Kind::Broken);
}

#[tokio::test]
async fn files_and_directories_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let owner = if nix::unistd::geteuid().is_root() { 65534 } else { nix::unistd::getuid().as_raw() };
    std::os::unix::fs::chown(dir.path(), Some(owner), None).unwrap();
    store(dir.path()).create("e1/wal/a", "x").await.unwrap();
    for (path, mode) in [("e1", 0o700), ("e1/wal", 0o700), ("e1/wal/a", 0o600), (".tmp", 0o700)] {
        let meta = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.uid()), (mode, owner), "{path}");
    }
}

#[tokio::test]
async fn what_a_killed_writer_leaves_is_not_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let inner = Inner { root: dir.path().to_path_buf(), seen: OnceLock::new() };
    let tmp = dir.path().join(TEMPORARY);
    make_directory(&tmp, Owner(None)).unwrap();
    // Killed before the link: half an object under a temporary name.
    fs::write(tmp.join("1"), "hal").unwrap();
    assert!(inner.list("").unwrap().is_empty());
    // Killed after the link, before the temporary name was removed.
    fs::write(tmp.join("2"), "whole").unwrap();
    fs::hard_link(tmp.join("2"), dir.path().join("a")).unwrap();
    assert_eq!(inner.list("").unwrap(), [Entry { key: "a".into(), size: 5 }]);
    assert_eq!(inner.create("a", b"whole").unwrap_err().kind, Kind::Conflict);
    inner.sweep().unwrap();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 2, "young ones may belong to a living writer");
    let old = std::time::SystemTime::now() - 2 * ABANDONED;
    File::options().write(true).open(tmp.join("1")).unwrap().set_modified(old).unwrap();
    inner.sweep().unwrap();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
}

#[test]
fn of_many_writers_racing_for_a_key_one_wins_and_its_bytes_stay() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    for round in 0..20 {
        let key = format!("race/{round}");
        let results = runtime.block_on(async {
            let writers = (0..8).map(|n| {
                let (store, key) = (store(dir.path()), key.clone());
                tokio::spawn(async move { (n, store.create(&key, format!("writer {n}")).await) })
            });
            futures::future::join_all(writers).await
        });
        let mut winners = Vec::new();
        for result in results {
            match result.unwrap() {
                (n, Ok(())) => winners.push(n),
                (_, Err(e)) => assert_eq!(e.kind, Kind::Conflict, "{e}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let there = runtime.block_on(store(dir.path()).get(&key)).unwrap();
        assert_eq!(there, format!("writer {}", winners[0]));
    }
    assert_eq!(fs::read_dir(dir.path().join(TEMPORARY)).unwrap().count(), 0);
}

#[test]
fn an_error_of_the_disk_is_never_absence() {
    for errno in 1..134 {
        assert!(!matches!(kind(&io::Error::from_raw_os_error(errno)), Kind::Absent | Kind::Conflict));
    }
    assert_eq!(kind(&io::Error::from_raw_os_error(28)), Kind::Transient);
    assert_eq!(kind(&io::Error::from_raw_os_error(30)), Kind::Denied);
}

#[derive(Clone, Debug)]
enum Step {
    Create(&'static str, u8),
    Get(&'static str),
    List(&'static str),
    Delete(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::sample::select(vec!["a", "b/c", "b/d", "b/e/f", "bb"]);
    prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(k, n)| Step::Create(k, n)),
        key.clone().prop_map(Step::Get),
        prop::sample::select(vec!["", "b/", "b/e/", "z/"]).prop_map(Step::List),
        key.prop_map(Step::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_behaves_as_a_map_whose_entries_cannot_be_replaced(steps in prop::collection::vec(step(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let inner = Inner { root: dir.path().to_path_buf(), seen: OnceLock::new() };
        let mut model: BTreeMap<&str, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Create(key, n) => {
                    let made = inner.create(key, &[n]).map_err(|e| e.kind);
                    prop_assert_eq!(made, if model.contains_key(key) { Err(Kind::Conflict) } else { Ok(()) });
                    model.entry(key).or_insert(n);
                }
                Step::Get(key) => {
                    let got = inner.get(key).map(|b| b[0]).map_err(|e| e.kind);
                    prop_assert_eq!(got, model.get(key).copied().ok_or(Kind::Absent));
                }
                Step::List(prefix) => {
                    let listed: Vec<_> = inner.list(prefix).unwrap().into_iter().map(|e| e.key).collect();
                    let expected: Vec<_> = model.keys().filter(|k| k.starts_with(prefix)).map(|k| (*k).to_owned()).collect();
                    prop_assert_eq!(listed, expected);
                }
                Step::Delete(key) => {
                    inner.delete(key).unwrap();
                    model.remove(key);
                }
            }
        }
    }
}
