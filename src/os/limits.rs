//! Our own limit of open files. Each captured service costs two descriptors and each client of the control socket one; a
//! default of 1,024 would be felt with a few hundred services. Raised for us only: children get what was there before,
//! because programs that use `select` or close every descriptor suffer from a large limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What we ask for, when the hard limit allows it.
const WANTED: u64 = 65_536;

/// Raises the soft limit as far as the hard one, and says what was there before.
#[must_use]
pub fn raise_open_files() -> Option<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let more = WANTED.min(hard);
    // A refusal leaves us with what we have, which is what everybody had.
    (more <= soft || setrlimit(Resource::RLIMIT_NOFILE, more, hard).is_ok()).then_some((soft, hard))
}
