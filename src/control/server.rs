//! The listening side of `control.sock`. Each client is a small task with deadlines of its own; it turns a line into a
//! typed [`Call`] for the supervisor's one task and writes the answer back. Half a request, a thousand idle clients or
//! one that never reads cost their own connection only: lines are bounded, clients are bounded, and when there are too
//! many the one that has been there longest goes.

use super::client::Report;
use crate::os::output::{Rings, Shape};
use crate::state::Dependents;
use nix::unistd::Group;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

/// Clients at one time.
const CLIENTS: usize = 128;
/// The longest request.
const LONGEST: u64 = 256 << 10;
/// How long a client may take for its next request, and for reading an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long lines are gathered for a client that follows.
const BATCH: Duration = Duration::from_millis(50);
/// How much of the lines is written at once.
const CHUNK: usize = 32 << 10;

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 when it is in another pid namespace.
    pub pid: i32,
    /// Its uid at the time it connected.
    pub uid: u32,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// The whole status.
    Status,
    /// Facts of the caller's own service.
    Report(Box<Report>),
    /// Everything.
    StopAll,
    /// One service.
    Stop(String, Dependents),
    /// One service that is down, was held or failed.
    Start(String),
    /// One service: down and up again.
    Restart(String, Dependents),
    /// All services that are held or failed.
    Retry,
    /// Recent lines, of one service or of all.
    Logs(Wanted),
    /// As USR1.
    Freeze,
    /// As USR2.
    Thaw,
}

/// Which lines a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of one service; of all.
    pub service: Option<String>,
    /// Only those after this number.
    pub after: u64,
    /// Whether to go on with what comes.
    pub follow: Follow,
}

/// Whether a client stays for what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It does.
    Yes,
    /// It has enough with what is there.
    No,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done or under way.
    Accepted,
    /// It is so already.
    NothingToDo(String),
    /// It will not be done.
    Rejected(String),
    /// The status asked for.
    Status(Box<Value>),
    /// The lines asked for, from these rings.
    Lines(Rings, Wanted),
}

impl Answer {
    fn line(&self) -> String {
        let mut object = match self {
            Answer::Accepted => json!({"v": 1, "answer": "accepted"}),
            Answer::NothingToDo(because) => json!({"v": 1, "answer": "nothing to do", "because": because}),
            Answer::Rejected(because) => json!({"v": 1, "answer": "rejected", "because": because}),
            Answer::Lines(rings, _) => json!({"v": 1, "answer": "lines", "newest": rings.newest()}),
            Answer::Status(status) => json!({"v": 1, "answer": "status", "status": status}),
        }
        .to_string();
        object.push('\n');
        object
    }
}

/// A request on its way to the supervisor's task.
#[derive(Debug)]
pub struct Call {
    /// Who.
    pub peer: Peer,
    /// What.
    pub verb: Verb,
    /// Where the answer goes; dropping it hangs up.
    pub answer: oneshot::Sender<Answer>,
}

/// Reads one request. Pure.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(line: &str) -> Result<Verb, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("not a JSON object: {e}"))?;
    match value.get("v").and_then(Value::as_u64) {
        Some(1) => {}
        Some(v) => return Err(format!("version {v} of the protocol is not spoken here; write \"v\":1")),
        None => return Err("no version; write \"v\":1".to_owned()),
    }
    let name = || match value.get("service") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err("`service` must be a name".to_owned()),
    };
    let flag = |key: &str| match value.get(key) {
        None => Ok(false),
        Some(Value::Bool(yes)) => Ok(*yes),
        Some(_) => Err(format!("`{key}` must be true or false")),
    };
    let dependents = || Ok(if flag("with_dependents")? { Dependents::Too } else { Dependents::Keep });
    let named = || name()?.ok_or_else(|| "which service? give its name as `service`".to_owned());
    match value.get("verb").and_then(Value::as_str) {
        Some("status") => Ok(Verb::Status),
        Some("report") => {
            let report = value.get("report").cloned().ok_or("a report needs `report`")?;
            let report =
                serde_json::from_value(report).map_err(|e| format!("the report cannot be read: {e}"))?;
            Ok(Verb::Report(Box::new(report)))
        }
        Some("stop") => match name()? {
            None => Ok(Verb::StopAll),
            Some(name) => dependents().map(|d| Verb::Stop(name, d)),
        },
        Some("start") => Ok(Verb::Start(named()?)),
        Some("restart") => {
            let name = named()?;
            dependents().map(|d| Verb::Restart(name, d))
        }
        Some("retry") => Ok(name()?.map_or(Verb::Retry, Verb::Start)),
        Some("logs") => {
            let after = match value.get("after") {
                None => 0,
                Some(after) => after.as_u64().ok_or("`after` must be a number")?,
            };
            let follow = if flag("follow")? { Follow::Yes } else { Follow::No };
            Ok(Verb::Logs(Wanted { service: name()?, after, follow }))
        }
        Some("freeze") => Ok(Verb::Freeze),
        Some("thaw") => Ok(Verb::Thaw),
        Some(other) => Err(format!(
            "unknown verb `{other}`; there are status, report, logs, start, stop, restart, retry, freeze and thaw"
        )),
        None => Err("no `verb`".to_owned()),
    }
}

/// Makes the socket: 0660, group `supafly` where there is one and we may.
///
/// # Errors
/// It cannot be made there.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    crate::os::remove_socket(path)?;
    // Made under a name of its own and moved, so that it is never there with other permissions.
    let early = path.with_extension("new");
    crate::os::remove_socket(&early)?;
    let listener = UnixListener::bind(&early)?;
    if let Ok(Some(group)) = Group::from_name("supafly") {
        // Not root: the group stays ours.
        let _ = nix::unistd::chown(&early, None, Some(group.gid));
    }
    std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(&early, path)?;
    Ok(listener)
}

