//! The status in Prometheus's text format 0.0.4. Pure text; the numbers are those of the status, of the services'
//! reports, and of the look at `/proc` that the scrape made.
//!
//! While PID 1 does not answer there is `supafly_up 0` and nothing about the services: a series that goes on with its
//! last value would say that all is well.

use super::cache::Snapshot;
use super::usage::Usages;
use crate::status::{Overall, Readiness, ServiceStatus, Status};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::{Display, Write};

/// What is known of the values that services report; others are shown with a sentence that names the service.
const KNOWN: &[(&str, &str)] = &[
    ("epoch", "The epoch that this machine owns."),
    ("archive_ready", "WAL files that wait to be archived."),
    ("archive_lag_bytes", "WAL written after the end of the last archived file."),
    ("archive_last_age_seconds", "Time since this keeper last archived a WAL file; absent before its first."),
    ("archive_last_lsn_bytes", "The end of the last archived WAL file, as a byte position."),
    ("archive_last_info", "The name of the last archived file, value 1."),
    ("owner_confirmed_age_seconds", "Time since ownership was last confirmed."),
    ("backup_age_seconds", "Age of the newest verified base backup."),
    ("protected", "Whether there is a verified base backup of this epoch."),
];

/// The whole text.
pub(super) fn render(snapshot: &Snapshot, usages: &Usages) -> String {
    let mut text = Text::default();
    let fresh = snapshot.fresh();
    text.one("up", GAUGE, "Whether the supervisor answers.", u8::from(fresh.is_some()));
    let ready = fresh.is_some_and(|(status, _)| status.readiness == Readiness::Ready);
    text.one("ready", GAUGE, "Whether clients can be served.", u8::from(ready));
    if let Some((_, age)) = &snapshot.last {
        text.one("facts_age_seconds", GAUGE, "Age of what is said here.", age.as_secs_f64());
    }
    if let Some((status, _)) = fresh {
        whole(&mut text, status);
        services(&mut text, status, usages);
        reported(&mut text, status);
    }
    text.out
}

fn whole(text: &mut Text, status: &Status) {
    text.one("uptime_seconds", GAUGE, "Time since the supervisor began.", seconds(status.up_ms));
    text.begin("state", GAUGE, "The state of the whole: 1 for the present one.");
    for state in [
        Overall::Starting,
        Overall::Ready,
        Overall::Degraded,
        Overall::Frozen,
        Overall::Stopping,
        Overall::Stopped,
    ] {
        text.sample("state", &[("state", state.word())], u8::from(state == status.state));
    }
}

fn services(text: &mut Text, status: &Status, usages: &Usages) {
    let each = |text: &mut Text,
                name: &str,
                kind: &str,
                help: &str,
                value: &dyn Fn(&ServiceStatus) -> Option<String>| {
        let values: Vec<_> = status.services.iter().filter_map(|s| Some((&s.name, value(s)?))).collect();
        if !values.is_empty() {
            text.begin(name, kind, help);
            values.iter().for_each(|(service, value)| text.sample(name, &[("service", service)], value));
        }
    };
    text.begin("service_state", GAUGE, "The present state of each service, value 1.");
    for s in &status.services {
        text.sample("service_state", &[("service", &s.name), ("state", &s.state)], 1);
    }
    // Where its leader cannot be seen (`hidepid`, just gone), nothing is said.
    let used = |s: &ServiceStatus| usages.get(&s.name).filter(|u| u.processes > 0);
    each(text, "service_state_seconds", GAUGE, "Time in the present state.", &|s| {
        Some(seconds(s.for_ms).to_string())
    });
    each(text, "service_restarts_total", "counter", "How often it was started again.", &|s| {
        Some(s.restarts.to_string())
    });
    each(
        text,
        "service_start_seconds",
        GAUGE,
        "How long its last start took until it was ready or done.",
        &|s| Some(seconds(s.start_ms?).to_string()),
    );
    each(text, "service_processes", GAUGE, "Its leader and the leader's descent.", &|s| {
        Some(used(s)?.processes.to_string())
    });
    each(
        text,
        "service_resident_bytes",
        GAUGE,
        "Resident memory of its processes; shared pages are counted once a process.",
        &|s| Some(used(s)?.resident.to_string()),
    );
    each(text, "service_cpu_seconds", GAUGE, "Processor time of the processes that it has now.", &|s| {
        Some(used(s)?.cpu.as_secs_f64().to_string())
    });
}

/// What services report as values: numbers and truths under their own names, the last archived file as a label.
fn reported(text: &mut Text, status: &Status) {
    // A name is given once; should two services report the same one, the first in the order of the boot has it.
    let mut given = BTreeSet::new();
    for service in &status.services {
        for (key, value) in service.values.iter().filter(|(key, _)| is_name(key)) {
            let (name, labels, value) = match value {
                Value::Bool(truth) => (key.clone(), None, u8::from(*truth).to_string()),
                Value::Number(number) => (key.clone(), None, number.to_string()),
                Value::String(file) if key == "archive_last" => {
                    (format!("{key}_info"), Some(("file", file.as_str())), "1".to_owned())
                }
                Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => continue,
            };
            if text.names.contains(&name) || !given.insert(name.clone()) {
                continue;
            }
            let known = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, help)| (*help).to_owned());
            let help = known.unwrap_or_else(|| format!("Reported by {}.", service.name));
            text.begin(&name, GAUGE, &help);
            text.sample(&name, labels.as_slice(), value);
        }
    }
}

/// What a metric's name may consist of.
fn is_name(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit())
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

