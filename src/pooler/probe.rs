//! `pooler-ready`: can one get through the pooler, and is it itself alive?
//!
//! Ready is a real `select 1` as the role `pgbouncer`, over TCP: both poolers' own words are not to be trusted (PgBouncer
//! goes on without its port, Supavisor's health says nothing of its tenant, its keys or its listeners). Alive asks
//! nothing of Postgres, so that a pooler is not shot for a database that hangs: PgBouncer answers an SSLRequest,
//! Supavisor a GET on the transaction port, which is the one thing that it does not log.

use super::choice::{self, Kind};
use super::render::Mode;
use super::{bouncer, from_here, secret, secrets};
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `select 1` through it.
    Ready,
    /// Does it answer at all?
    Alive,
}

/// Shorter than what the service files give the command, so that the reason is said.
const LIMIT: Duration = Duration::from_millis(2_500);
/// How soon one that does not listen is asked again.
const AGAIN: Duration = Duration::from_millis(30);
/// The protocol's SSLRequest.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Asks once: exit 0, or 1 with the reason.
///
/// # Errors
/// [`Exit::No`] with the reason.
pub fn run(settings: &Settings, mode: Mode, asked: Asked) -> Result<Exit, Failure> {
    let no = |why: String| Failure::new(Exit::No, why);
    let Some(chosen) = choice::chosen(settings) else {
        return Err(no("no pooler is installed, or SUPAFLY_POOLER is off".to_owned()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| no(format!("cannot start the event loop: {e}")))?;
    let port = bouncer::port(settings, mode);
    let answer = runtime.block_on(async {
        let ask = async {
            match asked {
                Asked::Ready => once_it_listens(settings, chosen.kind, mode).await,
                Asked::Alive => alive(&host(settings, chosen.kind, mode), port, chosen.kind).await,
            }
        };
        tokio::time::timeout(LIMIT, ask)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} ms", LIMIT.as_millis())))
    });
    match answer {
        Ok(()) => Ok(Exit::Clean),
        Err(why) => Err(no(format!("port {port} ({}): {why}", mode.word()))),
    }
}

/// The first question comes before it can listen. Waiting for that here saves the time until the next one.
async fn once_it_listens(settings: &Settings, kind: Kind, mode: Mode) -> Result<(), String> {
    let port = bouncer::port(settings, mode);
    // In time to say that it is refused.
    let end = tokio::time::Instant::now() + LIMIT - 3 * AGAIN;
    loop {
        let Err(why) = select_one(settings, kind, mode).await else { return Ok(()) };
        match TcpStream::connect((host(settings, kind, mode).as_str(), port)).await {
            Err(e)
                if e.kind() == std::io::ErrorKind::ConnectionRefused && tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            Ok(_) | Err(_) => return Err(why),
        }
    }
}

async fn select_one(settings: &Settings, kind: Kind, mode: Mode) -> Result<(), String> {
    let secrets = secrets(settings).map_err(|e| e.to_string())?;
    let password = secret(settings, &secrets, "pgbouncer").map_err(|e| e.to_string())?;
    let user = match kind {
        Kind::PgBouncer => "pgbouncer".to_owned(),
        Kind::Supavisor => format!("pgbouncer.{}", super::supavisor::tenant_id(settings)),
    };
    through(&host(settings, kind, mode), bouncer::port(settings, mode), &user, password).await
}

/// PgBouncer's address is what its launcher settled on.
fn host(settings: &Settings, kind: Kind, mode: Mode) -> String {
    let rendered = match kind {
        Kind::Supavisor => return "127.0.0.1".to_owned(),
        Kind::PgBouncer => std::fs::read_to_string(bouncer::conf(settings, mode)).unwrap_or_default(),
    };
    let listen = rendered.lines().find_map(|l| l.strip_prefix("listen_addr = "));
    from_here(listen.unwrap_or(&settings.pooler_listen)).to_owned()
}

/// Logs in as this user and selects 1.
pub(super) async fn through(host: &str, port: u16, user: &str, password: &str) -> Result<(), String> {
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).user(user).password(password).dbname("postgres");
    let said = |e: tokio_postgres::Error| match e.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source())
            .last()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(said)?;
    let driver = tokio::spawn(connection);
    let rows = client.simple_query("select 1").await.map_err(said)?;
    drop(client);
    // A goodbye that fails takes nothing from the answer.
    let _ = driver.await;
    let one = rows
        .iter()
        .any(|r| matches!(r, tokio_postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some("1")));
    if one { Ok(()) } else { Err("`select 1` gave no row".to_owned()) }
}

async fn alive(host: &str, port: u16, kind: Kind) -> Result<(), String> {
    let said = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect((host, port)).await.map_err(said)?;
    let question: &[u8] = match kind {
        Kind::PgBouncer => &SSL_REQUEST,
        Kind::Supavisor => b"GET / HTTP/1.0\r\n\r\n",
    };
    let fits = |answer: &[u8]| match kind {
        Kind::PgBouncer => matches!(answer, [b'N' | b'S', ..]),
        Kind::Supavisor => answer.starts_with(b"HTTP/1.1 204"),
    };
    stream.write_all(question).await.map_err(said)?;
    let wanted = if kind == Kind::PgBouncer { 1 } else { 12 };
    let mut answer = Vec::with_capacity(64);
    while answer.len() < wanted {
        if stream.read_buf(&mut answer).await.map_err(said)? == 0 {
            return Err("it hung up".to_owned());
        }
    }
    if fits(&answer) { Ok(()) } else { Err("what answers there is not the pooler".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn answering(answer: &'static [u8]) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; 8];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(answer).unwrap();
        });
        port
    }

    #[tokio::test(flavor = "current_thread")]
    async fn alive_is_who_speaks_the_poolers_language() {
        let ask = |answer, kind| async move { alive("127.0.0.1", answering(answer), kind).await };
        assert_eq!(ask(b"N", Kind::PgBouncer).await, Ok(()));
        assert!(ask(b"HTTP/1.1 400 Bad", Kind::PgBouncer).await.is_err());
        assert!(ask(b"", Kind::PgBouncer).await.is_err());
        assert_eq!(ask(b"HTTP/1.1 204 OK\r\n\r\n", Kind::Supavisor).await, Ok(()));
        assert!(ask(b"HTTP/1.1 500 No\r\n\r\n", Kind::Supavisor).await.is_err());
    }
}
