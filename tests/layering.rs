//! The import rules of ARCHITECTURE.md, as a test: who may name whom, and what the pure modules may not touch.
//! A new module must be entered here, which is where a reviewer sees it.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its sources says so by a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that decide: no runtime, no files, no processes, no clock, no environment.
const PURE: &[&str] = &["exit", "config", "spec", "plan", "state", "status"];

/// What a pure module may not name.
const EDGE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::env",
    "std::process::Command",
    "std::net",
    "std::os",
    "Instant::now",
    "SystemTime::now",
    "nix::unistd",
    "nix::sys::wait",
    "object_store",
    "tokio_postgres",
];

/// Single pure files inside folders that also have an edge.
const PURE_FILES: &[&str] = &[
    "owner/protocol.rs",
    "restore/plan.rs",
    "postgres/lsn.rs",
    "postgres/conf.rs",
    "archive/patience.rs",
    "archive/rollback.rs",
    "archive/segment.rs",
    "archive/records.rs",
    "keeper/decide.rs",
    "walg/sentinel.rs",
    "secrets/jwt.rs",
    "secrets/keys.rs",
    "secrets/known.rs",
    "store/classify.rs",
    "setup/ledger.rs",
    "setup/scan.rs",
    "setup/scram.rs",
    "setup/steps.rs",
    "pooler/render.rs",
    "postgrest/render.rs",
    "pooler/secrets.rs",
    "pooler/supavisor/environment.rs",
    "access/render.rs",
    "access/values.rs",
    "versions/pinned.rs",
    "web/routes.rs",
    "web/page.rs",
    "web/metrics.rs",
    "os/output/said/mod.rs",
    "os/output/said/json.rs",
    "os/output/said/moment.rs",
];

/// What each top-level module may import of ours; tests beside the code may import more.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let pid1 = [
        "config",
        "exit",
        "facts",
        "os",
        "plan",
        "probe",
        "spec",
        "state",
        "status",
        "telemetry",
        "control",
        "supervisor",
    ];
    let roles = [
        "archive",
        "config",
        "control",
        "exit",
        "facts",
        "failpoint",
        "foreign",
        "owner",
        "pooler",
        "postgres",
        "restore",
        "secrets",
        "spec",
        "store",
        "walg",
        "keeper",
        "os",
    ];
    let mut map: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    map.insert("exit", vec![]);
    map.insert("spec", vec!["spec"]);
    map.insert("config", vec!["spec", "config"]);
    map.insert("plan", vec!["spec", "exit"]);
    map.insert("state", vec!["spec", "plan", "exit", "state"]);
    map.insert("status", vec!["spec", "plan", "state", "exit", "status"]);
    for module in ["os", "supervisor", "control", "probe", "telemetry"] {
        map.insert(module, pid1.to_vec());
    }
    for module in [
        "archive",
        "keeper",
        "owner",
        "pooler",
        "postgres",
        "restore",
        "secrets",
        "store",
        "walg",
        "failpoint",
    ] {
        map.insert(module, roles.to_vec());
    }
    // What it shows is the status, so it is the one role that knows its shape.
    map.insert("web", vec!["config", "control", "exit", "facts", "spec", "status", "web"]);
    map.insert(
        "setup",
        vec!["config", "control", "exit", "facts", "failpoint", "pooler", "postgres", "secrets"],
    );
    map.insert("machines", vec!["exit"]);
    map.insert("foreign", vec!["exit", "facts", "os", "owner"]);
    map.insert("postgrest", vec!["config", "exit", "facts", "foreign", "secrets"]);
    map.insert("access", vec!["config", "control", "exit", "owner", "pooler", "postgrest", "secrets"]);
    map.insert("versions", vec!["config", "exit", "facts", "pooler", "postgres", "postgrest", "walg"]);
    map.insert("facts", vec!["config", "exit"]);
    map.insert(
        "cli",
        pid1.iter()
            .chain(roles.iter())
            .chain(&["access", "setup", "postgrest", "versions", "web"])
            .copied()
            .collect(),
    );
    map.insert("main", vec!["cli"]);
    map.insert("lib", vec![]);
    map
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|p| (p.strip_prefix(&root).unwrap().to_path_buf(), fs::read_to_string(&p).unwrap()))
        .collect()
}

