//! What is said on keeper's socket `<run>/keeper/keeper.sock`: one JSON object a line, versioned, each request answered.
//!
//! A request may carry one open file (`SCM_RIGHTS`). Long work answers `progress` lines before the last one. The verbs
//! are closed: an unknown one, or another version, is an answer `failed` and never a guess.

use crate::os::passing;
use serde::{Deserialize, Serialize};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// No request is longer.
pub const LONGEST_REQUEST: usize = 4096;

/// A request with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`]
    pub v: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Verb {
    /// Archive the open file under this name.
    WalPush {
        /// As Postgres names it.
        name: String,
    },
    /// Write the file of this name into the open file.
    WalFetch {
        /// As Postgres names it.
        name: String,
        /// How long to wait for the store, in milliseconds.
        patience_ms: u64,
        /// The client takes another open file for the one that it sent, with the file in it: one that it sent as a spare
        /// with an earlier request, and that was filled meanwhile ([`Answer::Exchanged`]). Of the files of its request
        /// the spare comes first, because a keeper of a release that knows of one file keeps the last.
        #[serde(default)]
        exchange: bool,
    },
    /// Take a base backup now.
    BackupNow,
    /// Which backups there are.
    BackupList,
}

/// An answer with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`]
    pub v: u32,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It is done: durable, written, verified.
    Done {
        /// What was done, for people; may be empty.
        #[serde(default)]
        what: String,
    },
    /// It is done, in the open file that comes with this answer; the one that was sent is not it, and may hold anything.
    /// An answer of its own, so that a file that is lost on its way is never taken for nothing to exchange.
    Exchanged,
    /// Proved: the archive does not have it.
    Absent,
    /// Not now; asking again is right.
    Again {
        /// Why.
        because: String,
    },
    /// Not now, and nobody should wait: the whole stop has begun. Keeper ships what is left after Postgres.
    Leave {
        /// Why.
        because: String,
    },
    /// No, and asking again does not help by itself.
    Failed {
        /// Why, and what to do.
        because: String,
    },
    /// Still at it; another answer follows.
    Progress {
        /// For people.
        text: String,
    },
    /// The backups there are, oldest first.
    Backups {
        /// One each.
        backups: Vec<Listed>,
    },
}

/// A base backup in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The epoch that it belongs to.
    pub epoch: u32,
    /// Its name in the bucket.
    pub name: String,
    /// The timeline it was taken on.
    pub timeline: u32,
    /// Where its WAL begins.
    pub start: String,
    /// Up to where WAL is needed for it.
    pub finish: String,
    /// Bytes in the store.
    pub compressed_size: u64,
    /// Bytes restored.
    pub uncompressed_size: u64,
    /// When it was finished, as the engine wrote it.
    pub finished: String,
    /// Why it cannot be used; `None`: verified.
    pub unfit: Option<String>,
}

/// One line.
///
/// # Errors
/// Never for our own types; a plain error all the same.
pub fn line<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// An answer as a line.
///
/// # Errors
/// See [`line`].
pub fn reply(answer: Answer) -> std::io::Result<Vec<u8>> {
    line(&Reply { v: VERSION, answer })
}

/// Reads a request; the error is the sentence for the answer.
///
/// # Errors
/// Another version, or no request of ours.
pub fn parse(text: &[u8]) -> Result<Verb, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_slice(text).map_err(|e| format!("not a request: {e}"))?;
    if v != VERSION {
        return Err(format!(
            "version {v} is not spoken here, {VERSION} is: keeper and its client differ in release"
        ));
    }
    serde_json::from_slice::<Request>(text).map(|r| r.verb).map_err(|e| format!("not a request: {e}"))
}

/// A client's end, synchronous: `wal-push` and `wal-fetch` live for milliseconds and bring no runtime along.
#[derive(Debug)]
pub struct Call {
    stream: UnixStream,
    /// What has come and was not asked for yet.
    received: Vec<u8>,
    file: Option<OwnedFd>,
}

impl Call {
    /// Connects and sends one request.
    ///
    /// # Errors
    /// Nobody listens, or it does not take the request.
    pub fn start(
        socket: &Path,
        verb: Verb,
        files: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> std::io::Result<Call> {
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let request = line(&Request { v: VERSION, verb })?;
        let mut sent = passing::send(&stream, &request, files)?;
        while let Some(rest) = request.get(sent..).filter(|r| !r.is_empty()) {
            sent += passing::send(&stream, rest, &[])?;
        }
        Ok(Call { stream, received: Vec::new(), file: None })
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// None within the time, keeper hung up, or an answer of another release.
    pub fn answer(&mut self, patience: Duration) -> std::io::Result<Answer> {
        self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let end = loop {
            if let Some(end) = self.received.iter().position(|b| *b == b'\n') {
                break end;
            }
            let mut buffer = [0; LONGEST_REQUEST];
            let (length, files) = passing::receive(&self.stream, &mut buffer)?;
            if length == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "keeper hung up"));
            }
            self.received.extend_from_slice(buffer.get(..length).unwrap_or_default());
            self.file = files.into_iter().next().or(self.file.take());
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let reply: Reply = serde_json::from_slice(&line)?;
        if reply.v == VERSION {
            Ok(reply.answer)
        } else {
            Err(std::io::Error::other(format!("keeper speaks version {}, this is {VERSION}", reply.v)))
        }
    }

    /// The open file that came with an answer.
    pub fn file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_flat_object_with_its_version() {
        let request = Request { v: 1, verb: Verb::WalPush { name: "00000002.history".into() } };
        let text = line(&request).unwrap();
        assert_eq!(text, b"{\"v\":1,\"verb\":\"wal-push\",\"name\":\"00000002.history\"}\n");
        assert_eq!(parse(&text), Ok(request.verb));
        assert_eq!(reply(Answer::Absent).unwrap(), b"{\"v\":1,\"answer\":\"absent\"}\n");
    }

    #[test]
    fn another_version_and_an_unknown_verb_are_refused_in_words() {
        assert!(parse(b"{\"v\":2,\"verb\":\"wal-push\"}").unwrap_err().contains("version 2"));
        assert!(parse(b"{\"v\":1,\"verb\":\"sing\"}").unwrap_err().contains("sing"));
        assert!(parse(b"hello").is_err());
    }
}
