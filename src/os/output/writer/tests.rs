//! Sinks that stall, fail and recover: what was delivered and what was counted make up what was said.

use super::*;
use proptest::prelude::*;
use std::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);

/// Takes a write when told to, and tells what it was.
struct Gate(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        let _ = self.1.send(bytes.to_vec());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn gated() -> (Writer, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
    let (open, gate) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    (Writer::start(Shape::Text, Gate(gate, tell)).unwrap(), open, told)
}

/// Collects until a text is there.
fn until(told: &mpsc::Receiver<Vec<u8>>, text: &str) {
    let mut all = String::new();
    while !all.contains(text) {
        let bytes = told.recv_timeout(PATIENCE);
        all += &String::from_utf8_lossy(&bytes.unwrap_or_else(|_| panic!("no `{text}` in {all:?}")));
    }
}

#[test]
fn a_stalled_reader_costs_lines_that_are_counted_and_never_blocks() {
    let (writer, open, told) = gated();
    let source = writer.source("flood");
    let batch = vec![b'\n'; 100_000];
    let taken = (0..20).filter(|_| writer.push(source, batch.clone(), 100_000)).count();
    assert!((9..=11).contains(&taken), "{taken}");
    assert!(!writer.has_room(source, 100_000));
    writer.lose(source, 5);
    writer.flush(Duration::from_millis(1));
    drop(open);
    until(&told, &format!("lost {} lines", (20 - taken) * 100_000 + 5));
}

#[test]
fn what_was_lost_is_told_even_when_its_service_says_nothing_more() {
    let (writer, open, told) = gated();
    let (loud, calm) = (writer.source("loud"), writer.source("calm"));
    while writer.push(loud, vec![b'\n'; 100_000], 100_000) {}
    drop(open);
    until(&told, "lost 100000 lines");
    // Also when there was nothing that had to be written first.
    writer.lose(calm, 7);
    until(&told, "lost 7 lines");
}

#[test]
fn our_own_lines_have_a_place_when_services_fill_everything() {
    let (writer, open, told) = gated();
    for name in ["a", "b", "c", "d", "e"] {
        let source = writer.source(name);
        while writer.push(source, vec![b'\n'; 100_000], 100_000) {}
    }
    writer.line(writer.source("supafly"), &Line::new("supafly", Level::Warn, "still here"));
    drop(open);
    until(&told, "still here");
}

#[test]
fn many_small_batches_do_not_take_more_than_they_say() {
    let (writer, _open, _told) = gated();
    let source = writer.source("a");
    let taken = (0..200_000).filter(|_| writer.push(source, b"0123456789\n".to_vec(), 1)).count();
    assert!(taken > ROOM_EACH / 11 / 3, "{taken}");
    let queue = writer.shared.lock();
    assert!(queue.batches.len() < 100, "{}", queue.batches.len());
    assert!(queue.waiting <= ROOM_EACH + 2 * BATCH);
}

/// Does what a script says: takes so many bytes, or (0) fails. After its end it takes everything.
struct Moody {
    script: std::vec::IntoIter<usize>,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Write for Moody {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let most = match self.script.next() {
            Some(0) => return Err(std::io::Error::other("no room")),
            Some(most) => most.min(bytes.len()),
            None => bytes.len(),
        };
        self.taken.lock().unwrap().extend_from_slice(&bytes[..most]);
        Ok(most)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_sink_that_fails_costs_what_is_counted_and_tears_no_other_line(
        script in proptest::collection::vec(prop_oneof![Just(0usize), 1usize..60], 0..40),
        lines in 1usize..60,
    ) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Moody { script: script.into_iter(), taken: Arc::clone(&taken) };
        let writer = Writer::start(Shape::Json, sink).unwrap();
        let source = writer.source("a");
        for i in 0..lines {
            let text = i.to_string();
            let mut bytes = Vec::new();
            Line::new("a", Level::Info, &text).write(Shape::Json, &mut bytes);
            writer.push(source, bytes, 1);
        }
        let end = Instant::now() + PATIENCE;
        loop {
            writer.flush(PATIENCE);
            let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
            let whole: Vec<serde_json::Value> =
                text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
            let lost: u64 = whole.iter().filter_map(|l| l["lost"].as_u64()).sum();
            let said: Vec<usize> = whole
                .iter()
                .filter(|l| l["lost"].is_null())
                .map(|l| l["message"].as_str().unwrap().parse().unwrap())
                .collect();
            prop_assert!(said.is_sorted());
            if said.len() as u64 + lost == lines as u64 {
                break;
            }
            prop_assert!(Instant::now() < end, "{} said, {lost} lost of {lines}: {text}", said.len());
        }
    }
}
