//! What plays services, writers and mothers of orphans in `make bench`. Small on purpose: it must not be what is measured.

#![allow(clippy::expect_used, clippy::panic, reason = "a wrong word must be seen")]

fn main() {
    let mut words = std::env::args().skip(1);
    let verb = words.next().expect("a word");
    panic!("actor does not know `{verb}`");
}