/// The code without comments and without what is compiled for tests only.
fn code(path: &Path, text: &str) -> String {
    if path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests") {
        return String::new();
    }
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let no_comment = |line: &str| !line.trim_start().starts_with("//");
    text.lines().filter(|l| no_comment(l)).collect::<Vec<_>>().join("\n")
}

fn top(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn pure_modules_touch_no_runtime_no_files_and_no_clock() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let pure = PURE.contains(&top(&path).as_str()) || PURE_FILES.iter().any(|f| path == Path::new(f));
        for (number, line) in code(&path, &text).lines().enumerate().filter(|_| pure) {
            for edge in EDGE.iter().filter(|e| line.contains(**e)) {
                wrong.push(format!(
                    "src/{}:~{}: a pure module names `{edge}`: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = top(&path);
        let Some(may) = allowed.get(module.as_str()) else {
            wrong.push(format!(
                "src/{}: module `{module}` is not in the table of tests/layering.rs",
                path.display()
            ));
            continue;
        };
        for line in code(&path, &text).lines() {
            for (at, _) in line.match_indices("crate::") {
                let rest = line.get(at + 7..).unwrap_or_default();
                let names: Vec<String> = match rest.strip_prefix('{') {
                    Some(list) => list
                        .split(['}', ','])
                        .filter_map(|n| n.trim().split("::").next().map(str::to_owned))
                        .filter(|n| allowed.contains_key(n.as_str()))
                        .collect(),
                    None => vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()],
                };
                for name in names.into_iter().filter(|n| *n != module && allowed.contains_key(n.as_str())) {
                    if !may.contains(&name.as_str()) {
                        wrong.push(format!(
                            "src/{}: `{module}` may not import `{name}`: {}",
                            path.display(),
                            line.trim()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pid_1_has_no_tls_no_store_and_no_database_in_it() {
    for (path, text) in sources() {
        if ["os", "supervisor", "control", "probe", "plan", "state", "status", "spec"]
            .contains(&top(&path).as_str())
        {
            let code = code(&path, &text);
            for word in [
                "object_store",
                "tokio_postgres",
                "rustls",
                "postgres::",
                "FLY_MACHINE_ID",
                "zstd::",
                "hyper",
            ] {
                assert!(!code.contains(word), "src/{} names `{word}`", path.display());
            }
        }
    }
}

#[test]
fn every_pure_file_named_here_exists() {
    let there: Vec<_> = sources().into_iter().map(|(p, _)| p).collect();
    for file in PURE_FILES {
        assert!(there.iter().any(|p| p == Path::new(file)), "src/{file} is gone: mend the table");
    }
}

/// `make docs` (SUPAFLY_BLESS=1) writes the page anew.
#[test]
fn the_page_of_settings_and_variables_is_made_from_their_tables() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = supafly::config::markdown();
    if std::env::var_os("SUPAFLY_BLESS").is_some() {
        fs::write(&page, &text).unwrap();
    }
    let there = fs::read_to_string(&page).unwrap_or_default();
    assert!(there == text, "docs/configuration.md is not what src/config/ says: run `make docs`");
}

#[test]
fn every_variable_that_a_service_gets_or_the_store_reads_is_on_the_page_of_configuration() {
    let text = supafly::config::markdown();
    let mut names: Vec<String> = supafly::store::credentials::NAMES.iter().map(|n| (*n).to_owned()).collect();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("services")).unwrap() {
        let service: toml::Table = fs::read_to_string(file.unwrap().path()).unwrap().parse().unwrap();
        let passed = service.get("pass").and_then(|p| p.as_array()).cloned().unwrap_or_default();
        names.extend(passed.iter().filter_map(|n| n.as_str().map(str::to_owned)));
    }
    for name in names.iter().filter(|n| !n.ends_with('*')) {
        assert!(text.contains(&format!("`{name}`")), "{name} is not in docs/configuration.md");
    }
}

/// `make docs` (SUPAFLY_BLESS=1) writes the page anew.
#[test]
fn the_page_of_service_files_is_made_from_the_table_of_keys() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/services.md");
    let text = supafly::spec::keys::markdown();
    if std::env::var_os("SUPAFLY_BLESS").is_some() {
        fs::write(&page, &text).unwrap();
    }
    let there = fs::read_to_string(&page).unwrap_or_default();
    assert!(there == text, "docs/services.md is not what src/spec/keys.rs says: run `make docs`");
}
