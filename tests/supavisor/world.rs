//! A machine with Supavisor as its pooler, and clients of it.

use crate::support::machine::{Machine, open_directory, root, until};
use crate::support::programs::var;
use std::fs::{self, Permissions};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

pub(crate) const PASSWORD: &str = "of the superuser";
/// How long anything may take that is no start of a machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// `bin/supavisor` of the stand-in, laid out as a release.
pub(crate) fn stand_in() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let bin = crate::support::programs::programs().join("standin/bin");
        fs::create_dir_all(&bin).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_supafly")).with_file_name("examples").join("fakesupavisor");
        for name in ["supavisor", "migrate", "server"] {
            fs::copy(&built, bin.join(name)).unwrap_or_else(|e| {
                panic!(
                    "{}: {e}: the stand-in is an example: `cargo build --examples`, or `make test`",
                    built.display()
                )
            });
            fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        bin.join("supavisor")
    })
}

/// The real one where it is named, else the stand-in; says which.
fn program() -> PathBuf {
    match var("SUPAFLY_SUPAVISOR") {
        Some(named) => {
            eprintln!("Supavisor under test: {}", named.display());
            named.into()
        }
        None => {
            eprintln!("Supavisor under test: a stand-in (SUPAFLY_SUPAVISOR names a real one)");
            stand_in().to_path_buf()
        }
    }
}

/// So many ports that nobody has, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| crate::support::ports::free_port()).collect()
}

/// A machine; its rule in the packet filter goes with it.
pub(crate) struct Pooled {
    machine: Machine,
    pub(crate) transaction: u16,
    pub(crate) session: u16,
    pub(crate) api: u16,
}

