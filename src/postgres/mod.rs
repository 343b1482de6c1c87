//! Postgres: its names, its files, its configuration, its life outside `supafly run`.
pub mod bin;
pub mod conf;
pub mod control;
pub mod hba;
pub mod lsn;
