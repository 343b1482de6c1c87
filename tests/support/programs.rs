//! The programs under test and beside it: where they are, and copies that other users can run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A variable of the test run.
pub(crate) fn var(name: &str) -> Option<std::ffi::OsString> {
    supafly::facts::environment().remove(name).map(Into::into)
}

/// Where the programs under test lie: copied once, readable by every user.
pub(crate) fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let name = format!("supafly-programs-{}", std::process::id());
        // In a namespace of its own everybody has the same number: the benches have a place of their own as well.
        let inside = var("SUPAFLY_BENCH_INSIDE").and_then(|places| places.into_string().ok());
        let disk =
            inside.as_deref().and_then(|places| places.split_once(':')).map(|(_, disk)| PathBuf::from(disk));
        let dir = disk.unwrap_or_else(std::env::temp_dir).join(name);
        fs::create_dir_all(dir.join("services")).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        copy(Path::new(env!("CARGO_BIN_EXE_supafly")), &dir.join("supafly"));
        copy(&engine_path(), &dir.join("engine"));
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        for file in fs::read_dir(services).unwrap() {
            let file = file.unwrap();
            let to = dir.join("services").join(file.file_name());
            fs::copy(file.path(), &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(0o644)).unwrap();
        }
        remove_at_exit(&dir);
        dir
    })
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let unlinked = fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}: run `make test`", from.display()));
    assert!(unlinked > 0, "{} is empty", from.display());
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}

/// A watcher outside the test process removes what a `static` cannot.
fn remove_at_exit(dir: &Path) {
    let script = "while kill -0 \"$1\" 2>/dev/null; do read -r -t 0.5 <> <(:) || :; done; rm -rf -- \"$2\"";
    let watcher = Command::new("bash")
        .args(["-c", script, "remove", &std::process::id().to_string()])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    drop(watcher.unwrap());
}

/// The backup engine under test.
pub(crate) fn engine_path() -> PathBuf {
    let named = var("SUPAFLY_WALG").map(PathBuf::from);
    let path = named.or_else(|| which::which("wal-g").ok()).or_else(|| which::which("walrus").ok());
    path.unwrap_or_else(|| panic!("no backup engine: run `make test`, or set SUPAFLY_WALG"))
}

/// Directory of Postgres's programs.
pub(crate) fn pg_bin() -> PathBuf {
    if let Some(dir) = var("SUPAFLY_PG_BIN") {
        return dir.into();
    }
    let mut majors: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .expect("no Postgres: run `make test`")
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    majors.sort_unstable();
    Path::new("/usr/lib/postgresql")
        .join(majors.last().expect("no Postgres: run `make test`").to_string())
        .join("bin")
}
