//! What a client needs to come in: connection strings and API keys, for people (`supafly keys`) and for programs
//! (`supafly status -o env|json`), by the names that Supabase's tool gives them.
//!
//! Addresses are not guessed from the environment of whoever asks, which need not be the machine's: the role `secrets`
//! writes those that this boot uses into the run directory ([`Endpoints`]). They are no secret; keys and passwords are
//! read where `secrets` keeps them, which only root may.

mod endpoints;
mod render;
mod values;

pub use endpoints::Endpoints;
pub use render::Format;

use crate::config::Settings;
use crate::control::commands;
use crate::exit::{Exit, Failure};
use crate::owner::durable;
use crate::secrets;
use values::{Secrets, Value};

/// How it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whom clients are to ask for, when it is not this machine itself.
    pub host: Option<String>,
    /// Names of values, and by which other names they are to be shown.
    pub renamed: Vec<(String, String)>,
}

/// `supafly keys`: also of a machine that does not run.
///
/// # Errors
/// Nothing has booted here, or the secrets are not for whoever asks.
pub fn keys(settings: &Settings, format: Format, shown: &Shown) -> Result<Exit, Failure> {
    let endpoints = Endpoints::read(&settings.run)?;
    show(&endpoints, format, shown)
}

/// `supafly status -o`: of a machine that runs, without what it does not have.
///
/// # Errors
/// As [`keys`]; and nothing runs.
pub fn of_running(settings: &Settings, format: Format, shown: &Shown) -> Result<Exit, Failure> {
    let absent = commands::absent(&settings.run)?;
    let endpoints = Endpoints::read(&settings.run)?.without(&absent);
    show(&endpoints, format, shown)
}

/// Writes down where this boot's services are, for those who ask.
///
/// # Errors
/// The run directory cannot be written.
pub fn publish(settings: &Settings) -> Result<(), Failure> {
    let path = Endpoints::path(&settings.run);
    durable::write(&path, Endpoints::of(settings).text().as_bytes(), 0o644)
        .map_err(|e| Failure::gave_up(format!("{}: cannot be written: {e}", path.display())))
}

fn show(endpoints: &Endpoints, format: Format, shown: &Shown) -> Result<Exit, Failure> {
    let keys = secrets::keys(&endpoints.data)?;
    let password = secrets::superuser(&endpoints.data)?;
    if password.is_none() {
        commands::aside(
            "the password of the database role postgres is not known here (the cluster was made elsewhere): give it as \
             POSTGRES_PASSWORD, or set a new one with `alter role postgres password …`",
        );
    }
    let all = values::values(endpoints, &Secrets { keys, password }, shown.host.as_deref());
    let all = values::renamed(all, &shown.renamed)?;
    commands::print_all(&render::render(&all, format))?;
    Ok(Exit::Clean)
}
