//! The systemd unit and what lies around it in a machine image: that its numbers are those of Fly and compose, that it can
//! never start without its volume, and that the user-data of the example formats what the unit waits for.

use crate::{broken, fly, refused, text};
use serde::Deserialize;
use supafly::config::Settings;
use supafly::machines::config::Span;

/// Keys and values of a section, in order.
#[derive(Debug)]
struct Unit(Vec<(String, String, String)>);

impl Unit {
    fn parse(text: &str) -> Unit {
        let mut section = String::new();
        let mut all = Vec::new();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                all.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
        Unit(all)
    }

    fn all<'a>(&'a self, section: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(s, k, _)| s == section && k == key).map(|(_, _, v)| v.as_str())
    }

    fn is(&self, section: &str, key: &str, value: &str) -> Option<String> {
        let there: Vec<_> = self.all(section, key).collect();
        (there != [value]).then(|| format!("[{section}] {key} is {there:?}, not `{value}`"))
    }
}

fn problems(unit: &str, fstab: &str) -> Vec<String> {
    let unit = Unit::parse(unit);
    let mut found: Vec<String> = [
        // A wanted stop is ours to order: TERM to us alone, and nobody else is told before his turn.
        ("Service", "KillMode", "mixed"),
        ("Service", "KillSignal", "SIGTERM"),
        ("Service", "Restart", "on-failure"),
        ("Service", "OOMPolicy", "continue"),
        // Whether it is ready, it does not tell systemd.
        ("Service", "Type", "exec"),
        ("Service", "ExecStart", "/usr/bin/supafly run"),
        ("Service", "RootDirectory", "/usr/lib/supafly/rootfs"),
        ("Service", "ProtectSystem", "strict"),
        ("Service", "EnvironmentFile", "-/etc/supafly/supafly.env"),
        ("Service", "RuntimeDirectory", "supafly"),
    ]
    .into_iter()
    .filter_map(|(section, key, value)| unit.is(section, key, value))
    .collect();
    let set = unit.all("Service", "Environment").filter_map(|e| e.split_once('='));
    let env = set.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let settings = match Settings::read(None, &env) {
        Ok(settings) => settings,
        Err(e) => return vec![e.to_string()],
    };
    for name in env.keys().filter(|name| !crate::served::is_known(name)) {
        found.push(format!("{name}: nothing reads it"));
    }
    let patience = unit.all("Service", "TimeoutStopSec").next().map(|s| format!("{s}s"));
    match patience.and_then(|p| Span::parse(&p)) {
        Some(Span(patience)) if patience == fly::patience() && settings.stop_budget < patience => {}
        other => found.push(format!("TimeoutStopSec is {other:?}; on Fly it is {:?}", fly::patience())),
    }
    if env.get("SUPAFLY_STOP_BUDGET") != Some(&fly::budget()) {
        found.push(format!("the stop budget is {:?}; on Fly it is {}", settings.stop_budget, fly::budget()));
    }
    let data = settings.data.display().to_string();
    for key in ["RequiresMountsFor", "AssertPathIsMountPoint"] {
        found.extend(unit.is("Unit", key, &data));
    }
    found.extend(unit.is("Service", "BindPaths", &data));
    let run = settings.run.display().to_string();
    let named = unit.all("Service", "RuntimeDirectory").next().map(|d| format!("/run/{d}"));
    if named.as_ref() != Some(&run) {
        found.push(format!("the run directory is {run}, and systemd makes {named:?}"));
    }
    // Codes after which another start says the same.
    use supafly::exit::Exit;
    let final_codes = [Exit::Usage, Exit::Refused, Exit::Config].map(|e| e.code().to_string()).join(" ");
    found.extend(unit.is("Service", "RestartPreventExitStatus", &final_codes));
    let columns: Vec<_> = fstab.split_whitespace().collect();
    match columns.as_slice() {
        [_, place, "ext4", options, "0", "2"] if *place == data => {
            let options: Vec<_> = options.split(',').collect();
            for option in ["nofail", "x-systemd.growfs"] {
                if !options.contains(&option) {
                    found.push(format!("fstab: {data} lacks `{option}`"));
                }
            }
        }
        _ => found.push(format!("fstab: one line that mounts {data}, not {fstab:?}")),
    }
    found
}

fn unit() -> String {
    text("packer/files/supafly.service")
}

