//! `pooler-ports`: shuts what Supavisor opens on all of IPv4 and cannot be told not to.
//!
//! Ten ports of its own, and the pooler's two where `SUPAFLY_POOLER_LISTEN` wants less than everything. The rule is for
//! answers of sockets of the pooler's user that leave by another interface than loopback: a port of the same number that
//! somebody else has is not touched, and a rule that is left behind shuts nothing of anybody. It needs root with
//! `CAP_NET_ADMIN` and `nft`; where one lacks, that is said in the status, and the pooler serves all the same, because
//! what listens there asks for a token or a password (`docs/adr/0015`).

use super::choice::{self, Kind};
use crate::config::Settings;
use crate::control::client::{self, Report, Row};
use crate::exit::{Exit, Failure};
use nix::unistd::User;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Who runs the pooler, by its service file.
const USER: &str = "supafly-pool";
/// Where `nft` is, for those whose PATH has it not.
const SYSTEM: &[&str] = &["/usr/sbin", "/sbin"];

/// Runs the role.
///
/// # Errors
/// None of its own: ports that stay open are said and keep nobody down.
pub fn run(settings: &Settings) -> Result<Exit, Failure> {
    match choice::chosen(settings).map(|chosen| chosen.kind) {
        Some(Kind::Supavisor) => {
            let ports = listed(&shut(settings));
            let row = match close(settings) {
                Ok(()) => {
                    tracing::info!(ports, "shut to the network");
                    row("shut", format!("to the network: {ports}"))
                }
                Err(why) => {
                    tracing::warn!("open to the network: {ports}: {why}");
                    row("open", format!("open to the network: {ports}: {why}"))
                }
            };
            match client::report(&settings.run, &Report { rows: vec![row], ..Report::default() }) {
                Ok(()) => {}
                Err(client::ClientError::Absent(_)) => tracing::debug!("no supervisor to report to"),
                Err(e) => tracing::warn!("the status does not show the ports: {e}"),
            }
        }
        // PgBouncer listens where it is told. What a Supavisor before it was shut by would keep its clients out.
        Some(Kind::PgBouncer) | None => {
            let taken_back = nft().map_or(Ok(()), |nft| feed(&nft, &without(settings.pooler_port)));
            if let Err(why) = taken_back {
                tracing::debug!("no rule could be taken back, so none is there: {why}");
            }
        }
    }
    Ok(Exit::Clean)
}

fn row(state: &str, detail: String) -> Row {
    Row { name: "ports".to_owned(), state: state.to_owned(), detail }
}

fn nft() -> Option<PathBuf> {
    let beside = || SYSTEM.iter().find_map(|dir| which::which(Path::new(dir).join("nft")).ok());
    which::which("nft").ok().or_else(beside)
}

fn close(settings: &Settings) -> Result<(), String> {
    let user = match User::from_name(USER) {
        Ok(Some(user)) => user.uid.as_raw(),
        Ok(None) => return Err(format!("there is no user `{USER}` to tell its sockets by")),
        Err(e) => return Err(format!("the user `{USER}` cannot be looked up: {e}")),
    };
    let nft = nft().ok_or("`nft` is not installed (package nftables)")?;
    feed(&nft, &rules(settings.pooler_port, user, &shut(settings))).map_err(|why| {
        format!("{why}; it needs root with CAP_NET_ADMIN (docker: --cap-add NET_ADMIN) and nf_tables in the kernel")
    })
}

/// All of the text or nothing of it.
fn feed(nft: &Path, text: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", nft.display());
    let mut command = Command::new(nft);
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(failed)?;
    }
    let out = child.wait_with_output().map_err(failed)?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("nft: {}", said.lines().next().unwrap_or("failed without a word").trim()))
}

/// A port, and the addresses of ours on which it stays open.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shut {
    port: u16,
    but: Vec<Ipv4Addr>,
}

