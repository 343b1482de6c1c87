//! Its HTTP API, as far as the product speaks to it.

use super::World;
use super::household::say;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// What the last question after its health found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Bad,
}

struct Request {
    method: String,
    path: String,
    token: Option<String>,
    body: Value,
}

pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(one(stream, world.clone()));
    }
}

async fn one(mut stream: TcpStream, world: Arc<World>) {
    let Some(request) = read(&mut stream).await else { return };
    say("info", &format!("{} {}", request.method, request.path));
    let (status, body) = answer(&request, &world).await;
    say("info", &format!("Sent {status}"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut text = Vec::new();
    let (head, from) = loop {
        if let Some(at) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            break (String::from_utf8_lossy(text.get(..at)?).into_owned(), at + 4);
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    };
    let header = |name: &str| {
        let lines = head.lines().skip(1).filter_map(|l| l.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).next()
    };
    let length: usize = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while text.len() < from + length {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = head.lines().next()?.split(' ');
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        token: header("authorization").and_then(|a| a.strip_prefix("Bearer ").map(str::to_owned)),
        body: serde_json::from_slice(text.get(from..)?).unwrap_or(Value::Null),
    })
}

async fn answer(request: &Request, world: &World) -> (u16, Value) {
    if request.path == "/api/health" {
        return health(world).await;
    }
    let Some(secret) = world.var("API_JWT_SECRET") else { return (500, Value::Null) };
    if !request.token.as_deref().is_some_and(|token| lets_in(token, secret)) {
        return (403, Value::Null);
    }
    let Some(rest) = request.path.strip_prefix("/api/tenants/") else { return (404, Value::Null) };
    let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
    match (request.method.as_str(), verb) {
        ("GET", "") => match world.store.get(id).await {
            Ok(Some(tenant)) => (200, json!({ "data": tenant })),
            Ok(None) => (404, json!({ "error": "not found" })),
            Err(_) => (500, Value::Null),
        },
        ("PUT", "") => put(id, &request.body["tenant"], world).await,
        ("DELETE", "") => match world.store.delete(id).await {
            Ok(true) => (204, Value::Null),
            Ok(false) => (404, Value::Null),
            Err(_) => (500, Value::Null),
        },
        ("GET", "terminate") => {
            world.clients.drain().await;
            say("warning", &format!("Terminate {id}: %{{}}"));
            (200, json!({ "result": "%{}" }))
        }
        _ => (404, Value::Null),
    }
}

async fn put(id: &str, tenant: &Value, world: &World) -> (u16, Value) {
    let begun = Instant::now();
    if tenant["users"].as_array().is_none_or(|users| users.len() != 1) {
        return (500, Value::Null);
    }
    match world.store.get(id).await {
        Err(_) => (500, Value::Null),
        // Whatever is new in it: everybody goes. Whether its credentials are good is not asked.
        Ok(Some(_)) => match world.store.put(id, tenant).await {
            Ok(()) => {
                world.clients.drain().await;
                (200, json!({ "data": tenant_without_password(tenant) }))
            }
            Err(_) => (500, Value::Null),
        },
        Ok(None) => {
            if let Err(why) = credentials(tenant).await {
                sleep_until(begun + Duration::from_secs(10)).await;
                return (400, json!({ "error": why }));
            }
            match world.store.put(id, tenant).await {
                Ok(()) => (201, json!({ "data": tenant_without_password(tenant) })),
                Err(_) => (500, Value::Null),
            }
        }
    }
}

fn tenant_without_password(tenant: &Value) -> Value {
    let mut tenant = tenant.clone();
    if let Some(user) = tenant.pointer_mut("/users/0").and_then(Value::as_object_mut) {
        user.remove("db_password");
    }
    tenant
}

/// Logs in as the manager, and asks the query for the manager itself.
async fn credentials(tenant: &Value) -> Result<(), String> {
    let text = |at: &str| tenant.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let port = tenant["db_port"].as_u64().and_then(|p| u16::try_from(p).ok()).ok_or("no port")?;
    let user = text("/users/0/db_user");
    let mut config = tokio_postgres::Config::new();
    config.host(text("/db_host")).port(port).dbname(text("/db_database"));
    config.user(&user).password(text("/users/0/db_password")).application_name("Supavisor (auth_query)");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let row = client.query_opt(&text("/auth_query"), &[&user]).await.map_err(|e| e.to_string())?;
    let verifier: Option<String> = row.and_then(|row| row.try_get(1).ok());
    match verifier {
        Some(text) if text.starts_with("SCRAM-SHA-256$") => Ok(()),
        Some(_) | None => Err("There is no user in pg_shadow".to_owned()),
    }
}

/// 204 when somebody answers; the first time that nobody does it takes 5.0 s to say 500, then 503.
async fn health(world: &World) -> (u16, Value) {
    let begun = Instant::now();
    if world.store.answers().await {
        *world.health.lock().await = Health::Good;
        return (204, Value::Null);
    }
    let before = std::mem::replace(&mut *world.health.lock().await, Health::Bad);
    match before {
        Health::Good => {
            sleep_until(begun + Duration::from_secs(5)).await;
            (500, json!("Internal Server Error"))
        }
        Health::Bad => (503, json!({ "status": "unhealthy", "failed_checks": ["database_reachable"] })),
    }
}

/// HS256 with that secret, also an empty one; without `exp` for ever.
fn lets_in(token: &str, secret: &str) -> bool {
    let Some((text, signature)) = token.rsplit_once('.') else { return false };
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(text.as_bytes());
    if URL_SAFE_NO_PAD.decode(signature).ok().as_deref() != Some(&mac.finalize().into_bytes()) {
        return false;
    }
    let claims = text.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims.and_then(|c| serde_json::from_slice(&c).ok()).unwrap_or(Value::Null);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    claims.get("exp").is_none_or(|exp| exp.as_u64().is_some_and(|exp| exp > now))
}
