//! Lines as the services write them, and what they may not be taken for.

use super::*;
use proptest::prelude::*;

const NOW: &str = "2026-11-25T10:00:07Z";

fn hear(text: &str) -> (Level, Option<String>) {
    let said = Listener::default().hear(text, None, NOW.parse().unwrap());
    (said.level, said.time.map(|t| t.to_string()))
}

/// What a line says, and nothing about its time.
fn levels(cases: &[(&str, Level)]) {
    for (text, level) in cases {
        assert_eq!(hear(text), (*level, None), "{text}");
    }
}

/// What a line says, with a time of today.
fn timed(cases: &[(&str, Level, &str)]) {
    for (text, level, clock) in cases {
        assert_eq!(hear(text), (*level, Some(format!("2026-11-25T{clock}Z"))), "{text}");
    }
}

#[test]
fn postgres_says_level_and_time() {
    timed(&[
        (
            "2026-11-25 10:00:00.123 UTC [7] LOG:  database system is ready to accept connections",
            Level::Info,
            "10:00:00.123",
        ),
        ("2026-11-25 10:00:00.123 UTC [7] LOG:  ERROR: is a word", Level::Info, "10:00:00.123"),
        (
            "2026-11-25 10:00:00.123 UTC [4194304] FATAL:  the database system is starting up",
            Level::Error,
            "10:00:00.123",
        ),
        (
            "2026-11-25 10:00:00.123 GMT [7] ERROR:  relation \"x\" does not exist at character 15",
            Level::Error,
            "10:00:00.123",
        ),
        ("2026-11-25 10:00:00.123 UTC [7] PANIC:  could not write", Level::Error, "10:00:00.123"),
        (
            "2026-11-25 10:00:00.123 UTC [7] WARNING:  there is no transaction in progress",
            Level::Warn,
            "10:00:00.123",
        ),
        (
            "2026-11-25 10:00:00.123 UTC [7] NOTICE:  table \"x\" does not exist, skipping",
            Level::Info,
            "10:00:00.123",
        ),
        ("2026-11-25 10:00:00.123 UTC [7] DEBUG5:  shmem_exit(0)", Level::Debug, "10:00:00.123"),
        ("2026-11-25 12:00:00.123 +02 [7] LOG:  x", Level::Info, "10:00:00.123"),
        ("2026-11-25 04:30:00.123 -0530 [7] ERROR:  x", Level::Error, "10:00:00.123"),
        ("2026-11-25 10:00:00 UTC [7] postgres@postgres ERROR:  x", Level::Error, "10:00:00"),
        ("2026-11-25 10:00:00 UTC [7] postgres@postgres psql LOG:  x", Level::Info, "10:00:00"),
        ("2026-11-25 10:00:00 UTC", Level::Info, "10:00:00"),
        ("2026-11-25 10:00:00 UTC [7] no level here but an ERROR:  x", Level::Info, "10:00:00"),
    ]);
    levels(&[
        // A zone whose distance from UTC is not written: only the level.
        ("2026-11-25 11:00:00.123 CET [7] ERROR:  x", Level::Error),
        ("2026-11-25 11:00:00.123 <+03>-3 [7] FATAL:  x", Level::Error),
        // A clock that is wrong by years, a day that does not exist.
        ("2001-01-01 00:00:00.123 UTC [7] ERROR:  x", Level::Error),
        ("2026-02-30 00:00:00.123 UTC [7] ERROR:  x", Level::Info),
        ("2026-11-25 10:00:00.123 [ERROR] x", Level::Error),
        ("2026-11-25", Level::Info),
        ("2026-11-25 ", Level::Info),
    ]);
}

#[test]
fn what_continues_a_line_is_as_grave_as_that_line() {
    let now = NOW.parse().unwrap();
    let mut listener = Listener::default();
    let mut level = |text: &str| listener.hear(text, None, now).level;
    assert_eq!(level("2026-11-25 10:00:00.123 UTC [7] ERROR:  syntax error at or near \"x\""), Level::Error);
    assert_eq!(level("2026-11-25 10:00:00.123 UTC [7] DETAIL:  of an error"), Level::Error);
    assert_eq!(level("2026-11-25 10:00:00.123 UTC [7] STATEMENT:  select"), Level::Error);
    assert_eq!(level("\tWARN from x"), Level::Error);
    assert_eq!(level("2026-11-25 10:00:00.123 UTC [7] LOG:  checkpoint starting"), Level::Info);
    assert_eq!(level("2026-11-25 10:00:00.123 UTC [7] HINT:  of a log line"), Level::Info);
    assert_eq!(level("    at ERROR"), Level::Info);
    let first = listener.hear("2026-11-25 10:00:00.123 UTC [7] FATAL:  long", Some(1), now);
    assert_eq!(
        listener.hear("2026-11-25 10:00:01.123 UTC [7] LOG:  in the second part", Some(2), now),
        first
    );
}

