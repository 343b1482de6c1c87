//! The companion, `supafly machines`: what drives the Machines API of Fly. So far the shape of a machine's configuration and
//! the one that we give ([`config`]); it runs on an operator's machine and imports nothing of the supervisor.

pub mod config;
