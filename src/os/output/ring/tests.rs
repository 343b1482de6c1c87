//! Order, bounds, what is counted, and that nobody who waits is forgotten.

use super::*;
use proptest::prelude::*;

fn push(ring: &Ring, text: &str) {
    ring.push(&Line::new("", Level::Info, text));
}

fn texts(recent: &Recent) -> Vec<&str> {
    recent.lines.iter().map(|k| k.text.as_str()).collect()
}

#[test]
fn lines_of_all_services_come_in_the_order_in_which_they_were_said() {
    let rings = Rings::new();
    let (a, b) = (rings.ring("a"), rings.ring("b"));
    push(&a, "1");
    push(&b, "2");
    push(&rings.ring("a"), "3");
    let all = rings.since(None, 0);
    assert_eq!(texts(&all), ["1", "2", "3"]);
    assert_eq!((all.next, all.lost, rings.newest()), (3, 0, 3));
    let one = rings.since(Some("a"), 1);
    assert_eq!(texts(&one), ["3"]);
    assert_eq!((one.next, one.lost, &*one.lines[0].service), (3, 0, "a"));
    assert_eq!(rings.since(Some("nobody"), 0).next, 3);
    assert!(rings.since(None, 3).lines.is_empty());
}

#[test]
fn what_is_kept_is_bounded_and_what_is_not_is_counted() {
    let rings = Rings::new();
    let (loud, calm) = (rings.ring("loud"), rings.ring("calm"));
    push(&calm, "before");
    let all = rings.since(None, 0).next;
    let its = rings.since(Some("loud"), 0).next;
    for _ in 0..1_000 {
        push(&loud, "x");
        push(&calm, "y");
    }
    let (recent, one) = (rings.since(None, all), rings.since(Some("loud"), its));
    assert_eq!((recent.lines.len() as u64, recent.lost), (2 * LINES as u64, 2_000 - 2 * LINES as u64));
    assert_eq!((one.lines.len() as u64, one.lost), (LINES as u64, 1_000 - LINES as u64));
    for _ in 0..1_000 {
        push(&loud, &"z".repeat(900));
    }
    let lines = loud.lock();
    assert!(lines.text.len() <= BYTES && lines.text.capacity() <= 2 * BYTES);
    assert!(lines.entries.len() < 80);
}

#[test]
fn of_a_long_line_the_beginning_is_kept_and_marked() {
    let rings = Rings::new();
    let ring = rings.ring("a");
    push(&ring, &"é".repeat(LENGTH));
    let mut part = Line::new("a", Level::Info, "the rest");
    part.part = Some(2);
    ring.push(&part);
    push(&ring, &format!("x{}", "é".repeat(LENGTH)));
    let kept = rings.since(None, 0).lines;
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[0].text.as_str(), kept[0].more), ("é".repeat(LENGTH / 2).as_str(), true));
    assert_eq!(kept[1].text.len(), LENGTH - 1);
    assert!(ring.lines()[1].ends_with("é …"));
}

#[test]
fn a_kept_line_is_written_as_the_line_was() {
    let ring = Ring::default();
    let mut line = Line::new("", Level::Warn, "odd\u{1b}[31m");
    line.run = Some(3);
    line.stream = Some("stderr");
    ring.push(&line);
    let kept = ring.since(0).lines;
    for shape in [Shape::Json, Shape::Text] {
        let (mut was, mut is) = (Vec::new(), Vec::new());
        line.write(shape, &mut was);
        kept[0].write(shape, &mut is);
        assert_eq!(String::from_utf8(is).unwrap(), String::from_utf8(was).unwrap());
    }
    let (value, mut was) = (serde_json::to_string(&kept[0]).unwrap(), Vec::new());
    line.write(Shape::Json, &mut was);
    assert_eq!(value + "\n", String::from_utf8(was).unwrap());
}

#[test]
fn whoever_waits_misses_no_line() {
    let rings = Rings::new();
    let ring = rings.ring("a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pusher = std::thread::spawn(move || (0..20_000).for_each(|_| push(&ring, "x")));
    let all = async {
        let (mut next, mut seen) = (0, 0);
        while seen < 20_000 {
            rings.changed(next).await;
            let recent = rings.since(Some("a"), next);
            assert!(recent.next > next);
            seen += recent.lines.len() as u64 + recent.lost;
            next = recent.next;
        }
        seen
    };
    let seen =
        runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), all).await });
    pusher.join().unwrap();
    assert_eq!(seen.unwrap(), 20_000);
    assert_eq!(rings.order.waiting.load(SeqCst), 0);
}

proptest! {
    #[test]
    fn the_last_lines_are_what_was_pushed_last(lines in proptest::collection::vec("[a-zé€]{0,1200}", 0..60)) {
        let ring = Ring::default();
        lines.iter().for_each(|l| push(&ring, l));
        let kept = ring.since(0);
        prop_assert_eq!(kept.lines.len() as u64 + kept.lost, lines.len() as u64);
        for (kept, line) in kept.lines.iter().rev().zip(lines.iter().rev()) {
            prop_assert!(line.starts_with(&kept.text));
            prop_assert_eq!(kept.more, kept.text.len() < line.len());
        }
    }
}
