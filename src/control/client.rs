//! What a role holds of PID 1: it reports facts, notifies readiness, and asks for the status.
//!
//! Everything here is synchronous with short deadlines, because a role must never hang on its supervisor, and
//! everything is a plain error when there is no supervisor (a role started by hand, a test): the caller decides
//! whether that matters. PID 1 finds out by itself which service is speaking (peer credentials and descent), so
//! nothing here names one.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Version of the control protocol. `status` and `stop` of version 1 keep working in every later release.
pub const VERSION: u32 = 1;

/// How long a request may take altogether before the caller goes on without an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer longer than this is not one of ours.
const LONGEST_ANSWER: u64 = 16 << 20;

pub use crate::status::Row;

/// Whether the whole is fit to serve, as far as the reporting service can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Fit to serve.
    pub ok: bool,
    /// Why not; or what was seen.
    pub reason: String,
}

/// Facts that a role reports of its own service. Each report replaces the one before it as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rows of their own in the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// A health fact; whoever has `reports_health` is ready only while this is young and good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The service says that those who named it in `fence_by` must be fenced, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<String>,
    /// Free values for `status --json` and metrics; never secrets.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub values: serde_json::Map<String, Value>,
}

/// Why a request has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there: no supervisor runs with this run directory.
    #[error("no supervisor answers at {}: is `supafly run` running with this run directory?", .0.display())]
    Absent(PathBuf),
    /// It did not work out: refused permission, timed out, broke off.
    #[error("cannot {verb} at {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The supervisor answered, and the answer is no.
    #[error("rejected: {0}")]
    Rejected(String),
}

/// Sends facts of the calling service to PID 1.
///
/// # Errors
/// [`ClientError::Absent`] when there is no supervisor; [`ClientError::Rejected`] when we are not one of its services.
pub fn report(run: &Path, report: &Report) -> Result<(), ClientError> {
    let body = serde_json::to_value(report).unwrap_or(Value::Null);
    request(run, "report", &[("report", body)]).map(drop)
}

/// One request and its answer: `{"v":1,"verb":…, …arguments}`. The answer is the whole object.
///
/// # Errors
/// No supervisor, no answer in time, or an answer that says no.
pub fn request(run: &Path, verb: &str, arguments: &[(&str, Value)]) -> Result<Value, ClientError> {
    request_within(run, verb, arguments, PATIENCE)
}

/// The same for requests that are answered when they have come true.
///
/// # Errors
/// As [`request`].
pub fn request_within(
    run: &Path,
    verb: &str,
    arguments: &[(&str, Value)],
    patience: Duration,
) -> Result<Value, ClientError> {
    let path = run.join("control.sock");
    let stream = send(&path, verb, arguments, patience)?;
    first_answer(&path, &mut BufReader::new(stream.take(LONGEST_ANSWER)))
}

/// Asks for lines: the number of the newest one, and a reader of one object a line that waits as long as it takes.
///
/// # Errors
/// As [`request`].
pub fn lines(run: &Path, arguments: &[(&str, Value)]) -> Result<(u64, impl BufRead + use<>), ClientError> {
    let path = run.join("control.sock");
    let stream = send(&path, "logs", arguments, PATIENCE)?;
    let patient = stream.try_clone().and_then(|s| s.set_read_timeout(None).map(|()| s));
    let mut reader = BufReader::new(stream);
    let answer = first_answer(&path, &mut reader)?;
    patient.map_err(|source| ClientError::Io { verb: "wait for lines", path, source })?;
    Ok((answer.get("newest").and_then(Value::as_u64).unwrap_or(0), reader))
}

