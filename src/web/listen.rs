//! Sockets and connections. A client that is slow, silent or hostile costs its own connection and nothing else: headers
//! and lives are bounded in time, buffers in size, connections in number; and when there are too many, the one that has
//! been there longest goes, because an honest one is gone in milliseconds.

use crate::exit::Failure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Connections at one time, a listener.
const CLIENTS: usize = 64;
/// How long the headers may take to arrive.
const HEADERS: Duration = Duration::from_secs(5);
/// How long a connection may last, whatever it does.
const LIFE: Duration = Duration::from_secs(15);
/// The longest headers, start line included.
const LONGEST: usize = 8 << 10;
/// How much of a body that nobody wants is read, so that its sender gets to the answer.
const IGNORED: usize = 64 << 10;

/// What hyper sends.
pub(super) type Answer = hyper::Response<Full<Bytes>>;

/// A setting that says where to listen, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    /// In `supafly.toml`.
    pub(super) key: &'static str,
    /// In the environment.
    pub(super) variable: &'static str,
}

/// Listens there; the address is the real one, with its port.
///
/// # Errors
/// 70: whoever has the port may go, so the supervisor tries again.
pub(super) fn bind(setting: Setting, wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |e: Errno| {
        let Setting { key, variable } = setting;
        let mend = if e == Errno::EADDRINUSE {
            "something else listens there: stop it, or choose another port"
        } else if e == Errno::EADDRNOTAVAIL || e == Errno::EAFNOSUPPORT {
            "this machine has no such address: choose one that it has"
        } else if e == Errno::EACCES {
            "this user may not use that port: choose one from 1024 on"
        } else {
            "choose another address"
        };
        Failure::gave_up(format!(
            "web: cannot listen on {wanted}: {e}; {mend} ({key}, {variable}; `off` for none)"
        ))
    };
    let listener = match listen(wanted) {
        Ok(listener) => listener,
        Err(e) => {
            let instead = without_ipv6(wanted, e).ok_or_else(|| failed(e))?;
            tracing::warn!("this host has no IPv6: {instead} instead of {wanted}");
            listen(instead).map_err(failed)?
        }
    };
    let broken = |e: std::io::Error| failed(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    let listener = TcpListener::from_std(listener).map_err(broken)?;
    let address = listener.local_addr().map_err(broken)?;
    Ok((listener, address))
}

/// Where to listen instead when "everywhere" was meant and there is no IPv6.
fn without_ipv6(wanted: SocketAddr, e: Errno) -> Option<SocketAddr> {
    let everywhere = wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (everywhere && matches!(e, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
        .then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port())))
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(family, SockType::Stream, flags, None)?;
    // After a restart of the role, connections of the former one may linger.
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // `[::]` means both families, whatever the host's default says.
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    socket::listen(&fd, Backlog::new(128)?)?;
    Ok(std::net::TcpListener::from(fd))
}

/// Accepts for ever and answers each request by `handler`, which gets everything but the body.
pub(super) async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Parts) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut clients = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            Some(ended) = clients.join_next() => {
                order.retain(|client| !client.is_finished());
                if let Err(e) = ended && e.is_panic() {
                    tracing::error!("a request was answered by a panic; it cost that request only");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if order.len() >= CLIENTS && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    order.push_back(clients.spawn(connection(stream, handler.clone())));
                }
                // Out of descriptors, most likely: whoever has been there longest makes room. No busy loop.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    if let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
}

/// One connection is one request: nobody who idles keeps a place.
async fn connection<H, F>(stream: TcpStream, handler: H)
where
    H: Fn(Parts) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (parts, body) = request.into_parts();
            ignore(body).await;
            Ok::<_, Infallible>(handler(parts).await)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .keep_alive(false)
        .max_header_size(LONGEST)
        .max_buf_size(LONGEST);
    let served = http.serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(LIFE, served).await {
        Ok(Ok(())) => {}
        // A client's own fault or wish; nothing for the log of an operator.
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

async fn ignore(mut body: Incoming) {
    let mut read = 0;
    while !body.is_end_stream() && read < IGNORED {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    const SETTING: Setting = Setting { key: "web_listen", variable: "SUPAFLY_WEB_LISTEN" };

    fn anywhere() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn a_taken_port_names_the_setting_and_what_to_do() {
        let (_listener, address) = bind(SETTING, anywhere()).unwrap();
        let e = bind(SETTING, address).unwrap_err();
        assert_eq!(e.exit, crate::exit::Exit::GaveUp);
        for word in [&address.to_string(), "SUPAFLY_WEB_LISTEN", "web_listen", "another port", "`off`"] {
            assert!(e.to_string().contains(word), "{word}: {e}");
        }
    }

    #[test]
    fn only_everywhere_falls_back_and_only_without_ipv6() {
        let everywhere: SocketAddr = "[::]:8080".parse().unwrap();
        assert_eq!(without_ipv6(everywhere, Errno::EAFNOSUPPORT), Some("0.0.0.0:8080".parse().unwrap()));
        assert!(without_ipv6(everywhere, Errno::EADDRNOTAVAIL).is_some());
        assert_eq!(without_ipv6(everywhere, Errno::EADDRINUSE), None);
        assert_eq!(without_ipv6("[::1]:8080".parse().unwrap(), Errno::EAFNOSUPPORT), None);
        assert_eq!(without_ipv6(anywhere(), Errno::EADDRNOTAVAIL), None);
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_request() {
        let (listener, address) = bind(SETTING, anywhere()).unwrap();
        let server = tokio::spawn(serve(listener, |parts: Parts| async move {
            assert_eq!(parts.uri.path(), "/fine", "as the test wants");
            Answer::new(Full::from("yes"))
        }));
        let ask = move |path: &'static str| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        let answers = tokio::task::spawn_blocking(move || [ask("/broken"), ask("/fine")]).await.unwrap();
        assert_eq!(answers[0], "");
        assert!(answers[1].ends_with("yes"), "{answers:?}");
        server.abort();
    }
}
