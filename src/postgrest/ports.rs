//! Whether a port is free: PostgREST says of a taken one only that an address is in use, and not which setting moves it.

use crate::exit::Failure;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

/// Nobody else has the port, as far as one can see before taking it.
///
/// # Errors
/// 70 when it is taken or the address is not there, 78 when we may not have it.
pub(super) fn free(listen: &str, port: u16, variable: &str) -> Result<(), Failure> {
    let addresses = match listen.parse() {
        Ok(address) => vec![address],
        Err(_) => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    for address in addresses {
        let Err(e) = TcpListener::bind((address, port)) else { continue };
        // Anything else, such as a machine without IPv6, is PostgREST's own affair.
        if e.kind() == ErrorKind::AddrInUse {
            return Err(Failure::gave_up(format!(
                "{variable}: port {port} is taken ({address}): stop whoever has it, or set another port"
            )));
        }
        if e.kind() == ErrorKind::PermissionDenied {
            return Err(Failure::config(format!("{variable}: port {port} needs root: set one above 1023")));
        }
        if e.kind() == ErrorKind::AddrNotAvailable && !address.is_unspecified() {
            return Err(Failure::gave_up(format!(
                "SUPAFLY_POSTGREST_LISTEN: this machine has no address {address} (yet)"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_setting_that_moves_it() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        for listen in ["*", "127.0.0.1", "0.0.0.0"] {
            let why = free(listen, port, "SUPAFLY_POSTGREST_PORT").unwrap_err();
            assert_eq!(why.exit, crate::exit::Exit::GaveUp);
            assert!(why.message.contains(&format!("port {port} is taken")), "{why}");
            assert!(why.message.contains("SUPAFLY_POSTGREST_PORT"), "{why}");
        }
        drop(holder);
        free("127.0.0.1", port, "X").unwrap();
    }

    #[test]
    fn an_address_of_somebody_else_is_said() {
        let why = free("192.0.2.1", 65_000, "X").unwrap_err().to_string();
        assert!(why.contains("no address 192.0.2.1") && why.contains("SUPAFLY_POSTGREST_LISTEN"), "{why}");
    }
}
