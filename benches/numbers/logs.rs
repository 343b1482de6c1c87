//! How many lines a second are taken from services and written, and what it costs when nobody reads them.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::peers::{Logs, Place, Service, Who, World};
use super::processes::{self, milliseconds, now};
use super::row::{Condition, Context, Measured, Row, Standing};
use super::stats::Samples;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

macro_rules! row {
    ($name:literal, $what:literal, $verb:literal, $format:literal, $megabytes:literal, $why:literal) => {
        Row {
            name: $name,
            what: concat!(
                $what,
                " From the first write of the service to the moment when its last line is in the file, which lies in \
                 memory; bytes of the service count. s6-log gets the service's pipe without a supervisor between."
            ),
            unit: Unit::MegabytesPerSecond,
            goals: &[Goal::AtLeastPeer { factor: 2.0 }],
            run: |context| throughput(context, $verb, $format, context.size($megabytes, 5)),
            when_missed: $why,
        }
    };
}

pub(crate) static JSON_BLOCKS: Row = row!(
    "log_json_blocks",
    "300 MB in lines of 100 bytes, written by the service 64 KiB at a time, as JSON on our stdout.",
    "blocks",
    "json",
    300,
    ""
);
pub(crate) static JSON_LINES: Row = row!(
    "log_json_lines",
    "100 MB in lines of 100 bytes, each a write of its own, as JSON on our stdout.",
    "lines",
    "json",
    100,
    "the service itself is what is slow: with a system call a line it writes hardly more even to `cat`, which does nothing to a \
     line (see below), so twice the speed of s6-log cannot be reached by any reader"
);
pub(crate) static TEXT_BLOCKS: Row = row!(
    "log_text_blocks",
    "300 MB in lines of 100 bytes, written by the service 64 KiB at a time, as text on our stdout.",
    "blocks",
    "text",
    300,
    ""
);

pub(crate) static STALLED: Row = Row {
    name: "log_stalled_rss",
    what: "The most memory (resident, file pages included) that our only process ever had while a service wrote 200 MB and \
           nobody read our stdout. Peers do not write to a stdout, so there is none beside it.",
    unit: Unit::Megabytes,
    goals: &[Goal::AtMost(10.0)],
    run: stalled,
    when_missed: "",
};

fn writer(verb: &str, megabytes: u64) -> Service {
    let words = vec![verb.to_owned(), megabytes.to_string(), "STAMPS".to_owned(), "stay".to_owned()];
    Service { name: "writer".to_owned(), words, after: None }
}

/// Whether a file ends with the last line of a writer.
fn has_end(path: &Path) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let length = file.metadata().map_or(0, |m| m.len());
    let mut tail = Vec::new();
    // Behind it come the lines that say that it ended.
    let seen =
        file.seek(SeekFrom::Start(length.saturating_sub(4_096))).and_then(|_| file.read_to_end(&mut tail));
    seen.is_ok()
        && String::from_utf8_lossy(&tail).lines().any(|l| l.ends_with("END") || l.contains("\"END\""))
}

/// Megabytes a second, and how many lines our output says were lost.
fn ours(context: &Context, who: Who, verb: &str, format: &str, megabytes: u64) -> Result<(f64, u64), String> {
    let mut world = World::new(context, who, &[writer(verb, megabytes)], Logs::Captured)?;
    let out = world.path("out");
    let file = File::create(&out).map_err(|e| e.to_string())?;
    world.start_with(Place::Child, |command| {
        command.stdout(file).env("SUPAFLY_LOG_FORMAT", format);
    })?;
    let ended = world.until("the last line", || has_end(&out).then(now))?;
    let speed = speed(&world, megabytes, ended)?;
    drop(world.signal(nix::sys::signal::Signal::SIGKILL));
    let written = count_lines(&out)?;
    let lost = (megabytes * 10_000).saturating_sub(written);
    Ok((speed, lost))
}

/// Lines of the writer that are in the file.
fn count_lines(path: &Path) -> Result<u64, String> {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, File::open(path).map_err(|e| e.to_string())?);
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).map_err(|e| e.to_string())? > 0 {
        count += u64::from(String::from_utf8_lossy(&line).contains("/rest/v1/films"));
        line.clear();
    }
    Ok(count)
}

fn speed(world: &World, megabytes: u64, ended: u128) -> Result<f64, String> {
    let begin = world.stamped("begin", 1)?;
    let begun = begin.first().map_or(0, |s| s.at);
    let bytes = u32::try_from(megabytes).map_err(|e| e.to_string())?;
    Ok(f64::from(bytes) / milliseconds(begun, ended) * 1e3)
}

