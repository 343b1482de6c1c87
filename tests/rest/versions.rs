//! Programs that are not the PostgREST of this machine. A script stands in for other versions: it says a version and does
//! nothing, so that what is rendered for it can be read.

use crate::support::machine::{Machine, open_directory, until};
use crate::support::rest::{service, with_rest};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

fn put(program: &Path, says: &str) {
    let new = program.with_extension("new");
    let script =
        format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{says}'; exit; fi\nexec sleep 1000\n");
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, program).unwrap();
}

fn said(row: &Value) -> String {
    let lines: Vec<_> = row["output"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    lines.join("\n")
}

fn wait_said(machine: &mut Machine, words: &str) {
    machine.wait(words, |m| {
        service(m, "postgrest").filter(|row| row["state"] == "backoff" && said(row).contains(words))
    });
}

#[test]
fn each_version_gets_the_keys_that_it_knows_and_what_is_none_is_said() {
    let dir = open_directory();
    let program = dir.path().join("postgrest");
    put(&program, "a rest that nobody knows");
    let (mut machine, _) = with_rest(&[
        ("SUPAFLY_POSTGREST", program.display().to_string()),
        ("SUPAFLY_POSTGREST_MAX_ROWS", "off".to_owned()),
        ("SUPAFLY_POSTGREST_POOL", "90".to_owned()),
    ]);
    machine.boot();
    wait_said(&mut machine, "--version says `a rest that nobody knows`: not a PostgREST");
    put(&program, "PostgREST 11.2.2");
    wait_said(&mut machine, "PostgREST 11.2.2 is too old: version 12 or newer is needed");
    let conf = machine.run_dir().join("postgrest/postgrest.conf");
    assert!(!conf.exists(), "nothing was rendered for these");

    for (version, own_admin_address, tells) in [("16.2", true, false), ("12.2.3", false, true)] {
        put(&program, &format!("PostgREST {version}"));
        if version == "12.2.3" {
            let again = machine.supafly(&["restart", "--no-wait", "postgrest"]);
            assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        }
        let needle = format!("version={version}");
        machine.wait(&needle, |m| m.log().contains(&needle).then_some(()));
        let text = until("what was rendered", Duration::from_secs(60), || {
            let text = fs::read_to_string(&conf).ok()?;
            (text.contains("admin-server-host = \"127.0.0.1\"\n") == own_admin_address).then_some(text)
        });
        assert!(text.contains("db-pool = 90\n") && !text.contains("db-max-rows"), "{text}");
        assert_eq!(machine.log().contains("tells its secrets to whoever reaches its admin port"), tells);
    }
    // The machine's own sums: a pool that leaves nothing for others is said.
    assert!(
        machine.log().contains("PostgREST's 90 (SUPAFLY_POSTGREST_POOL) and the pooler's leave"),
        "{}",
        machine.log()
    );
    assert_eq!(machine.stop().code(), Some(0), "{}", machine.tail());
}