const GAUGE: &str = "gauge";

/// The text as it grows. Every name gets `supafly_` in front here and nowhere else.
#[derive(Debug, Default)]
struct Text {
    out: String,
    names: BTreeSet<String>,
}

impl Text {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.names.insert(name.to_owned());
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = write!(self.out, "# HELP supafly_{name} {help}\n# TYPE supafly_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "supafly_{name}");
        let mut mark = '{';
        for (label, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{mark}{label}=\"{value}\"");
            mark = ',';
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::strict::samples;
    use crate::web::testkit;
    use crate::web::usage::Usage;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn snapshot(status: Status, age_ms: u64) -> Snapshot {
        Snapshot { last: Some((Arc::new(status), Duration::from_millis(age_ms))) }
    }

    #[test]
    fn the_whole_text_keeps_to_the_format_and_says_what_the_status_says() {
        let usage = Usage { resident: 4_096, cpu: Duration::from_millis(1_500), processes: 2 };
        let usages = Usages::from([("keeper".to_owned(), usage)]);
        let text = render(&snapshot(testkit::status(), 250), &usages);
        let samples = samples(&text);
        for (sample, value) in [
            ("supafly_up", 1.0),
            ("supafly_ready", 1.0),
            ("supafly_facts_age_seconds", 0.25),
            ("supafly_state{state=\"ready\"}", 1.0),
            ("supafly_state{state=\"degraded\"}", 0.0),
            ("supafly_service_state{service=\"keeper\",state=\"ready\"}", 1.0),
            ("supafly_service_state_seconds{service=\"keeper\"}", 7.0),
            ("supafly_service_restarts_total{service=\"keeper\"}", 2.0),
            ("supafly_service_resident_bytes{service=\"keeper\"}", 4_096.0),
            ("supafly_service_cpu_seconds{service=\"keeper\"}", 1.5),
            ("supafly_service_processes{service=\"keeper\"}", 2.0),
            ("supafly_epoch", 3.0),
            ("supafly_protected", 0.0),
            ("supafly_archive_last_info{file=\"0000000100000000000000A1\"}", 1.0),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample}\n{text}");
        }
        assert!(!text.contains("supafly_service_processes{service=\"setup\"}"), "it has no process");
        assert!(!text.contains("health_address"), "a text is no number");
    }

    /// `docs/metrics.md`: what is said of a status that has everything.
    #[test]
    fn the_page_of_metrics_names_every_metric_as_it_is_announced() {
        let mut status = testkit::status();
        for (key, _) in KNOWN {
            status.services[0].values.insert((*key).to_owned(), 1.into());
        }
        let usage = Usage { resident: 4_096, cpu: Duration::from_millis(1_500), processes: 2 };
        let text = render(&snapshot(status, 0), &Usages::from([("keeper".to_owned(), usage)]));
        let mut rows = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) else {
                continue;
            };
            let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
            let labels = lines.peek().and_then(|l| l.split_once('{')).map_or("", |(_, l)| l);
            let labels: Vec<&str> =
                labels.split(',').filter_map(|l| l.split_once('=')).map(|(label, _)| label).collect();
            let _ = writeln!(rows, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
        }
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let there = std::fs::read_to_string(page).unwrap();
        let head = "| metric | type | labels | says |\n|---|---|---|---|\n";
        let (before, table) = there.split_once(head).unwrap();
        let after = table.split_once("\n\n").map_or("", |(_, after)| after);
        let page_now = format!("{before}{head}{rows}\n{after}");
        if std::env::var_os("SUPAFLY_BLESS").is_some() {
            std::fs::write(page, &page_now).unwrap();
        } else {
            assert!(there == page_now, "docs/metrics.md is not what the code says: run `make docs`");
        }
    }

    #[test]
    fn a_supervisor_that_does_not_answer_is_not_up_and_nothing_else_is_said() {
        let text = render(&snapshot(testkit::status(), 5_001), &Usages::new());
        let samples = samples(&text);
        assert_eq!((samples["supafly_up"], samples["supafly_ready"]), (0.0, 0.0));
        assert_eq!(samples.len(), 3, "{text}");
        assert_eq!(samples_of(&Snapshot { last: None })["supafly_up"], 0.0);
    }

    fn samples_of(snapshot: &Snapshot) -> std::collections::BTreeMap<String, f64> {
        samples(&render(snapshot, &Usages::new()))
    }

    #[test]
    fn a_value_cannot_take_the_name_of_a_metric_of_ours_or_of_another_service() {
        let mut status = testkit::status();
        for key in ["up", "state", "service_state", "facts_age_seconds", "9lives", "with-hyphen", ""] {
            status.services[0].values.insert(key.to_owned(), 77.into());
        }
        status.services[1].values.insert("epoch".to_owned(), 78.into());
        let samples = samples_of(&snapshot(status, 0));
        assert!(samples.values().all(|v| *v != 77.0 && *v != 78.0), "{samples:?}");
        assert_eq!(samples["supafly_epoch"], 3.0);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_format(name in "\\PC{0,12}|[\"\\\\\n,{}]{1,6}", state in "\\PC{0,9}|[\"\\\\\n]{1,4}", key in "\\PC{0,9}", file in "(\\PC|[\"\\\\\n]){0,9}", n in any::<f64>()) {
            let mut status = testkit::status();
            status.services[0].name = name;
            status.services[0].state = state;
            status.services[0].values.insert(key, n.into());
            status.services[0].values.insert("archive_last".to_owned(), file.into());
            samples_of(&snapshot(status, 0));
        }
    }
}
