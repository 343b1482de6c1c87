//! Every key of a service file, for people: what `docs/services.md` is made from. A test holds this table and the
//! parser together, so neither can know a key that the other does not.

use std::fmt::Write;

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name; a dot leads into a table.
    pub name: &'static str,
    /// What is written.
    pub form: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// One or two sentences.
    pub meaning: &'static str,
}

const fn key(name: &'static str, form: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, form, default, meaning }
}

/// All of them, by topic.
pub const KEYS: &[(&str, &[Key])] = &[
    (
        "What it is",
        &[
            key(
                "kind",
                "`\"daemon\"` or `\"oneshot\"`",
                "(must be there)",
                "A daemon runs for ever; a oneshot is done when it has exited with 0.",
            ),
            key(
                "exec",
                "list of texts",
                "(must be there)",
                "Absolute program and arguments. No shell; `${name}` stands for a setting, `${self}` for our own executable.",
            ),
            key(
                "required",
                "`true`, `false`",
                "`false`",
                "Whether a missing program is a failure; else the service is `absent`, said once, and nobody waits for it.",
            ),
            key(
                "program",
                "path, or a name in PATH",
                "the program of `exec`",
                "What must be installed for the service to exist; for those that are started by a program of ours. Empty: not installed.",
            ),
            key(
                "requires",
                "list of services",
                "none",
                "Starts when they are ready, and never otherwise; stops before them.",
            ),
            key(
                "after",
                "list of services",
                "none",
                "Starts when they are ready, or have given up, or are absent; stops before them.",
            ),
        ],
    ),
    (
        "What it gets",
        &[
            key(
                "user",
                "name or number",
                "ours",
                "Who it runs as; its groups come from the system. Ignored, and said, when we may not change users.",
            ),
            key("group", "name or number", "the user's", "Its primary group."),
            key("groups", "list of names", "none", "Further groups."),
            key("directory", "absolute path", "`/`", "Its working directory."),
            key(
                "env",
                "table of texts",
                "none",
                "Variables and values. A service gets these, what `pass` and `env_files` name, and PATH, HOME, LANG, NOTIFY_SOCKET, SUPAFLY_STOP_MS (its share of the stop) and SUPAFLY_RUN_ID; nothing else.",
            ),
            key(
                "env_files",
                "table of absolute paths",
                "none",
                "Variables whose values are read from files at every start, one newline at the end cut off. For secrets.",
            ),
            key(
                "pass",
                "list of `NAME`, `NAME*`",
                "none",
                "Variables handed on from our own environment. Where NAME is not set and NAME_FILE is, NAME gets what that file holds; both at once are refused.",
            ),
            key("nofile", "number", "ours", "Limit of open files, soft and hard."),
            key("core", "bytes, or `\"unlimited\"`", "ours", "Limit of a core dump; 0 for none."),
            key("nice", "-20 to 19", "ours", "Scheduling priority."),
            key("oom_score_adj", "-1000 to 1000", "ours", "How gladly the kernel kills it for memory."),
            key(
                "no_new_privileges",
                "`true`, `false`",
                "`false`",
                "Set-uid programs give nothing to it or its children.",
            ),
            key(
                "capabilities",
                "list of `CAP_…`",
                "all that its user has",
                "What is left of root's powers, for it and for whatever it starts. An empty list drops all; what is listed stays, under another user too.",
            ),
            key(
                "lock",
                "absolute path",
                "none",
                "Taken before it starts and inherited by it, so that it is held as long as one of its processes lives. Busy: waited for as long as a stop may take, then everything ends with 77.",
            ),
        ],
    ),
    (
        "When it is well",
        &[
            key(
                "ready",
                "one of the next five",
                "as soon as it runs",
                "When it counts as ready. A probe goes on being asked: after `failures` bad answers the service is `unready`, which restarts nothing.",
            ),
            key(
                "ready.notify",
                "`true`",
                "",
                "It sends READY=1 (sd_notify(3)); believed from its own descent only, so whoever sends it must still be there when it is read.",
            ),
            key(
                "ready.http",
                "`{ port = 3001, path = \"/ready\" }`",
                "path `/`",
                "GET on loopback answers 2xx; no redirect is followed.",
            ),
            key("ready.tcp", "`{ port = 5432 }`", "", "Somebody accepts on loopback."),
            key("ready.unix", "absolute path", "", "Somebody accepts on this socket."),
            key(
                "ready.exec",
                "list of texts",
                "",
                "A program, run as the service, exits with 0. Never more than one at a time.",
            ),
            key(
                "ready.every",
                "duration",
                "`1s`",
                "How often it is asked, on a tick that all probes share. While it starts it is asked sooner: over the network at once \
                 and then after 5 ms and more, by a command after 40 ms and more, ever less often until that is `every`.",
            ),
            key(
                "ready.timeout",
                "duration",
                "half of `every`",
                "How long an answer may take; shorter than `every`.",
            ),
            key("ready.failures", "number", "`3`", "Bad answers in a row that make a ready service unready."),
            key(
                "live",
                "`http`, `tcp`, `unix` or `exec`, and `every` (`10s`), `timeout`, `failures` (`3`)",
                "not asked",
                "Asked while it is ready; after so many bad answers in a row it is stopped and started again. Nothing counts while something that it requires does not serve.",
            ),
            key("live.grace", "duration", "none", "How long after it became ready nothing counts."),
            key(
                "start_deadline",
                "duration",
                "none",
                "Not ready (or, a oneshot, not done) by then: failed, with its last 20 lines.",
            ),
            key(
                "watchdog",
                "duration",
                "none",
                "It must send WATCHDOG=1 at least so often, or it is stopped and started again.",
            ),
            key(
                "reports_health",
                "duration",
                "not needed",
                "It reports whether clients can be served; the whole is ready only while that report is good and younger than this.",
            ),
            key(
                "after_outage",
                "`{ of = \"postgres\", longer_than = \"8s\", ready_within = \"2s\" }`",
                "none",
                "After `of` was out for longer than that and serves again, this service must be ready within the time given, or it is started again.",
            ),
            key(
                "outage_signals",
                "`{ of = \"postgres\", begins = \"SIGUSR1\", ends = \"SIGUSR2\" }`",
                "none",
                "Sent to this service while it is ready: `begins` when `of` ends, or just before it is told to; `ends` when it serves again. So it can let its clients wait; it must know both signals when it is ready, and so needs `ready`.",
            ),
        ],
    ),
    (
        "When it ends",
        &[
            key(
                "restart.when",
                "`\"always\"`, `\"on-failure\"`, `\"never\"`",
                "always; a oneshot never",
                "Which ends start it again. A oneshot that ended with 0 is done.",
            ),
            key(
                "restart.delay",
                "duration",
                "`1s`",
                "Before the first restart, doubled each time, up to a tenth shorter by its name; none for a service that had been ready.",
            ),
            key("restart.max_delay", "duration", "`60s`", "The longest delay."),
            key(
                "restart.window",
                "duration",
                "`10m`",
                "The span in which restarts are counted; a service that was ready for a minute begins anew.",
            ),
            key("restart.max", "number", "`10`", "How many restarts in the window before it gives up."),
            key("restart.final_codes", "list of exit codes", "none", "It gives up at once."),
            key(
                "gives_up",
                "`\"stop-all\"`, `\"degrade\"`, `\"hold\"`",
                "`\"degrade\"`",
                "What follows when it has given up: everything stops; the rest goes on; or what requires it stays down and the rest runs, until somebody says `supafly start`. What only degrades does not count for readiness (`health --ready`), unless it reports health; where everything only degrades, everything counts.",
            ),
            key("gives_up.default", "as above", "", "The table's own default."),
            key(
                "gives_up.when_env",
                "`{ SOME_VARIABLE = \"hold\" }`",
                "none",
                "When this variable is set in our environment.",
            ),
            key(
                "gives_up.codes",
                "`{ 77 = \"hold\" }`",
                "none",
                "When it ended with this code; asked first.",
            ),
            key(
                "room",
                "`{ path = \"${data}\", bytes = \"32MiB\" }`",
                "not looked at",
                "What a start needs free on a file system. When it has ended by a code that is none of `restart.final_codes` (or \
                 could not be started) before it was ready for 10 s, that is looked at: with less (or no inode to be had) it waits without giving up, whatever \
                 `restart` and `gives_up` say, and nothing of it counts as an attempt; looked at again every 2 s, it starts when \
                 there is room, when somebody says `supafly start`, and, as little room need not be the reason, all the same after \
                 30 s, a minute and so on up to 10. What comes merely `after` it does not wait for it.",
            ),
            key(
                "room.path",
                "absolute path",
                "(must be there)",
                "On the file system that holds it, or the nearest directory above it that exists. What counts is what is free for \
                 users other than root. A user's quota is not seen.",
            ),
            key("room.bytes", "`512KiB`, `32MiB`, `2GiB`", "(must be there)", "How much."),
            key(
                "room.more",
                "absolute path",
                "none",
                "A file that holds a number of bytes, when more is needed; read at every look.",
            ),
            key(
                "room.codes",
                "list of exit codes",
                "none",
                "With these the service says itself that it found no room, whatever is to be seen (a quota): it is tried again after \
                 `restart.delay`, doubled up to `restart.max_delay`, for ever.",
            ),
            key(
                "pass_exit",
                "list of exit codes",
                "none",
                "Codes that become our own when it is the one that gave up, or when it ended with one in a wanted stop.",
            ),
        ],
    ),
    (
        "How it stops",
        &[
            key(
                "stop",
                "list of rungs",
                "`[{ signal = \"SIGTERM\", share = 1 }]`",
                "The way down. Each rung has a signal and either a share of the whole stop's budget or a fixed `wait`. Who needs more than the first was forced (exit 75), unless the rung says `orderly = true`. SIGKILL for its whole descent follows the last by itself.",
            ),
            key(
                "on_stop",
                "signal",
                "none",
                "Sent when the whole stop begins, before it is this service's turn.",
            ),
            key("parent_death", "signal", "`\"SIGTERM\"`", "What it gets when we die and are not PID 1."),
            key(
                "fence_by",
                "service",
                "none",
                "That service may have this one fenced: stopped by SIGSTOP, killed, held.",
            ),
            key(
                "freezes",
                "`true`, `false`",
                "`true`",
                "Whether it stands still while everything is frozen.",
            ),
            key(
                "helpers",
                "`\"short-lived\"`, `\"resident\"`",
                "`\"short-lived\"`",
                "What a descendant is that runs another program than the service's own: work under way (such as an archive command), during which nothing is frozen, or a part of the service.",
            ),
            key(
                "handles",
                "`\"quiesce\"`",
                "nothing",
                "It gets SIGUSR1 before everything is frozen, answers with X_SUPAFLY_QUIESCED=1 on the notify socket when that may happen, and gets SIGUSR2 after the thaw. One service at most.",
            ),
            key(
                "quiesce_deadline",
                "duration",
                "`10s`",
                "How long that answer is waited for; then everything is frozen without it.",
            ),
        ],
    ),
];

/// The document.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Service files\n\n\
         One TOML file a service; the file's stem is its name. `supafly check` reads them all and says everything that is\n\
         wrong at once. Durations are written `500ms`, `10s`, `2m`, `1h`; signals `SIGTERM`. `${name}` in a text stands for\n\
         the setting of that name.\n\n\
         This page is made from `src/spec/keys.rs` by `make docs`; a test holds the two together.\n",
    );
    for (topic, keys) in KEYS {
        let _ = write!(text, "\n## {topic}\n\n| key | written | without it | means |\n|---|---|---|---|\n");
        for key in *keys {
            let form = key.form.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {form} | {} | {} |", key.name, key.default, key.meaning);
        }
    }
    text
}
