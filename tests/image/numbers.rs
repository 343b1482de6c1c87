//! What the image costs: `make bench-image` writes docs/image-benchmarks.md. Ignored otherwise, as it wants a quiet machine
//! and takes minutes; it refuses to measure on one that is busy.

use super::container::{Container, Plan, Volume};
use super::engine::{Image, engine};
use super::page::{Boot, Figures, Hand, Layer, Memory, Part, page};
use crate::support::machine::until;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Boots per median.
const ROUNDS: usize = 5;
/// How long nothing has been asked of it before its memory is read.
const SETTLED: Duration = Duration::from_secs(30);
/// A machine of the usual small size: buffers are made for what the container may have.
const SMALL: [&str; 4] = ["--memory", "1g", "--memory-swap", "1g"];

/// The share of the processors' time that something took within this while.
fn busy(span: Duration) -> f64 {
    let read = || {
        let text = std::fs::read_to_string("/proc/stat").unwrap();
        let numbers: Vec<f64> =
            text.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        (numbers[3] + numbers[4], numbers.iter().sum::<f64>())
    };
    let (idle, all) = read();
    std::thread::sleep(span);
    let (idle_then, all_then) = read();
    1.0 - (idle_then - idle) / (all_then - all)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds of a time as engines and logs write it.
fn milliseconds(time: &str) -> f64 {
    // Go's own way of writing it has a blank for the T, and a zone's name.
    let iso = time.split(" +").next().unwrap().replacen(' ', "T", 1);
    let iso = if iso.ends_with('Z') { iso } else { format!("{iso}Z") };
    let at: jiff::Timestamp = iso.parse().unwrap_or_else(|e| panic!("{time}: {e}"));
    at.as_nanosecond() as f64 / 1e6
}

/// From the start of the container's first process.
fn started(container: &Container) -> f64 {
    milliseconds(&container.inspect("{{json .State.StartedAt}}").replace('"', ""))
}

/// The daemons of slim.
const DAEMONS: [&str; 6] = ["keeper", "pooler", "pooler-session", "postgres", "postgrest", "web"];

/// Until the last service has said that it is ready, by the times of the log.
fn boot(container: &Container) -> f64 {
    let (mut left, mut first) = (BTreeSet::from(DAEMONS), None);
    let last = container.follow("every service to be ready", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        first = first.or_else(|| line["time"].as_str().map(milliseconds));
        let ready = line["service"] == "supafly" && line["fields"]["state"] == "ready";
        let new = ready && left.remove(line["fields"]["service"].as_str()?);
        (new && left.is_empty()).then(|| milliseconds(line["time"].as_str().unwrap()))
    });
    container.wait_ready();
    // An engine may say that it has started it when it runs already.
    last - started(container).min(first.unwrap_or(f64::MAX))
}

