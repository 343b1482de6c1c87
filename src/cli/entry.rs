//! What follows `supafly run --`: the image's arguments, read as users of the official Postgres image type them.
//!
//! Nothing, or what begins with `-`, starts everything, with server settings. Any other first word is a program that takes
//! our place. It is decided before a setting is read or a signal is taken, so that `bash` comes even where both fail.

use crate::config::ServerSettings;
use crate::exit::{Exit, Failure};
use crate::{facts, postgres};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Everything, with these settings; and whether somebody asked for `postgres` alone.
    Run {
        /// Over those of the environment.
        settings: ServerSettings,
        /// `postgres -c …` was typed.
        named_postgres: bool,
    },
    /// Postgres's own program answers a question.
    Ask(OsString),
    /// That program, with these arguments.
    Execute(Vec<OsString>),
}

/// Questions that `postgres` answers and ends.
const QUESTIONS: &[&str] = &["--version", "-V", "--help", "-?", "--describe-config"];
/// Other lives of the same program, which would go around everything here.
const OTHER_LIVES: &[&str] = &["--single", "--boot", "--check"];

/// Reads them.
///
/// # Errors
/// 64 with the argument that cannot be and what to write instead.
pub(super) fn read(arguments: &[OsString]) -> Result<Entry, Failure> {
    let (named_postgres, rest) = match arguments.split_first() {
        None => return Ok(Entry::Run { settings: ServerSettings::default(), named_postgres: false }),
        Some((first, rest)) if first == "postgres" => (true, rest),
        Some((first, _)) if first.as_encoded_bytes().starts_with(b"-") => (false, arguments),
        Some((first, _)) if first.is_empty() => {
            return Err(usage(
                "the first argument is empty: give a server setting (-c name=value) or a program",
            ));
        }
        Some(_) => return Ok(Entry::Execute(arguments.to_vec())),
    };
    if let Some(question) = rest.iter().find(|a| QUESTIONS.iter().any(|q| a == q)) {
        return Ok(Entry::Ask(question.clone()));
    }
    if let Some(life) = rest.first().and_then(|a| OTHER_LIVES.iter().find(|o| a == *o)) {
        return Err(usage(format!(
            "postgres {life} goes around the lock of the volume and the archive: stop everything and call Postgres's own \
             program by its path"
        )));
    }
    let text = |a: &OsString| {
        let text = a.to_str().map(str::to_owned);
        text.ok_or_else(|| usage(format!("`{}` is not UTF-8", a.to_string_lossy().escape_debug())))
    };
    let rest: Vec<String> = rest.iter().map(text).collect::<Result<_, _>>()?;
    let settings = ServerSettings::from_arguments(&rest).map_err(usage)?;
    Ok(Entry::Run { settings, named_postgres })
}

fn usage(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, format!("arguments of the image: {}", why.into()))
}

/// Becomes that program; PATH is searched.
///
/// # Errors
/// 64: it cannot be executed. There is no other way to come back.
pub(super) fn execute(words: &[OsString]) -> Failure {
    let Some((program, arguments)) = words.split_first() else { return usage("no program is named") };
    let e = Command::new(program).args(arguments).exec();
    usage(format!(
        "`{}` cannot be executed: {e}; server settings begin with `-` (-c name=value)",
        program.to_string_lossy().escape_debug()
    ))
}

/// Lets Postgres's own program answer.
///
/// # Errors
/// 78: there is no Postgres.
pub(super) fn ask(config: Option<&Path>, question: &OsStr) -> Failure {
    let settings = match facts::settings(config) {
        Ok(settings) => settings,
        Err(failure) => return failure,
    };
    match postgres::bin::directory(&settings) {
        Some(directory) => execute(&[directory.join("postgres").into(), question.to_owned()]),
        None => Failure::config("no Postgres is installed: name its directory by SUPAFLY_PG_BIN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Entry, Failure> {
        read(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn settings(text: &str) -> ServerSettings {
        ServerSettings::from_text(text).unwrap()
    }

    #[test]
    fn what_begins_with_a_dash_is_a_setting_and_any_other_first_word_a_program() {
        let run = |text: &str, named_postgres| Entry::Run { settings: settings(text), named_postgres };
        assert_eq!(of(&[]).unwrap(), run("", false));
        assert_eq!(of(&["-c", "work_mem=8MB"]).unwrap(), run("work_mem=8MB", false));
        assert_eq!(of(&["postgres", "-N", "100"]).unwrap(), run("max_connections=100", true));
        assert_eq!(of(&["postgres"]).unwrap(), run("", true));
        assert_eq!(
            of(&["bash", "-c", "id"]).unwrap(),
            Entry::Execute(["bash", "-c", "id"].map(Into::into).into())
        );
        assert_eq!(of(&["run"]).unwrap(), Entry::Execute(vec!["run".into()]));
        assert_eq!(of(&["--version"]).unwrap(), Entry::Ask("--version".into()));
        assert_eq!(of(&["postgres", "-c", "a=b", "--help"]).unwrap(), Entry::Ask("--help".into()));
    }

    #[test]
    fn what_cannot_be_is_said_with_what_to_write() {
        for (words, said) in [
            (&["-c", "archive_mode=off"][..], "SUPAFLY_STORE"),
            (&["postgres", "--single", "-D", "/data/pgdata"], "lock of the volume"),
            (&["postgres", "mydb"], "-c name=value"),
            (&[""], "empty"),
        ] {
            let e = of(words).unwrap_err();
            assert_eq!(e.exit, Exit::Usage);
            assert!(e.message.contains(said), "{e}");
        }
    }
}
