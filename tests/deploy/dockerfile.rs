//! What the files of a deployment take for granted of the `Dockerfile`: its target, its entry point, its health check, its
//! stop signal, its volume, and that nothing of it is lost where its root filesystem runs without its configuration.

use crate::{broken, fly, refused};
use std::process::Command;

/// One instruction, with its continuation lines joined.
#[derive(Clone, Debug)]
struct Instruction {
    word: String,
    rest: String,
}

/// What a target inherits along its `FROM`s, first to last.
#[derive(Clone, Debug)]
pub(crate) struct Dockerfile(Vec<Instruction>);

/// The file, where there is one.
pub(crate) fn read() -> Option<Dockerfile> {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).ok().map(|text| parse(&text))
}

fn parse(text: &str) -> Dockerfile {
    let lines = text.lines().filter(|l| !l.trim_start().starts_with('#'));
    let joined = lines.fold(String::new(), |mut all, line| {
        match line.trim_end().strip_suffix('\\') {
            Some(more) => all.push_str(&format!("{more} ")),
            None => all.push_str(&format!("{line}\n")),
        }
        all
    });
    let instructions = joined.lines().filter_map(|line| {
        let (word, rest) = line.trim().split_once(char::is_whitespace)?;
        Some(Instruction { word: word.to_ascii_uppercase(), rest: rest.trim().to_owned() })
    });
    Dockerfile(instructions.collect())
}

impl Dockerfile {
    /// The instructions of a stage, after those of the stages that it stands on; None where there is no such stage.
    fn stage(&self, name: &str) -> Option<Vec<Instruction>> {
        let from = |i: &Instruction| {
            let words: Vec<_> = i.rest.split_whitespace().filter(|w| !w.starts_with("--")).collect();
            (words[0].to_owned(), words.get(2).map(|w| (*w).to_owned()))
        };
        let mut found: Option<Vec<Instruction>> = None;
        for instruction in &self.0 {
            if instruction.word == "FROM" {
                if found.is_some() {
                    break;
                }
                let (base, alias) = from(instruction);
                if alias.as_deref() == Some(name) {
                    found = Some(self.stage(&base).unwrap_or_default());
                }
            } else if let Some(found) = &mut found {
                found.push(instruction.clone());
            }
        }
        found
    }
}

/// Everything that is wrong with a target, whose health is asked by `health` elsewhere.
pub(crate) fn problems(file: &Dockerfile, target: &str, health: &[String]) -> Vec<String> {
    let Some(stage) = file.stage(target) else { return vec![format!("there is no target `{target}`")] };
    let last = |word: &str| stage.iter().rev().find(|i| i.word == word).map(|i| i.rest.as_str());
    let list = |text: Option<&str>| -> Vec<String> {
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    };
    let mut found = Vec::new();
    let start = [list(last("ENTRYPOINT")), list(last("CMD"))].concat();
    let name = |program: &String| program.rsplit('/').next().unwrap_or_default().to_owned();
    match start.split_first() {
        Some((program, arguments))
            if name(program) == "supafly" && matches!(arguments, [run] if run == "run") => {}
        // What follows is what the user typed.
        Some((program, [run, rest])) if name(program) == "supafly" && run == "run" && rest == "--" => {}
        Some(_) | None => found.push(format!("the image starts {start:?}, not `supafly run`")),
    }
    let check = last("HEALTHCHECK").and_then(|h| h.split_once("CMD ")).map(|(_, command)| command);
    let check = list(check);
    let same = check.len() == health.len()
        && check
            .iter()
            .zip(health)
            .enumerate()
            .all(|(i, (a, b))| if i == 0 { name(a) == name(b) } else { a == b });
    if check.is_empty() || !same {
        found.push(format!("HEALTHCHECK asks {check:?}, and compose.yaml asks {health:?}"));
    } else if !is_a_question(&check[1..]) {
        found.push(format!("HEALTHCHECK {check:?} is no question that the binary answers"));
    }
    if !matches!(last("STOPSIGNAL"), Some("SIGTERM")) {
        found.push(format!("STOPSIGNAL is {:?}, not SIGTERM", last("STOPSIGNAL")));
    }
    if !matches!(last("VOLUME"), Some("/data" | "[\"/data\"]")) {
        found.push(format!("VOLUME is {:?}, not /data", last("VOLUME")));
    }
    // Whatever a package brings with such a bit would be a way to root for every service.
    let brings = |i: &&Instruction| {
        i.word == "RUN" && i.rest.contains("apt-get install") && !i.rest.contains("-perm /6000")
    };
    found.extend(stage.iter().filter(brings).map(|i| format!("packages keep their setuid bits: {}", i.rest)));
    let settings = stage.iter().filter(|i| i.word == "ENV" && i.rest.contains("SUPAFLY_"));
    found.extend(
        settings.map(|i| format!("ENV {}: lost where the root filesystem runs without it (the VM)", i.rest)),
    );
    found
}

