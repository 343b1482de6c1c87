//! (being written)

mod rundir;
