//! Supavisor's HTTP interface on loopback: one request a connection, a whole answer within a deadline, no crate.

use crate::config::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest answer that is read.
const LONGEST: usize = 256 << 10;

/// Who speaks to it.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) port: u16,
    pub(super) secret: Secret,
}

/// Its answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Api {
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> std::io::Result<Answer> {
        let end = Instant::now() + limit;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&to, limit.min(Duration::from_secs(2)))?;
        stream.set_write_timeout(Some(limit))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            token(self.secret.reveal()),
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::Error::new(ErrorKind::TimedOut, "no whole answer in time"));
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => text.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if text.len() > LONGEST {
                return Err(std::io::Error::new(ErrorKind::InvalidData, "its answer has no end"));
            }
        }
        parsed(&text).ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, "what answers is no HTTP"))
    }
}

fn parsed(text: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(text);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    // A body in chunks is one object between two lengths.
    let object = body.find('{').and_then(|from| body.rfind('}').and_then(|to| body.get(from..=to)));
    let body = object.and_then(|o| serde_json::from_str(o).ok()).unwrap_or(Value::Null);
    Some(Answer { status, body })
}

/// A token that is good for a minute. An API that gets one without an end would take it for ever.
fn token(secret: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    signed(secret, &json!({ "role": "supafly", "iat": now, "exp": now + 60 }))
}

fn signed(secret: &str, claims: &Value) -> String {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let text = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims));
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()) else { return text };
    mac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_everybody_else_computes() {
        // `printf … | openssl dgst -sha256 -hmac secret`
        let made = signed("secret", &json!({ "a": 1 }));
        let (text, signature) = made.rsplit_once('.').unwrap();
        assert_eq!(text, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoxfQ");
        assert_eq!(signature, "57TF7smP9XDhIexBqPC-F1toZReYZLWb_YRU5tv0sxM");
        assert_ne!(signed("other", &json!({ "a": 1 })), made);
    }

    #[test]
    fn answers_are_read_whole_or_in_chunks() {
        let answer = parsed(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"data\":{\"a\":1}}").unwrap();
        assert_eq!((answer.status, answer.body.pointer("/data/a")), (200, Some(&json!(1))));
        let answer = parsed(b"HTTP/1.1 200 OK\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n").unwrap();
        assert_eq!(answer.body, json!({ "a": 1 }));
        assert_eq!(parsed(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap().status, 403);
        assert!(parsed(b"nonsense").is_none());
    }
}
