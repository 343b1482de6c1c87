//! A small HTTP/1.1 proxy between a client and an S3 server that breaks single requests, chosen by method, key and
//! number: what a load balancer, a line or an old server does to one request while all others go well.
//!
//! One request a connection, everything buffered: objects of tests are small. It cannot remove `If-None-Match` (the
//! header is signed); a server that ignores it is played by answering 200 where the real one said 412.

use super::ports::free_port;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset; the server sees nothing.
    Reset,
    /// 403 AccessDenied.
    Forbidden,
    /// 404 NoSuchBucket.
    NoSuchBucket,
    /// 404 without an error document, as from something that is no S3 server.
    BareNotFound,
    /// 503 SlowDown.
    SlowDown,
    /// 500 InternalError.
    InternalError,
    /// 409 ConditionalRequestConflict.
    ConditionalConflict,
    /// Forwarded after a while.
    Slow(Duration),
    /// Never answered, until the proxy is dropped.
    BlackHole,
    /// Carried out, but the connection is cut before the answer.
    LostReply,
    /// As a server that ignores `If-None-Match`: success where it said 412.
    IgnoredCondition,
    /// Half of the answer's body comes, then the connection is cut.
    Truncated,
    /// The object is half as long, and the answer is whole.
    Shortened,
    /// One bit of the answer's body is another.
    Flipped,
    /// 200 with a page of HTML, as from a captive portal.
    Portal,
}

/// Which requests a fault is for.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    method: Option<&'static str>,
    key: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// For every request.
    pub(crate) fn new(fault: Fault) -> Rule {
        Rule { method: None, key: String::new(), skip: 0, times: usize::MAX, fault }
    }
    /// Only of this method.
    pub(crate) fn method(self, method: &'static str) -> Rule {
        Rule { method: Some(method), ..self }
    }
    /// Only when the target (path and query, decoded) has this in it.
    pub(crate) fn key(self, key: &str) -> Rule {
        Rule { key: key.to_owned(), ..self }
    }
    /// Not for the first `n` of them.
    pub(crate) fn skip(self, n: usize) -> Rule {
        Rule { skip: n, ..self }
    }
    /// For at most `n` of them.
    pub(crate) fn times(self, n: usize) -> Rule {
        Rule { times: n, ..self }
    }
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<(String, String)>,
    injected: Vec<Fault>,
    closed: bool,
}

struct Shared {
    upstream: String,
    state: Mutex<State>,
    closing: Condvar,
}

/// A running proxy; ends on drop.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// In front of `upstream` (`host:port`), without faults.
    pub(crate) fn start(upstream: &str) -> Proxy {
        // Not of those that clients get: nobody may have it by the time it listens again.
        let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
            closing: Condvar::new(),
        });
        let accepting = Mutex::new(Some(accept(listener, &shared)));
        Proxy { address, shared, accepting }
    }

    /// From now on connections are refused: nobody listens. What hangs is let go.
    pub(crate) fn refuse(&self) {
        self.shared.state.lock().unwrap().closed = true;
        self.shared.closing.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            let _ = accepting.join();
        }
    }

    /// The end of [`Proxy::refuse`].
    pub(crate) fn listen_again(&self) {
        self.shared.state.lock().unwrap().closed = false;
        let listener = TcpListener::bind(self.address).unwrap();
        *self.accepting.lock().unwrap() = Some(accept(listener, &self.shared));
    }

    /// `http://host:port`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on these rules hold, and no others.
    pub(crate) fn rules(&self, rules: impl IntoIterator<Item = Rule>) {
        let mut state = self.shared.state.lock().unwrap();
        state.rules = rules.into_iter().collect();
        state.seen.clear();
        state.injected.clear();
    }

    /// Method and target of each request since the rules were set.
    pub(crate) fn seen(&self) -> Vec<(String, String)> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// The faults that were done since the rules were set.
    pub(crate) fn injected(&self) -> Vec<Fault> {
        self.shared.state.lock().unwrap().injected.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let shared = Arc::clone(&shared);
            if shared.state.lock().unwrap().closed {
                break;
            }
            let Ok(client) = client else { continue };
            std::thread::spawn(move || {
                // A client that goes away is its own affair.
                let _ = shared.serve(client);
            });
        }
    })
}

