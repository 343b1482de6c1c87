//! Messages are a product: each is compared as the operator sees it. And no text whatever panics.

use super::*;
use proptest::prelude::*;

fn variables() -> BTreeMap<String, String> {
    [("data", "/data"), ("run", "/run/supafly"), ("pg_port", "5432"), ("self", "/usr/bin/supafly")]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn good(text: &str) -> ServiceSpec {
    parse("x.toml", text, &variables()).unwrap()
}

/// What is said of a file, without the quoted lines.
fn said(text: &str) -> Vec<String> {
    let problems = parse("x.toml", text, &variables()).unwrap_err();
    problems.0.iter().map(|p| p.to_string().lines().next().unwrap().to_owned()).collect()
}

/// What is said of a good file with these lines after it (line 3 on).
fn said_of(more: &str) -> Vec<String> {
    said(&format!("kind = \"daemon\"\nexec = [\"/bin/true\"]\n{more}\n"))
}

#[test]
fn the_shortest_file_gives_the_defaults() {
    let spec = good("kind = \"oneshot\"\nexec = [\"/bin/true\"]\n");
    let minimal =
        ServiceSpec::minimal(ServiceName::new("x").unwrap(), Kind::Oneshot, vec!["/bin/true".to_owned()]);
    assert_eq!(spec, minimal);
}

#[test]
fn a_full_file_is_read_as_written_and_expanded() {
    let spec = good(
        r#"
kind = "daemon"
exec = ["${self}", "serve", "${data}/x"]
requires = ["a"]
after = ["b"]
lock = "${data}/lock"
ready = { tcp = { port = "${pg_port}" }, every = "2s", timeout = "1s" }
stop = [{ signal = "SIGINT", share = 6 }, { signal = "SIGQUIT", wait = "5s" }]
on_stop = "SIGUSR1"
restart = { when = "on-failure", delay = "2m" }
gives_up = { default = "stop-all", when_env = { FLY_MACHINE_ID = "hold" }, codes = { 77 = "hold" } }
pass_exit = [76, 77]
pass = ["AWS_*"]
required = true
"#,
    );
    assert_eq!(spec.exec, ["/usr/bin/supafly", "serve", "/data/x"]);
    assert_eq!(spec.lock.as_deref(), Some(std::path::Path::new("/data/lock")));
    let probe = Probe {
        check: Check::Tcp { port: 5432 },
        every: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        failures: 3,
    };
    assert_eq!(spec.ready, Ready::Probe(probe));
    let rungs = [
        Rung { signal: Signal::SIGINT, length: Length::Share(6), manner: Manner::Orderly },
        Rung {
            signal: Signal::SIGQUIT,
            length: Length::Wait(Duration::from_secs(5)),
            manner: Manner::Forced,
        },
    ];
    assert_eq!(spec.stop.rungs(), rungs);
    assert_eq!([0, 1, 2].map(|rung| spec.stop.forces(rung)), [false, true, true]);
    let text = "kind = \"daemon\"\nexec = [\"/x\"]\nstop = [{ signal = \"SIGINT\", share = 1 }, { signal = \"SIGQUIT\", share = 1, orderly = true }]\n";
    let stop = parse("x.toml", text, &variables()).unwrap().stop;
    assert_eq!([0, 1, 2].map(|rung| stop.forces(rung)), [false, false, true], "SIGKILL always forces");
    assert_eq!((spec.restart.when, spec.restart.max_delay), (When::OnFailure, Duration::from_secs(120)));
    assert_eq!(spec.gives_up.codes, BTreeMap::from([(77, GivesUp::Hold)]));
    assert!(spec.pass[0].names("AWS_REGION") && !spec.pass[0].names("PATH"));
    assert_eq!(spec.presence, Presence::Required);
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let text = "kind = \"deamon\"\nexec = [\"postgres\"]\nrequire = [\"a\"]\non_stop = \"SIGTRM\"\nwatchdog = \"10\"\nlock = \"${dat}/l\"\n";
    assert_eq!(
        parse("x.toml", text, &variables()).unwrap_err().to_string(),
        "x.toml:1:8: write \"daemon\" or \"oneshot\"\n\
         1 | kind = \"deamon\"\n  |        ^^^^^^^^\n\n\
         x.toml:2:8: `postgres` is not absolute: no PATH is searched, write where it lies\n\
         2 | exec = [\"postgres\"]\n  |        ^^^^^^^^^^^^\n\n\
         x.toml:3:1: unknown key `require`; did you mean `required` or `requires`?\n\
         3 | require = [\"a\"]\n  | ^^^^^^^\n\n\
         x.toml:4:11: `SIGTRM` is not a signal; did you mean `SIGTERM`?\n\
         4 | on_stop = \"SIGTRM\"\n  |           ^^^^^^^^\n\n\
         x.toml:5:12: not a duration; write 500ms, 10s or 2m\n\
         5 | watchdog = \"10\"\n  |            ^^^^\n\n\
         x.toml:6:8: unknown variable `${dat}`; known are data, pg_port, run, self\n\
         6 | lock = \"${dat}/l\"\n  |        ^^^^^^^^^^"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(said(""), ["x.toml: `kind` is missing", "x.toml: `exec` is missing"]);
    assert_eq!(
        said("kind = \"daemon\"\nexec = []\n"),
        ["x.toml:2:8: an empty list: write the program and its arguments"]
    );
}

#[test]
fn a_probe_that_cannot_work_is_refused() {
    let cases = [
        ("ready = { tcp = {} }", "x.toml:3:17: `port` is missing"),
        ("ready = { http = { path = \"/\" } }", "x.toml:3:18: `port` is missing"),
        ("ready = { tcp = { port = 0 } }", "x.toml:3:26: write a port from 1 to 65535"),
        (
            "ready = { http = { port = 1, path = \"ready\" } }",
            "x.toml:3:37: write a path with its slash and without blanks, \"/ready\"",
        ),
        (
            "ready = { tcp = { port = 1 }, every = \"1s\", timeout = \"1s\" }",
            "x.toml:3:55: a probe's timeout must be shorter than `every`, or two would be in flight",
        ),
        (
            "ready = { exec = [\"pg_isready\"] }",
            "x.toml:3:18: `pg_isready` is not absolute: no PATH is searched, write where it lies",
        ),
    ];
    for (line, right) in cases {
        assert_eq!(said_of(line), [right], "{line}");
    }
}

#[test]
fn numbers_outside_their_bounds_are_refused() {
    assert_eq!(said_of("nice = 20"), ["x.toml:3:8: write a niceness from -20 to 19"]);
    assert_eq!(said_of("oom_score_adj = -1001"), ["x.toml:3:17: write a number from -1000 to 1000"]);
    assert_eq!(said_of("pass_exit = [256]"), ["x.toml:3:14: write an exit code from 0 to 255"]);
}

#[test]
fn room_is_read_with_its_size_and_nothing_of_it_is_guessed() {
    let text = "kind = \"daemon\"\nexec = [\"/x\"]\nroom = { path = \"${data}\", bytes = \"32MiB\", more = \"${run}/r\", codes = [73] }\n";
    let room = Room {
        path: "/data".into(),
        bytes: 32 << 20,
        more: Some("/run/supafly/r".into()),
        codes: BTreeSet::from([73]),
    };
    assert_eq!(good(text).room, Some(room));
    let cases = [
        ("room = { path = \"/d\" }", "x.toml:3:8: `bytes` is missing"),
        ("room = { bytes = \"1MiB\" }", "x.toml:3:8: `path` is missing"),
        ("room = { path = \"d\", bytes = \"1MiB\" }", "x.toml:3:17: write an absolute path"),
        ("room = { path = \"/d\", bytes = 32 }", "x.toml:3:31: not a size; write 512KiB, 32MiB or 2GiB"),
        (
            "room = { path = \"/d\", bytes = \"32MB\" }",
            "x.toml:3:31: not a size; write 512KiB, 32MiB or 2GiB",
        ),
    ];
    for (line, right) in cases {
        assert_eq!(said_of(line), [right], "{line}");
    }
}

#[test]
fn a_ladder_cannot_lack_or_name_its_end() {
    let cases = [
        (
            "stop = [{ signal = \"SIGKILL\", share = 1 }]",
            "x.toml:3:9: SIGKILL always follows the last rung by itself",
        ),
        (
            "stop = []",
            "x.toml:3:8: an empty ladder; write a list of rungs, [{ signal = \"SIGTERM\", share = 1 }]",
        ),
        ("stop = [{ signal = \"SIGINT\" }]", "x.toml:3:9: a rung needs either `share` or `wait`"),
    ];
    for (line, right) in cases {
        assert_eq!(said_of(line), [right], "{line}");
    }
    assert_eq!(StopLadder::new(vec![]), None);
}

#[test]
fn a_service_cannot_wait_for_itself_or_twice_for_another() {
    assert_eq!(said_of("requires = [\"x\"]"), ["x.toml:3:12: `x` cannot wait for itself"]);
    assert_eq!(said_of("after = [\"a\", \"a\"]"), ["x.toml:3:15: `a` is named twice"]);
}

#[test]
fn what_is_no_toml_is_said_to_be_none() {
    assert!(said("kind = \n")[0].starts_with("x.toml:1:8: not TOML: "), "{:?}", said("kind = \n"));
    assert_eq!(
        parse("Bad_Name.toml", "kind = \"daemon\"\nexec = [\"/bin/true\"]\n", &variables())
            .unwrap_err()
            .to_string(),
        "Bad_Name.toml: the file's stem is the service's name: up to 40 lower-case letters, digits and hyphens"
    );
}

const LINES: [&str; 12] = [
    "kind = \"daemon\"",
    "kind = \"oneshot\"",
    "exec = [\"/bin/true\"]",
    "exec = \"${self}\"",
    "ready = { tcp = { port = 1 }, notify = true }",
    "ready = { http = { port = \"${nothing}\" } }",
    "stop = [{ signal = 1 }, 2, {}]",
    "gives_up = { codes = { x = 1 }, when_env = 3 }",
    "restart = { when = \"never\", max = -1, delay = \"5s\", max_delay = \"1s\" }",
    "env = { \"a=b\" = \"c\", D = \"${\" }",
    "[ready]",
    "é = \"ü${data}\"",
];

proptest! {
    #[test]
    fn no_text_panics_and_a_refusal_always_says_why(
        noise in "(\\PC|\n|\t){0,40}",
        lines in prop::collection::vec(prop::sample::select(&LINES[..]), 0..8),
    ) {
        for text in [noise.clone(), lines.join("\n"), format!("{}\n{noise}", lines.join("\n"))] {
            if let Err(problems) = parse("x.toml", &text, &variables()) {
                prop_assert!(!problems.0.is_empty(), "{text}");
                prop_assert!(!problems.to_string().is_empty());
            }
        }
    }
}

#[test]
fn what_concerns_life_freezing_and_powers_is_read() {
    let spec = good(
        r#"
kind = "daemon"
exec = ["/bin/true"]
ready = { http = { port = 3001, path = "/ready" }, failures = 2 }
live = { exec = ["/bin/true"], every = "5s", grace = "30s" }
after_outage = { of = "db", longer_than = "8s", ready_within = "2s" }
outage_signals = { of = "db", begins = "SIGUSR1", ends = "SIGUSR2" }
handles = "quiesce"
freezes = false
helpers = "resident"
env_files = { PGPASSWORD = "/run/pw" }
core = 0
capabilities = ["CAP_NET_BIND_SERVICE"]
"#,
    );
    let live = spec.live.unwrap();
    assert_eq!((live.grace, live.probe.every), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((live.probe.timeout, live.probe.failures), (Duration::from_millis(2_500), 3));
    assert!(matches!(spec.ready, Ready::Probe(Probe { failures: 2, .. })));
    assert_eq!(spec.after_outage.unwrap().longer_than, Duration::from_secs(8));
    let signals = spec.outage_signals.unwrap();
    assert_eq!((signals.of.as_str(), signals.begins, signals.ends), ("db", Signal::SIGUSR1, Signal::SIGUSR2));
    assert_eq!(spec.quiesces, Some(Duration::from_secs(10)));
    assert_eq!((spec.freezing, spec.helpers), (Freezing::GoesOn, Helpers::Resident));
    assert_eq!(spec.env_files["PGPASSWORD"], PathBuf::from("/run/pw"));
    assert_eq!(spec.core, Some(CoreLimit::Bytes(0)));
    let capabilities: Vec<u8> = spec.capabilities.unwrap().into_iter().map(Capability::number).collect();
    assert_eq!(capabilities, [10]);
    assert_eq!(
        said_of("capabilities = [\"CAP_NET_BIND_SERVIC\"]"),
        ["x.toml:3:16: `CAP_NET_BIND_SERVIC` is no capability; did you mean `CAP_NET_BIND_SERVICE`?"]
    );
    assert_eq!(
        said_of("quiesce_deadline = \"3s\""),
        ["x.toml:3:20: `quiesce_deadline` without handles = \"quiesce\""]
    );
    assert_eq!(
        said_of("after_outage = { of = \"db\", longer_than = \"8s\", ready_within = \"2s\" }"),
        ["x.toml:3:16: whether it is back is asked by a probe: give `ready` one"]
    );
    assert_eq!(
        said_of("ready = { notify = true }\noutage_signals = { of = \"db\", begins = \"SIGUSR1\" }"),
        ["x.toml:4:18: `ends` is missing"]
    );
    assert_eq!(
        said_of("outage_signals = { of = \"db\", begins = \"SIGUSR1\", ends = \"SIGUSR2\" }"),
        [
            "x.toml:3:18: a signal before it has its handlers would end it: give `ready` a way to say that it has"
        ]
    );
    assert_eq!(
        said_of("env_files = { A = \"relative\" }"),
        ["x.toml:3:13: `A`: write the absolute path of the file that holds its value"]
    );
    assert_eq!(said_of("live = { every = \"1s\" }").len(), 1);
}

/// The parser says which keys it asked for when it meets one that is like none of them.
#[test]
fn the_table_of_keys_and_the_parser_know_the_same_keys() {
    let asked = said_of("zzzzzzzzzzzzzzzzzzzzzzzzzz = 1").remove(0);
    let asked: BTreeSet<&str> = asked.split("the keys here are ").nth(1).unwrap().split(", ").collect();
    let listed: BTreeSet<&str> = keys::KEYS
        .iter()
        .flat_map(|(_, keys)| keys.iter())
        .map(|key| key.name.split('.').next().unwrap())
        .collect();
    assert_eq!(asked, listed);
}
