//! Bytes and an open file over a Unix socket (`SCM_RIGHTS`).
//!
//! `wal-push` and `wal-fetch` run as postgres and hold no key to the store; keeper holds the keys and may not write
//! below `pgdata`. The open descriptor carries exactly the right that is needed and no more.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Sends bytes, and with the first of them open files. Returns how many bytes went.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(socket: impl AsFd, bytes: &[u8], files: &[BorrowedFd<'_>]) -> std::io::Result<usize> {
    let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let socket = socket.as_fd().as_raw_fd();
    Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// How many files one message may carry (`SCM_MAX_FD`, linux/net/scm.h). With room for all of them none is cut off: what
/// had arrived before a cut would stay open, and whoever may send could take every descriptor that we have.
const MOST: usize = 253;

/// The files of one message: who asks for WAL sends a spare file and the place for it. More are closed at once.
pub const KEPT: usize = 2;

/// Receives bytes and at most [`KEPT`] open files, the first of those that came. 0 bytes: the peer hung up.
///
/// # Errors
/// As `recvmsg(2)`; `WouldBlock` on a non-blocking socket with nothing to read.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> std::io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(buffer)];
    let socket = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    if let Ok(messages) = message.cmsgs() {
        for message in messages {
            if let ControlMessageOwned::ScmRights(fds) = message {
                files.extend(fds.into_iter().map(own));
            }
        }
    }
    files.truncate(KEPT);
    Ok((message.bytes, files))
}

#[allow(unsafe_code, reason = "the standard library has no stable way to receive a descriptor")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor in our table for this very message, so it is open and
    // nobody else owns it; each descriptor of the message is passed here once.
    // JUSTIFICATION: a safe way would be `/proc/self/fd/N` opened anew, which needs rights to the file that keeper
    // must not have.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_file_arrives_open_and_with_the_rights_it_was_opened_with() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(send(&here, b"hello", &[file.as_fd()]).unwrap(), 5);
        let mut buffer = [0; 16];
        let (length, mut got) = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        std::fs::File::from(got.pop().unwrap()).write_all(b"through").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(here);
        assert!(matches!(receive(&there, &mut buffer), Ok((0, files)) if files.is_empty()));
    }

    #[test]
    fn of_many_files_two_are_kept_and_no_other_stays_open() {
        use std::os::unix::fs::MetadataExt;
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let number = file.metadata().unwrap().ino();
        // Descriptors of this very file: other tests of this process have their own.
        let open = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            entries.filter(|e| std::fs::metadata(e.path()).is_ok_and(|m| m.ino() == number)).count()
        };
        for many in [2, 3, 20, MOST] {
            let fds = vec![file.as_raw_fd(); many];
            let parts = [IoSlice::new(b"x")];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(here.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
            let (length, got) = receive(&there, &mut [0; 4]).unwrap();
            assert_eq!((length, got.len(), open()), (1, KEPT, 1 + KEPT), "{many}");
        }
        assert_eq!(open(), 1);
    }
}
