//! Every way in which `supafly` ends, its number and its sentence.
//!
//! Exit codes are an interface: Fly restarts on non-zero, systemd and shells branch on the number, and the
//! person woken at night looks it up. They follow sysexits(3) where it has a fitting word. Only `main` exits.

use std::process::ExitCode;

/// How the program ends. The discriminant is the process's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// A wanted stop, everything down in order; or the command did what was asked.
    Clean = 0,
    /// `health` says no; `wal-push` says "try again"; `wal-fetch` says "proved absent".
    No = 1,
    /// The command line was wrong.
    Usage = 64,
    /// A service that must not fail gave up.
    GaveUp = 70,
    /// There is no room on the volume for what has to be done; it goes well once there is.
    NoRoom = 73,
    /// The stop budget ran out, or a second signal cut it short: something was killed.
    Forced = 75,
    /// Everything stopped in order, but WAL remains that is not in the archive.
    NotArchived = 76,
    /// Refused: another machine owns the prefix or the volume, or the data is not ours.
    Refused = 77,
    /// The configuration is wrong.
    Config = 78,
    /// `wal-fetch`: anything but success or proved absence. Postgres takes a status above 125 as fatal and stops
    /// recovery instead of ending it early (`PostgreSQL: src/backend/access/transam/xlogarchive.c`).
    Fatal = 255,
}

impl Exit {
    /// One sentence for logs and `--help`.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Exit::Clean => "stopped as asked",
            Exit::No => "the answer is no",
            Exit::Usage => "the command line is wrong",
            Exit::GaveUp => "a service that must not fail gave up",
            Exit::NoRoom => "there is no room on the volume",
            Exit::Forced => "the stop was forced: something had to be killed",
            Exit::NotArchived => "stopped in order, but not all WAL is in the archive",
            Exit::Refused => "refused: owned by another, or not our data",
            Exit::Config => "the configuration is wrong",
            Exit::Fatal => "failed in a way that Postgres must take as fatal",
        }
    }

    /// The process's exit status.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The exit that a child's status stands for, where it is one of ours that a supervisor hands on.
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Exit> {
        match code {
            0 => Some(Exit::Clean),
            1 => Some(Exit::No),
            64 => Some(Exit::Usage),
            70 => Some(Exit::GaveUp),
            73 => Some(Exit::NoRoom),
            75 => Some(Exit::Forced),
            76 => Some(Exit::NotArchived),
            77 => Some(Exit::Refused),
            78 => Some(Exit::Config),
            255 => Some(Exit::Fatal),
            _ => None,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error that knows how the program should end because of it. The message says what failed, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit status it asks for.
    pub exit: Exit,
    /// For the operator: what failed, where, what to do.
    pub message: String,
}

impl Failure {
    /// A failure with its exit.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }
    /// Configuration is wrong (78).
    pub fn config(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Config, message)
    }
    /// Owned by another or foreign data (77).
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }
    /// Something failed that may go well another time (70).
    pub fn gave_up(message: impl Into<String>) -> Failure {
        Failure::new(Exit::GaveUp, message)
    }
    /// A step that failed because the file system is full, or the quota used up, goes well once there is room: that has a
    /// code of its own (73). Known by the system's own words, which programs of others hand on in theirs.
    #[must_use]
    pub fn or_no_room(self) -> Failure {
        let text = self.message.to_lowercase();
        let full = ["no space left on device", "disk quota exceeded", "the disk is full"];
        // The kernel has the same words for what lies on no file system.
        let other = ["shared memory", "semaphore", "/dev/shm"];
        let says = |all: &[&str]| all.iter().any(|words| text.contains(words));
        match self.exit {
            Exit::GaveUp if says(&full) && !says(&other) => Failure { exit: Exit::NoRoom, ..self },
            Exit::GaveUp
            | Exit::Clean
            | Exit::No
            | Exit::Usage
            | Exit::NoRoom
            | Exit::Forced
            | Exit::NotArchived
            | Exit::Refused
            | Exit::Config
            | Exit::Fatal => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_survives_the_way_through_its_number() {
        for exit in [
            Exit::Clean,
            Exit::No,
            Exit::Usage,
            Exit::GaveUp,
            Exit::NoRoom,
            Exit::Forced,
            Exit::NotArchived,
            Exit::Refused,
            Exit::Config,
            Exit::Fatal,
        ] {
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
            assert!(!exit.sentence().is_empty());
        }
        assert_eq!(Exit::from_code(3), None);
    }

    #[test]
    fn a_full_disk_has_a_code_of_its_own_and_changes_no_other() {
        let exit = |failure: Failure| failure.or_no_room().exit;
        for errno in [28, 122] {
            let said = std::io::Error::from_raw_os_error(errno);
            assert_eq!(exit(Failure::gave_up(format!("/data/x: cannot write it: {said}"))), Exit::NoRoom);
        }
        let engine = "write /data/pgdata.staging/base/1/2: no space left on device";
        assert_eq!(exit(Failure::gave_up(engine)), Exit::NoRoom);
        assert_eq!(exit(Failure::gave_up("/data/x: Permission denied")), Exit::GaveUp);
        let memory = "could not create shared memory segment: No space left on device";
        assert_eq!(exit(Failure::gave_up(memory)), Exit::GaveUp);
        assert_eq!(exit(Failure::refused("No space left on device")), Exit::Refused);
    }
}
