//! Its ports for clients: a connection to the real Postgres for each, under the role before the dot.

use super::World;
use super::household::say;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How long an open transaction may go on in a drain.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Until then.
    Drain(Instant),
    Cut,
}

/// Everybody who is connected, and what is to become of them.
pub(super) struct Clients {
    order: watch::Sender<Order>,
    there: AtomicUsize,
    /// Where the last of them was led to.
    postgres: std::sync::Mutex<Option<(String, u16)>>,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            order: watch::Sender::new(Order::Serve),
            there: AtomicUsize::new(0),
            postgres: std::sync::Mutex::default(),
        }
    }
}

impl Clients {
    /// All at once, without a word.
    pub(super) fn cut(&self) {
        self.order.send_replace(Order::Cut);
    }

    /// Idle ones at once, running queries when they are done, open transactions after five seconds.
    pub(super) async fn drain(&self) {
        let end = Instant::now() + DRAIN;
        self.order.send_replace(Order::Drain(end));
        while self.there.load(Ordering::SeqCst) > 0 && Instant::now() < end + Duration::from_millis(50) {
            sleep(Duration::from_millis(10)).await;
        }
        self.order.send_if_modified(|order| {
            let drained = matches!(order, Order::Drain(_));
            if drained {
                *order = Order::Serve;
            }
            drained
        });
    }
}

pub(super) async fn serve(listener: TcpListener, world: Arc<World>, cuts: bool) {
    let mut order = world.clients.order.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = order.wait_for(|o| *o == Order::Cut) => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        if !cuts {
            let world = world.clone();
            tokio::spawn(async move {
                let mut order = world.clients.order.subscribe();
                tokio::select! {
                    () = client(stream, &world) => {}
                    _ = order.wait_for(|o| *o == Order::Cut) => {}
                }
            });
        }
    }
}

struct Count<'a>(&'a AtomicUsize);

