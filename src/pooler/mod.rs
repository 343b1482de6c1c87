//! The `pooler` role: PgBouncer or Supavisor, whichever the settings choose ([`choice`]), and the question whether one
//! gets through it ([`probe`]).
//!
//! PgBouncer is one process a mode, because it has one port and a mode belongs to a database or a user, not to a port:
//! two services, each of which renders its configuration and *becomes* PgBouncer, so that every signal of the supervisor
//! is PgBouncer's own. Supavisor serves both ports and must be drained by a call before it is told to end, so a small
//! resident stands before it.

mod bouncer;
pub mod choice;
pub mod ports;
pub mod probe;
pub mod render;
pub mod secrets;
pub mod supavisor;

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use choice::Kind;
use render::Mode;
use secrets::Secrets;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Runs the role. For PgBouncer it returns only when that could not be started.
///
/// # Errors
/// 78 when a setting cannot be used, 70 for what may go well another time: a taken port, Postgres that is not there yet.
pub fn run(settings: &Settings, mode: Mode) -> Result<Exit, Failure> {
    let Some(chosen) = choice::chosen(settings) else {
        return Err(Failure::config("no pooler is installed, or SUPAFLY_POOLER is off"));
    };
    if settings.pooler_port == settings.pooler_session_port {
        return Err(Failure::config(
            "SUPAFLY_POOLER_PORT and SUPAFLY_POOLER_SESSION_PORT are the same: each mode needs a port of its own",
        ));
    }
    match (chosen.kind, mode) {
        (Kind::PgBouncer, mode) => bouncer::run(settings, &chosen.program, mode),
        (Kind::Supavisor, Mode::Transaction) => {
            outages_are_its_own_affair()?;
            supavisor::run(settings, &chosen.program)
        }
        (Kind::Supavisor, Mode::Session) => {
            Err(Failure::config("Supavisor serves both ports itself: the service `pooler` runs it"))
        }
    }
}

/// What PgBouncer is told of Postgres's outages (USR1, USR2: `outage_signals` of the service) would end a program that does
/// not know these signals. A child has them as it was born.
fn outages_are_its_own_affair() -> Result<(), Failure> {
    for signal in [SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|e| Failure::gave_up(format!("signals cannot be received: {e}")))?;
    }
    Ok(())
}

fn secrets(settings: &Settings) -> Result<Secrets, Failure> {
    let path = settings.pooler_secrets();
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::gave_up(format!("{}: {why}; the service `secrets` makes it", path.display()))
    };
    let text = std::fs::read_to_string(&path).map_err(|e| unusable(&e))?;
    Secrets::parse(&text).map_err(|e| unusable(&e))
}

fn secret<'a>(settings: &Settings, secrets: &'a Secrets, name: &str) -> Result<&'a str, Failure> {
    let lacks = |why| Failure::gave_up(format!("{}: {why}", settings.pooler_secrets().display()));
    secrets.get(name).map(crate::config::Secret::reveal).map_err(lacks)
}

/// The tenant that Supavisor serves: it stands behind a user's name and a dot.
#[must_use]
pub fn tenant(settings: &Settings) -> String {
    supavisor::tenant_id(settings)
}

/// Postgres's or the pooler's address as a client on this machine has to say it, from a list that Postgres understands.
#[must_use]
pub fn from_here(listen: &str) -> &str {
    let mut addresses = listen.split(',').map(str::trim).filter(|a| !a.is_empty());
    match addresses.clone().find(|a| matches!(*a, "*" | "0.0.0.0" | "127.0.0.1" | "localhost")) {
        Some(_) => "127.0.0.1",
        None => match addresses.next() {
            None => "127.0.0.1",
            Some("::") => "::1",
            Some(other) => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_means_all_is_reached_over_loopback() {
        for (listen, here) in [
            ("*", "127.0.0.1"),
            ("localhost", "127.0.0.1"),
            ("10.0.0.1, 127.0.0.1", "127.0.0.1"),
            ("::", "::1"),
            ("10.0.0.1,10.0.0.2", "10.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(from_here(listen), here);
        }
    }
}
