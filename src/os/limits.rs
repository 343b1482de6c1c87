//! Our own limit of open files. Each captured service costs two descriptors and each client of the control socket one; a
//! default of 1,024 would be felt with a few hundred services. Raised for us only: children get what was there before,
//! because programs that use `select` or close every descriptor suffer from a large limit.

use super::privilege::may_raise_limits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What we ask for, when the hard limit allows it.
const WANTED: u64 = 65_536;

/// The limit as it was before we raised our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What everybody starts with.
    pub soft: u64,
    /// How far the soft one can be raised.
    pub hard: u64,
    /// Whether we may raise the hard one.
    pub may_raise: bool,
}

impl OpenFiles {
    /// Soft and hard limit of a child that wants so many (`None`: what was there before). Where the hard limit cannot be
    /// raised it is what there is: less than was wanted is better than no start.
    #[must_use]
    pub fn of_child(&self, wanted: Option<u64>) -> (u64, u64) {
        match wanted {
            None => (self.soft, self.hard),
            Some(wanted) if self.grants(wanted) => (wanted, wanted),
            Some(_) => (self.hard, self.hard),
        }
    }

    /// Whether a child can have so many.
    #[must_use]
    pub fn grants(&self, wanted: u64) -> bool {
        self.may_raise || wanted <= self.hard
    }
}

/// Raises our soft limit as far as the hard one, and says what was there before.
#[must_use]
pub fn raise_open_files() -> Option<OpenFiles> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let more = WANTED.min(hard);
    let before = OpenFiles { soft, hard, may_raise: may_raise_limits() };
    // A refusal leaves us with what we have, which is what everybody had.
    (more <= soft || setrlimit(Resource::RLIMIT_NOFILE, more, hard).is_ok()).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_what_it_wants_or_all_that_there_is() {
        let tight = OpenFiles { soft: 256, hard: 1024, may_raise: false };
        assert_eq!(tight.of_child(None), (256, 1024));
        assert_eq!(tight.of_child(Some(512)), (512, 512));
        assert_eq!(tight.of_child(Some(10_240)), (1024, 1024));
        let free = OpenFiles { may_raise: true, ..tight };
        assert_eq!(free.of_child(Some(10_240)), (10_240, 10_240));
    }
}
