//! The signals that mean something to a supervisor, as one stream of typed values.
//!
//! The handlers are installed before the first service starts, so that a TERM that arrives 30 ms after our own exec
//! is neither lost (as PID 1) nor fatal (otherwise). SIGCHLD is a signal like the others: the kernel merges several into one.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// INT, TERM, QUIT: an orderly stop; asked again, a faster one.
    Stop(&'static str),
    /// USR1.
    Freeze,
    /// USR2.
    Thaw,
    /// HUP: nothing; a closed terminal must not end a supervisor.
    Hangup,
    /// CHLD: somebody ended.
    Child,
}

/// The stream.
#[derive(Debug)]
pub struct Signals {
    term: Stream,
    int: Stream,
    quit: Stream,
    hup: Stream,
    usr1: Stream,
    usr2: Stream,
    child: Stream,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.term.recv() => Asked::Stop("SIGTERM"),
            _ = self.int.recv() => Asked::Stop("SIGINT"),
            _ = self.quit.recv() => Asked::Stop("SIGQUIT"),
            _ = self.usr1.recv() => Asked::Freeze,
            _ = self.usr2.recv() => Asked::Thaw,
            _ = self.hup.recv() => Asked::Hangup,
            _ = self.child.recv() => Asked::Child,
        }
    }
}
