//! The watch and a stand-in for Postgres, whose connections answer also while it takes no new ones.

use super::super::decide::{Attempt, Seen, closed};
use super::super::watch::{TURN, Watch, graphql};
use super::home::settings;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of who comes now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    Open,
    /// Who is in is sent away, and who comes is told that all connections are taken.
    Taken,
    /// Who comes is taken in, and waits for an answer like those who are.
    Deaf,
    /// Who is in waits for an answer, and who comes is told that all connections are taken.
    Stuck,
    /// Nobody is taken in, and nobody is told: the postmaster stands still.
    Still,
    /// Refused, by this SQLSTATE.
    Refuses(&'static str),
    Ended,
}

struct Postgres {
    _dir: tempfile::TempDir,
    settings: crate::config::Settings,
    watch: Watch,
    door: Arc<Mutex<Door>>,
    /// How many were taken in.
    made: Arc<AtomicU64>,
    path: std::path::PathBuf,
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn idle() -> Vec<u8> {
    framed(b'Z', b"I")
}

/// A message of the client, without its head; `None` at its end.
fn message(client: &mut UnixStream, head: usize) -> Option<Vec<u8>> {
    let mut first = vec![0; head];
    client.read_exact(&mut first).ok()?;
    let length = u32::from_be_bytes(first[head - 4..].try_into().unwrap());
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut body).ok()?;
    Some(body)
}

/// Says yes to the login, and to every question `f`, and where its WAL is.
fn serve(mut client: UnixStream, refuses: Option<&'static str>, door: &Mutex<Door>) -> Option<()> {
    message(&mut client, 4)?;
    if let Some(code) = refuses {
        let said = format!("SFATAL\0VFATAL\0C{code}\0Mnot now\0\0");
        return client.write_all(&framed(b'E', said.as_bytes())).ok();
    }
    client.write_all(&[framed(b'R', &[0; 4]), idle()].concat()).ok()?;
    loop {
        message(&mut client, 5)?;
        let at = || door.lock().unwrap().clone();
        while matches!(at(), Door::Stuck | Door::Deaf) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if at() == Door::Taken {
            let said = b"SFATAL\0VFATAL\0C57P01\0Mterminated\0\0";
            return client.write_all(&framed(b'E', said)).ok();
        }
        let column =
            |name: &str| [name.as_bytes(), &[0; 7], &25_u32.to_be_bytes(), &[0xff; 6], &[0; 2]].concat();
        let columns = [&2_u16.to_be_bytes()[..], &column("a"), &column("b")].concat();
        let value =
            |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        let row = [&2_u16.to_be_bytes()[..], &value("f"), &value("0/3000060")].concat();
        let answer = [framed(b'T', &columns), framed(b'D', &row), framed(b'C', b"SELECT 1\0"), idle()];
        client.write_all(&answer.concat()).ok()?;
    }
}

impl Postgres {
    fn start() -> Postgres {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir);
        let path = settings.pg_socket_dir().join(format!(".s.PGSQL.{}", settings.pg_port));
        std::fs::create_dir_all(settings.pg_socket_dir()).unwrap();
        let (listener, door) = (UnixListener::bind(&path).unwrap(), Arc::new(Mutex::new(Door::Open)));
        let (theirs, made) = (Arc::clone(&door), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&made);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let door = || theirs.lock().unwrap().clone();
                while door() == Door::Still {
                    std::thread::sleep(Duration::from_millis(5));
                }
                match door() {
                    Door::Ended => return,
                    Door::Refuses(code) => drop(serve(client, Some(code), &theirs)),
                    Door::Taken | Door::Stuck => drop(serve(client, Some("53300"), &theirs)),
                    Door::Open | Door::Deaf | Door::Still => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let theirs = Arc::clone(&theirs);
                        std::thread::spawn(move || serve(client, None, &theirs));
                    }
                }
            }
        });
        Postgres { _dir: dir, watch: Watch::new(&settings), settings, door, made, path }
    }

    fn door(&self, door: Door) {
        *self.door.lock().unwrap() = door;
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.door(Door::Ended);
        let _ = UnixStream::connect(&self.path);
    }
}

fn silent(seen: &Seen) -> &str {
    if let Seen::Silent(why) = seen { why } else { panic!("{seen:?}") }
}

#[tokio::test(flavor = "current_thread")]
async fn one_connection_is_kept_until_it_has_stood_for_the_others_long_enough() {
    let mut postgres = Postgres::start();
    for _ in 0..5 {
        assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    }
    assert_eq!(postgres.made(), 1);
    postgres.watch.renew = Duration::ZERO;
    for _ in 0..5 {
        assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    }
    assert_eq!(postgres.made(), 6);
}

