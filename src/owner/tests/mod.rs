//! The protocol of ownership: its table of decisions, and histories of faults and kills.

mod histories;
mod invariants;
mod mutants;
mod table;
