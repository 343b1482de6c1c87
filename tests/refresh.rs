//! `image/refresh`, and `image/fetch` of the Dockerfile, against a stand-in for an image registry and for a release's
//! downloads: the real ones are on the internet. What they must not do is take or pin a thing that differs from what its
//! release says, or write half a file.

#![allow(clippy::unwrap_used, reason = "a test says so by a panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";
/// Not of the four bytes `part`.
const SUM: &str = "e9fa5f9b4e9ff53e5d0e0e1cf5d6a4b2b3b5a3b1a9c9b8b7a6a5a4a3a2a1a0ff";

/// One request, one answer, one connection: enough for curl.
fn answer(stream: TcpStream, at: &str) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty());
    let Some(first) = lines.next() else { return };
    let headers: Vec<String> = lines.collect();
    let has = |text: &str| headers.iter().any(|h| h.eq_ignore_ascii_case(text));
    let asks_for_a_list = headers.iter().any(|h| h.contains("oci.image.index"));
    let (status, extra, body) = match first.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["HEAD", "/v2/library/debian/manifests/trixie-slim"]
            if has("Authorization: Bearer t0ken") && asks_for_a_list =>
        {
            ("200 OK", format!("Docker-Content-Digest: {DIGEST}\r\n"), "")
        }
        ["HEAD", "/v2/library/debian/manifests/trixie-slim"] => (
            "401 Unauthorized",
            format!(
                "WWW-Authenticate: Bearer realm=\"http://{at}/token\",service=\"fake\",scope=\"repository:library/debian:pull\"\r\n"
            ),
            "",
        ),
        ["GET", "/token?service=fake&scope=repository:library/debian:pull"] => {
            ("200 OK", String::new(), "{\"token\": \"t0ken\", \"expires_in\": 300}")
        }
        ["GET", "/v1.2/part" | "/v1.2/other" | "/mirror/1.2"] => ("200 OK", String::new(), "part"),
        ["GET", "/v1.2/part.sha256"] => ("200 OK", String::new(), sum()),
        ["GET", "/v1.2/other.sha256"] => ("200 OK", String::new(), SUM),
        _ => ("404 Not Found", String::new(), ""),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that has gone has what it wanted.
    let _ = (&stream).write_all(text.as_bytes());
}

fn sum() -> &'static str {
    use sha2::Digest;
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| {
        let hex: String = sha2::Sha256::digest(b"part").iter().map(|b| format!("{b:02x}")).collect();
        format!("{hex}  part\n")
    })
}

/// The stand-in; it ends with the test's process.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let here = at.clone();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(|stream| answer(stream, &here)));
    at
}

fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("image").join(name));
    command.env("no_proxy", "127.0.0.1");
    command
}

/// Runs it on a file of versions whose addresses are the stand-in's; what it said, and the file afterwards.
fn refresh(arguments: &[&str], versions: &str) -> (Output, String) {
    let at = server();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("versions.toml");
    std::fs::write(&file, versions.replace("HOST", &at)).unwrap();
    let out = script("refresh").args(arguments).arg(&file).output().unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace(&at, "HOST");
    (out, text)
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

const IMAGE: &str = "[debian]\nimage = \"HOST/library/debian:trixie-slim\"\ndigest = \"\"\n";

#[test]
fn what_is_empty_is_pinned_and_everything_else_stays_as_it_was() {
    let other = "b".repeat(64);
    let text = format!(
        "# A comment.\n{IMAGE}\n[walg]\nversion = \"1.2\"\n\n[walg.amd64]\nurl = \"http://HOST/v{{version}}/part\"\nsha256 = \"\" # open\n\n\
         [walg.arm64]\nurl = \"http://HOST/nowhere\"\nsha256 = \"{other}\"\n\n[deb]\nversion = \"1\"\nsha256 = \"{other}\"\n"
    );
    let (out, after) = refresh(&[], &text);
    assert!(out.status.success(), "{}", said(&out));
    let hex = sum().split(' ').next().unwrap();
    let wanted = text
        .replace("digest = \"\"", &format!("digest = \"{DIGEST}\""))
        .replace("sha256 = \"\" # open", &format!("sha256 = \"{hex}\""));
    assert_eq!(after, wanted);
    // A second run finds nothing to do; asked for all, it finds that one is gone.
    let (out, again) = refresh(&[], &after);
    assert!(out.status.success() && again == after, "{}", said(&out));
    let (out, again) = refresh(&["--all"], &after);
    assert!(!out.status.success() && again == after, "{}", said(&out));
}

#[test]
fn what_differs_from_its_releases_own_checksum_is_not_pinned_and_the_file_stays_whole() {
    let text = format!(
        "{IMAGE}[other]\nversion = \"1.2\"\nurl = \"http://HOST/v{{version}}/other\"\nsha256 = \"\"\n"
    );
    let (out, after) = refresh(&[], &text);
    assert!(!out.status.success());
    assert_eq!(after, text);
    let said = said(&out);
    assert!(said.contains(&format!("but the release says {SUM}")) && said.contains("is as it was"), "{said}");
}

#[test]
fn what_the_first_address_lacks_comes_from_the_mirror() {
    let text = "[p]\nversion = \"1.2\"\nurl = \"http://HOST/gone\"\nmirror = \"http://HOST/mirror/{version}\"\nsha256 = \"\"\n";
    let (out, after) = refresh(&[], text);
    assert!(out.status.success(), "{}", said(&out));
    assert!(after.contains(sum().split(' ').next().unwrap()), "{after}");
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let text = IMAGE.replace("debian:trixie", "debian:nowhere");
    let (out, after) = refresh(&[], &text);
    assert!(!out.status.success() && after == text);
    assert!(
        said(&out).contains("library/debian:nowhere-slim: nothing that could be pinned"),
        "{}",
        said(&out)
    );
}

#[test]
fn a_build_takes_what_is_pinned_or_says_that_it_is_not() {
    let at = server();
    let fetch = |sum: &str, paths: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("part");
        let urls = paths.iter().map(|path| format!("http://{at}/{path}"));
        let out = script("fetch").arg(sum).arg(&file).args(urls).output().unwrap();
        (out.status.success(), said(&out), std::fs::read_to_string(&file).unwrap_or_default())
    };
    let hex = sum().split(' ').next().unwrap();
    assert_eq!(fetch(hex, &["v1.2/part"]), (true, String::new(), "part".to_owned()));
    let (done, said, text) = fetch(hex, &["gone", "mirror/1.2"]);
    assert!(done && text == "part", "{said}");
    let (done, said, _) = fetch("", &["v1.2/part"]);
    assert!(done && said.contains("NOT PINNED: ") && said.contains("the release's own .sha256"), "{said}");
    let (done, said, _) = fetch("", &["mirror/1.2"]);
    assert!(done && said.contains("NOT PINNED AND NOT COMPARED"), "{said}");
    // Neither what differs from the pinned, nor what differs from what its release says, nor what is not there.
    for (sum, path) in [(SUM, "v1.2/part"), ("", "v1.2/other"), (hex, "gone")] {
        let (done, said, _) = fetch(sum, &[path]);
        assert!(!done && !said.is_empty(), "{path}: {said}");
    }
}