fn fstab() -> String {
    text("packer/files/fstab")
}

#[test]
fn the_unit_has_the_numbers_of_fly_and_the_places_of_the_settings() {
    assert_eq!(problems(&unit(), &fstab()), Vec::<String>::new());
}

#[test]
fn what_breaks_the_unit_is_refused() {
    let variants: &[(&str, &str, &[&str])] = &[
        ("TimeoutStopSec=300", "TimeoutStopSec=90", &["TimeoutStopSec"]),
        ("TimeoutStopSec=300\n", "", &["TimeoutStopSec"]),
        ("SUPAFLY_STOP_BUDGET=290s", "SUPAFLY_STOP_BUDGET=9s", &["the stop budget is 9s"]),
        ("SUPAFLY_STOP_BUDGET=290s", "SUPAFLY_BUDGET=290s", &["SUPAFLY_BUDGET", "nothing reads it"]),
        ("KillMode=mixed", "KillMode=control-group", &["KillMode"]),
        ("OOMPolicy=continue\n", "", &["OOMPolicy"]),
        ("Type=exec", "Type=notify", &["Type"]),
        ("Restart=on-failure", "Restart=always", &["Restart"]),
        (
            "RestartPreventExitStatus=64 77 78",
            "RestartPreventExitStatus=64 78",
            &["RestartPreventExitStatus"],
        ),
        ("RequiresMountsFor=/data\n", "", &["RequiresMountsFor"]),
        ("AssertPathIsMountPoint=/data", "AssertPathIsMountPoint=/mnt", &["AssertPathIsMountPoint"]),
        ("BindPaths=/data", "BindPaths=/data2", &["BindPaths"]),
        ("EnvironmentFile=-/etc/supafly/supafly.env", "Environment=SUPAFLY_DATA=/srv", &["/srv"]),
        ("RuntimeDirectory=supafly", "RuntimeDirectory=db", &["/run/supafly", "/run/db"]),
        ("ExecStart=/usr/bin/supafly run", "ExecStart=/usr/bin/supafly", &["ExecStart"]),
    ];
    for (place, other, words) in variants {
        let place =
            if place.starts_with("BindPaths") || place.starts_with("Type") || place.starts_with("Restart=") {
                format!("\n{place}\n")
            } else {
                (*place).to_owned()
            };
        let other = if place.starts_with('\n') { format!("\n{other}\n") } else { (*other).to_owned() };
        refused(&problems(&broken(&unit(), &place, &other), &fstab()), words);
    }
    for (place, other, words) in [
        ("nofail,", "", "nofail"),
        ("x-systemd.growfs,", "", "growfs"),
        ("/data", "/srv", "one line that mounts /data"),
    ] {
        refused(&problems(&unit(), &broken(&fstab(), place, other)), &[words]);
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserData {
    fs_setup: Vec<Filesystem>,
    write_files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some keys are read to be allowed only")]
struct Filesystem {
    label: String,
    filesystem: String,
    device: String,
    partition: String,
    overwrite: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    owner: String,
    permissions: String,
    content: String,
}

#[test]
fn the_example_of_user_data_formats_what_is_mounted_and_writes_what_is_read() {
    let whole = text("packer/user-data.example.yaml");
    assert!(whole.starts_with("#cloud-config\n"), "cloud-init takes it for a script else");
    let data: UserData = serde_saphyr::from_str(&whole).unwrap();
    let disk = &data.fs_setup[0];
    let fstab = fstab();
    let columns: Vec<_> = fstab.split_whitespace().collect();
    assert_eq!(
        (columns[0], columns[2]),
        (format!("LABEL={}", disk.label).as_str(), disk.filesystem.as_str())
    );
    assert!(!disk.overwrite && disk.partition == "none");
    assert!(disk.label.len() <= 16, "what ext4 has room for");
    let file = &data.write_files[0];
    assert_eq!((file.owner.as_str(), file.permissions.as_str()), ("root:root", "0600"));
    assert!(unit().contains(&format!("EnvironmentFile=-{}", file.path)));
    let env = file.content.lines().map(|l| l.split_once('=').unwrap());
    let env: std::collections::BTreeMap<_, _> = env.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    assert!(env.keys().all(|name| crate::served::is_known(name)), "{env:?}");
    Settings::read(None, &env).unwrap();
}
