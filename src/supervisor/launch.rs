//! From a service file to what its process gets: identity, environment, limits. Resolved anew at every spawn, so that a
//! user or program that came meanwhile is found. The environment is what the file names and the few variables that
//! every service gets; nothing of ours leaks.

use crate::os::descent::{Descent, MARKER};
use crate::os::privilege::{self, Privilege};
use crate::os::spawn::{Identity, SpawnRequest};
use crate::spec::{NewPrivileges, ServiceSpec};
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that a program's name stands for; `None` when there is none that can be executed.
pub(super) fn find_program(program: &str, path: Option<&str>) -> Option<PathBuf> {
    let runs = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| runs(p));
    }
    if program.is_empty() {
        return None;
    }
    path.unwrap_or(PATH).split(':').map(|dir| Path::new(dir).join(program)).find(|file| runs(file))
}

/// What a launch needs beside the file.
pub(super) struct Circumstances<'a> {
    pub privilege: Privilege,
    pub environment: &'a BTreeMap<String, String>,
    pub descent: &'a Descent,
    pub notify: &'a Path,
    pub run: u64,
    pub share: Duration,
    pub lock: Option<RawFd>,
}

/// The request for this service.
pub(super) fn request(spec: &ServiceSpec, around: &Circumstances<'_>) -> Result<SpawnRequest, String> {
    let own = |name: &str| around.environment.get(name).cloned();
    let path = own("PATH").unwrap_or_else(|| PATH.to_owned());
    let mut argv = spec.exec.clone();
    let program = argv.first_mut().ok_or("`exec` is empty")?;
    let found = find_program(program, Some(&path));
    let found = found.ok_or_else(|| format!("there is no program `{program}` that can be executed"))?;
    *program = found.display().to_string();
    let (identity, home): (Option<Identity>, Option<String>) = match around.privilege {
        Privilege::None => (None, None),
        Privilege::Full => {
            let (who, home) = privilege::resolve(spec.user.as_deref(), spec.group.as_deref(), &spec.groups)?;
            (Some(who), home)
        }
    };
    let mut env = BTreeMap::new();
    let passed = around.environment.iter().filter(|(name, _)| spec.pass.iter().any(|p| p.names(name)));
    env.extend(passed.map(|(k, v)| (k.clone(), v.clone())));
    env.insert("PATH".to_owned(), path);
    env.insert("HOME".to_owned(), home.or_else(|| own("HOME")).unwrap_or_else(|| "/".to_owned()));
    env.insert("LANG".to_owned(), own("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()));
    env.insert("NOTIFY_SOCKET".to_owned(), around.notify.display().to_string());
    env.insert("SUPAFLY_STOP_MS".to_owned(), around.share.as_millis().to_string());
    env.extend(spec.env.clone());
    env.insert(MARKER.to_owned(), around.descent.marker(around.run));
    Ok(SpawnRequest {
        argv,
        env: env.into_iter().collect(),
        directory: Some(spec.directory.clone()),
        identity,
        tag: around.descent.tags.map(|tags| tags.of(around.run)),
        keep: around.lock.into_iter().collect(),
        nofile: spec.nofile.map(|n| (n, n)),
        nice: spec.nice.map(i32::from),
        oom_score_adj: spec.oom_score_adj.map(i32::from),
        no_new_privileges: matches!(spec.no_new_privileges, NewPrivileges::Never),
        parent_death: spec.parent_death,
    })
}
