//! A promise of the machine: broken, it ends the history and is its outcome.

macro_rules! promise {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}
