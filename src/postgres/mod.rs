//! Postgres: its names, its files, its configuration, its life outside `supafly run`.

pub mod account;
mod adopt;
mod adoption;
pub mod bin;
pub mod conf;
pub mod control;
pub mod datadir;
pub mod hba;
mod initdb;
pub mod lsn;
mod means;
pub mod private;
mod role;
mod sockets;
pub(crate) mod tree;

pub(crate) use adopt::refusal;
pub(crate) use adoption::{asked, awaited, fits, opened, remembered};
pub(crate) use initdb::said;
pub(crate) use means::means;
pub use role::datadir_role;
pub(crate) use role::{Place, write_configuration};
