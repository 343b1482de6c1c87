//! supafly: one binary that turns one machine into a complete Supabase-style Postgres.
//!
//! `supafly run` is a small, generic supervisor ([`supervisor`], [`os`], [`control`], deciding in [`state`] and
//! [`plan`]); everything else is a role of the same binary, run as an ordinary service from `services/*.toml`
//! ([`secrets`], [`owner`], [`keeper`], [`postgres`], [`restore`], [`setup`], [`pooler`], [`postgrest`], [`web`]).
//! `ARCHITECTURE.md` has the picture.

pub mod access;
pub mod archive;
pub mod cli;
pub mod config;
pub mod control;
pub mod exit;
pub mod facts;
pub mod failpoint;
pub mod foreign;
pub mod keeper;
pub mod machines;
pub mod os;
pub mod owner;
pub mod plan;
pub mod pooler;
pub mod postgres;
pub mod postgrest;
pub mod probe;
pub mod restore;
pub mod secrets;
pub mod setup;
pub mod spec;
pub mod state;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod versions;
pub mod walg;
pub mod web;
