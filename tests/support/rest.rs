//! PostgREST on a machine of a test: its program where every user can run it, free ports, and a client of HTTP that sends
//! what the test says.

use super::machine::Machine;
use super::ports::free_port;
use super::programs::{copy, programs, var};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where PostgREST answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) admin: u16,
}

/// PostgREST under test, where every user can run it.
pub(crate) fn postgrest() -> PathBuf {
    static COPIED: Once = Once::new();
    let to = programs().join("postgrest");
    COPIED.call_once(|| {
        let named = var("SUPAFLY_POSTGREST").map(PathBuf::from);
        let from = named.or_else(|| which::which("postgrest").ok());
        let from = from.unwrap_or_else(|| panic!("no PostgREST: run `make test`, or set SUPAFLY_POSTGREST"));
        copy(&from, &to);
    });
    to
}

/// A machine that is switched off and has PostgREST.
pub(crate) fn with_rest(env: &[(&str, String)]) -> (Machine, Ports) {
    let ports = Ports { api: free_port(), admin: free_port() };
    let mut all = vec![
        ("SUPAFLY_POSTGREST", postgrest().display().to_string()),
        ("SUPAFLY_POSTGREST_PORT", ports.api.to_string()),
        ("SUPAFLY_POSTGREST_ADMIN_PORT", ports.admin.to_string()),
    ];
    all.extend(env.iter().cloned());
    (Machine::new(&all), ports)
}

/// What root reads of a machine's keys.
pub(crate) struct Keys {
    pub(crate) secret: String,
    pub(crate) anon: String,
    pub(crate) service: String,
}

impl Keys {
    /// Of a machine that has been up.
    pub(crate) fn of(machine: &Machine) -> Keys {
        let text = std::fs::read_to_string(machine.data().join("supafly/secrets/keys.json")).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let text = |name: &str| all[name].as_str().unwrap().to_owned();
        Keys { secret: text("jwt_secret"), anon: text("anon_key"), service: text("service_role_key") }
    }

    /// A token that a log-in would give to this user, good for so many seconds (already over when negative).
    pub(crate) fn user(&self, sub: &str, seconds: i64) -> String {
        token(&self.secret, sub, seconds)
    }
}

/// A user's token signed with any secret.
pub(crate) fn token(secret: &str, sub: &str, seconds: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let claims = json!({"sub": sub, "role": "authenticated", "aud": "authenticated", "exp": now + seconds});
    supafly::secrets::jwt::sign(secret, &claims)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// One request over loopback; `None` when nobody answers.
pub(crate) fn try_call(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Option<Answer> {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // 1.0, so that the answer ends with the connection.
    let mut request = format!("{method} {path} HTTP/1.0\r\nHost: test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).ok()?;
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, head: head.to_owned(), body: body.to_owned() })
}

/// One request with a key, as supabase-js sends it: `None` for nobody's.
pub(crate) fn call(port: u16, method: &str, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
    let bearer = key.map(|key| format!("Bearer {key}"));
    let mut headers = vec![("Prefer", "return=representation")];
    headers.extend(bearer.as_deref().map(|b| ("Authorization", b)));
    try_call(port, method, path, &headers, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// The status row of a service.
pub(crate) fn service(machine: &Machine, name: &str) -> Option<Value> {
    let status = machine.status()?;
    status["services"].as_array()?.iter().find(|s| s["name"] == name).cloned()
}

/// Waits until a service is in one of these states, and gives its row.
pub(crate) fn wait_state(machine: &mut Machine, name: &str, states: &[&str]) -> Value {
    machine.wait(&format!("{name} to be {}", states.join(" or ")), |m| {
        service(m, name).filter(|s| states.contains(&s["state"].as_str().unwrap_or_default()))
    })
}

/// The pid of a service's leader as we see it, which inside the machine is another one.
pub(crate) fn leader(machine: &Machine, program: &str) -> Option<u32> {
    let mut open = super::machine::children(u32::try_from(machine.pid().as_raw()).unwrap());
    while let Some(pid) = open.pop() {
        open.extend(super::machine::children(pid));
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == program {
            return Some(pid);
        }
    }
    None
}
