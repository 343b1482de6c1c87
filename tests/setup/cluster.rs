//! A real Postgres with our own configuration and our own rules of who may connect, and the real `supafly setup` on it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use supafly::config::Settings;
use supafly::postgres::account::Account;
use supafly::postgres::control::Floors;
use supafly::postgres::{bin, conf, hba};

/// How long anything may take before it counts as hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: Settings,
    pub(crate) bin: PathBuf,
    env: BTreeMap<String, String>,
    child: Child,
}

/// The user that Postgres runs as, when we are root.
fn postgres() -> Option<(u32, u32)> {
    let account = Account::named("postgres").unwrap();
    nix::unistd::Uid::effective().is_root().then(|| (account.uid.as_raw(), account.gid.as_raw()))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = postgres() {
        command.uid(uid).gid(gid);
    }
    command
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn good(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

/// Everything that it said.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn open_directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("supafly-setup-").tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Postgres's programs, as `bin::find` finds them.
pub(crate) fn programs() -> PathBuf {
    let env = supafly::facts::environment();
    bin::find(&Settings::read(None, &env).unwrap()).unwrap().directory
}

/// One initdb for all tests of this process.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = open_directory();
        if let Some((uid, gid)) = postgres() {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let initdb = programs().join("initdb");
        let mut command = as_postgres(&initdb);
        command.args([
            "-U",
            "postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "-A",
            "scram-sha-256",
        ]);
        let password = dir.path().join("password");
        fs::write(&password, "of the superuser").unwrap();
        fs::set_permissions(&password, Permissions::from_mode(0o644)).unwrap();
        good(command.arg("--pwfile").arg(password).arg("-D").arg(dir.path().join("pgdata")));
        dir
    });
    dir.path()
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster::with(&programs(), &[])
    }

    /// With these programs and these further settings of Postgres.
    pub(crate) fn with(bin: &Path, further: &[&str]) -> Cluster {
        let dir = open_directory();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let env: BTreeMap<String, String> = [
            ("SUPAFLY_DATA", at("data")),
            ("SUPAFLY_RUN", at("run")),
            ("SUPAFLY_PG_BIN", bin.display().to_string()),
            ("SUPAFLY_LOG", "info".to_owned()),
            ("SUPAFLY_LOG_FORMAT", "text".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let settings = Settings::read(None, &env).unwrap();
        fs::create_dir_all(settings.own().join("secrets")).unwrap();
        let sockets = settings.pg_socket_dir();
        fs::create_dir_all(&sockets).unwrap();
        if let Some((uid, gid)) = postgres() {
            chown(&sockets, Some(uid), Some(gid)).unwrap();
        }
        let pgdata = settings.pgdata();
        good(Command::new("cp").arg("-a").arg(template().join("pgdata")).arg(&pgdata));
        let facts = conf::Facts {
            memory: 512 << 20,
            processors: 2,
            pgdata: pgdata.clone(),
            sockets: vec![sockets.clone()],
            given: supafly::config::ServerSettings::default(),
            rendered: sockets.clone(),
            listen: String::new(),
            port: settings.pg_port,
            socket_mode: 0o777,
            archive: conf::Archive::Off,
            floors: Floors::default(),
            segment: supafly::postgres::lsn::SegmentSize::DEFAULT,
            volume: 10 << 30,
            preload: supafly::postgres::bin::find(&settings).unwrap().libraries(conf::PRELOAD),
        };
        let account = Account::named("postgres").unwrap();
        let users = hba::Users {
            postgres: account.name.clone(),
            // The tests are keeper's user too.
            keeper: account.name,
            root: nix::unistd::Uid::effective().is_root(),
        };
        let text = conf::render(&facts).replace("\nfsync = on\n", "\nfsync = off\n");
        let further: String = further.iter().map(|line| format!("{line}\n")).collect();
        fs::write(sockets.join("postgresql.conf"), text + &further).unwrap();
        fs::write(sockets.join("pg_hba.conf"), hba::hba()).unwrap();
        fs::write(sockets.join("pg_ident.conf"), hba::ident(&users)).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = as_postgres(&bin.join("postgres"));
        let config = format!("config_file={}", sockets.join("postgresql.conf").display());
        command.arg("-D").arg(&pgdata).args(["-c", &config]).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let cluster = Cluster { dir, settings, bin: bin.to_path_buf(), env, child };
        let begun = Instant::now();
        while !cluster.psql("postgres", "select 1").status.success() {
            assert!(begun.elapsed() < PATIENCE, "Postgres did not start: {}", cluster.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        cluster.sql("create role supafly login");
        cluster
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub(crate) fn command(&self, role: &str) -> Command {
        let mut command = as_postgres(&self.bin.join("psql"));
        let sockets = self.settings.pg_socket_dir().display().to_string();
        let port = self.settings.pg_port.to_string();
        command.args([
            "-X",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            &sockets,
            "-p",
            &port,
            "-U",
            role,
            "-d",
            "postgres",
        ]);
        command
    }

    pub(crate) fn psql(&self, role: &str, sql: &str) -> Output {
        run(self.command(role).args(["-c", sql]))
    }

    /// As superuser; must go well.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let output = self.psql("postgres", sql);
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn setup_command(&self, further: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supafly"));
        command.arg("setup").env_clear().env("PATH", "/usr/bin:/bin").envs(&self.env);
        command.envs(further.iter().copied());
        command
    }

    /// Runs the role: its exit status (none when killed) and everything that it said.
    pub(crate) fn setup_with(&self, further: &[(&str, &str)]) -> (Option<i32>, String) {
        let output = run(&mut self.setup_command(further));
        (output.status.code(), text(&output))
    }

    pub(crate) fn setup(&self) -> String {
        let (code, said) = self.setup_with(&[]);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// Does something that must write nothing.
    pub(crate) fn writes_nothing<T>(&self, act: impl FnOnce() -> T) -> T {
        // What others have not written out yet, set-up would.
        let begun = Instant::now();
        while self.sql("select pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()") == "t" {
            assert!(begun.elapsed() < PATIENCE, "nobody writes out the WAL");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let next = || self.sql("select pg_snapshot_xmax(pg_current_snapshot())").parse::<u64>().unwrap();
        let before = next();
        let done = act();
        // Somebody in the background may have been quick: then one number is taken to write that out, and nothing bears it.
        assert!(next() - before <= 1, "something was written");
        for table in [
            "supafly.ledger",
            "supafly.remembered",
            "pg_authid",
            "pg_auth_members",
            "pg_attribute",
            "pg_class",
            "pg_database",
            "pg_db_role_setting",
            "pg_default_acl",
            "pg_event_trigger",
            "pg_extension",
            "pg_namespace",
            "pg_proc",
            "pg_publication",
        ] {
            let newer = format!("select count(*) from {table} where xmin::text::bigint >= {before}");
            assert_eq!(self.sql(&newer), "0", "{table} was written to");
        }
        done
    }

    pub(crate) fn secrets(&self, json: &str) {
        fs::write(self.settings.own().join("secrets/setup.json"), json).unwrap();
    }

    /// A directory of migrations.
    pub(crate) fn migrations(&self, files: &[(&str, &str)]) -> String {
        let dir = self.dir.path().join("migrations");
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        dir.display().to_string()
    }

    /// The test beside every step, each in a transaction that is rolled back.
    pub(crate) fn tests_beside_the_steps(&self) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/sql");
        let mut tests: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        tests.retain(|path| path.to_string_lossy().ends_with(".test.sql"));
        tests.sort();
        assert!(tests.len() > 5);
        for path in tests {
            let sql = format!("begin;\n{}\nrollback;", fs::read_to_string(&path).unwrap());
            let output = self.psql("postgres", &sql);
            assert!(output.status.success(), "{}: {}", path.display(), text(&output));
        }
    }

    /// Everything that set-up makes, as text.
    pub(crate) fn picture(&self) -> String {
        let program = |name: &str, arguments: &[&str]| {
            let mut command = as_postgres(&self.bin.join(name));
            let port = self.settings.pg_port.to_string();
            command.arg("-h").arg(self.settings.pg_socket_dir()).args(["-p", &port, "-U", "postgres"]);
            String::from_utf8(good(command.args(arguments)).stdout).unwrap()
        };
        let roles = program("pg_dumpall", &["--roles-only", "--no-role-passwords"]);
        let schema = program("pg_dump", &["--schema-only", "postgres"]);
        let ledger =
            self.sql("select kind, name, sha256, finished is not null from supafly.ledger order by 1, 2");
        let all = format!("{roles}{schema}{ledger}");
        all.lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
        }
        let _ = self.child.wait();
    }
}
