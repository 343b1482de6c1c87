//! `compose.yaml`: what it promises, its secrets, and the S3 server that it starts, run as it is written there.

use crate::dockerfile;
use crate::harness::{skip, until};
use crate::plan::{Asked, Led, Plan, Platform};
use crate::rules::problems;
use crate::{broken, fly, refused, text};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use supafly::machines::config::Span;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    services: Services,
    volumes: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Services {
    supafly: Service,
    s3: Service,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    build: Option<BTreeMap<String, String>>,
    #[serde(default)]
    depends_on: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    volumes: Vec<String>,
    shm_size: Option<String>,
    stop_grace_period: Option<String>,
    restart: String,
    healthcheck: Health,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some keys are read to be allowed only")]
struct Health {
    test: Vec<String>,
    interval: String,
    timeout: String,
    retries: u32,
    start_period: Option<String>,
}

fn compose(text: &str) -> Compose {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("compose.yaml: {e}"))
}

fn whole() -> String {
    text("compose.yaml")
}

fn plan(text: &str) -> Plan {
    let ours = compose(text).services.supafly;
    let led = ours.ports.iter().map(|port| {
        let parts: Vec<_> = port.rsplitn(3, ':').collect();
        Led {
            port: parts[0].parse().unwrap(),
            handlers: Vec::new(),
            to_loopback: parts.get(2) == Some(&"127.0.0.1"),
            autostop: None,
        }
    });
    let led = led.collect();
    let volume = |v: &String| {
        let (source, place) = v.split_once(':').unwrap();
        (!place.ends_with(":ro") && !source.starts_with(['.', '/'])).then(|| place.to_owned())
    };
    Plan {
        platform: Platform::Compose,
        env: ours.environment,
        checks: Vec::<Asked>::new(),
        other_checks: 0,
        metrics: None,
        led,
        signal: None,
        stop: ours.stop_grace_period.and_then(|s| Span::parse(&s)).map(|s| s.0),
        restart: ours.restart,
        mounts: ours.volumes.iter().filter_map(volume).collect(),
    }
}

#[test]
fn compose_promises_what_the_binary_serves() {
    assert_eq!(problems(&plan(&whole())), Vec::<String>::new());
}

#[test]
fn what_breaks_compose_is_refused() {
    let variants: &[(&str, &str, &[&str])] = &[
        ("stop_grace_period: 300s", "stop_grace_period: 10s", &["the stop budget", "is not below"]),
        ("    stop_grace_period: 300s\n", "", &["no patience is set"]),
        ("SUPAFLY_STOP_BUDGET: 290s", "SUPAFLY_STOP_BUDGET: 5m", &["is not below"]),
        ("SUPAFLY_STOP_BUDGET: 290s", "SUPAFLY_BUDGET: 290s", &["SUPAFLY_BUDGET", "nothing reads it"]),
        ("127.0.0.1:54322:5432", "54322:5432", &["5432", "public"]),
        ("127.0.0.1:54331:3000", "0.0.0.0:54331:3000", &["3000", "public"]),
        ("127.0.0.1:54331:3000", "127.0.0.1:54331:3001", &["3001", "nothing serves it"]),
        (
            "SUPAFLY_POSTGREST_LISTEN: \"*\"",
            "SUPAFLY_POSTGREST_LISTEN: 127.0.0.1",
            &["3000", "nothing serves it"],
        ),
        (
            "AWS_REGION: us-east-1",
            "AWS_SECRET_ACCESS_KEY: well-known",
            &["AWS_SECRET_ACCESS_KEY", "a secret"],
        ),
        ("AWS_REGION: us-east-1", "POSTGRES_PASSWORD: postgres", &["POSTGRES_PASSWORD", "a secret"]),
        ("AWS_REGION: us-east-1", "AWS_REGON: us-east-1", &["AWS_REGON", "nothing reads it"]),
        ("- data:/data", "- data:/var/lib/postgresql/data", &["the data directory is /data"]),
        ("- data:/data", "- ./data:/data", &["the data directory is /data"]),
    ];
    for (place, other, words) in variants {
        refused(&problems(&plan(&broken(&whole(), place, other))), words);
    }
}

