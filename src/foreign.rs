//! What is common to roles that run a program of others (PgBouncer, Supavisor, PostgREST): where it finds what we render
//! for it, whether the ports are free that it is to take, and which of our environment it gets.

use crate::exit::Failure;
use crate::os::descent::MARKER;
use crate::owner::durable;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// A directory for ourselves alone; `secrets` makes it for our user, and where all is one user we may make it ourselves.
///
/// # Errors
/// 70 when it cannot be made.
pub fn directory(own: &Path) -> Result<(), Failure> {
    if own.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(own).map_err(|e| {
        Failure::gave_up(format!(
            "{}: cannot be made: {e}; the service `secrets` makes it: restart it",
            own.display()
        ))
    })
}

/// A file for ourselves alone in the run directory, whole or not at all.
///
/// # Errors
/// 70 when it cannot be written; what was there is then as it was.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    durable::replace(path, text.as_bytes(), 0o400)
        .map_err(|e| Failure::gave_up(format!("{}: cannot be written: {e}", path.display())))
}

/// Of our environment what the program gets: PATH, how the supervisor knows its descent, and these.
#[must_use]
pub fn environment(also: &[&str]) -> Vec<(String, String)> {
    let kept = |name: &str| name == "PATH" || name == MARKER || also.contains(&name);
    crate::facts::environment().into_iter().filter(|(name, _)| kept(name)).collect()
}

/// A listener of the program, by the settings that move it.
#[derive(Clone, Copy, Debug)]
pub struct Listener<'a> {
    /// Addresses between commas; `*` is all of them.
    pub listen: &'a str,
    /// The variable that says so.
    pub listen_variable: &'static str,
    /// Its port.
    pub port: u16,
    /// The variable that says so.
    pub port_variable: &'static str,
}

impl Listener<'_> {
    /// Nobody else has the port, as far as one can see before taking it, and some address of ours is there: such
    /// programs say less of the one, and go on without the other.
    ///
    /// # Errors
    /// 70 when the port is taken or no address is there (yet), 78 when we may not have the port, or the address is none.
    pub fn free(&self) -> Result<(), Failure> {
        let Listener { port, listen_variable, port_variable, .. } = self;
        let (mut somewhere, mut nowhere) = (false, None);
        for address in self.listen.split(',').map(str::trim) {
            let hosts = if address == "*" { &["0.0.0.0", "::"][..] } else { std::slice::from_ref(&address) };
            for host in hosts {
                let unknown =
                    |e| Failure::config(format!("{listen_variable}: `{host}` is no address of ours: {e}"));
                for to in (*host, *port).to_socket_addrs().map_err(unknown)? {
                    match TcpListener::bind(to).map_err(|e| (e.kind(), e)) {
                        Ok(_) => somewhere = true,
                        Err((ErrorKind::AddrInUse, _)) => {
                            return Err(Failure::gave_up(format!(
                                "{port_variable}: port {port} is taken ({}): stop whoever has it, or set another port",
                                to.ip()
                            )));
                        }
                        Err((ErrorKind::PermissionDenied, _)) => {
                            return Err(Failure::config(format!(
                                "{port_variable}: port {port} needs root: set one above 1023"
                            )));
                        }
                        // A machine without IPv6, or an address that comes later.
                        Err((ErrorKind::AddrNotAvailable, _)) => {
                            nowhere = Some(format!("this machine has no address {} (yet)", to.ip()));
                        }
                        Err((_, e)) => nowhere = Some(format!("{}: {e}", to.ip())),
                    }
                }
            }
        }
        match nowhere {
            Some(why) if !somewhere => Err(Failure::gave_up(format!("{listen_variable}: {why}"))),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::os::unix::fs::MetadataExt;

    fn at(listen: &str, port: u16) -> Listener<'_> {
        Listener { listen, listen_variable: "LISTEN", port, port_variable: "PORT" }
    }

    #[test]
    fn a_taken_port_is_named_with_the_setting_that_moves_it() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        for listen in ["*", "127.0.0.1", "0.0.0.0", "192.0.2.1, 127.0.0.1"] {
            let why = at(listen, port).free().unwrap_err();
            assert_eq!(why.exit, Exit::GaveUp);
            assert!(why.message.starts_with(&format!("PORT: port {port} is taken (")), "{why}");
        }
        drop(holder);
        at("127.0.0.1", port).free().unwrap();
    }

    #[test]
    fn one_address_of_ours_is_enough_and_none_is_waited_for() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        at("192.0.2.1, 127.0.0.1", port).free().unwrap();
        at("*", port).free().unwrap();
        let why = at("192.0.2.1", port).free().unwrap_err();
        assert_eq!(
            (why.exit, why.message.as_str()),
            (Exit::GaveUp, "LISTEN: this machine has no address 192.0.2.1 (yet)")
        );
        for no in ["300.1.1.1", "127.0.0.1 ::1", ""] {
            let why = at(no, port).free().unwrap_err();
            assert!(why.exit == Exit::Config && why.message.starts_with("LISTEN: `"), "{why}");
        }
    }

    #[test]
    fn what_is_rendered_is_for_ourselves_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        directory(&own).unwrap();
        directory(&own).unwrap();
        let file = own.join("conf");
        write(&file, "one").unwrap();
        write(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&own), mode(&file)), (0o700, 0o400));
        let why = write(&own.join("none/conf"), "x").unwrap_err().message;
        assert!(why.contains("none/conf: cannot be written"), "{why}");
    }
}