/// The same parts started one after another by a shell, from the configuration that was rendered for them: Postgres, then
/// PostgREST and PgBouncer at once, until the last one answers. Warm on the cluster that is there; cold with `initdb`, which
/// makes durable what it makes, as ours is before it has its name, and with the set-up's SQL and passwords by psql before
/// PostgREST, which could not log in otherwise. Prints when each begins and is done.
const BY_HAND: &str = r#"
set -eu
as() { user=$1; shift; exec setpriv --reuid="$user" --regid="$user" --init-groups "$@"; }
answers() { { exec 3<>/dev/tcp/127.0.0.1/$1 && printf "$2" >&3 && read -r line <&3; } 2>/dev/null && [[ $line == *" 200"* ]]; }
setup() { # in one transaction and by one psql: quicker than any other way by hand
  { echo 'create role supafly login replication;'; for file in /sql/*.sql; do case $file in *.test.sql) ;; *) cat "$file"; echo;; esac; done; cat /data/by-hand/passwords.sql; } |
    (PGOPTIONS='-c search_path= -c supafly.auto_expose=off -c client_min_messages=warning' as postgres psql -Xq1 -v ON_ERROR_STOP=1 -h /run/supafly/postgres -f - >/dev/null)
}
parts() { # parts PGDATA BETWEEN
  as postgres postgres -c data_directory="$1" -c config_file=/run/supafly/postgres/postgresql.conf &
  until pg_isready -q -h /run/supafly/postgres; do sleep 0.005; done
  $2
  as supafly-rest postgrest /run/supafly/postgrest/postgrest.conf &
  as supafly-pool pgbouncer /run/supafly/pooler/pgbouncer.ini &
  until answers 3001 'GET /ready HTTP/1.0\r\n\r\n'; do sleep 0.005; done
  until pg_isready -q -h 127.0.0.1 -p 6543; do sleep 0.005; done
}
ended() { kill $(jobs -p) || :; wait || :; rm -f /run/supafly/*.sock /run/supafly/*/.s.* /run/supafly/*/*.pid; }
cp -a /data/by-hand/run/. /run/supafly/
ended 2>/dev/null
install -d -o postgres /data/cold
sync
echo "warm-begun $(date +%s%N)"
parts /data/pgdata :
echo "warm-done $(date +%s%N)"
ended
echo "cold-begun $(date +%s%N)"
(as postgres initdb -D /data/cold/pgdata -U postgres --data-checksums --encoding=UTF8 --allow-group-access --auth=trust \
  --sync-method=syncfs --no-instructions --locale=C.UTF-8 >/dev/null)
parts /data/cold/pgdata setup
echo "cold-done $(date +%s%N)"
ended
"#;

/// Keeps the rendered configuration and the passwords on the volume, for the shell.
fn keep_configuration(container: &Container) {
    container.said(&["sh", "-c", "mkdir /data/by-hand && cp -a /run/supafly /data/by-hand/run 2>/dev/null || test -e /data/by-hand/run/postgres/postgresql.conf"]);
    let passwords = "select format('alter role %I password %L;', rolname, rolpassword) from pg_authid where rolpassword is not null";
    container.said(&[
        "sh",
        "-c",
        &format!("psql -XAtq -v ON_ERROR_STOP=1 -U postgres -c \"{passwords}\" >/data/by-hand/passwords.sql"),
    ]);
}

/// How long the shell takes on that volume: warm, and cold.
fn by_hand(volume: &Volume) -> (f64, f64) {
    let sql = format!("{}/image/sql:/sql:ro", env!("CARGO_MANIFEST_DIR"));
    nix::unistd::sync();
    let plan = Plan::new(&Image::slim()).options(&SMALL).on(volume);
    let plan = plan.options(&["--volume", &sql, "--entrypoint", "bash"]);
    let container = plan.words(&["-c", BY_HAND]).start();
    let mut said = String::new();
    container.follow("the parts started by hand", |line| {
        said = format!("{said}{line}\n");
        line.starts_with("cold-done").then_some(())
    });
    let at = |mark: &str| -> f64 {
        let line = said.lines().find_map(|l| l.strip_prefix(mark)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {mark}: {said}")).parse::<f64>().unwrap() / 1e6
    };
    let took = |what: &str| at(&format!("{what}-done")) - at(&format!("{what}-begun"));
    (took("warm"), took("cold"))
}

fn boots() -> Boot {
    let (mut cold, mut warm, mut hand_warm, mut hand_cold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // In turns, so that whatever else the machine does meets all of them.
        let volume = Volume::new();
        let plan = || {
            // What others have written is not for who waits for a disk next.
            nix::unistd::sync();
            Plan::new(&Image::slim()).options(&SMALL).on(&volume).env("SUPAFLY_LOG_FORMAT", "json")
        };
        let container = plan().start();
        cold.push(boot(&container));
        keep_configuration(&container);
        assert_eq!(container.stop().0, 0);
        drop(container);
        let container = plan().start();
        warm.push(boot(&container));
        assert_eq!(container.stop().0, 0);
        drop(container);
        let (warm_by_hand, cold_by_hand) = by_hand(&volume);
        hand_warm.push(warm_by_hand);
        hand_cold.push(cold_by_hand);
    }
    eprintln!("warm {warm:.0?} by hand {hand_warm:.0?}; cold {cold:.0?} by hand {hand_cold:.0?}");
    let by_hand = Hand { warm: median(hand_warm), cold: median(hand_cold) };
    Boot { cold: median(cold), warm: median(warm), by_hand }
}

/// Resident and proportional set size of every process, by the service that it is of.
fn memory(image: &Image) -> Memory {
    // To look at processes of other users from inside, as root.
    let container = Plan::new(image).options(&SMALL).options(&["--cap-add", "SYS_PTRACE"]).ready();
    let begun = Instant::now();
    until("it to settle", SETTLED * 2, || (begun.elapsed() >= SETTLED).then_some(()));
    let status = container.status().unwrap();
    let services = status["services"].as_array().unwrap();
    let leaders: BTreeMap<u64, String> = services
        .iter()
        .filter_map(|s| Some((s["pid"].as_u64()?, s["name"].as_str()?.to_owned())))
        .chain([(1, "supafly (PID 1)".to_owned())])
        .collect();
    let all = container.processes();
    let parents: BTreeMap<u64, u64> = all.iter().map(|p| (p.pid, p.parent)).collect();
    let mut by_service: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for process in &all {
        // What a service started counts as the service's; what `exec` brings has no parent here.
        let line =
            std::iter::successors(Some(process.pid), |pid| parents.get(pid).copied().filter(|p| *p > 0));
        let Some(service) = line.filter_map(|pid| leaders.get(&pid)).next() else { continue };
        let rollup = container.exec(&["cat", &format!("/proc/{}/smaps_rollup", process.pid)]);
        let text = String::from_utf8_lossy(&rollup.stdout).into_owned();
        let kilobytes = |name: &str| -> Option<f64> {
            text.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
        };
        // One that has ended meanwhile has none; one that still runs must have it.
        let (Some(rss), Some(pss)) = (kilobytes("Rss:"), kilobytes("Pss:")) else { continue };
        let sum = by_service.entry(service.clone()).or_default();
        *sum = (sum.0 + rss * 1.024 / 1000.0, sum.1 + pss * 1.024 / 1000.0);
    }
    for name in leaders.values() {
        assert!(by_service.contains_key(name), "the memory of {name} could not be read");
    }
    Memory { by_service }
}

/// What one layer is made by, and its bytes.
fn layers(image: &Image) -> Vec<Layer> {
    // As numbers where the engine can: podman of Debian 12 knows only the form for people.
    let said = engine().said(&["history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", &image.0]);
    let layer = |line: &str| {
        let (size, by) = line.split_once('\t')?;
        let split = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
        let (number, unit) = size.split_at(split);
        let factor = match unit.trim() {
            "" | "B" => 1e-6,
            "kB" | "KB" => 1e-3,
            "MB" => 1.0,
            "GB" => 1e3,
            unit => panic!("{line}: what is {unit}?"),
        };
        let megabytes = number.trim().parse::<f64>().unwrap() * factor;
        (megabytes >= 0.1).then(|| Layer { by: by.to_owned(), megabytes })
    };
    let mut all: Vec<Layer> = said.lines().filter_map(layer).collect();
    all.reverse();
    all
}

/// What the image says of its parts.
fn supavisor(full: &Image) -> Part {
    let container = Plan::new(full).words(&["supafly", "version", "--all"]).start();
    assert_eq!(container.wait_end(), 0);
    let log = container.log();
    let line = log.lines().find(|l| l.to_lowercase().contains("supavisor")).expect("Supavisor's version");
    if line.contains("stand-in") { Part::StandIn } else { Part::Real }
}

#[test]
#[ignore = "measures for minutes, and wants a quiet machine: make bench-image"]
fn what_the_image_costs_is_on_its_page() {
    let load = busy(Duration::from_secs(3));
    assert!(
        load < 0.15,
        "{:.0} % of the processors' time is somebody else's: nothing is measured",
        load * 100.0
    );
    let images = [("slim", Image::slim()), ("full", Image::full())];
    let layers = images.clone().map(|(name, image)| (name, layers(&image)));
    let boot = boots();
    let supavisor = supavisor(&images[1].1);
    let memory = images.map(|(name, image)| (name, memory(&image)));
    let processors = std::thread::available_parallelism().unwrap().get();
    let figures =
        Figures { processors, rounds: ROUNDS, layers: layers.into(), boot, memory: memory.into(), supavisor };
    let page = page(&figures);
    eprintln!("{page}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/image-benchmarks.md");
    std::fs::write(path, page).unwrap();
}
