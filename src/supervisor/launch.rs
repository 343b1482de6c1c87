//! From a service file to what its process gets: identity, environment, limits. Resolved anew at every spawn, so that a
//! user or program that came meanwhile is found. The environment is what the file names and the few variables that
//! every service gets; nothing of ours leaks.

use crate::os::descent::{Descent, MARKER};
use crate::os::limits::OpenFiles;
use crate::os::privilege::{self, Privilege};
use crate::os::spawn::{Identity, SpawnRequest};
use crate::spec::{CoreLimit, NewPrivileges, Pass, ServiceSpec};
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
    /// The limit of open files, as it was before we raised our own.
    pub nofile: Option<OpenFiles>,
}

/// The request for this service.
pub(super) fn request(spec: &ServiceSpec, around: &Circumstances<'_>) -> Result<SpawnRequest, String> {
    let own = |name: &str| around.environment.get(name).cloned();
    let path = own("PATH").unwrap_or_else(|| PATH.to_owned());
    let mut argv = spec.exec.clone();
    if spec.program.is_some() && find_program(spec.needed(), Some(&path)).is_none() {
        return Err(format!("there is no program `{}` that can be executed", spec.needed()));
    }
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
    env.extend(from_named_files(spec, around.environment)?);
    env.insert("PATH".to_owned(), path);
    env.insert("HOME".to_owned(), home.or_else(|| own("HOME")).unwrap_or_else(|| "/".to_owned()));
    env.insert("LANG".to_owned(), own("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()));
    env.insert("NOTIFY_SOCKET".to_owned(), around.notify.display().to_string());
    env.insert("SUPAFLY_STOP_MS".to_owned(), around.share.as_millis().to_string());
    env.extend(spec.env.clone());
    for (name, file) in &spec.env_files {
        env.insert(name.clone(), value_in(name, file)?);
    }
    env.insert(MARKER.to_owned(), around.descent.marker(around.run));
    Ok(SpawnRequest {
        argv,
        env: env.into_iter().collect(),
        directory: Some(spec.directory.clone()),
        identity,
        tag: around.descent.tags.map(|tags| tags.of(around.run)),
        keep: around.lock.into_iter().collect(),
        nofile: match around.nofile {
            Some(before) => Some(before.of_child(spec.nofile)),
            None => spec.nofile.map(|n| (n, n)),
        },
        core: spec.core.map(|core| match core {
            CoreLimit::Bytes(bytes) => bytes,
            CoreLimit::Unlimited => u64::MAX,
        }),
        // Who may not change users has nothing to drop, or may not drop it.
        capabilities: match around.privilege {
            Privilege::Full => spec
                .capabilities
                .as_ref()
                .map(|kept| kept.iter().fold(0, |mask, capability| mask | 1_u64 << capability.number())),
            Privilege::None => None,
        },
        nice: spec.nice.map(i32::from),
        oom_score_adj: spec.oom_score_adj.map(i32::from),
        no_new_privileges: matches!(spec.no_new_privileges, NewPrivileges::Never),
        parent_death: spec.parent_death,
    })
}

/// `NAME_FILE` for every `NAME` that is passed on and not set, as the images of others do.
fn from_named_files(
    spec: &ServiceSpec,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for name in spec.pass.iter().filter_map(Pass::name) {
        let file_name = format!("{name}_FILE");
        let Some(file) = environment.get(&file_name).filter(|f| !f.is_empty()) else { continue };
        // A service that names both reads the file itself.
        if spec.pass.iter().any(|p| p.names(&file_name)) {
            continue;
        }
        if environment.get(name).is_some_and(|v| !v.is_empty()) {
            return Err(format!("{name} and {file_name} are both set: set one of them"));
        }
        found.push((name.to_owned(), value_in(name, Path::new(file))?));
    }
    Ok(found)
}

/// The value that a file holds, without the one newline that editors leave at its end. Never part of an error.
fn value_in(name: &str, file: &Path) -> Result<String, String> {
    let text = std::fs::read(file).map_err(|e| format!("{name}: cannot read {}: {e}", file.display()))?;
    let text = String::from_utf8(text)
        .map_err(|_| format!("{name}: {} is not UTF-8 and cannot be a variable", file.display()))?;
    let value = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    if value.contains('\0') {
        return Err(format!("{name}: {} holds a NUL byte and cannot be a variable", file.display()));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Kind, ServiceName};

    #[test]
    fn a_passed_variable_may_come_from_a_file_and_never_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, "geheim\n").unwrap();
        let mut spec = ServiceSpec::minimal(ServiceName::new("x").unwrap(), Kind::Daemon, vec![]);
        spec.pass = vec![Pass::new("PW").unwrap(), Pass::new("OTHER_*").unwrap()];
        let mut env = BTreeMap::from([("PW_FILE".to_owned(), file.display().to_string())]);
        let one = |v: &str| Ok(vec![("PW".to_owned(), v.to_owned())]);
        assert_eq!(from_named_files(&spec, &env), one("geheim"));
        std::fs::write(&file, "two\nlines\r\n").unwrap();
        assert_eq!(from_named_files(&spec, &env), one("two\nlines"));
        env.insert("PW".to_owned(), "geheim".to_owned());
        let error = from_named_files(&spec, &env).unwrap_err();
        assert_eq!(error, "PW and PW_FILE are both set: set one of them");
        env.remove("PW");
        std::fs::write(&file, b"a\0b").unwrap();
        assert!(from_named_files(&spec, &env).unwrap_err().contains("NUL byte"));
        env.insert("PW_FILE".to_owned(), "/no/such/file".to_owned());
        assert!(from_named_files(&spec, &env).unwrap_err().starts_with("PW: cannot read /no/such/file"));
    }
}