fn send(
    path: &Path,
    verb: &str,
    arguments: &[(&str, Value)],
    patience: Duration,
) -> Result<UnixStream, ClientError> {
    let mut stream = dial(path, patience)?;
    let mut object = serde_json::Map::new();
    object.insert("v".to_owned(), VERSION.into());
    object.insert("verb".to_owned(), verb.into());
    object.extend(arguments.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(|source| ClientError::Io {
        verb: "write the request",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(stream)
}

fn first_answer(path: &Path, reader: &mut impl BufRead) -> Result<Value, ClientError> {
    let failed = |verb| move |source| ClientError::Io { verb, path: path.to_path_buf(), source };
    let mut answer = String::new();
    reader.read_line(&mut answer).map_err(in_words).map_err(failed("read the answer"))?;
    if answer.is_empty() {
        let end = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it hung up without an answer");
        return Err(failed("read the answer")(end));
    }
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|e| failed("understand the answer")(std::io::Error::other(e)))?;
    match answer.get("answer").and_then(Value::as_str) {
        Some("rejected") => {
            let because = answer.get("because").and_then(Value::as_str).unwrap_or("no reason given");
            Err(ClientError::Rejected(because.to_owned()))
        }
        Some(_) | None => Ok(answer),
    }
}

/// Where what the system says would help nobody.
fn in_words(e: std::io::Error) -> std::io::Error {
    use std::io::ErrorKind::{PermissionDenied, TimedOut};
    if e.kind() == std::io::ErrorKind::WouldBlock {
        let why = "the supervisor does not answer in time: it hangs, is stopped, or gets no processor";
        std::io::Error::new(TimedOut, why)
    } else if e.kind() == PermissionDenied {
        std::io::Error::new(PermissionDenied, format!("{e}; ask as root"))
    } else {
        e
    }
}

/// Tells PID 1 (or systemd) over `$NOTIFY_SOCKET`: `READY=1`, `STATUS=…`, `WATCHDOG=1`. `Ok(false)` when nobody asked
/// to be told. Never blocks: a full socket is an error, and the next notification comes anyway.
///
/// # Errors
/// The socket is there and does not take it.
pub fn notify(state: &str) -> std::io::Result<bool> {
    static SOCKET: OnceLock<Option<String>> = OnceLock::new();
    let name =
        SOCKET.get_or_init(|| crate::facts::environment().remove("NOTIFY_SOCKET").filter(|s| !s.is_empty()));
    let Some(name) = name else { return Ok(false) };
    let address = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(true)
}

/// Connects with the deadline already set: a supervisor with a full backlog must not hang us.
fn dial(path: &Path, patience: Duration) -> Result<UnixStream, ClientError> {
    let failed = |e: nix::Error| {
        if matches!(e, nix::Error::ENOENT | nix::Error::ECONNREFUSED) {
            ClientError::Absent(path.to_path_buf())
        } else {
            ClientError::Io { verb: "connect", path: path.to_path_buf(), source: in_words(e.into()) }
        }
    };
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &patience).map_err(failed)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience).map_err(failed)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path).map_err(failed)?).map_err(failed)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn without_a_supervisor_a_report_is_a_plain_error_that_names_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let error = report(dir.path(), &Report::default()).unwrap_err();
        assert!(matches!(error, ClientError::Absent(_)), "{error:?}");
        assert!(error.to_string().contains("control.sock"), "{error}");
    }

    #[test]
    fn a_rejection_carries_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(b"{\"v\":1,\"answer\":\"rejected\",\"because\":\"not yours\"}\n").unwrap();
            line
        });
        let error = request(dir.path(), "stop", &[]).unwrap_err();
        assert_eq!(error.to_string(), "rejected: not yours");
        assert_eq!(server.join().unwrap(), "{\"v\":1,\"verb\":\"stop\"}\n");
    }

    #[test]
    fn a_supervisor_that_does_not_answer_in_time_is_told_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let error = request_within(dir.path(), "status", &[], Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("does not answer in time"), "{error}");
    }

    #[test]
    fn a_report_leaves_out_what_it_does_not_say() {
        assert_eq!(serde_json::to_string(&Report::default()).unwrap(), "{}");
        let full = r#"{"rows":[{"name":"archive","state":"ok","detail":""}],"health":{"ok":true,"reason":"select 1"}}"#;
        let report: Report = serde_json::from_str(full).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), full);
    }
}
