//! Ports for programs that are told theirs and take them seconds later.
//!
//! Not from the range out of which the system gives ports to everybody who asks for any, such as clients and the next
//! test: there somebody else has it by then. And never one twice in a process.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below are those that well-known services like.
const FIRST: u32 = 12_000;

/// The first port that the system gives by itself.
fn end() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|n| n.parse().ok());
    first.unwrap_or(32_768).clamp(FIRST + 2_000, 65_536)
}

/// A port that nobody has, on any address.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Test processes that run at the same time begin far from one another, whatever their numbers.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(0x9E37_79B1) >> 8));
    let end = end();
    for _ in FIRST..end {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % (end - FIRST);
        let port = u16::try_from(port).unwrap();
        let taken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
        let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
        // A machine without IPv6 has nobody there.
        let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).map(drop);
        if v4.is_ok() && !v6.as_ref().is_err_and(taken) {
            return port;
        }
    }
    panic!("there is no free port from {FIRST} to {end}");
}