#[test]
fn the_volumes_are_named_and_the_stop_is_as_on_fly() {
    let file = compose(&whole());
    let (ours, s3) = (&file.services.supafly, &file.services.s3);
    for volume in ours.volumes.iter().chain(&s3.volumes) {
        let (name, _) = volume.split_once(':').unwrap();
        assert!(file.volumes.contains_key(name), "{name} is no named volume");
    }
    assert_eq!(plan(&whole()).stop, Some(fly::patience()));
    assert_eq!(ours.environment["SUPAFLY_STOP_BUDGET"], fly::budget());
    assert_eq!(ours.depends_on["s3"]["condition"], "service_healthy");
    assert_eq!(ours.environment["SUPAFLY_TAKEOVER"], "auto");
    let shared: u32 = ours.shm_size.as_deref().unwrap().strip_suffix("mb").unwrap().parse().unwrap();
    assert!(shared >= 128, "Docker's 64 MB are what it is there for");
}

#[test]
fn the_image_is_built_from_the_dockerfile_and_asked_as_it_says() {
    let ours = compose(&whole()).services.supafly;
    let build = ours.build.unwrap();
    assert_eq!((build["context"].as_str(), build["target"].as_str()), (".", "full"));
    assert_eq!(ours.healthcheck.test[0], "CMD");
    let Some(file) = dockerfile::read() else { return skip("there is no Dockerfile") };
    assert_eq!(dockerfile::problems(&file, "full", &ours.healthcheck.test[1..]), Vec::<String>::new());
}

#[test]
fn the_s3_server_is_the_one_of_the_tests() {
    let s3 = compose(&whole()).services.s3;
    let script = text("scripts/parts/versitygw.sh");
    let version = script.lines().find_map(|l| l.strip_prefix("version=")).unwrap();
    assert_eq!(s3.image, format!("versity/versitygw:{version}"));
    let (ours, theirs) = (compose(&whole()).services.supafly, s3);
    let keys = |s: &Service| s.volumes.iter().find_map(|v| v.strip_prefix("s3-keys:")).unwrap().to_owned();
    assert_eq!(keys(&ours).strip_suffix(":ro"), Some(keys(&theirs).as_str()), "ours must not write them");
    for (variable, file) in [("AWS_ACCESS_KEY_ID_FILE", "id"), ("AWS_SECRET_ACCESS_KEY_FILE", "secret")] {
        assert_eq!(ours.environment[variable], format!("{}/{file}", keys(&theirs)));
    }
}

/// The script of the file, on this host: with its own places and port, and versitygw where it is here.
#[test]
fn its_script_makes_the_keys_once_and_serves_the_bucket() {
    let s3 = compose(&whole()).services.s3;
    assert_eq!(s3.entrypoint, ["/bin/sh", "-euc"]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    let environment = supafly::facts::environment();
    let program = environment.get("SUPAFLY_VERSITYGW").filter(|v| !v.is_empty());
    let program = program.cloned().unwrap_or_else(|| "versitygw".to_owned());
    let serve = |port: u16| {
        let script = s3.command[0]
            .replace("$$", "$")
            .replace("/run/s3-keys", &dir.path().join("keys").display().to_string())
            .replace("/s3", &dir.path().join("s3").display().to_string())
            .replace(":7070", &format!("127.0.0.1:{port}"))
            .replace("exec versitygw", &format!("exec {program}"));
        let mut command = Command::new("/bin/sh");
        command.arg("-euc").arg(script).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let key = |name: &str| std::fs::read_to_string(dir.path().join("keys").join(name)).unwrap_or_default();
    let once = || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = serve(port);
        let health = s3.healthcheck.test.last().unwrap().rsplit_once("7070").unwrap().1;
        until("the S3 server", || {
            let ended = child.try_wait().unwrap();
            assert_eq!(ended, None, "{program} ended");
            let address = ([127, 0, 0, 1], port).into();
            crate::client::try_get(address, health).filter(|a| a.code == 200)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        (key("id"), key("secret"))
    };
    let first = once();
    assert!(dir.path().join("s3/supafly").is_dir(), "the bucket");
    assert!(first.0 != first.1 && [&first.0, &first.1].iter().all(|k| k.len() == 48), "{first:?}");
    assert_eq!(once(), first, "made once and kept");
    let mode = std::fs::metadata(dir.path().join("keys/secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let store = &compose(&whole()).services.supafly.environment["SUPAFLY_STORE"];
    assert!(store.starts_with("s3://supafly/"), "{store}");
}
