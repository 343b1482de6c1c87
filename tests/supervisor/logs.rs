//! What services say comes out whole, marked and in order; and whatever becomes of whoever reads it, nobody waits.

use crate::harness::{World, alive, until};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn said(w: &World, service: &str) -> Vec<serde_json::Value> {
    w.objects().into_iter().filter(|o| o["service"] == service).collect()
}

#[test]
fn the_last_line_without_a_newline_is_kept_and_comes_before_the_news_of_the_end() {
    let mut w = World::new();
    w.service(
        "db",
        &["say", "first", "tail", "why I died", "exit", "4"],
        "restart = { when = \"never\" }\ngives_up = \"stop-all\"",
    );
    assert_eq!(w.start().ended().code(), Some(70));
    let lines = said(&w, "db");
    let texts: Vec<&str> = lines.iter().map(|o| o["message"].as_str().unwrap()).collect();
    assert_eq!(texts, ["first", "why I died"]);
    for key in ["time", "level", "run", "stream"] {
        assert!(!lines[0][key].is_null(), "{key} is missing: {}", lines[0]);
    }
    let log = w.read("out");
    assert!(log.find("why I died").unwrap() < log.find("exit 4").unwrap(), "{log}");
}

#[test]
fn a_megabyte_without_a_newline_comes_out_in_parts_that_fit() {
    let mut w = World::new();
    w.service("db", &["long", "1000000", "say", "after"], "kind = \"oneshot\"");
    w.start();
    w.until_marked("out", "\"after\"");
    assert_eq!(w.stop(), 0);
    assert!(w.read("out").lines().all(|l| l.len() <= 8_192));
    let lines = said(&w, "db");
    let (last, parts) = lines.split_last().unwrap();
    assert_eq!(last["message"], "after");
    assert_eq!(parts.iter().map(|o| o["message"].as_str().unwrap().len()).sum::<usize>(), 1_000_000);
    for (i, part) in parts.iter().enumerate() {
        assert_eq!(part["part"], i + 1);
        assert_eq!(part["more"].as_bool().unwrap_or(false), i + 1 < parts.len());
    }
}

/// Starts it with a pipe for its stdout, whose other end is given back.
fn start_piped(w: &mut World) -> PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    start_with(w, writer.into());
    reader
}

fn start_with(w: &mut World, stdout: Stdio) {
    let mut command = w.command(&["run"]);
    command.stdout(stdout).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    w.adopt(child);
}

/// What comes out of a pipe from now on, read by a thread.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>, Arc<Mutex<Counted>>);

/// How many lines were read for that, and what `count` says of each service.
#[derive(Default)]
struct Counted(usize, BTreeMap<String, (u64, u64)>);

impl Heard {
    fn of(reader: PipeReader) -> Heard {
        let heard = Heard::default();
        let its = heard.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                its.0.lock().unwrap().push(line);
            }
        });
        heard
    }

    /// How many lines of a service came, and how many are said to be lost.
    fn count(&self, service: &str) -> (u64, u64) {
        let mut counted = self.1.lock().unwrap();
        let Counted(read, of) = &mut *counted;
        // Each line is read once, however often one asks, and nobody who hears waits for that.
        let new = self.0.lock().unwrap()[*read..].to_vec();
        *read += new.len();
        for line in new.iter().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()) {
            let (came, lost) = of.entry(line["service"].as_str().unwrap_or_default().to_owned()).or_default();
            *came += u64::from(line["lost"].is_null());
            *lost += line["lost"].as_u64().unwrap_or_default();
        }
        of.get(service).copied().unwrap_or_default()
    }
}

/// A number of `/proc/PID/status`.
fn proc_kb(pid: i32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().split(' ').next().unwrap().parse().unwrap()
}

