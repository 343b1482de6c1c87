//! An adoption that is killed at each of its steps, and what another one left.

use super::clusters::{adopt, foreign, heirloom, prepared, refused, tree};
use crate::support::bucket::{Bucket, Kind};
use crate::support::machine::Machine;
use std::fs;

/// Runs the roles one after the other as the supervisor would, and is killed at `point`.
fn killed_at(machine: &mut Machine, point: &str) {
    machine.env.insert("SUPAFLY_FAILPOINT".into(), point.to_owned());
    let out = machine.supafly(&["datadir"]);
    machine.env.remove("SUPAFLY_FAILPOINT");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains(&format!("killed by a failpoint: {point}")), "{point} was not reached:\n{said}");
}

#[test]
fn killed_at_each_step_the_cluster_is_in_one_place_and_the_next_boot_goes_on() {
    let mut machine = Machine::new(&[]);
    let old = machine.data().join("old");
    foreign(&old);
    adopt(&mut machine, &old);
    prepared(&machine);
    let before = tree(&old);
    killed_at(&mut machine, "adopt.after-journal");
    assert!(tree(&old) == before, "it was touched before it was moved");
    let places = [old.clone(), machine.data().join("pgdata.adopting"), machine.data().join("pgdata")];
    let wheres = |machine: &Machine| {
        let _ = machine;
        places.iter().map(|p| p.join("PG_VERSION").exists()).collect::<Vec<_>>()
    };
    for (point, place) in [
        ("adopt.after-journal", 0),
        ("adopt.after-move", 1),
        ("adopt.after-owner", 1),
        ("adopt.after-superuser", 1),
        ("adopt.after-roles", 1),
        ("adopt.after-note", 1),
        ("adopt.after-rename", 2),
    ] {
        killed_at(&mut machine, point);
        let there = wheres(&machine);
        assert!(there.iter().enumerate().all(|(at, there)| *there == (at == place)), "{point}: {there:?}");
        // What was begun is finished, whatever is asked for now; what was not is not.
        machine.env.remove("SUPAFLY_ADOPT");
        if place == 1 {
            killed_at(&mut machine, "adopt.after-owner");
        }
        adopt(&mut machine, &old);
    }
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
    assert!(!machine.data().join("supafly/journal/adopt.json").exists());
}

/// What was begun without a store is no empty volume: it is finished, or given up, before an archive is taken over.
#[test]
fn an_adoption_that_was_cut_off_is_not_buried_under_a_takeover() {
    let bucket = Bucket::start(Kind::File);
    let mut machine = Machine::new(&bucket.env());
    machine.boot();
    machine.wait_ready();
    machine.wait_protected();
    assert_eq!(machine.stop().code(), Some(0));
    machine.lose_volume();
    let store = machine.env.remove("SUPAFLY_STORE").unwrap();
    let (old, adopting) = (machine.data().join("old"), machine.data().join("pgdata.adopting"));
    foreign(&old);
    adopt(&mut machine, &old);
    prepared(&machine);
    killed_at(&mut machine, "adopt.after-move");
    let before = tree(&adopting);
    machine.env.insert("SUPAFLY_STORE".into(), store);
    machine.env.insert("SUPAFLY_TAKEOVER".into(), "auto".into());
    for named in [true, false] {
        if !named {
            machine.env.remove("SUPAFLY_ADOPT");
        }
        refused(
            &mut machine,
            &["pgdata.adopting, which was cut off", "nothing was taken", "move that directory away"],
        );
        assert_eq!(
            bucket.keys("owner/").len(),
            1,
            "the former owner was fenced by a boot that came to nothing"
        );
        assert!(tree(&adopting) == before, "it was touched");
    }
    machine.env.remove("SUPAFLY_STORE");
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
}

#[test]
fn what_is_left_of_another_adoption_is_neither_taken_for_the_named_cluster_nor_passed_over() {
    let mut machine = Machine::new(&[]);
    let (left, old) = (machine.data().join("pgdata.adopting"), machine.data().join("old"));
    foreign(&left);
    refused(&mut machine, &[&format!("SUPAFLY_ADOPT={}", left.display())]);
    foreign(&old);
    let before = (tree(&left), tree(&old));
    adopt(&mut machine, &old);
    refused(&mut machine, &["left of another adoption", "nothing was touched"]);
    assert!((tree(&left), tree(&old)) == before, "it was touched");
    // Put there after an adoption was begun.
    let aside = machine.data().join("aside");
    fs::rename(&left, &aside).unwrap();
    prepared(&machine);
    killed_at(&mut machine, "adopt.after-journal");
    fs::rename(&aside, &left).unwrap();
    refused(&mut machine, &["but cluster", "is to be adopted"]);
    assert!((tree(&left), tree(&old)) == before, "it was touched");
    fs::remove_file(machine.data().join("supafly/journal/adopt.json")).unwrap();
    adopt(&mut machine, &left);
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
}

#[test]
fn killed_in_the_move_of_a_volumes_root_every_file_arrives() {
    let mut machine = Machine::new(&[]);
    let data = machine.data();
    foreign(&data);
    let names: Vec<_> =
        fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    adopt(&mut machine, &data);
    prepared(&machine);
    for name in ["PG_VERSION", "base", "pg_wal"] {
        killed_at(&mut machine, &format!("adopt.moved-{name}"));
    }
    killed_at(&mut machine, "adopt.after-move");
    let adopting = data.join("pgdata.adopting");
    assert!(names.iter().all(|name| adopting.join(name).exists() && !data.join(name).exists()));
    machine.boot();
    machine.wait_ready();
    heirloom(&machine);
}

#[test]
fn a_new_cluster_whose_birth_is_cut_off_is_ours_without_being_asked_for() {
    let mut machine = Machine::new(&[]);
    prepared(&machine);
    killed_at(&mut machine, "datadir.after-rename");
    machine.boot();
    machine.wait_ready();
}
