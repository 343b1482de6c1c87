//! The `setup` role against a real Postgres.