impl Deref for Pooled {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if root() {
            let _ = Command::new("nft")
                .args(["delete", "table", "inet", &format!("supafly_{}", self.transaction)])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Pooled {
    /// With the Supavisor under test.
    pub(crate) fn new() -> Pooled {
        Pooled::with(&program())
    }

    /// With the stand-in, because the test misbehaves on purpose.
    pub(crate) fn with_stand_in() -> Pooled {
        eprintln!("Supavisor under test: a stand-in, always, because it must misbehave");
        Pooled::with(stand_in())
    }

    pub(crate) fn with(program: &Path) -> Pooled {
        let ports = free_ports(12);
        let own: Vec<String> = ports[2..].iter().map(u16::to_string).collect();
        let machine = Machine::new(&[
            ("SUPAFLY_POOLER", "supavisor".to_owned()),
            ("SUPAFLY_SUPAVISOR", program.display().to_string()),
            ("SUPAFLY_POOLER_PORT", ports[0].to_string()),
            ("SUPAFLY_POOLER_SESSION_PORT", ports[1].to_string()),
            ("SUPAFLY_SUPAVISOR_PORTS", own.join(", ")),
            ("SUPAFLY_STOP_BUDGET", "60s".to_owned()),
            ("POSTGRES_PASSWORD", PASSWORD.to_owned()),
        ]);
        Pooled { machine, transaction: ports[0], session: ports[1], api: ports[2] }
    }

    /// Switches it on as an ordinary child, so that its pids are ours, and waits until one gets through.
    pub(crate) fn up(&mut self) {
        self.boot_as_child();
        self.wait_ready();
        self.wait_pooler("ready");
    }

    pub(crate) fn wait_pooler(&mut self, state: &str) {
        let what = format!("the pooler to be {state}");
        self.machine.wait(&what, |m| (field(m, "pooler", "state")? == state).then_some(()));
    }

    /// The resident before Supavisor.
    pub(crate) fn resident(&self) -> Option<u32> {
        let status = self.status()?;
        let service = service(&status, "pooler")?;
        service.get("pid")?.as_u64()?.try_into().ok()
    }

    /// Supavisor itself: the resident's one child.
    pub(crate) fn supavisor(&self) -> Option<u32> {
        let children = crate::support::machine::children(self.resident()?);
        children
            .into_iter()
            .find(|pid| command_line(*pid).contains("server") || command_line(*pid).contains("beam"))
    }

    /// How often a tenant was put since the machine exists.
    pub(crate) fn puts(&self) -> usize {
        self.log().matches("PUT /api/tenants/").count()
    }

    /// A connection through it.
    pub(crate) fn client(&self, port: u16, user: &str, password: &str) -> Result<Session, String> {
        Session::open("127.0.0.1", port, user, password)
    }

    /// As the superuser, in transaction mode; waits for the first that gets in.
    pub(crate) fn enter(&self) -> Session {
        until("a client to get in", SOON, || self.client(self.transaction, "postgres.local", PASSWORD).ok())
    }

    /// psql as the superuser over the socket, with these arguments.
    pub(crate) fn psql(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new(crate::support::programs::pg_bin().join("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]).args(arguments);
        command.env("PGHOST", self.run_dir().join("postgres")).env("PGPORT", self.port.to_string());
        command.stdin(Stdio::null()).status().unwrap().success()
    }

    /// To another port, while it is off.
    pub(crate) fn move_postgres(&mut self) {
        self.machine.port = free_ports(1)[0];
        let port = self.machine.port.to_string();
        self.machine.env.insert("SUPAFLY_PG_PORT".into(), port);
    }

    /// One of the secrets.
    pub(crate) fn secret(&self, name: &str) -> String {
        let text = fs::read_to_string(self.data().join("supafly/secrets/pooler.json")).unwrap();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        all[name].as_str().unwrap_or_else(|| panic!("no secret {name}")).to_owned()
    }
}

fn service<'a>(status: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    status.get("services")?.as_array()?.iter().find(|s| s["name"] == name)
}

/// A text of a service's status.
pub(crate) fn field(machine: &Machine, name: &str, field: &str) -> Option<String> {
    let status = machine.status()?;
    Some(service(&status, name)?.get(field)?.as_str()?.to_owned())
}

pub(crate) fn command_line(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

/// Whether a process lives; one that nobody has reaped yet does not.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Everybody whose command line or file is of this directory.
pub(crate) fn processes_of(dir: &Path) -> Vec<(u32, String)> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let of = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(dir)) && lives(*pid)
    };
    pids.filter(of).map(|pid| (pid, command_line(pid))).collect()
}

pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// A connection with a runtime of its own.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// How long one who comes in may take.
const LOGIN: Duration = Duration::from_secs(30);
/// How long one statement may take.
const STATEMENT: Duration = Duration::from_secs(30);

impl Session {
    pub(crate) fn open(host: &str, port: u16, user: &str, password: &str) -> Result<Session, String> {
        Session::open_within(LOGIN, host, port, user, password)
    }

    /// The same for who is expected to hang.
    pub(crate) fn open_within(
        patience: Duration,
        host: &str,
        port: u16,
        user: &str,
        password: &str,
    ) -> Result<Session, String> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).user(user).password(password).dbname("postgres");
        let client = runtime.block_on(async {
            let connecting = tokio::time::timeout(patience, config.connect(NoTls));
            let (client, connection) =
                connecting.await.map_err(|_| "it hangs".to_owned())?.map_err(|e| said(&e))?;
            tokio::spawn(connection);
            Ok::<_, String>(client)
        })?;
        Ok(Session { runtime, client })
    }

    /// The first value of the first row; the error with its code.
    pub(crate) fn ask(&self, sql: &str) -> Result<String, String> {
        use tokio_postgres::SimpleQueryMessage::Row;
        let rows = self.runtime.block_on(async {
            let answer = tokio::time::timeout(STATEMENT, self.client.simple_query(sql)).await;
            answer.map_err(|_| "it hangs".to_owned())?.map_err(|e| said(&e))
        })?;
        let value = rows.iter().find_map(|r| match r {
            Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    }
}

fn said(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": "),
    }
}

/// A directory for a test's own files.
pub(crate) fn scratch() -> tempfile::TempDir {
    open_directory()
}
