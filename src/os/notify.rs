//! `sd_notify`: a datagram socket that everybody may write to, with the sender named by the kernel.
//!
//! The message says nothing of who sent it; SCM_CREDENTIALS does. The supervisor believes it only from the descent of
//! the current run, so neither a stranger nor a left-over of a former run can declare a service ready.

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
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

/// Takes one datagram. There is room for the credentials of its sender and for nothing else: descriptors that somebody
/// sends along are closed by the kernel before they are ours, however many they are.
#[allow(
    unsafe_code,
    reason = "nix gives up on a message that was cut off, and leaves open what came with it"
)]
fn receive(fd: &OwnedFd) -> std::io::Result<Option<Message>> {
    let mut buffer = [0_u8; 4_096];
    // A header and `struct ucred`, aligned: 32 bytes.
    let mut control = [0_u64; 4];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the header is plain data, valid when zeroed, and leads to live locals with their lengths; the kernel wrote
    // what CMSG_FIRSTHDR finds, and whole credentials lie behind it when its type and length say so.
    // JUSTIFICATION: whoever may notify could otherwise take every descriptor that we have.
    let (bytes, pid) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let bytes = libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags);
        let Ok(bytes) = usize::try_from(bytes) else { return Err(std::io::Error::last_os_error()) };
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        let whole = libc::CMSG_LEN(size_of::<libc::ucred>() as _) as usize;
        let credentials = !first.is_null()
            && (*first).cmsg_level == libc::SOL_SOCKET
            && (*first).cmsg_type == libc::SCM_CREDENTIALS
            && (*first).cmsg_len as usize >= whole;
        let pid = credentials.then(|| libc::CMSG_DATA(first).cast::<libc::ucred>().read_unaligned().pid);
        (bytes, pid)
    };
    let (Some(pid), Some(Ok(text))) = (pid, buffer.get(..bytes).map(std::str::from_utf8)) else {
        return Ok(None);
    };
    let assignments =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(Some(Message { pid, assignments }))
}
