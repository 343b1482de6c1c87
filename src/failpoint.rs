//! Named points at which a test can kill or hang this very process: `SUPAFLY_FAILPOINT=datadir.after-rename` (SIGKILL)
//! or `…:hang`. Whatever survives a kill at each point is what a power cut leaves; the tests of issue "The first
//! machine that outlives its volume" go through all of them. Costs one look at the environment in a role's life.

use std::sync::OnceLock;

enum Wanted {
    Nothing,
    Kill(String),
    Hang(String),
}

fn wanted() -> &'static Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    WANTED.get_or_init(|| {
        let Some(value) = crate::facts::environment().remove("SUPAFLY_FAILPOINT").filter(|v| !v.is_empty())
        else {
            return Wanted::Nothing;
        };
        match value.strip_suffix(":hang") {
            Some(name) => Wanted::Hang(name.to_owned()),
            None => Wanted::Kill(value),
        }
    })
}

/// Ends or hangs the process here when a test asked for it.
pub fn hit(name: &str) {
    match wanted() {
        Wanted::Kill(at) if at == name => {
            tracing::warn!("killed by a failpoint: {name}");
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
        Wanted::Hang(at) if at == name => {
            tracing::warn!("hung by a failpoint: {name}");
            loop {
                nix::unistd::pause();
            }
        }
        Wanted::Nothing | Wanted::Kill(_) | Wanted::Hang(_) => {}
    }
}