/// Whether the binary takes it for a question: 0 or 1, and not 64.
fn is_a_question(arguments: &[String]) -> bool {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_supafly"));
    let code = command.args(arguments).env("SUPAFLY_RUN", nowhere.path()).output().unwrap().status.code();
    matches!(code, Some(0 | 1))
}

const EXAMPLE: &str = r#"
FROM debian AS base
ENV LANG=C.UTF-8 \
    PGHOST=/run/x
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s CMD ["/usr/bin/supafly", "health", "--ready"]
ENTRYPOINT ["/usr/bin/supafly"]
CMD ["run"]
FROM scratch AS other
ENTRYPOINT ["/bin/other"]
FROM base AS full
# A comment
COPY a b
"#;

#[test]
fn what_breaks_a_dockerfile_is_refused() {
    let health: Vec<String> = ["supafly", "health", "--ready"].map(String::from).into();
    let look = |text: &str| problems(&parse(text), "full", &health);
    assert_eq!(look(EXAMPLE), Vec::<String>::new());
    let variants: &[(&str, &str, &[&str])] = &[
        ("CMD [\"run\"]\n", "CMD [\"status\"]\n", &["the image starts", "status"]),
        ("ENTRYPOINT [\"/usr/bin/supafly\"]", "ENTRYPOINT /usr/bin/supafly", &["the image starts"]),
        ("\"health\", \"--ready\"", "\"health\", \"--live\"", &["HEALTHCHECK asks", "--live"]),
        (
            "HEALTHCHECK --interval=10s CMD [\"/usr/bin/supafly\", \"health\", \"--ready\"]\n",
            "",
            &["HEALTHCHECK asks []"],
        ),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", &["STOPSIGNAL", "SIGKILL"]),
        ("VOLUME /data", "VOLUME /var/lib", &["VOLUME", "/var/lib"]),
        ("PGHOST=/run/x", "SUPAFLY_LOG=debug", &["SUPAFLY_LOG", "lost"]),
        ("COPY a b", "RUN apt-get install -y sudo", &["setuid", "sudo"]),
        ("AS full", "AS whole", &["no target `full`"]),
    ];
    for (place, other, words) in variants {
        refused(&look(&broken(EXAMPLE, place, other)), words);
    }
    let wrong: Vec<String> = ["supafly", "healthy"].map(String::from).into();
    let text = broken(EXAMPLE, "\"health\", \"--ready\"", "\"healthy\"");
    refused(&problems(&parse(&text), "full", &wrong), &["no question"]);
}

#[test]
fn fly_builds_a_target_that_is_there() {
    let Some(file) = read() else { return crate::harness::skip("there is no Dockerfile") };
    let text: toml::Value = toml::from_str(&crate::text("fly.toml")).unwrap();
    let target = text["build"]["build-target"].as_str().unwrap();
    assert_eq!(text["build"]["dockerfile"].as_str(), Some("Dockerfile"));
    assert!(file.stage(target).is_some(), "{target}");
    assert!(fly::patience().as_secs() > 0);
}