/// What is to be shut.
fn shut(settings: &Settings) -> Vec<Shut> {
    let own = settings.supavisor_ports.all().map(|port| Shut { port, but: Vec::new() });
    let addresses: Vec<&str> = settings.pooler_listen.split(',').map(str::trim).collect();
    // A name may be any address.
    let open = |a: &&str| {
        matches!(*a, "*" | "0.0.0.0") || (*a != "localhost" && !a.is_empty() && a.parse::<IpAddr>().is_err())
    };
    if addresses.iter().any(open) {
        return own.collect();
    }
    let but: Vec<Ipv4Addr> =
        addresses.iter().filter_map(|a| a.parse().ok()).filter(|a: &Ipv4Addr| !a.is_loopback()).collect();
    let ours = [settings.pooler_port, settings.pooler_session_port];
    own.chain(ours.map(|port| Shut { port, but: but.clone() })).collect()
}

fn listed(shut: &[Shut]) -> String {
    let one = |s: &Shut| {
        let but: Vec<String> = s.but.iter().map(Ipv4Addr::to_string).collect();
        if but.is_empty() { s.port.to_string() } else { format!("{} (but on {})", s.port, but.join(", ")) }
    };
    shut.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Named by the pooler's port, which only one machine of a host can have.
fn table(port: u16) -> String {
    format!("inet supafly_{port}")
}

/// Takes a former table away; that there is none is fine.
fn without(port: u16) -> String {
    let table = table(port);
    format!("table {table}\ndelete table {table}\n")
}

/// The whole table, in place of a former one. Every answer is dropped, not only the first: in a flood of SYN the kernel
/// answers without a socket that would tell whose it is.
fn rules(port: u16, user: u32, shut: &[Shut]) -> String {
    let mut text = without(port);
    text.push_str(&format!("table {} {{\n  chain output {{\n", table(port)));
    text.push_str("    type filter hook output priority 0; policy accept;\n");
    for Shut { port, but } in shut {
        let but = match but.as_slice() {
            [] => String::new(),
            some => {
                let some: Vec<String> = some.iter().map(Ipv4Addr::to_string).collect();
                format!(" ip saddr != {{ {} }}", some.join(", "))
            }
        };
        text.push_str(&format!("    oifname != \"lo\" meta skuid {user} tcp sport {port}{but} drop\n"));
    }
    text.push_str("  }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ports(listen: &str) -> Vec<Shut> {
        let env = BTreeMap::from([("SUPAFLY_POOLER_LISTEN".to_owned(), listen.to_owned())]);
        shut(&Settings::read(None, &env).unwrap())
    }

    #[test]
    fn its_own_ports_are_always_shut_and_the_poolers_where_less_than_all_is_wanted() {
        for open in ["*", "0.0.0.0", "127.0.0.1, 0.0.0.0", "a-name"] {
            assert_eq!(ports(open).len(), 10, "{open}");
        }
        for narrow in ["127.0.0.1", "localhost", "::1", "::", "127.0.0.1, ::1"] {
            let all = ports(narrow);
            assert_eq!(all.last(), Some(&Shut { port: 6544, but: vec![] }), "{narrow}");
            assert_eq!(all.len(), 12);
        }
        let one = ports("127.0.0.1, 10.0.0.1");
        assert_eq!(one.last(), Some(&Shut { port: 6544, but: vec![Ipv4Addr::new(10, 0, 0, 1)] }));
        assert!(listed(&one).ends_with("12107, 6543 (but on 10.0.0.1), 6544 (but on 10.0.0.1)"));
    }

    #[test]
    fn the_rules_name_the_user_the_port_and_nobody_else() {
        let text = rules(6543, 999, &ports("10.0.0.1"));
        assert!(text.starts_with("table inet supafly_6543\ndelete table inet supafly_6543\n"), "{text}");
        assert!(text.contains("oifname != \"lo\" meta skuid 999 tcp sport 4000 drop\n"));
        assert!(text.contains("tcp sport 6543 ip saddr != { 10.0.0.1 } drop"), "{text}");
    }
}