/// The actor's pipe into a logger, which ends when it has written everything.
fn logger(context: &Context, words: &[&str], verb: &str, megabytes: u64) -> Result<f64, String> {
    let program = which::which(words[0]).map_err(|_| format!("{} is not installed", words[0]))?;
    let is_copy = words[0] == "cat";
    let room = context.room();
    let (stamps, to) = (room.path().join("stamps"), room.path().join("log"));
    fs::create_dir(&to).map_err(|e| e.to_string())?;
    let mut actor = Command::new(&context.actor)
        .args([verb, &megabytes.to_string()])
        .arg(&stamps)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let pipe = actor.stdout.take().ok_or("no pipe")?;
    let mut command = Command::new(program);
    command.args(&words[1..]).stdin(pipe);
    if is_copy {
        command.stdout(File::create(to.join("copy")).map_err(|e| e.to_string())?);
    } else {
        command.arg(&to);
    }
    let mut logger = command.spawn().map_err(|e| e.to_string())?;
    let dog = super::watchdog::Watchdog::start(logger.id(), super::peers::PATIENCE);
    logger.wait().map_err(|e| e.to_string())?;
    let ended = now();
    actor.wait().map_err(|e| e.to_string())?;
    if dog.has_bitten() {
        return Err("it hung".to_owned());
    }
    let text = fs::read_to_string(&stamps).map_err(|e| e.to_string())?;
    let begun = processes::field(&text, "begin").ok_or("no beginning")?;
    let bytes = u32::try_from(megabytes).map_err(|e| e.to_string())?;
    #[allow(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a machine that is up for less than a month"
    )]
    let seconds = (ended as f64 - begun) / 1e9;
    Ok(f64::from(bytes) / seconds)
}

fn throughput(context: &Context, verb: &str, format: &str, megabytes: u64) -> Result<Measured, String> {
    let lost = Cell::new(0);
    let own = || {
        let (speed, missing) = ours(context, Who::Supafly, verb, format, megabytes)?;
        lost.set(lost.get().max(missing));
        Ok(speed)
    };
    // Enough in one file: rotating is not what is measured.
    let loggers: [(&str, Standing, &[&str]); 4] = [
        ("s6-log T", Standing::Rival, &["s6-log", "-b", "T", "s4000000000"]),
        (
            "s6-log t",
            Standing::Reference("time stamps that no person reads"),
            &["s6-log", "-b", "t", "s4000000000"],
        ),
        (
            "cat",
            Standing::Reference("copies without looking: what this writer and this file allow"),
            &["cat"],
        ),
        ("svlogd -tt", Standing::Reference("the goal is s6-log"), &["svlogd", "-tt", "-b", "65536"]),
    ];
    let mut peers = Vec::new();
    if context.invited == super::row::Invited::Peers {
        for (name, standing, words) in loggers {
            peers.push(Contestant::new(name, standing, move || logger(context, words, verb, megabytes)));
        }
    }
    for who in context.peers(&[]) {
        let sample = move || ours(context, who, verb, format, megabytes).map(|(speed, _)| speed);
        peers.push(Contestant::new(who.name(), who.standing(), sample));
    }
    let (ours, peers) = contest(context, (5, WarmUp::Yes), own, peers)?;
    let complete = Condition {
        what: "lines lost".to_owned(),
        value: f64::from(u32::try_from(lost.get()).unwrap_or(u32::MAX)),
        unit: Unit::Count,
        goal: Goal::AtMost(0.0),
    };
    Ok(Measured { ours, peers, conditions: vec![complete], notes: vec![] })
}

fn stalled(context: &Context) -> Result<Measured, String> {
    let megabytes = context.size(200, 20);
    let once = |who| {
        let mut world = World::new(context, who, &[writer("blocks", megabytes)], Logs::Captured)?;
        let (stalled, pipe) = std::io::pipe().map_err(|e| e.to_string())?;
        world.start_with(Place::Child, |command| {
            command.stdout(pipe);
        })?;
        world.stamped("written", 1)?;
        let peak = processes::peak_rss(world.pid()?);
        drop(stalled);
        peak
    };
    let peers = context.peers(&[]);
    let peers = peers.iter().map(|who| Contestant::new(who.name(), who.standing(), move || once(*who)));
    let (ours, peers): (Samples, _) =
        contest(context, (5, WarmUp::No), || once(Who::Supafly), peers.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![] })
}