/// Accepts for ever. To be run as a task.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let mut clients = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            Some(_) = clients.join_next() => order.retain(|client| !client.is_finished()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if order.len() >= CLIENTS && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    order.push_back(clients.spawn(client(stream, calls.clone())));
                }
                // Out of descriptors, most likely: no busy loop.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            },
        }
    }
}

async fn client(stream: UnixStream, calls: mpsc::Sender<Call>) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let peer = Peer { pid: credentials.pid().unwrap_or(0), uid: credentials.uid() };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(1_024, reader);
    let mut line = String::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LONGEST);
        match tokio::time::timeout(PATIENCE, bounded.read_line(&mut line)).await {
            Ok(Ok(n)) if n > 0 && line.ends_with('\n') => {}
            // Idle, gone, half a request, not text, or too long.
            Ok(_) | Err(_) => return,
        }
        let answer = match parse(&line) {
            Err(because) => Answer::Rejected(because),
            Ok(verb) => {
                let (answer, answered) = oneshot::channel();
                if calls.send(Call { peer, verb, answer }).await.is_err() {
                    return;
                }
                let Ok(answer) = answered.await else { return };
                answer
            }
        };
        if write(&mut writer, answer.line().as_bytes()).await.is_none() {
            return;
        }
        if let Answer::Lines(rings, wanted) = answer {
            // The client that reads lines asks for nothing else; it ends this by hanging up.
            let mut one = [0_u8; 1];
            tokio::select! {
                _ = send_lines(&mut writer, &rings, &wanted) => {}
                _ = reader.read(&mut one) => {}
            }
            return;
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> Option<()> {
    tokio::time::timeout(PATIENCE, writer.write_all(bytes)).await.ok()?.ok()
}

/// Somebody reads a page of it for an hour, or stopped the terminal: a client that follows may take its time.
async fn write_lines(writer: &mut OwnedWriteHalf, bytes: &[u8], follow: Follow) -> Option<()> {
    match follow {
        Follow::Yes => writer.write_all(bytes).await.ok(),
        Follow::No => write(writer, bytes).await,
    }
}

/// One object a line: a kept line, or `{"lost":N}` where some are no longer kept. A reader that is too slow loses lines,
/// never we memory.
async fn send_lines(writer: &mut OwnedWriteHalf, rings: &Rings, wanted: &Wanted) -> Option<()> {
    let mut after = wanted.after;
    loop {
        let recent = rings.since(wanted.service.as_deref(), after);
        let mut out = Vec::new();
        // What had gone before anybody asked is not lost to this reader.
        if recent.lost > 0 && after > 0 {
            out.extend_from_slice(json!({"lost": recent.lost}).to_string().as_bytes());
            out.push(b'\n');
        }
        after = recent.next.max(after);
        // One by one out of our memory: who reads slowly keeps less of it.
        for line in recent.lines {
            line.write(Shape::Json, &mut out);
            if out.len() >= CHUNK {
                write_lines(writer, &out, wanted.follow).await?;
                out.clear();
            }
        }
        write_lines(writer, &out, wanted.follow).await?;
        if wanted.follow == Follow::No {
            return Some(());
        }
        rings.changed(after).await;
        // A flood is sent in batches.
        tokio::time::sleep(BATCH).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_wrong_ones_are_told_what_is_wrong() {
        assert_eq!(parse(r#"{"v":1,"verb":"status"}"#), Ok(Verb::Status));
        assert_eq!(parse(r#"{"v":1,"verb":"stop"}"#), Ok(Verb::StopAll));
        assert_eq!(
            parse(r#"{"v":1,"verb":"stop","service":"db","with_dependents":true}"#),
            Ok(Verb::Stop("db".to_owned(), Dependents::Too))
        );
        assert_eq!(
            parse(r#"{"v":1,"verb":"restart","service":"db"}"#),
            Ok(Verb::Restart("db".to_owned(), Dependents::Keep))
        );
        // What version 1 said from the beginning.
        assert_eq!(parse(r#"{"v":1,"verb":"retry","service":"db"}"#), Ok(Verb::Start("db".to_owned())));
        let wanted = Wanted { service: None, after: 7, follow: Follow::Yes };
        assert_eq!(parse(r#"{"v":1,"verb":"logs","after":7,"follow":true}"#), Ok(Verb::Logs(wanted)));
        assert_eq!(parse(r#"{"v":1,"verb":"start","service":"web"}"#), Ok(Verb::Start("web".to_owned())));
        for (wrong, says) in [
            ("{", "not a JSON object"),
            (r#"{"verb":"status"}"#, "no version"),
            (r#"{"v":2,"verb":"status"}"#, "version 2"),
            (r#"{"v":1}"#, "no `verb`"),
            (r#"{"v":1,"verb":"start"}"#, "which service"),
            (r#"{"v":1,"verb":"stop","service":3}"#, "must be a name"),
            (r#"{"v":1,"verb":"reboot"}"#, "unknown verb `reboot`"),
            (r#"{"v":1,"verb":"stop","service":"x","with_dependents":1}"#, "must be true or false"),
            (r#"{"v":1,"verb":"logs","after":"x"}"#, "must be a number"),
            (r#"{"v":1,"verb":"report","report":{"rows":3}}"#, "cannot be read"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
