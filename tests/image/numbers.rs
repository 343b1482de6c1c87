//! What the image costs.