/// User and system time of a process.
fn cpu(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> =
        stat.rsplit(") ").next().unwrap().split(' ').map(|f| f.parse().unwrap_or(0)).collect();
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
    Duration::from_millis((fields[11] + fields[12]) * 1_000 / u64::try_from(ticks).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn odd_bytes_come_out_as_text_and_every_line_is_one() {
    let bytes = hex(b"\na\0b\n\xff\xfe\nx\ry\r\n\x1b[31mred\x1b[0m\xc2\x9b2J\n");
    let mut w = World::new();
    w.service("db", &["bytes", &bytes, "slowly", "byte by byte", "tail", "end"], "kind = \"oneshot\"");
    w.start();
    w.until_marked("out", "\"end\"");
    assert_eq!(w.stop(), 0);
    let lines = said(&w, "db");
    let texts: Vec<&str> = lines.iter().map(|o| o["message"].as_str().unwrap()).collect();
    let red = "\u{1b}[31mred\u{1b}[0m\u{9b}2J";
    assert_eq!(texts, ["", "a\0b", "\u{fffd}\u{fffd}", "x\ry", red, "byte by byte", "end"]);
    assert!(!w.read("out").contains(['\u{1b}', '\0', '\r']));
}

#[test]
fn in_a_text_nothing_is_obeyed_by_a_terminal() {
    let bytes = hex(b"\x1b[31mred\x1b[0m \xc2\x9b2J\0\r\x07x\n");
    let mut w = World::new();
    w.service("db", &["bytes", &bytes, "tail", "the end"], "kind = \"oneshot\"");
    let mut command = w.command(&["run"]);
    command.env("SUPAFLY_LOG_FORMAT", "text");
    w.start_as(command);
    w.until_marked("out", "the end");
    assert_eq!(w.stop(), 0);
    let out = w.read("out");
    assert!(out.contains("\\u{1b}[31mred\\u{1b}[0m \\u{9b}2J\\u{0}\\r\\u{7}x"), "{out}");
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
}

#[test]
fn two_that_talk_at_once_keep_their_lines_whole() {
    let mut w = World::new();
    for name in ["a", "b"] {
        w.service(name, &["gush", "30000", "200", "say", "done"], "kind = \"oneshot\"");
    }
    let heard = Heard::of(start_piped(&mut w));
    until("every line of both, or the count of what was lost", || {
        let whole = |name| {
            let (came, lost) = heard.count(name);
            came + lost == 30_001
        };
        (whole("a") && whole("b")).then_some(())
    });
    assert_eq!(w.stop(), 0);
    for line in heard.0.lock().unwrap().iter() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = object["message"].as_str().unwrap();
        if text.ends_with('z') {
            assert!((190..210).contains(&text.len()), "{text}");
        }
    }
}

#[test]
fn a_service_that_closes_its_output_and_lives_costs_nothing() {
    let mut w = World::new();
    let marks = w.file("marks");
    w.service("db", &["say", "once", "close", "mark", &marks, "up", "serve", &marks, "db"], "");
    w.start();
    w.until_marked("marks", "up");
    w.until_marked("out", "once");
    w.until_state("db", "ready");
    let before = cpu(w.pid());
    // Not waiting for anything: this is the time over which it is measured.
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu(w.pid()) - before;
    assert!(used < Duration::from_millis(100), "{used:?}");
    assert_eq!(w.stop(), 0);
    assert_eq!(w.lines("marks"), ["up", "stopped db"]);
}

/// 200 MB into a pipe that nobody reads.
fn flooded(w: &mut World) -> PipeReader {
    let marks = w.file("marks");
    w.service("loud", &["gush", "200000", "1000", "mark", &marks, "said", "serve", &marks, "loud"], "");
    let reader = start_piped(w);
    w.until_marked("marks", "said");
    let peak = proc_kb(w.pid(), "VmHWM");
    assert!(peak < 20 << 10, "{peak} kB");
    reader
}

#[test]
fn a_reader_that_stalls_blocks_no_service_and_the_rest_is_counted() {
    let mut w = World::new();
    let heard = Heard::of(flooded(&mut w));
    until("every line, or the count of what was lost", || {
        let (came, lost) = heard.count("loud");
        (lost > 0 && came + lost == 200_000).then_some(())
    });
    assert_eq!(w.stop(), 0);
}

#[test]
fn a_pipe_that_somebody_made_nonblocking_takes_everything_in_time() {
    let mut w = World::new();
    w.service("db", &["gush", "1000", "200", "say", "end"], "kind = \"oneshot\"");
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&writer, flags).unwrap();
    start_with(&mut w, writer.into());
    w.until_state("db", "done");
    let heard = Heard::of(reader);
    until("every line", || (heard.count("db") == (1_001, 0)).then_some(()));
    assert_eq!(w.stop(), 0);
}

