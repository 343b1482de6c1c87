//! A real S3 server for one test: versitygw on a free port, with credentials and a directory of its own; or, when
//! `SUPAFLY_TEST_S3` names an endpoint, that one (with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
//! `SUPAFLY_TEST_BUCKET`), under a prefix of its own.

use super::ports::free_port;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; stopped and removed on drop.
#[derive(Debug)]
pub(crate) struct S3 {
    endpoint: String,
    bucket: String,
    prefix: String,
    access: String,
    secret: String,
    region: &'static str,
    own: Option<(Child, tempfile::TempDir)>,
}

impl S3 {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> S3 {
        S3::start_in("us-east-1")
    }

    /// The same in a region of that name, when it is ours.
    pub(crate) fn start_in(region: &'static str) -> S3 {
        let env = supafly::facts::environment();
        let given = |name: &str| env.get(name).filter(|v| !v.is_empty()).cloned();
        let prefix = format!("t-{}", uuid::Uuid::new_v4());
        if let Some(endpoint) = given("SUPAFLY_TEST_S3") {
            let need = |name: &str| {
                given(name).unwrap_or_else(|| panic!("SUPAFLY_TEST_S3 is set, but {name} is not"))
            };
            return S3 {
                endpoint,
                bucket: given("SUPAFLY_TEST_BUCKET").unwrap_or_else(|| "supafly-test".to_owned()),
                prefix,
                access: need("AWS_ACCESS_KEY_ID"),
                secret: need("AWS_SECRET_ACCESS_KEY"),
                region,
                own: None,
            };
        }
        let program = program(given("SUPAFLY_VERSITYGW"));
        // Between finding a free port and binding it, another test may take it.
        for _ in 0..5 {
            if let Some(server) = S3::try_start(&program, &prefix, region) {
                return server;
            }
        }
        panic!("{} did not start five times", program.display());
    }

    fn try_start(program: &Path, prefix: &str, region: &'static str) -> Option<S3> {
        let dir = tempfile::tempdir().unwrap();
        let bucket = "supafly-test".to_owned();
        std::fs::create_dir(dir.path().join(&bucket)).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let access = format!("test{}", uuid::Uuid::new_v4().simple());
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let child = Command::new(program)
            .args(["--quiet", "--region", region, "--port", &address, "--health", "/healthz", "posix"])
            .arg(dir.path())
            .env_clear()
            .env("ROOT_ACCESS_KEY", &access)
            .env("ROOT_SECRET_KEY", &secret)
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let endpoint = format!("http://{address}");
        let own = Some((child, dir));
        let mut server = S3 { endpoint, bucket, prefix: prefix.to_owned(), access, secret, region, own };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !healthy(&address) {
            let ended = server.own.as_mut().is_none_or(|(child, _)| child.try_wait().unwrap().is_some());
            if ended || Instant::now() > deadline {
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Some(server)
    }

    /// `host:port`, for a proxy in front of it.
    pub(crate) fn address(&self) -> &str {
        self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_, rest)| rest)
    }

    /// `http://host:port`
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bucket, which exists.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// A prefix that only this test uses.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `SUPAFLY_STORE` for it.
    pub(crate) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    /// The server's directory of objects, when it is ours: for tests that damage them.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|(_, dir)| dir.path().join(&self.bucket))
    }

    /// The variables with which a program reaches it, through `endpoint` (its own, or a proxy's).
    pub(crate) fn environment(&self, endpoint: &str) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", self.access.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.as_str()),
            ("AWS_REGION", self.region),
            ("AWS_ENDPOINT_URL_S3", endpoint),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl S3 {
    /// Ends the server; connections are refused from now on.
    pub(crate) fn kill(&self) {
        let (child, _) = self.own.as_ref().expect("only a server of our own can be killed");
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.own {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `SUPAFLY_VERSITYGW`, else where `scripts/parts/versitygw.sh` puts it, else from `PATH`.
fn program(given: Option<String>) -> PathBuf {
    let env = supafly::facts::environment();
    let of = |name: &str, below: &str| Some(Path::new(env.get(name)?).join(below));
    let cache = of("SUPAFLY_CACHE", "")
        .or_else(|| of("XDG_CACHE_HOME", "supafly"))
        .or_else(|| of("HOME", ".cache/supafly"));
    let cached = cache.map(|dir| dir.join("bin/versitygw")).filter(|program| program.exists());
    given.map(PathBuf::from).or(cached).or_else(|| which::which("versitygw").ok()).expect(
        "no S3 server to test against: run scripts/parts/versitygw.sh, or set SUPAFLY_VERSITYGW to the program or \
         SUPAFLY_TEST_S3 to a running endpoint",
    )
}

fn healthy(address: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
