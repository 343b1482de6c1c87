//! The end: clients first, then Supavisor, within the supervisor's share of the stop.

use super::api::Api;
use crate::exit::{Exit, Failure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// A drain takes five seconds when somebody is inside a transaction.
const DRAIN: Duration = Duration::from_millis(5_500);
/// What it needs after its TERM.
const ORDERLY: Duration = Duration::from_millis(1_300);
/// What it needs after its QUIT, which leaves out nothing that a client could notice.
const QUICK: Duration = Duration::from_millis(200);
/// A drain shorter than that is worth less than the order of the end.
const WORTH: Duration = Duration::from_millis(500);

/// How long clients are waited for, and what ends Supavisor then. The first of the two rungs of the stop has two thirds of
/// our share; what is not done by then is ended by the second.
fn plan(share: Duration) -> (Duration, Signal) {
    let rung = share * 2 / 3;
    match rung.checked_sub(ORDERLY).filter(|left| *left >= WORTH) {
        Some(left) => (left.min(DRAIN), Signal::SIGTERM),
        None => (rung.saturating_sub(QUICK).min(DRAIN), Signal::SIGQUIT),
    }
}

fn share() -> Duration {
    let told = crate::facts::environment().get("SUPAFLY_STOP_MS").and_then(|ms| ms.parse().ok());
    told.map_or((DRAIN + ORDERLY) * 3 / 2, Duration::from_millis)
}

/// Begins the end, on a thread of its own.
pub(super) fn drain(api: &Api, id: &str, server: Pid) {
    let (budget, last) = plan(share());
    let (api, path) = (api.clone(), format!("/api/tenants/{id}/terminate"));
    std::thread::spawn(move || {
        if !budget.is_zero() {
            match api.ask("GET", &path, None, budget) {
                Ok(answer) if answer.status == 200 => tracing::info!("its clients have gone"),
                Ok(answer) => {
                    tracing::warn!(status = answer.status, "it does not drain; its clients are cut");
                }
                Err(e) => tracing::warn!(error = %e, "not all have gone in time; its clients are cut"),
            }
        }
        tell(server, last);
    });
}

fn tell(server: Pid, signal: Signal) {
    // Gone already is as good.
    let _ = kill(server, signal);
}

/// Whether it ended as it was told to: also by our own signal, before it had its handlers.
fn wanted(status: ExitStatus) -> bool {
    let ours = [Signal::SIGTERM, Signal::SIGQUIT].map(|s| s as i32);
    status.success() || status.signal().is_some_and(|s| ours.contains(&s))
}

/// Until Supavisor has ended: the first signal drains, the second ends it at once.
pub(super) fn attend(server: &mut Child, signals: &mut Signals, begin: impl Fn()) -> Result<Exit, Failure> {
    let pid = Pid::from_raw(i32::try_from(server.id()).unwrap_or(i32::MAX));
    let mut told = false;
    loop {
        // First, because its end may have been noted before we came here.
        let ended = server.try_wait().map_err(|e| Failure::gave_up(format!("Supavisor is lost: {e}")))?;
        match ended {
            None => {}
            Some(status) if told && wanted(status) => return Ok(Exit::Clean),
            Some(status) => return Err(Failure::gave_up(format!("Supavisor ended: {status}"))),
        }
        for signal in signals.wait() {
            match (signal, told) {
                (SIGCHLD | SIGUSR1 | SIGUSR2, _) => {}
                (_, false) => {
                    told = true;
                    begin();
                }
                (_, true) => tell(pid, Signal::SIGQUIT),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rung_is_enough_for_drain_and_end_whatever_the_share() {
        let of = |ms| plan(Duration::from_millis(ms));
        assert_eq!(of(60_000), (DRAIN, Signal::SIGTERM));
        for ms in [0, 100, 500, 1_000, 2_100, 2_700, 3_000, 9_000, 60_000] {
            let (drain, last) = of(ms);
            let end = if last == Signal::SIGTERM { ORDERLY } else { QUICK };
            assert!(
                drain + end <= (Duration::from_millis(ms) * 2 / 3).max(QUICK),
                "{ms}: {drain:?} {last:?}"
            );
        }
        // The default stop outside of Fly, and on it.
        assert_eq!(of(2_100), (Duration::from_millis(1_200), Signal::SIGQUIT));
        assert_eq!(of(1_050), (Duration::from_millis(500), Signal::SIGQUIT));
    }
}
