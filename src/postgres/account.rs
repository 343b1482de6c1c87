//! The users that programs run as, and how a program is started as one of them.
//!
//! `setpriv` changes the user, because std's own way drops every supplementary group, and one of ours is the mark by
//! which PID 1 knows whose child a process is. It also sets the parent-death signal after the change of user (the
//! kernel clears it there), so that nothing started here outlives us.

use crate::config::Settings;
use crate::exit::Failure;
use nix::unistd::{Gid, Group, Uid, User, getgroups};
use std::path::Path;
use std::process::{Command, Stdio};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: Uid,
    /// The group of the same name, else its primary one.
    pub gid: Gid,
}

impl Account {
    /// The user of that name when we are root, else the one that we are.
    ///
    /// # Errors
    /// 78 when there is no such user.
    pub fn named(name: &str) -> Result<Account, Failure> {
        let missing =
            |e: &str| Failure::config(format!("user `{name}`: {e}; make it with `useradd --system {name}`"));
        let uid = Uid::effective();
        let found = if uid.is_root() { User::from_name(name) } else { User::from_uid(uid) };
        match found {
            Ok(Some(user)) => {
                let own = Group::from_name(&user.name).ok().flatten().filter(|_| uid.is_root());
                Ok(Account { gid: own.map_or(user.gid, |g| g.gid), name: user.name, uid: user.uid })
            }
            Ok(None) if uid.is_root() => Err(missing("it does not exist")),
            // Postgres's programs ask for the name of the user that they are.
            Ok(None) => Err(Failure::config(format!(
                "uid {uid} has no name in /etc/passwd, and Postgres does not run without one: --user postgres, or mount a \
                 passwd file that names it"
            ))),
            Err(e) => Err(missing(&format!("it cannot be looked up: {e}"))),
        }
    }

    /// A command that runs as this user, with an empty environment but for what every program needs; it gets `signal`
    /// when we die.
    #[must_use]
    pub fn command(&self, program: &Path, settings: &Settings, signal: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(signal);
        if Uid::effective().is_root() {
            let mut groups = vec![self.gid.as_raw().to_string()];
            let ours = getgroups().unwrap_or_default();
            groups.extend(
                ours.iter().filter(|g| g.as_raw() != 0 && **g != self.gid).map(|g| g.as_raw().to_string()),
            );
            command.arg("--reuid").arg(self.uid.to_string()).arg("--regid").arg(self.gid.to_string());
            command.arg("--groups").arg(groups.join(","));
        }
        command.arg(program).env_clear().current_dir("/").stdin(Stdio::null());
        let path = crate::facts::environment().remove("PATH").unwrap_or_else(|| "/usr/bin:/bin".to_owned());
        command.env("PATH", path).env("LC_ALL", "C").env("HOME", "/").env("SUPAFLY_RUN", &settings.run);
        command
    }
}
