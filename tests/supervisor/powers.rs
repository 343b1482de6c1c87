//! What a service may: capabilities, cores, and secrets that come from files.

use crate::harness::{scenario, skip, until};
use crate::procs;

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&procs::status(pid, set).unwrap(), 16).unwrap()
}

scenario!(a_service_keeps_the_capabilities_of_its_list_and_nothing_of_the_rest, |w| {
    if !crate::harness::is_root() {
        skip("not root: there are no capabilities to drop");
        return;
    }
    w.reachable();
    let pids = w.file("pids");
    w.service("bare", &["pid", &pids, "wait"], "capabilities = []");
    w.service("bare-user", &["pid", &pids, "wait"], "capabilities = []\nuser = \"nobody\"");
    w.service(
        "binder",
        &["pid", &pids, "wait"],
        "capabilities = [\"CAP_NET_BIND_SERVICE\"]\nuser = \"nobody\"\nno_new_privileges = true",
    );
    std::fs::write(&pids, "").unwrap();
    std::fs::set_permissions(&pids, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    w.start();
    until("all three", || (w.pids_in("pids").len() == 3).then_some(()));
    let pid = |name: &str| {
        let inner = w.seen(name)["pid"].as_i64().unwrap();
        w.outer(i32::try_from(inner).unwrap()).unwrap()
    };
    for name in ["bare", "bare-user"] {
        for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            assert_eq!(capabilities(pid(name), set), 0, "{name} {set}");
        }
    }
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert_eq!(capabilities(pid("binder"), set), 1 << 10, "{set}");
    }
    assert_eq!(w.stop(), 0);
});

scenario!(a_limit_of_cores_and_of_files_holds_and_ours_is_not_inherited, |w| {
    let limits = w.file("limits");
    w.shell("plain", &format!("cat /proc/self/limits > {limits}.plain; exec {} wait", w.fake()), "");
    w.shell(
        "bounded",
        &format!("cat /proc/self/limits > {limits}.bounded; exec {} wait", w.fake()),
        "core = 0\nnofile = 333",
    );
    w.outside(&["prlimit", "--nofile=500:4000", "--"]);
    w.start();
    let row = |name: &str, row: &str| {
        until("limits", || {
            let text = w.read(&format!("limits.{name}"));
            let line = text.lines().find(|l| l.starts_with(row))?.to_owned();
            let fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Some(fields[fields.len() - 3..fields.len() - 1].to_vec())
        })
    };
    assert_eq!(row("plain", "Max open files"), ["500", "4000"], "what was there before us");
    assert_eq!(row("bounded", "Max open files"), ["333", "333"]);
    assert_eq!(row("bounded", "Max core file size"), ["0", "0"]);
    assert_eq!(w.stop(), 0);
});

scenario!(a_secret_from_a_file_reaches_its_service_and_nobody_else_sees_it, |w| {
    let (file, out) = (w.file("secret"), w.file("env"));
    std::fs::write(&file, "tr0ub4dor\n").unwrap();
    w.env("API_KEY_FILE", &file);
    let show = format!("printf '%s/%s' \"$PW\" \"$API_KEY\" > {out}; exec {} wait", w.fake());
    w.shell("db", &show, &format!("env_files = {{ PW = \"{file}\" }}\npass = [\"API_KEY\"]"));
    w.start();
    until("the environment", || (w.read("env") == "tr0ub4dor/tr0ub4dor").then_some(()));
    let status = w.says(&["status", "--json"]).1 + &w.says(&["logs"]).1 + &w.log();
    assert!(!status.contains("tr0ub4dor"), "{status}");
    for pid in procs::marked(&format!("NOTIFY_SOCKET={}", w.file("run/")), false) {
        let argv = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&argv).contains("tr0ub4dor"));
    }
    assert_eq!(w.stop(), 0);
});

scenario!(a_secret_file_that_is_missing_is_named_and_its_service_alone_fails, |w| {
    let marks = w.file("marks");
    w.service("db", &["wait"], "env_files = { PW = \"/no/such/secret\" }\nrestart = { when = \"never\" }");
    w.service("web", &["mark", &marks, "up", "wait"], "");
    w.start();
    let seen = w.until_state("db", "failed");
    let detail = seen["detail"].as_str().unwrap();
    assert!(detail.contains("PW: cannot read /no/such/secret"), "{detail}");
    w.until_marked("marks", "up");
    assert_eq!(w.stop(), 0);
});

scenario!(a_service_of_another_user_can_open_its_own_stderr_by_name, |w| {
    if !crate::harness::is_root() {
        skip("not root: users cannot be changed");
        return;
    }
    w.shell("db", "echo by name > /dev/stderr; exec sleep 3600", "user = \"nobody\"");
    w.start();
    until("the line", || w.says(&["logs", "db"]).1.contains("by name").then_some(()));
    assert_eq!(w.stop(), 0);
});

scenario!(what_we_were_given_to_inherit_is_dropped_too_and_no_owner_of_a_pipe_is_needed, |w| {
    if !crate::harness::is_root() {
        skip("not root: there are no capabilities to drop");
        return;
    }
    let pids = w.file("pids");
    w.inside(&["setpriv", "--bounding-set=-chown", "--inh-caps=+net_raw,+kill", "--"]);
    w.service("bare", &["pid", &pids, "wait"], "capabilities = []");
    w.service("some", &["wait"], "capabilities = [\"CAP_KILL\"]");
    w.service("user", &["wait"], "user = \"nobody\"\ncapabilities = []");
    w.reachable();
    w.start();
    for (name, kept) in [("bare", 0), ("some", 1 << 5), ("user", 0)] {
        let inner = w.until_state(name, "ready")["pid"].as_i64().unwrap();
        let pid = w.outer(i32::try_from(inner).unwrap()).unwrap();
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(capabilities(pid, set), kept, "{name} {set}");
        }
        assert_eq!(capabilities(pid, "CapInh") & !kept, 0, "{name}");
    }
    assert_eq!(w.stop(), 0);
});
