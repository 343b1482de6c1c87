//! (being written)
pub mod duration;
pub mod problem;
