//! Postgres: its names, its files, its configuration, its life outside `supafly run`.
pub mod lsn;
