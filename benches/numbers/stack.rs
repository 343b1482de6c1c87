//! The whole stack with everything that is installed: what all of supafly takes beside Postgres and the others.

use super::contest::{Contestant, WarmUp, contest};
use super::goal::{Goal, Unit};
use super::processes;
use super::row::{Context, Measured, Row, Standing};
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) static ALL_ROLES: Row = Row {
    name: "pss_all_roles",
    what: "Proportional set size of all processes of supafly, PID 1 and its roles, with the whole directory of services on \
           an empty volume with an archive in a directory, three seconds after the first backup was verified. Programs of \
           others (Postgres, the pooler, PostgREST) do not count.",
    unit: Unit::Megabytes,
    goals: &[Goal::AtMost(30.0)],
    run: all_roles,
    when_missed: "",
};

const PATIENCE: Duration = Duration::from_secs(120);

/// A stack that runs, in a pid namespace where we may make one.
struct Stack {
    room: tempfile::TempDir,
    child: Child,
}

fn all_roles(context: &Context) -> Result<Measured, String> {
    let baseline = context.peers(&[]);
    let baseline = baseline.iter().map(|who| {
        let binary = context.baseline.clone().unwrap_or_default();
        Contestant::new(who.name(), Standing::Reference("another build of supafly"), move || {
            once(context, &binary)
        })
    });
    let mut with = String::new();
    let ours = || {
        let stack = Stack::start(context, &context.binary)?;
        let (sum, roles) = stack.measure()?;
        with = format!("{}; services: {roles}", stack.shares());
        Ok(sum)
    };
    let (ours, peers) = contest(context, (5, WarmUp::No), ours, baseline.collect())?;
    Ok(Measured { ours, peers, conditions: vec![], notes: vec![with] })
}

fn once(context: &Context, binary: &Path) -> Result<f64, String> {
    Ok(Stack::start(context, binary)?.measure()?.0)
}

impl Stack {
    fn start(context: &Context, binary: &Path) -> Result<Stack, String> {
        let room = context.disk_room();
        let at = |name: &str| room.path().join(name);
        let engine = super::var("SUPAFLY_WALG").map(Into::into);
        let engine = engine.or_else(|| which::which("wal-g").ok()).or_else(|| which::which("walrus").ok());
        let engine = engine.ok_or("no backup engine: run it by `make bench`")?;
        // Users of roles cannot look below a 0700 home.
        copy(binary, &at("supafly"), 0o755)?;
        copy(&engine, &at("engine"), 0o755)?;
        fs::create_dir(at("services")).map_err(|e| e.to_string())?;
        fs::set_permissions(at("services"), Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        for file in fs::read_dir(services).map_err(|e| e.to_string())?.flatten() {
            copy(&file.path(), &at("services").join(file.file_name()), 0o644)?;
        }
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut c = Command::new("unshare");
            c.args(["--pid", "--ipc", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"])
                .arg(at("supafly"));
            c
        } else {
            Command::new(at("supafly"))
        };
        let log = File::create(at("log")).map_err(|e| e.to_string())?;
        command.arg("run").stdin(Stdio::null()).current_dir("/").process_group(0);
        command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log);
        environment(&mut command, room.path());
        if let Some(from) = super::var("SUPAFLY_POSTGREST").filter(|p| Path::new(p).is_file()) {
            copy(Path::new(&from), &at("postgrest"), 0o755)?;
            command.env("SUPAFLY_POSTGREST", at("postgrest"));
        }
        for port in [
            "SUPAFLY_PG_PORT",
            "SUPAFLY_POOLER_PORT",
            "SUPAFLY_POOLER_SESSION_PORT",
            "SUPAFLY_POSTGREST_PORT",
            "SUPAFLY_POSTGREST_ADMIN_PORT",
        ] {
            let free =
                TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
            command.env(port, free.port().to_string());
        }
        let child = command.spawn().map_err(|e| e.to_string())?;
        Ok(Stack { room, child })
    }

    fn ask(&self, arguments: &[&str]) -> Option<serde_json::Value> {
        let mut command = Command::new(self.room.path().join("supafly"));
        environment(&mut command, self.room.path());
        let out = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    /// Nothing starts any more, and the first backup is verified; the services that run.
    fn settled(&self) -> Option<String> {
        let status = self.ask(&["status", "--json"])?;
        let services = status.get("services")?.as_array()?.clone();
        let text = |v: &serde_json::Value, key: &str| {
            v.get(key).and_then(|t| t.as_str()).unwrap_or_default().to_owned()
        };
        let busy =
            |s: &serde_json::Value| matches!(text(s, "state").as_str(), "waiting" | "starting" | "stopping");
        let rows = services
            .iter()
            .flat_map(|s| s.get("rows").and_then(|r| r.as_array()).cloned().unwrap_or_default());
        let saved =
            rows.into_iter().any(|r| text(&r, "name").starts_with("backup") && text(&r, "state") == "ok");
        let up: Vec<String> =
            services.iter().map(|s| format!("{} {}", text(s, "name"), text(s, "state"))).collect();
        (saved && !services.iter().any(busy)).then(|| up.join(", "))
    }

    /// What each of our processes has of it.
    fn shares(&self) -> String {
        let share = |pid: u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let role =
                words.split(|b| *b == 0).skip(1).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
            format!("{} {}", role.trim_end(), Unit::Megabytes.show(processes::pss(pid).unwrap_or(0.0)))
        };
        self.ours().into_iter().map(share).collect::<Vec<_>>().join(", ")
    }

    /// Processes that run our binary.
    fn ours(&self) -> Vec<u32> {
        let binary = self.room.path().join("supafly");
        let mut all = processes::below(self.child.id());
        all.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary));
        all
    }

    fn measure(&self) -> Result<(f64, String), String> {
        let end = Instant::now() + PATIENCE;
        let roles = loop {
            if let Some(roles) = self.settled() {
                break roles;
            }
            if processes::is_zombie(self.child.id()) || Instant::now() > end {
                let log = fs::read_to_string(self.room.path().join("log")).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(3).collect();
                return Err(format!("the stack did not settle; its last lines: {}", last.join(" / ")));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        std::thread::sleep(Duration::from_secs(3));
        let sum = self.ours().into_iter().map(processes::pss).sum::<Result<f64, String>>()?;
        Ok((sum, roles))
    }
}

fn environment(command: &mut Command, room: &Path) {
    command.env_clear();
    command.env("PATH", super::var("PATH").unwrap_or_default());
    command.env("SUPAFLY_SERVICES", room.join("services"));
    command.env("SUPAFLY_DATA", room.join("data"));
    command.env("SUPAFLY_RUN", room.join("run"));
    command.env("SUPAFLY_STORE", format!("file://{}", room.join("store").display()));
    command.env("SUPAFLY_WALG", room.join("engine"));
    command.env("SUPAFLY_PG_LISTEN", "127.0.0.1");
    command.env("SUPAFLY_POOLER_LISTEN", "127.0.0.1");
    // The host's own directory of sockets is nobody's playground.
    command.env("SUPAFLY_PG_SOCKETS", "off");
    command.env("SUPAFLY_WEB_LISTEN", "127.0.0.1:0");
    command.env("SUPAFLY_WEB_PRIVATE", "127.0.0.1:0");
    command.env("SUPAFLY_LOG_FORMAT", "json");
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    fs::copy(from, to).map_err(|e| format!("{}: {e}", from.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode)).map_err(|e| e.to_string())
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        processes::end_all_of(self.room.path());
    }
}
