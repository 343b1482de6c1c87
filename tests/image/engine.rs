//! The program that runs containers, and the images under test.

use crate::support::programs::var;
use nix::sys::resource::{Resource, getrlimit};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// podman or docker, with what it needs on this machine.
#[derive(Debug)]
pub(crate) struct Engine {
    program: PathBuf,
    podman: bool,
    /// Before the subcommand.
    before: Vec<String>,
    /// Which init `--init` puts before ours, where it must be named.
    tini: Option<PathBuf>,
}

/// `SUPAFLY_ENGINE`, else docker where its daemon answers, else podman.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let named = var("SUPAFLY_ENGINE").map(PathBuf::from);
        let program = named.or_else(docker).or_else(|| which::which("podman").ok());
        let program = program.expect("no podman and no docker that answers: run scripts/parts/containers.sh");
        let podman = program.file_name().is_some_and(|n| n == "podman");
        // As scripts/image/engine.sh: crun of Debian 12 starts nothing where cgroups are of both versions.
        let runc = podman && which::which("runc").is_ok();
        let before = if runc { vec!["--runtime".to_owned(), "runc".to_owned()] } else { Vec::new() };
        // podman's own is catatonit, which is a package of its own; docker brings its.
        let tini = podman.then(|| which::which("tini-static").expect("no tini-static: run make test-image"));
        Engine { program, podman, before, tini }
    })
}

fn docker() -> Option<PathBuf> {
    let docker = which::which("docker").ok()?;
    let info = Command::new(&docker).arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    info.is_ok_and(|s| s.success()).then_some(docker)
}

impl Engine {
    /// One of its commands.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.before).args(args).stdin(Stdio::null());
        // podman's monitor leaves a file `oom` where it was started, once a container's memory was not enough.
        command.current_dir(env!("CARGO_TARGET_TMPDIR"));
        command
    }

    /// What one of its commands said, whether or not it went well.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap_or_else(|e| panic!("{}: {e}", self.program.display()))
    }

    /// What one of its commands printed; it must go well.
    pub(crate) fn said(&self, args: &[&str]) -> String {
        let out = self.output(args);
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?} ended with {}: {err}", out.status);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Whether it is podman, whose health checks run by systemd's timers or not at all.
    pub(crate) fn is_podman(&self) -> bool {
        self.podman
    }

    /// Further arguments of `run`: limits that this machine can give, by which podman of Debian 12 starts at all.
    pub(crate) fn limits(&self) -> Vec<String> {
        if !self.podman {
            return Vec::new();
        }
        let limit = |name: &str, resource: Resource, enough: u64| {
            let number = getrlimit(resource).unwrap().1.min(enough);
            ["--ulimit".to_owned(), format!("{name}={number}:{number}")]
        };
        let files = limit("nofile", Resource::RLIMIT_NOFILE, 20_000);
        files.into_iter().chain(limit("nproc", Resource::RLIMIT_NPROC, 4_096)).collect()
    }

    /// Arguments of `run` that put another init before ours.
    pub(crate) fn init(&self) -> Vec<String> {
        let mut all = vec!["--init".to_owned()];
        if let Some(tini) = &self.tini {
            all.extend(["--init-path".to_owned(), tini.display().to_string()]);
        }
        all
    }
}

/// An image that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image(pub(crate) String);

impl Image {
    /// Postgres, PostgREST, PgBouncer and the engine.
    pub(crate) fn slim() -> Image {
        Image::named("SUPAFLY_TEST_IMAGE_SLIM", "localhost/supafly:slim")
    }

    /// Everything; Supavisor is the pooler.
    pub(crate) fn full() -> Image {
        Image::named("SUPAFLY_TEST_IMAGE_FULL", "localhost/supafly:full")
    }

    fn named(variable: &str, default: &str) -> Image {
        let name = var(variable).map_or_else(|| default.to_owned(), |n| n.into_string().unwrap());
        let there = engine().output(&["image", "inspect", "--format", "{{.Id}}", &name]).status.success();
        assert!(there, "there is no image {name}: run make test-image, or name one by {variable}");
        Image(name)
    }

    /// The image that users upgrade from, and whether it is one: no release is older than this one yet.
    pub(crate) fn former() -> (Image, bool) {
        match var("SUPAFLY_TEST_IMAGE_FORMER") {
            Some(_) => (Image::named("SUPAFLY_TEST_IMAGE_FORMER", ""), true),
            None => (Image::slim(), false),
        }
    }
}