#[test]
fn a_reader_that_stalls_for_good_delays_no_stop() {
    let mut w = World::new();
    let _reader = flooded(&mut w);
    let begun = Instant::now();
    assert_eq!(w.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(w.lines("marks"), ["said", "stopped loud"]);
}

#[test]
fn a_slow_reader_delays_no_stop_and_gets_whole_lines() {
    let mut w = World::new();
    let marks = w.file("marks");
    w.service("loud", &["gush", "20000", "1000", "mark", &marks, "said", "serve", &marks, "loud"], "");
    let mut reader = start_piped(&mut w);
    let slow = std::thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 100]);
        while let Ok(n @ 1..) = reader.read(&mut some) {
            all.extend_from_slice(&some[..n]);
            if all.len() < 5_000 {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        all
    });
    w.until_marked("marks", "said");
    let begun = Instant::now();
    assert_eq!(w.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let all = String::from_utf8(slow.join().unwrap()).unwrap();
    // Its end came in the middle of something; all before that is whole.
    let (whole, _) = all.rsplit_once('\n').unwrap();
    for line in whole.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

/// Floods, fails once and is restarted, and stops, whatever its output goes to.
fn goes_on_with(stdout: impl FnOnce() -> Stdio) {
    let mut w = World::new();
    let (marks, once) = (w.file("marks"), w.file("once"));
    w.service(
        "loud",
        &["gush", "20000", "100", "once", &once, "3", "mark", &marks, "up", "serve", &marks, "loud"],
        "restart = { when = \"always\", delay = \"10ms\" }",
    );
    start_with(&mut w, stdout());
    w.until_marked("marks", "up");
    assert_eq!(w.until_state("loud", "ready")["run"], 2);
    assert_eq!(w.stop(), 0);
    assert_eq!(w.lines("marks"), ["up", "stopped loud"]);
}

#[test]
fn a_closed_stdout_ends_nothing() {
    goes_on_with(|| std::io::pipe().unwrap().1.into());
}

#[test]
fn a_full_disk_below_stdout_ends_nothing() {
    goes_on_with(|| std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
}

#[test]
fn a_stranger_who_holds_the_pipe_delays_neither_restart_nor_stop() {
    let mut w = World::new();
    let (pid, marks) = (w.file("pid"), w.file("marks"));
    w.service(
        "db",
        &["pid", &pid, "child", "say,said by a child,wait", "serve", &marks, "db"],
        "restart = { when = \"always\", delay = \"10ms\" }",
    );
    w.start();
    let leader = w.pid_in("pid");
    w.until_marked("out", "said by a child");
    // Nobody of the descent: it is not ended with it, and the pipe stays open.
    let open = |pid| std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    let mut held = open(leader);
    held.write_all(b"said by a stranger\n").unwrap();
    w.until_marked("out", "said by a stranger");
    let begun = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(leader), nix::sys::signal::SIGKILL).unwrap();
    let second = until("the second run", || w.lines("pid").get(1).and_then(|l| l.parse().ok()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(!alive(leader) && alive(second));
    // Nobody reads what belongs to a life that is over.
    until("an error for whoever writes there", || held.write_all(b"too late\n").err());
    let mut held = open(second);
    held.write_all(b"said to the second run\n").unwrap();
    w.until_marked("out", "said to the second run");
    let begun = Instant::now();
    assert_eq!(w.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(held.write_all(b"too late\n").is_err());
    assert!(!w.read("out").contains("too late"));
}

#[test]
fn the_last_of_many_words_comes_before_the_news_of_the_end() {
    let mut w = World::new();
    w.service(
        "db",
        &["gush", "5000", "100", "tail", "why I died", "exit", "4"],
        "restart = { when = \"never\" }\ngives_up = \"stop-all\"",
    );
    assert_eq!(w.start().ended().code(), Some(70));
    let log = w.objects();
    let last = log.iter().rposition(|o| o["service"] == "db").unwrap();
    let news =
        log.iter().position(|o| o["service"] == "supafly" && o.to_string().contains("exit 4")).unwrap();
    assert_eq!(log[last]["message"], "why I died");
    assert!(last < news);
}

#[test]
fn level_and_time_are_those_of_the_line() {
    let mut w = World::new();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.007 UTC").to_string();
    let line = format!("{now} [7] FATAL:  no LOG:  x");
    w.service(
        "db",
        &["say", &line, "say", "\tgoes on", "say", "an ERROR", "say", "end"],
        "kind = \"oneshot\"",
    );
    w.start();
    w.until_marked("out", "\"end\"");
    assert_eq!(w.stop(), 0);
    let lines = said(&w, "db");
    assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&"error".into(), &line.as_str().into()));
    assert_eq!(lines[0]["time"].as_str().unwrap(), now.replace(' ', "T").replace("TUTC", "Z"));
    let levels: Vec<&str> = lines.iter().map(|o| o["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["error", "error", "info", "info"]);
}

#[test]
fn a_follower_that_stops_reading_for_long_goes_on_where_it_is_and_is_told_what_it_missed() {
    use std::io::{BufRead, BufReader, Write};
    let mut w = World::new();
    let talk = "line=$(head -c 900 /dev/zero | tr '\\0' x); n=0; \
                while :; do for i in $(seq 60); do n=$((n + 1)); echo \"$n $line\"; done; sleep 0.05; done";
    w.shell("loud", talk, "");
    start_with(&mut w, Stdio::null());
    w.until_state("loud", "ready");
    let mut stream = std::os::unix::net::UnixStream::connect(w.path("run/control.sock")).unwrap();
    stream.write_all(b"{\"v\":1,\"verb\":\"logs\",\"service\":\"loud\",\"follow\":true}\n").unwrap();
    // Longer than any other client may take; its socket is full after the first half second.
    std::thread::sleep(Duration::from_secs(11));
    let mut lines = BufReader::new(stream).lines().skip(1);
    let (mut last, mut missed, mut marks, mut seen) = (0, 0, 0, 0);
    while seen < 3_000 {
        let line = lines.next().expect("it hung up").unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(lost) = line.get("lost").and_then(serde_json::Value::as_u64) {
            (missed, marks) = (missed + lost, marks + 1);
            continue;
        }
        let number: u64 = line["message"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(last == 0 || number == last + 1 + missed, "{number} after {last}, {missed} marked");
        (last, missed, seen) = (number, 0, seen + 1);
    }
    assert!(marks > 0);
    drop(lines);
    assert_eq!(w.stop(), 0);
}
