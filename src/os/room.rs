//! How much room there is on a file system. Asking may take as long as the file system hangs (NFS), so whoever must not
//! block asks on a thread of its own, and only once at a time: a thread that hangs is never joined by a second one.

use crate::spec::{Room, ServiceName};
use crate::state::{Found, Seen};
use nix::errno::Errno;
use nix::sys::statvfs::{Statvfs, statvfs};
use std::collections::BTreeSet;
use std::path::Path;
use tokio::sync::mpsc;

/// With fewer inodes than these a start is in vain.
const FILES: u64 = 16;
/// A look needs next to no stack.
const STACK: usize = 128 << 10;

/// Looks at the file system; blocks as long as that does.
#[must_use]
pub fn look(room: &Room) -> Found {
    let unknown = |e: Errno| Found::Unknown(format!("{}: {}", room.path.display(), e.desc()));
    let mut place = room.path.as_path();
    let stat = loop {
        match (statvfs(place), place.parent()) {
            (Ok(stat), _) => break stat,
            (Err(Errno::ENOENT), Some(parent)) => place = parent,
            (Err(Errno::EINTR), _) => {}
            (Err(e), _) => return unknown(e),
        }
    };
    let more = room.more.as_deref().and_then(number_in).unwrap_or_default();
    weigh(&room.path, &Free::of(&stat), room.bytes.max(more))
}

fn number_in(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What a file system says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    /// Bytes for users other than root.
    bytes: u64,
    /// How many inodes there are; 0 where they are not counted.
    files: u64,
    /// How many more there can be, for users other than root.
    files_left: u64,
}

impl Free {
    fn of(stat: &Statvfs) -> Free {
        Free {
            bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
            files: stat.files(),
            files_left: stat.files_available(),
        }
    }
}

/// Pure: whether that is enough.
fn weigh(path: &Path, free: &Free, needed: u64) -> Found {
    if free.bytes < needed {
        let (free, path) = (free.bytes, path.to_path_buf());
        return Found::Lacking(Seen::Bytes { path, free, needed });
    }
    if free.files > 0 && free.files_left < FILES {
        return Found::Lacking(Seen::Files { path: path.to_path_buf(), free: free.files_left });
    }
    Found::Enough
}

/// A look's answer: for whom, which of its looks, what was found.
pub type Answer = (ServiceName, u64, Found);

/// The looks that are under way, never two for one service.
#[derive(Debug)]
pub struct Looks {
    under_way: BTreeSet<ServiceName>,
    answers: mpsc::Receiver<Answer>,
    answer: mpsc::Sender<Answer>,
}

impl Default for Looks {
    fn default() -> Looks {
        // Who finds it full waits in its own thread.
        let (answer, answers) = mpsc::channel(8);
        Looks { under_way: BTreeSet::new(), answers, answer }
    }
}

impl Looks {
    /// Begins to look. Whatever says at once that nothing can be seen is returned.
    pub fn begin(&mut self, name: &ServiceName, number: u64, room: Room) -> Option<Found> {
        if self.under_way.contains(name) {
            return Some(Found::Unknown("the look before has no answer yet".to_owned()));
        }
        let (to, told) = (self.answer.clone(), name.clone());
        let looking = move || {
            let found = look(&room);
            // Nobody listens any more at our end.
            let _ = to.blocking_send((told, number, found));
        };
        match std::thread::Builder::new().name("room".to_owned()).stack_size(STACK).spawn(looking) {
            Ok(_) => {
                self.under_way.insert(name.clone());
                None
            }
            Err(e) => Some(Found::Unknown(format!("no thread to look with: {e}"))),
        }
    }

    /// The next answer; pending for ever while nothing is looked at.
    pub async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => {
                self.under_way.remove(&answer.0);
                answer
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(path: &Path, bytes: u64) -> Room {
        Room { path: path.to_path_buf(), bytes, more: None, codes: BTreeSet::new() }
    }

    #[test]
    fn inodes_count_only_where_there_are_some() {
        let (path, plenty) = (Path::new("/data"), 1 << 30);
        let free = |bytes, files, files_left| Free { bytes, files, files_left };
        assert_eq!(weigh(path, &free(plenty, 0, 0), 1), Found::Enough);
        assert_eq!(weigh(path, &free(plenty, 100, 16), 1), Found::Enough);
        let lacking = Found::Lacking(Seen::Files { path: path.into(), free: 15 });
        assert_eq!(weigh(path, &free(plenty, 100, 15), 1), lacking);
        assert_eq!(weigh(path, &free(7, 100, 100), 7), Found::Enough);
        let lacking = Found::Lacking(Seen::Bytes { path: path.into(), free: 7, needed: 8 });
        assert_eq!(weigh(path, &free(7, 100, 0), 8), lacking);
    }

    #[test]
    fn what_is_not_there_yet_is_looked_at_where_it_would_be_and_more_may_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = room(&dir.path().join("not/yet"), 1);
        assert_eq!(look(&room), Found::Enough);
        let file = dir.path().join("more");
        room.more = Some(file.clone());
        assert_eq!(look(&room), Found::Enough, "no such file asks for no more");
        std::fs::write(&file, format!("{}\n", u64::MAX)).unwrap();
        let found = look(&room);
        assert!(
            matches!(&found, Found::Lacking(Seen::Bytes { path, needed: u64::MAX, .. }) if *path == room.path),
            "{found:?}"
        );
        std::fs::write(&file, "soon").unwrap();
        assert_eq!(look(&room), Found::Enough);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_that_hangs_is_not_joined_by_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut hanging = room(dir.path(), 1);
        // Reading it waits for somebody who writes.
        hanging.more = Some(pipe.clone());
        let name = ServiceName::new("db").unwrap();
        let mut looks = Looks::default();
        assert_eq!(looks.begin(&name, 1, hanging.clone()), None);
        assert!(matches!(looks.begin(&name, 2, hanging), Some(Found::Unknown(_))));
        let other = ServiceName::new("web").unwrap();
        assert_eq!(looks.begin(&other, 1, room(dir.path(), 1)), None);
        assert_eq!(looks.next().await, (other, 1, Found::Enough), "others are not held up");
        std::fs::write(&pipe, "1").unwrap();
        assert_eq!(looks.next().await, (name.clone(), 1, Found::Enough));
        assert_eq!(looks.begin(&name, 3, room(dir.path(), 1)), None);
    }
}
