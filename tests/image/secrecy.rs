//! No secret in a command line, in the log or in `inspect`: neither those that were given (by files: what is given by
//! `--env` is in `inspect` by nature) nor those that were made.

use super::container::{Container, INITS, Plan, secret_file};
use super::engine::{Image, engine};
use crate::support::machine::open_directory;
use std::collections::BTreeMap;

const GIVEN: [(&str, &str); 4] = [
    ("POSTGRES_PASSWORD", "given-password-7f3a91"),
    ("JWT_SECRET", "given-jwt-secret-of-more-than-32-bytes-55c0d2"),
    ("AUTHENTICATOR_PASSWORD", "given-authenticator-2b8e44"),
    ("WEB_TOKEN", "given-web-token-which-is-long-enough-90ffee"),
];

/// Every secret that lies on the volume: what a line, or a value of a file of JSON, holds.
fn kept(container: &Container) -> BTreeMap<String, String> {
    let list = container.said(&["sh", "-c", "cd /data/supafly/secrets && find . -type f"]);
    let mut all = BTreeMap::new();
    for file in list.lines() {
        let text = container.said(&["cat", &format!("/data/supafly/secrets/{file}")]);
        // Words in quotes, after `=`, between `:` and `@`, or alone on a line.
        for word in text.split(['"', '\'', '\n', ' ', '=', ':', '@', ',']) {
            if word.len() >= 16 && word.chars().any(|c| c.is_ascii_digit()) {
                all.insert(word.to_owned(), file.to_owned());
            }
        }
    }
    all
}

fn keeps_its_secrets(image: &Image) {
    for init in INITS {
        let dir = open_directory();
        let mut plan = Plan::new(image).under(init);
        for (name, value) in GIVEN {
            let file = secret_file(dir.path(), name, value);
            plan = plan.option("--volume").option(&format!("{file}:/secrets/{name}:ro"));
            plan = plan.env(&format!("{name}_FILE"), &format!("/secrets/{name}"));
        }
        let container = plan.ready();
        // They were taken: these are really the secrets. And a wrong one is refused, which logs the attempt.
        let login = |password: &str| {
            let env = format!("PGPASSWORD={password}");
            let psql = ["psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-c", "select 1"];
            container.exec(&[&["env", env.as_str()][..], &psql[..]].concat()).status
        };
        assert!(login(GIVEN[0].1).success(), "the password from the file does not open it");
        assert!(!login("wrong-password").success());
        let mut secrets = kept(&container);
        assert!(
            secrets.len() >= 4,
            "too few secrets on the volume to prove anything: {:?}",
            secrets.values()
        );
        secrets.extend(GIVEN.map(|(name, value)| (value.to_owned(), name.to_owned())));
        let commands: String = container.processes().iter().map(|p| format!("{}\n", p.command)).collect();
        assert!(commands.contains("postgres"), "{commands}");
        none_in(&secrets, "a command line", &commands);
        let all = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; true";
        let environments = container.said(&["sh", "-c", all]);
        assert!(environments.contains("POSTGRES_PASSWORD_FILE"), "no environment could be read");
        none_in(&secrets, "an environment", &environments);
        none_in(&secrets, "the status", &container.said(&["supafly", "status", "--json"]));
        none_in(&secrets, "what `check` prints", &container.said(&["supafly", "check"]));
        assert_eq!(container.stop().0, 0);
        none_in(&secrets, "the log", &container.log());
        none_in(&secrets, "inspect", &engine().said(&["inspect", container.name()]));
        none_in(&secrets, "the image", &engine().said(&["image", "inspect", &image.0]));
    }
}

fn none_in(secrets: &BTreeMap<String, String>, place: &str, text: &str) {
    assert!(text.len() > 20, "{place} is empty");
    for (secret, name) in secrets {
        assert!(!text.contains(secret.as_str()), "{place} holds a secret: {name}");
    }
}

#[test]
fn the_slim_image_shows_no_secret_in_command_lines_logs_or_inspect() {
    keeps_its_secrets(&Image::slim());
}

#[test]
fn the_full_image_shows_no_secret_in_command_lines_logs_or_inspect() {
    keeps_its_secrets(&Image::full());
}
