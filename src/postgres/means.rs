//! What a restore needs of this machine, looked at before anything is taken from another: who was taken over stops for good,
//! and should not for a boot that can come to nothing.

use super::account::Account;
use super::bin;
use crate::config::Settings;
use crate::exit::Failure;
use crate::walg::Engine;

/// The major of the Postgres that would restore.
///
/// # Errors
/// What lacks, and what to do.
pub(crate) fn means(settings: &Settings) -> Result<u32, Failure> {
    let major = bin::find(settings)?.major;
    for user in ["postgres", "supafly"] {
        Account::named(user)?;
    }
    Engine::needed(settings)?;
    Ok(major)
}