impl Shared {
    fn fault(&self, method: &str, target: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.seen.push((method.to_owned(), target.to_owned()));
        let State { rules, injected, .. } = &mut *state;
        for rule in rules {
            if rule.method.is_some_and(|m| m != method) || !target.contains(&rule.key) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                injected.push(rule.fault);
                return Some(rule.fault);
            }
        }
        None
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (head, body) = read_request(&mut client)?;
        let mut words = head.split_ascii_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().replace("%2F", "/");
        let fault = self.fault(&method, &target);
        match fault {
            None => reply(client, &self.forward(&head, &body)?),
            Some(Fault::Reset) => reset(client),
            Some(Fault::Forbidden) => reply(client, &refusal(403, "AccessDenied")),
            Some(Fault::NoSuchBucket) => reply(client, &refusal(404, "NoSuchBucket")),
            Some(Fault::SlowDown) => reply(client, &refusal(503, "SlowDown")),
            Some(Fault::InternalError) => reply(client, &refusal(500, "InternalError")),
            Some(Fault::ConditionalConflict) => reply(client, &refusal(409, "ConditionalRequestConflict")),
            Some(Fault::BareNotFound) => reply(client, &answer("404 Not Found", "404 page not found\n")),
            Some(Fault::Portal) => {
                reply(client, &answer("200 OK", "<html><body>Please sign in</body></html>"))
            }
            Some(Fault::Slow(delay)) => {
                self.wait(Some(delay));
                reply(client, &self.forward(&head, &body)?)
            }
            Some(Fault::BlackHole) => {
                self.wait(None);
                Ok(())
            }
            Some(Fault::LostReply) => {
                self.forward(&head, &body)?;
                reset(client)
            }
            Some(Fault::IgnoredCondition) => {
                let got = self.forward(&head, &body)?;
                let swallowed = got.starts_with(b"HTTP/1.1 412");
                reply(client, if swallowed { OVERWRITTEN } else { &got })
            }
            Some(Fault::Truncated) => {
                let got = self.forward(&head, &body)?;
                let start = body_start(&got);
                reply(client, &got[..start + (got.len() - start) / 2])
            }
            Some(Fault::Shortened) => {
                let got = self.forward(&head, &body)?;
                let start = body_start(&got);
                let half = &got[start..start + (got.len() - start) / 2];
                let head = format!(
                    "HTTP/1.1 200 OK\r\nETag: \"0\"\r\nLast-Modified: Wed, 25 Nov 2026 08:00:00 GMT\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n",
                    half.len()
                );
                reply(client, &[head.as_bytes(), half].concat())
            }
            Some(Fault::Flipped) => {
                let mut got = self.forward(&head, &body)?;
                let middle = (body_start(&got) + got.len()) / 2;
                if let Some(byte) = got.get_mut(middle) {
                    *byte ^= 1;
                }
                reply(client, &got)
            }
        }
    }

    /// Until the proxy is dropped, or the time is over.
    fn wait(&self, limit: Option<Duration>) {
        let state = self.state.lock().unwrap();
        match limit {
            Some(limit) => drop(self.closing.wait_timeout_while(state, limit, |s| !s.closed).unwrap()),
            None => drop(self.closing.wait_while(state, |s| !s.closed).unwrap()),
        }
    }

    fn forward(&self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.upstream)?;
        server.set_read_timeout(Some(Duration::from_secs(60)))?;
        for line in head.lines() {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            if !["connection", "expect"].contains(&name.as_str()) {
                write!(server, "{line}\r\n")?;
            }
        }
        server.write_all(b"Connection: close\r\n\r\n")?;
        server.write_all(body)?;
        let mut got = Vec::new();
        server.read_to_end(&mut got)?;
        Ok(got)
    }
}

const OVERWRITTEN: &[u8] =
    b"HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nx-amz-request-id: PROXY1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn refusal(status: u16, code: &str) -> Vec<u8> {
    answer(
        &format!("{status} {code}"),
        &format!("<Error><Code>{code}</Code><Message>injected</Message></Error>"),
    )
}

fn reply(mut client: TcpStream, bytes: &[u8]) -> io::Result<()> {
    client.write_all(bytes)?;
    client.shutdown(Shutdown::Write)
}

fn reset(client: TcpStream) -> io::Result<()> {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &linger)?;
    drop(client);
    Ok(())
}

fn body_start(message: &[u8]) -> usize {
    message.windows(4).position(|w| w == b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}

/// The head without its empty line, and the body as it came (chunks and all).
fn read_request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len() - 4]).into_owned();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    if field("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    if field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        while !body.ends_with(b"\r\n0\r\n\r\n") && body != b"0\r\n\r\n" {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            body.push(byte[0]);
        }
    } else if let Some(length) = field("content-length").and_then(|v| v.parse().ok()) {
        body.resize(length, 0);
        client.read_exact(&mut body)?;
    }
    Ok((head, body))
}
