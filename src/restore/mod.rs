//! From the archive to a data directory, in full, before Postgres starts.

pub mod plan;
mod run;
mod survey;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
pub(crate) use survey::patient;