impl<'a> Count<'a> {
    fn up(count: &'a AtomicUsize) -> Count<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Count(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An ErrorResponse as it writes them: no `V`, an order of its own.
fn error(code: &str, text: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{code}\0M{text}\0\0");
    let mut out = vec![b'E'];
    out.extend(u32::try_from(fields.len() + 4).unwrap_or(0).to_be_bytes());
    out.extend(fields.as_bytes());
    out
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

async fn client(mut stream: TcpStream, world: &World) {
    let _ = stream.set_nodelay(true);
    let mut first = vec![0; 16 << 10];
    let first = loop {
        // One read: whoever sends its first message in two has lost.
        let Ok(n) = stream.read(&mut first).await else { return };
        let seen = first.get(..n).unwrap_or_default();
        match number(seen, 4) {
            _ if n == 0 => return say("warning", "ClientHandler: socket closed before anything came"),
            _ if seen.starts_with(b"GET ") => {
                let _ = stream.write_all(b"HTTP/1.1 204 OK\r\nx-app-version: 2.9.10\r\n\r\n").await;
                return;
            }
            Some(80_877_103) => {
                say("warning", "ClientHandler: Client is trying to connect with SSL");
                if stream.write_all(b"N").await.is_err() {
                    return;
                }
            }
            _ => break seen.to_vec(),
        }
    };
    say("info", "ClientHandler: Client connection started");
    let whole = number(&first, 0).is_some_and(|l| usize::try_from(l).ok() == Some(first.len()));
    match (number(&first, 4), whole) {
        (Some(196_608), true) => {}
        (Some(80_877_102), true) => return cancel(&first, world).await,
        _ => {
            let _ = stream.write_all(&error("08P01", "(ESTARTUPMESSAGE) invalid startup message")).await;
            return;
        }
    }
    if matches!(*world.clients.order.borrow(), Order::Drain(_)) {
        let _ =
            stream.write_all(&error("57P01", "terminating connection due to administrator command")).await;
        return;
    }
    match upstream(&first, world).await {
        Ok(server) => relay(stream, server, world).await,
        Err(Refused::Said(said)) => drop(stream.write_all(&said).await),
        Err(Refused::Cut) => {}
        Err(Refused::Hang) => std::future::pending().await,
    }
}

enum Refused {
    Said(Vec<u8>),
    /// Without a word.
    Cut,
    /// For ever.
    Hang,
}

/// Name and value of what a startup message says.
fn parameters(message: &[u8]) -> Vec<(String, String)> {
    let body = message.get(8..).unwrap_or_default();
    let mut words = body.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    let mut all = Vec::new();
    while let (Some(name), Some(value)) = (words.next().filter(|n| !n.is_empty()), words.next()) {
        all.push((name, value));
    }
    all
}

async fn upstream(first: &[u8], world: &World) -> Result<TcpStream, Refused> {
    let parameters = parameters(first);
    let of = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let user = of("user").unwrap_or_default();
    let by_option = of("options").and_then(|o| o.split_once("reference=")).map(|(_, id)| id.trim());
    let (role, id) = match (by_option, user.rsplit_once('.')) {
        (Some(id), _) => (user, id),
        (None, Some((role, id))) => (role, id),
        (None, None) => {
            return Err(Refused::Said(error("XX000", "(ENOIDENTIFIER) no tenant identifier provided")));
        }
    };
    if !world.store.key_fits() {
        return Err(Refused::Cut);
    }
    let Ok(tenant) = world.store.tenant(id).await else { return Err(Refused::Cut) };
    let Some(tenant) = tenant else {
        sleep(Duration::from_millis(500)).await;
        return Err(Refused::Said(error("XX000", "(ENOTFOUND) tenant/user not found")));
    };
    if tenant.manager_password.is_none() {
        return Err(Refused::Hang);
    }
    *world.clients.postgres.lock().expect("a lock") = Some((tenant.host.clone(), tenant.port));
    // It asks again for two and a half seconds.
    let end = Instant::now() + Duration::from_millis(2_500);
    let mut server = loop {
        match TcpStream::connect((tenant.host.as_str(), tenant.port)).await {
            Ok(server) => break server,
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(100)).await,
            Err(_) => {
                let why = "Failed to connect to database: {:error, :econnrefused}";
                return Err(Refused::Said(error("08006", why)));
            }
        }
    };
    let _ = server.set_nodelay(true);
    let database = of("database").unwrap_or(role);
    let mut body = format!("user\0{role}\0database\0{database}\0application_name\0Supavisor\0");
    for name in ["client_encoding", "search_path"] {
        if let Some(value) = of(name) {
            body.push_str(&format!("{name}\0{value}\0"));
        }
    }
    body.push('\0');
    let mut message = u32::try_from(body.len() + 8).unwrap_or(0).to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(body.as_bytes());
    server.write_all(&message).await.map_err(|_| Refused::Cut)?;
    Ok(server)
}

/// A cancel request goes on as it is: the key that the client has is Postgres's own.
async fn cancel(message: &[u8], world: &World) {
    let postgres = world.clients.postgres.lock().expect("a lock").clone();
    let Some((host, port)) = postgres else { return };
    if let Ok(mut server) = TcpStream::connect((host.as_str(), port)).await {
        let _ = server.write_all(message).await;
        let _ = server.read(&mut [0; 1]).await;
    }
}

/// Where a session stands, by the last ReadyForQuery and what the client has sent since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Idle,
    Busy,
    Transaction,
}

/// One whole message of the server.
async fn message(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = number(buffer, 1) {
            let whole = usize::try_from(length).ok()? + 1;
            if buffer.len() >= whole {
                return Some(buffer.drain(..whole).collect());
            }
        }
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn relay(client: TcpStream, server: TcpStream, world: &World) {
    let _counted = Count::up(&world.clients.there);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut order = world.clients.order.subscribe();
    let (mut stand, mut buffer, mut chunk) = (Stand::Busy, Vec::new(), vec![0; 16 << 10]);
    loop {
        let now = *order.borrow_and_update();
        let until = match (now, stand) {
            (Order::Drain(_), Stand::Idle) => Some(Instant::now()),
            (Order::Drain(end), Stand::Busy | Stand::Transaction) => Some(end),
            (Order::Serve | Order::Cut, _) => None,
        };
        tokio::select! {
            biased;
            () = async { sleep_until(until.unwrap_or_else(Instant::now)).await }, if until.is_some() => {
                let said = error("57P01", "terminating connection due to administrator command");
                let _ = to_client.write_all(&said).await;
                return;
            }
            message = message(&mut from_server, &mut buffer) => {
                let Some(message) = message else { return };
                if message.first() == Some(&b'Z') {
                    stand = if message.get(5) == Some(&b'I') { Stand::Idle } else { Stand::Transaction };
                }
                if to_client.write_all(&message).await.is_err() {
                    return;
                }
            }
            read = from_client.read(&mut chunk) => {
                let Ok(n) = read else { return };
                if n == 0 {
                    return;
                }
                if stand == Stand::Idle {
                    stand = Stand::Busy;
                }
                if to_server.write_all(chunk.get(..n).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
            _ = order.changed() => {}
        }
    }
}