#[tokio::test(flavor = "current_thread")]
async fn a_postmaster_that_stands_still_is_seen_although_its_backends_answer_and_when_it_goes_on_too() {
    let mut postgres = Postgres::start();
    postgres.watch.renew = Duration::ZERO;
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    postgres.door(Door::Still);
    // One that is slow, or lost, is no reason to send everybody away who is served.
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        let seen = postgres.watch.look().await;
        let why = silent(&seen);
        assert!(why.contains("no new one is accepted") && why.contains("no answer"), "{why}");
        assert!(begun.elapsed() < TURN + Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    postgres.door(Door::Open);
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    postgres.door(Door::Still);
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }), "it begins to count anew");
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_with_all_its_connections_taken_serves_those_who_have_them() {
    let mut postgres = Postgres::start();
    postgres.watch.renew = Duration::ZERO;
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    for refused in ["53300", "28000"] {
        postgres.door(Door::Refuses(refused));
        for _ in 0..3 {
            assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }), "{refused}");
        }
    }
    postgres.door(Door::Refuses("57P03"));
    assert!(silent(&postgres.watch.look().await).contains("no new one is accepted: not now"));
}

/// After a restart of keeper, or when somebody ended its connection, there is no witness: the refusal itself is one.
#[tokio::test(flavor = "current_thread")]
async fn a_server_with_all_its_connections_taken_serves_also_when_none_of_them_is_ours() {
    let mut postgres = Postgres::start();
    postgres.door(Door::Refuses("53300"));
    assert_eq!(postgres.watch.look().await, Seen::Full);
    postgres.door(Door::Refuses("57P03"));
    assert_eq!(silent(&postgres.watch.look().await), "not now");
    postgres.door(Door::Open);
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    // Ended under us, and its place is taken: what was seen last holds.
    postgres.door(Door::Taken);
    for _ in 0..3 {
        assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    }
    // Ended under us, and there is room.
    postgres.door(Door::Open);
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
}

/// A witness that does not answer says more than a refusal, and is heard again.
#[tokio::test(flavor = "current_thread")]
async fn a_server_whose_connections_are_taken_and_do_not_answer_is_silent_until_they_do() {
    let mut postgres = Postgres::start();
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    postgres.door(Door::Stuck);
    for _ in 0..2 {
        assert!(silent(&postgres.watch.look().await).contains("no answer"));
    }
    postgres.door(Door::Refuses("53300"));
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    assert_eq!(postgres.made(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_graphql_that_hangs_or_cannot_be_asked_costs_the_watch_nothing() {
    let mut postgres = Postgres::start();
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    assert_eq!(graphql(&postgres.settings).await, Some(None), "set-up has not been there");
    postgres.door(Door::Deaf);
    let row = graphql(&postgres.settings).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.state.as_str()), ("graphql", "broken"));
    postgres.door(Door::Refuses("53300"));
    assert_eq!(graphql(&postgres.settings).await, None, "what was known stays");
    assert!(matches!(postgres.watch.look().await, Seen::Writing { .. }));
    assert_eq!(postgres.made(), 3, "the watch has kept its own");
}

/// Readiness is lost by a report that does not come, too.
#[test]
fn the_longest_turn_is_reported_in_time() {
    let file = include_str!("../../../services/keeper.toml");
    let line = file.lines().find_map(|l| l.strip_prefix("reports_health = \"")).unwrap();
    let seconds: u64 = line.trim_end_matches("s\"").parse().unwrap();
    assert!(super::super::resident::TICK + TURN + Duration::from_secs(2) <= Duration::from_secs(seconds));
}

#[test]
fn whoever_answers_has_taken_the_connection_unless_it_says_that_it_takes_nobody() {
    let refused = |code: &str| Attempt::Refused { code: code.to_owned(), said: "sorry".to_owned() };
    for open in [Attempt::Made, refused("53300"), refused("28P01"), refused("3D000")] {
        assert_eq!(closed(&open, 0), None, "{open:?}");
    }
    let failed = Attempt::Failed("Connection refused".to_owned());
    for (shut, times) in [(&failed, 2), (&failed, 7), (&refused("57P03"), 0)] {
        assert!(closed(shut, times).is_some(), "{shut:?}");
    }
    assert_eq!(closed(&failed, 1), None);
}
