//! Who reaches what: the packet filter in a network of the test's own, with a host outside of it.

use crate::support::machine::root;
use crate::support::programs::programs;
use crate::world::stand_in;
use std::process::{Command, Stdio};

/// What lacks for a network of our own.
fn lacking() -> Option<String> {
    if !root() {
        return Some("we are not root".to_owned());
    }
    for program in ["nft", "ip", "nsenter", "setpriv"] {
        let there = which::which(program).is_ok()
            || ["/usr/sbin", "/sbin"].iter().any(|dir| std::path::Path::new(dir).join(program).exists());
        if !there {
            return Some(format!("`{program}` is not installed"));
        }
    }
    let script = "nft add table inet probe && ip link add left type veth peer name right";
    let tried =
        Command::new("unshare").args(["-n", "sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
    (!tried.status.success()).then(|| String::from_utf8_lossy(&tried.stderr).into_owned())
}

/// `$1` the role's binary, `$2` the stand-in's server, `$3` settings of the pooler's listen addresses. Two networks:
/// the outer one is the internet, the inner one the machine. Says what is open from outside before and after.
const SCRIPT: &str = r#"
set -eu
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
unshare -n sleep 1000 & inner=$!
until [ "$(readlink /proc/$inner/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
machine() { nsenter -t $inner -n "$@"; }
ip link add outside type veth peer name inside netns $inner
ip addr add 10.9.0.1/24 dev outside
ip link set outside up
machine ip addr add 10.9.0.2/24 dev inside
machine ip link set inside up
machine ip link set lo up
serve() {
  nsenter -t $inner -n setpriv --reuid="$1" --regid="$1" --clear-groups env -i PATH=/usr/bin:/bin SECRET_KEY_BASE=k NODE_IP=127.0.0.1 \
    VAULT_ENC_KEY=0123456789abcdef0123456789abcdef API_JWT_SECRET=s DATABASE_URL=ecto://u:p@127.0.0.1:1/d \
    PROXY_PORT_SESSION=6544 ERL_ZFLAGS='+Bi +JPperf false -start_epmd false' "${@:2}" "$server_program" >/dev/null 2>&1 &
}
server_program=$2
serve supafly-pool; server=$!
open_to() { timeout 5 bash -c "</dev/tcp/$1/$2" 2>/dev/null; }
until machine timeout 5 bash -c '</dev/tcp/127.0.0.1/12107' 2>/dev/null; do :; done
# All at once: a port that is shut does not answer, and who asks waits for all of the time.
say() {
  local asked=
  for port in 4000 5412 12100 12107 6543 6544; do
    { if open_to 10.9.0.2 $port; then echo "$1 outside $port open"; else echo "$1 outside $port shut"; fi; } &
    asked="$asked $!"
  done
  wait $asked
  for port in 4000 12107 6543; do
    if machine timeout 5 bash -c "</dev/tcp/127.0.0.1/$port" 2>/dev/null; then echo "$1 inside $port open"; else echo "$1 inside $port shut"; fi
  done
}
say before
ports() {
  machine "${@:2}" env -i PATH="$PATH" SUPAFLY_POOLER=supavisor SUPAFLY_SUPAVISOR="$server_program" SUPAFLY_RUN=/nowhere \
    SUPAFLY_POOLER_LISTEN="$1" "$binary" pooler-ports 2>&1 | sed 's/^/said /'
}
binary=$1
ports "$3"
ports "$3"
say after
# Somebody else's port of the same number is not ours to shut.
kill $server; wait $server || :
serve supafly-web PROXY_PORT_TRANSACTION=6543
until machine timeout 5 bash -c '</dev/tcp/127.0.0.1/12107' 2>/dev/null; do :; done
say others
machine nft delete table inet supafly_6543
ports "$3" setpriv --bounding-set=-net_admin --inh-caps=-net_admin
say powerless
"#;

fn play(listen: &str) -> Option<String> {
    if let Some(why) = lacking() {
        eprintln!("SKIPPED: the packet filter is not tried: {why}");
        return None;
    }
    // In processes of its own, too: whatever happens in it, nothing is left.
    let out = Command::new("timeout")
        .args([
            "-s",
            "KILL",
            "180",
            "unshare",
            "-n",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child=SIGKILL",
        ])
        .args(["bash", "-c", SCRIPT, "script"])
        .arg(programs().join("supafly"))
        .arg(stand_in().with_file_name("server"))
        .arg(listen)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    Some(text)
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(&format!("{line}\n")), "no `{line}` in:\n{text}");
    }
}

#[test]
fn its_own_ports_are_shut_to_the_network_and_the_poolers_stay_open() {
    let Some(text) = play("*") else { return };
    has(&text, &["before outside 4000 open", "before outside 12107 open", "before outside 6543 open"]);
    has(&text, &["after outside 4000 shut", "after outside 5412 shut", "after outside 12100 shut"]);
    has(&text, &["after outside 12107 shut", "after outside 6543 open", "after outside 6544 open"]);
    has(&text, &["after inside 4000 open", "after inside 12107 open", "after inside 6543 open"]);
    has(&text, &["others outside 4000 open", "others outside 12107 open"]);
    // Without the power nothing is shut, and that is said.
    has(&text, &["powerless outside 4000 open"]);
    assert!(text.contains("open to the network: 4000, 5412, 12100"), "{text}");
    assert!(text.contains("it needs root with CAP_NET_ADMIN"), "{text}");
}

#[test]
fn a_pooler_that_is_for_this_machine_alone_is_shut_altogether() {
    let Some(text) = play("127.0.0.1") else { return };
    has(&text, &["before outside 6543 open", "after outside 6543 shut", "after outside 6544 shut"]);
    has(&text, &["after outside 4000 shut", "after inside 6543 open", "others outside 6543 open"]);
}