#[test]
fn pgbouncer_says_level_and_time() {
    timed(&[
        ("2026-11-25 10:00:00.123 UTC [123] LOG listening on 127.0.0.1:6432", Level::Info, "10:00:00.123"),
        (
            "2026-11-25 10:00:00.123 UTC [123] WARNING C-0x5: (nodb)/(nouser)@unix:6432 pooler error: ERROR",
            Level::Warn,
            "10:00:00.123",
        ),
        ("2026-11-25 10:00:00.123 UTC [123] ERROR connection failed", Level::Error, "10:00:00.123"),
        ("2026-11-25 10:00:00.123 UTC [123] FATAL cannot load config file", Level::Error, "10:00:00.123"),
        ("2026-11-25 10:00:00.123 UTC [123] DEBUG safe_close(5) = 0", Level::Debug, "10:00:00.123"),
        ("2026-11-25 10:00:00.123 UTC [123] NOISE safe_recv(5, 8192) = 1", Level::Debug, "10:00:00.123"),
    ]);
}

#[test]
fn postgrest_answers_are_as_grave_as_their_status() {
    timed(&[
        (
            "127.0.0.1 - anon [25/Nov/2026:10:00:00 +0000] \"GET /films HTTP/1.1\" 200 18 \"\" \"curl/8.7.1\"",
            Level::Info,
            "10:00:00",
        ),
        (
            "127.0.0.1 - anon [25/Nov/2026:10:00:00 +0000] \"GET /films HTTP/1.1\" 503 119 \"\" \"curl/8.7.1\"",
            Level::Error,
            "10:00:00",
        ),
        (
            "127.0.0.1 - - [25/Nov/2026:10:00:00 +0000] \"GET /films HTTP/1.1\" 404 - \"\" \"500\"",
            Level::Warn,
            "10:00:00",
        ),
        (
            "fdaa:0:1::3 - anon [25/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 500 - \"\" \"\"",
            Level::Error,
            "10:00:00",
        ),
        (
            "::1 - anon [25/Nov/2026:10:00:00 +0000] \"GET / HTTP/2.0\" 500 - \"\" \"\"",
            Level::Error,
            "10:00:00",
        ),
        (
            "10:2::1 - anon [25/Nov/2026:10:00:00 +0000] \"GET / HTTP/2.0\" 500 - \"\" \"\"",
            Level::Error,
            "10:00:00",
        ),
        // A path that holds what looks like an end.
        (
            "127.0.0.1 - anon [25/Nov/2026:10:00:00 +0000] \"GET /x\"500 HTTP/1.1\" 200 9 \"\" \"\"",
            Level::Info,
            "10:00:00",
        ),
    ]);
    levels(&[
        ("127.0.0.1 - anon [25/Nov/2026:10:00:00 +0000] \"GET /x y HTTP/1.1\" 500 9 \"\" \"\"", Level::Info),
        ("127.0.0.1 - anon [25/Bad/2026:10:00:00 +0000] \"GET /x HTTP/1.1\" 500 9 \"\" \"\"", Level::Info),
        ("127.0.0.1 - anon", Level::Info),
        ("127.0.0.1", Level::Info),
    ]);
}

#[test]
fn postgrest_says_when_and_its_failures_begin_alike() {
    timed(&[
        ("25/Nov/2026:10:00:00 +0000: Starting PostgREST 12.2.3...", Level::Info, "10:00:00"),
        ("25/Nov/2026:11:00:00 +0100: Schema cache loaded", Level::Info, "10:00:00"),
        (
            "25/Nov/2026:10:00:00 +0000: An error ocurred when loading the schema cache",
            Level::Error,
            "10:00:00",
        ),
        (
            "25/Nov/2026:10:00:00 +0000: {\"code\":\"57014\",\"details\":null,\"hint\":null,\"message\":\"x\"}",
            Level::Error,
            "10:00:00",
        ),
        (
            "25/Nov/2026:10:00:00 +0000: Attempting to reconnect to the database in 1 seconds...",
            Level::Warn,
            "10:00:00",
        ),
    ]);
    levels(&[("25/Nov/2026:10:00:00 +0000", Level::Info), ("25/Nov/2026: ERROR", Level::Info)]);
}

