//! The real binary with a stand-in service: starting, stopping, crashing, logging, sockets, as a child and as PID 1.
