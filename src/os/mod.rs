//! The only module that starts processes, waits for them, signals them and looks at them.
//!
//! One owner ([`Processes`]) spawns and reaps, from one thread: `waitpid(-1)` and library child handles steal each
//! other's statuses (9 of 200 in a measurement), so nobody else in the program may wait, and `tokio::process` is not
//! used at all. The borrow checker is the lock: both take `&mut`. Everything here is mechanism; what is done and when
//! is decided in [`crate::state`].
//!
//! This is also the only place with `unsafe`: what runs between fork and exec, and a few calls that `nix` lacks.

pub mod descent;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod notify;
pub mod oom;
pub mod output;
pub mod passing;
pub mod privilege;
pub mod procfs;
pub mod reaper;
pub mod room;
pub mod shut;
pub mod signals;
pub mod spawn;
pub mod tags;

pub use reaper::{Ended, Processes};
pub use spawn::{Identity, SpawnError, SpawnRequest, Spawned};

/// Removes a socket that a former life left behind; anything else at that place is left alone and is an error.
///
/// # Errors
/// Something else is there, or it cannot be removed.
pub fn remove_socket(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(std::io::Error::other("something that is not a socket is in its place")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Watches a descriptor that we own for something to read.
///
/// # Errors
/// The event loop cannot take it.
pub(crate) fn watch(
    fd: std::os::fd::OwnedFd,
) -> std::io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    #[allow(unsafe_code, reason = "tokio asks for a promise that a type parameter cannot make")]
    // SAFETY: an `OwnedFd` owns a valid descriptor, and nobody can replace or close it inside the `AsyncFd`.
    // JUSTIFICATION: there is no safe constructor for descriptors that tokio has no type for.
    let watched =
        unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) };
    watched.map_err(std::io::Error::from)
}

/// What a terminal has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// The size of the terminal on stdout.
#[must_use]
pub fn terminal_size() -> Option<TerminalSize> {
    use nix::libc;
    #[allow(unsafe_code, reason = "nix has no call for the window size without a macro that is unsafe too")]
    // SAFETY: TIOCGWINSZ fills a `winsize`, which is plain numbers and valid when zeroed.
    // JUSTIFICATION: a table that is wider than the terminal cannot be read.
    let (got, size) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size), size)
    };
    (got == 0 && size.ws_col > 0 && size.ws_row > 0)
        .then(|| TerminalSize { columns: size.ws_col.into(), rows: size.ws_row.into() })
}