#[test]
fn supavisor_says_the_level_after_its_metadata_and_no_date() {
    levels(&[
        ("10:00:00.123 [error] x", Level::Error),
        (
            "10:00:00.123 project=dev user=postgres region=eu mode=session type=single [info] [error]",
            Level::Info,
        ),
        ("10:00:00.123 file=lib/a b.ex line=5 [warning] x", Level::Warn),
        ("10:00:00.123 request_id=F [debug] x", Level::Debug),
        ("10:00:00.123 request_id=F [critical] x", Level::Error),
        ("10:00:00.123 this took [error]", Level::Info),
        ("10:00:00.123", Level::Info),
    ]);
    timed(&[
        (
            "{\"timestamp\":1795600800123456,\"metadata\":{\"level\":\"error\",\"pid\":\"<0.1.0>\",\"a\":[1,{}]},\"event_message\":\"x\"}",
            Level::Error,
            "10:00:00.123456",
        ),
        (
            "{\"metadata\":{\"level\":\"info\"},\"level\":\"warning\",\"timestamp\":1795600800123456}",
            Level::Warn,
            "10:00:00.123456",
        ),
    ]);
}

#[test]
fn objects_say_level_and_time() {
    timed(&[
        (
            "{\"time\":\"2026-11-25T10:00:00.5Z\",\"level\":\"ERROR\",\"msg\":\"x\"}",
            Level::Error,
            "10:00:00.5",
        ),
        (
            "{\"time\":\"2026-11-25T12:00:00+02:00\",\"level\":\"debug\",\"msg\":\"x\"}",
            Level::Debug,
            "10:00:00",
        ),
        ("{\"level\":40,\"time\":1795600800123,\"msg\":\"x\"}", Level::Warn, "10:00:00.123"),
        ("{\"ts\":1795600800.5,\"level\":\"warn\",\"time\":null}", Level::Warn, "10:00:00.5"),
        ("{\"timestamp\":1795600800,\"level\":\"fatal\",\"level\":7}", Level::Error, "10:00:00"),
        ("{\"timestamp\":1795600800123456789,\"severity\":\"NOTICE\"}", Level::Info, "10:00:00.123456789"),
    ]);
    let long = format!("{{\"level\":\"error\",\"msg\":\"{}\"}}", "x".repeat(OBJECT));
    levels(&[
        ("{\"time\":\"2026-11-25T10:00:00\",\"level\":\"e\\u0072ror\"}", Level::Error),
        ("{\"time\":\"2019-11-25T10:00:00Z\",\"msg\":\"level: error\"}", Level::Info),
        ("{\"msg\":\"error\",\"inner\":{\"level\":\"error\"},\"metadata\":\"level\"}", Level::Info),
        ("{\"level\":\"error\"", Level::Info),
        ("{ error }", Level::Info),
        (&long, Level::Info),
    ]);
}

#[test]
fn our_roles_and_tools_begin_with_the_level() {
    levels(&[
        (" WARN supafly::keeper: slow", Level::Warn),
        ("ERROR supafly::archive: no", Level::Error),
        (" INFO span{a=1}: supafly::archive: ERROR", Level::Info),
        ("DEBUG supafly: x", Level::Debug),
        ("TRACE supafly: x", Level::Debug),
        ("thread 'main' (7) panicked at src/main.rs:1:1:", Level::Error),
        ("pg_ctl: error: no database directory specified", Level::Error),
        ("pg_basebackup: warning: x", Level::Warn),
        ("[warn] x", Level::Warn),
        ("Error: cannot find it", Level::Error),
    ]);
    timed(&[("2026-11-25T10:00:00.123456Z  WARN supafly::keeper: slow", Level::Warn, "10:00:00.123456")]);
}

#[test]
fn a_word_inside_a_message_counts_for_nothing() {
    levels(&[
        ("hello ERROR", Level::Info),
        ("an error", Level::Info),
        ("Errors are: ERROR:  x", Level::Info),
        ("error", Level::Info),
        ("", Level::Info),
        (" ", Level::Info),
        ("[", Level::Info),
        ("[]", Level::Info),
        ("waiting for: ERROR", Level::Info),
        ("é: ERROR", Level::Info),
    ]);
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,80}", part in proptest::option::of(1u32..3)) {
        Listener::default().hear(&text, part, NOW.parse().unwrap());
    }

    #[test]
    fn no_broken_line_is_too_odd(at in 0usize..90, with in "[\\PC\\t\\n]{0,4}", which in 0usize..6) {
        let line = [
            "2026-11-25 10:00:00.123 UTC [7] LOG:  database system is ready",
            "127.0.0.1 - anon [25/Nov/2026:10:00:00 +0000] \"GET /films HTTP/1.1\" 200 18 \"\" \"c\"",
            "25/Nov/2026:10:00:00 +0000: Starting PostgREST",
            "10:00:00.123 project=dev [info] x",
            "{\"level\":40,\"time\":1795600800123,\"metadata\":{\"level\":\"x\"},\"msg\":\"x\"}",
            "2026-11-25T10:00:00.123456+02:00  WARN supafly::keeper: slow",
        ][which];
        let mut text = line.to_owned();
        let at = at.min(text.len());
        text.insert_str(at, &with);
        Listener::default().hear(&text, None, NOW.parse().unwrap());
        text.truncate(at);
        Listener::default().hear(&text, None, NOW.parse().unwrap());
    }
}
