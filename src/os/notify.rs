//! `sd_notify`: a datagram socket that everybody may write to, with the sender named by the kernel.
//!
//! The message says nothing of who sent it; SCM_CREDENTIALS does. The supervisor believes it only from the descent of
//! the current run, so neither a stranger nor a left-over of a former run can declare a service ready.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// One datagram.
#[derive(Debug)]
pub struct Message {
    /// The sender's pid in our namespace; 0 when it is in another.
    pub pid: i32,
    /// Its assignments, in order (`READY` → `1`).
    pub assignments: Vec<(String, String)>,
}

/// The socket.
#[derive(Debug)]
pub struct NotifySocket {
    socket: AsyncFd<OwnedFd>,
}

impl NotifySocket {
    /// Makes the socket, replacing what a former life left.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn bind(path: &Path) -> std::io::Result<NotifySocket> {
        super::remove_socket(path)?;
        let socket = UnixDatagram::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(NotifySocket { socket: super::watch(OwnedFd::from(socket))? })
    }

    /// A datagram that is there already.
    pub fn try_next(&self) -> Option<Message> {
        // Without waiting: what is no message of ours is skipped, and an error is left for `next` to report.
        for _ in 0..16 {
            match receive(self.socket.get_ref()) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// The next datagram that has a sender and is text.
    pub async fn next(&self) -> std::io::Result<Message> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|fd| receive(fd.get_ref())) {
                Ok(Ok(Some(message))) => return Ok(message),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn receive(fd: &OwnedFd) -> std::io::Result<Option<Message>> {
    let mut buffer = [0_u8; 4_096];
    let mut space = nix::cmsg_space!(UnixCredentials, [i32; 16]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let bytes = received.bytes;
    let mut pid = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmCredentials(from) = message {
            pid = Some(from.pid());
        } else if let ControlMessageOwned::ScmRights(fds) = message {
            // Nobody asked for descriptors: taken only to be closed.
            fds.into_iter().map(super::spawn::own).for_each(drop);
        }
    }
    let (Some(pid), Some(Ok(text))) = (pid, buffer.get(..bytes).map(std::str::from_utf8)) else {
        return Ok(None);
    };
    let assignments =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(Some(Message { pid, assignments }))
}
