//! What we may do: change users, give groups, and which numbers of groups exist at all.
//!
//! "Are we root" is the wrong question in containers: root without `CAP_SETGID`, or root of a user namespace that maps
//! few groups, cannot do what root can. So it is asked once, at the start, for what it is needed.

use super::spawn::Identity;
use nix::unistd::{Gid, Group, User, getegid, geteuid, getgroups};
use std::ffi::CString;

/// What this process may do to its children's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// May change users and give any mapped group.
    Full,
    /// May not; everything runs as us.
    None,
}

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SYS_RESOURCE: u32 = 24;

impl Privilege {
    /// Asks the kernel (`CapEff`, `/proc/self/setgroups`).
    #[must_use]
    pub fn detect() -> Privilege {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let denied = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() == "deny");
        let capable = effective_capabilities(&status).map_or(geteuid().is_root(), |caps| {
            caps & (1 << CAP_SETGID) != 0 && caps & (1 << CAP_SETUID) != 0
        });
        if capable && !denied { Privilege::Full } else { Privilege::None }
    }
}

/// Whether we may raise a hard limit. Root of a container mostly may not.
#[must_use]
pub fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_capabilities(&status).map_or(geteuid().is_root(), |caps| caps & (1 << CAP_SYS_RESOURCE) != 0)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Who a service runs as, by the names in its file, and its home directory when it has a user of its own.
///
/// # Errors
/// Says which name is unknown.
pub fn resolve(
    user: Option<&str>,
    group: Option<&str>,
    groups: &[String],
) -> Result<(Identity, Option<String>), String> {
    let (base, home) = match user {
        Some(name) => of_user(name).map(|(identity, home)| (identity, Some(home)))?,
        None => {
            let groups = getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect();
            (Identity { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups }, None)
        }
    };
    let gid = group.map_or(Ok(base.gid), gid_of)?;
    let mut all = base.groups;
    all.extend(super::tags::inherited_tags());
    for name in groups {
        all.push(gid_of(name)?);
    }
    all.sort_unstable();
    all.dedup();
    Ok((Identity { uid: base.uid, gid, groups: all }, home))
}

fn of_user(name: &str) -> Result<(Identity, String), String> {
    let user = match name.parse() {
        Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let user = user
        .map_err(|e| format!("cannot look up the user `{name}`: {e}"))?
        .ok_or_else(|| format!("there is no user `{name}` here: create it, or leave `user` out"))?;
    let groups = CString::new(user.name.clone())
        .ok()
        .and_then(|c| nix::unistd::getgrouplist(&c, user.gid).ok())
        .map_or_else(|| vec![user.gid.as_raw()], |g| g.into_iter().map(Gid::as_raw).collect());
    let home = user.dir.to_string_lossy().into_owned();
    Ok((Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }, home))
}

fn gid_of(name: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    Group::from_name(name)
        .map_err(|e| format!("cannot look up the group `{name}`: {e}"))?
        .map(|g| g.gid.as_raw())
        .ok_or_else(|| format!("there is no group `{name}` here: create it, or leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status_text() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t00000000000000c0\n"), Some(0xc0));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = resolve(Some("no-such-user-here"), None, &[]).unwrap_err();
        assert!(error.contains("no-such-user-here"), "{error}");
        let (root, home) = resolve(Some("root"), None, &[]).unwrap();
        assert_eq!((root.uid, root.gid, home.as_deref()), (0, 0, Some("/root")));
    }
}
