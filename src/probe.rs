//! One look at a service: does it answer? Network probes live here; a probe that is a command is a process like any
//! other and goes through [`crate::os::Processes`], because nobody else may wait.
//!
//! A probe is bounded by its caller's deadline, reads a bounded answer, follows no redirect and believes a status only
//! from a complete first line. There is never more than one of a service in flight: that is the supervisor's care.

use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Why a service is not fit, in words for the status.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProbeError {
    /// Nobody listens, or not yet.
    #[error("no connection to {to}: {why}")]
    Connect {
        /// Port or path.
        to: String,
        /// What the system said.
        why: String,
    },
    /// It broke off in the middle.
    #[error("{to} broke off: {why}")]
    Broke {
        /// Port or path.
        to: String,
        /// What the system said.
        why: String,
    },
    /// It answered, and not well.
    #[error("{to} answered {answer}")]
    Answer {
        /// Address and path.
        to: String,
        /// The status, or the beginning of what is no HTTP.
        answer: String,
    },
    /// The probe's own time is up.
    #[error("no answer within {0}")]
    TimedOut(String),
    /// A probe command ended badly.
    #[error("the probe command {0}")]
    Command(String),
}

/// Somebody accepts on this local port.
///
/// # Errors
/// Nobody does.
pub async fn tcp(port: u16) -> Result<(), ProbeError> {
    connect(port).await.map(drop)
}

/// Somebody accepts on this socket.
///
/// # Errors
/// Nobody does.
pub async fn unix(path: &Path) -> Result<(), ProbeError> {
    let failed =
        |e: std::io::Error| ProbeError::Connect { to: path.display().to_string(), why: e.to_string() };
    UnixStream::connect(path).await.map(drop).map_err(failed)
}

/// `GET path` on this local port answers 2xx.
///
/// # Errors
/// Anything else.
pub async fn http(port: u16, path: &str) -> Result<(), ProbeError> {
    let to = format!("port {port}{path}");
    let broke = |e: std::io::Error| ProbeError::Broke { to: to.clone(), why: e.to_string() };
    let mut stream = connect(port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: supafly-probe\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(&broke)?;
    let mut head = Vec::with_capacity(256);
    while !head.contains(&b'\n') && head.len() < 1_024 {
        let mut chunk = [0_u8; 256];
        match stream.read(&mut chunk).await.map_err(&broke)? {
            0 => break,
            n => head.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    let complete = head.contains(&b'\n');
    let head = String::from_utf8_lossy(&head);
    let first = head.lines().next().unwrap_or_default();
    match status(first).filter(|_| complete) {
        Some(200..=299) => Ok(()),
        Some(code) => Err(ProbeError::Answer { to, answer: code.to_string() }),
        None => {
            let shown: String = first.chars().take(40).collect();
            Err(ProbeError::Answer { to, answer: format!("what is not HTTP: `{}`", shown.escape_debug()) })
        }
    }
}

/// The status code of an HTTP/1 status line. Pure.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?.strip_prefix(['0', '1'])?.strip_prefix(' ')?;
    let code = rest.get(..3).filter(|_| rest.get(3..4).is_none_or(|c| c == " " || c == "\r"))?;
    code.parse().ok().filter(|code| (100..=599).contains(code))
}

async fn connect(port: u16) -> Result<TcpStream, ProbeError> {
    let failed = |e: std::io::Error| ProbeError::Connect { to: format!("port {port}"), why: e.to_string() };
    match TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(v4) => TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).await.map_err(|_| failed(v4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn served(answer: &'static str) -> Result<(), ProbeError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 512];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(http(port, "/ready"), serve).0
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_a_complete_2xx_is_good() {
        assert_eq!(served("HTTP/1.1 200 OK\r\n\r\nbody").await, Ok(()));
        assert_eq!(served("HTTP/1.0 204 \r\n\r\n").await, Ok(()));
        for bad in
            ["HTTP/1.1 302 Found\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n", "HTTP/1.1 200", "SSH-2.0-x\r\n", ""]
        {
            assert!(matches!(served(bad).await, Err(ProbeError::Answer { .. })), "{bad}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_is_there_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(matches!(unix(&path).await, Err(ProbeError::Connect { .. })));
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(unix(&path).await, Ok(()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(tcp(listener.local_addr().unwrap().port()).await, Ok(()));
    }
}
