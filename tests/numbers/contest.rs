use super::numbers::contest::{Contestant, WarmUp, caught, contest};
use super::numbers::row::{Context, Depth, Invited, Standing};
use std::cell::RefCell;

pub(crate) fn context(depth: Depth) -> Context {
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_supafly"));
    Context {
        binary: built.into(),
        baseline: None,
        actor: built.parent().unwrap().join("examples/actor"),
        scratch: std::env::temp_dir(),
        disk: std::env::temp_dir(),
        depth,
        invited: Invited::Baseline,
    }
}

#[test]
fn contestants_take_turns_and_the_warm_up_counts_for_nobody() {
    let turns = RefCell::new(String::new());
    let turn = |who: char| {
        let turns = &turns;
        move || {
            turns.borrow_mut().push(who);
            Ok(f64::from(u32::try_from(turns.borrow().len()).unwrap()))
        }
    };
    let peers = vec![Contestant::new("b", Standing::Rival, turn('b'))];
    let (ours, peers) = contest(&context(Depth::Full), (3, WarmUp::Yes), turn('a'), peers).unwrap();
    assert_eq!(turns.borrow().as_str(), "abbaabba");
    assert_eq!(ours.count(), 3);
    assert_eq!((ours.least(), ours.most()), (4.0, 8.0));
    assert_eq!(peers[0].samples.as_ref().unwrap().count(), 3);
}

#[test]
fn a_peer_that_fails_is_out_with_its_reason_and_the_others_go_on() {
    let mut left = 2;
    let failing = move || {
        left -= 1;
        if left == 0 { Err("it hung".to_owned()) } else { Ok(1.0) }
    };
    let peers = vec![Contestant::new("b", Standing::Rival, failing)];
    let (ours, peers) = contest(&context(Depth::Full), (5, WarmUp::No), || Ok(1.0), peers).unwrap();
    assert_eq!(ours.count(), 5);
    assert_eq!(peers[0].samples, Err("it hung".to_owned()));
}

#[test]
fn a_row_that_panics_is_a_row_that_could_not_be_run() {
    let outcome = caught::<()>(|| panic!("at the {}", "disco"));
    assert_eq!(outcome, Err("panicked: at the disco".to_owned()));
}
