//! Deliberate defects, to prove that the properties of `tests.rs` see them.
//!
//! A property that never fails proves nothing. Each [`Mutant`] breaks one decision; `tests::every_mutant_is_caught`
//! switches them on one by one and demands that some random history shows it. Outside tests [`is`] is `false` and the
//! compiler removes the question.

/// One decision taken wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// An event of a former run is believed.
    StaleEvents,
    /// A stop does not keep waiting services from starting.
    StartWhileStopping,
    /// A fence that comes while spawning is forgotten.
    FenceLostWhileSpawning,
    /// The ladder ends without SIGKILL.
    NoKillAtTheEnd,
    /// The same rung again and again.
    RungStays,
    /// Having been ready for a moment forgives all former failures.
    ReadinessForgives,
    /// The breaker never opens.
    UnlimitedAttempts,
    /// `requires` is not waited for.
    RequiresIgnored,
    /// `requires` is not asked again before a restart.
    RequiresIgnoredOnRestart,
    /// Dependencies are stopped together with their dependents.
    NoStopOrder,
    /// A dead leader counts as a service that is gone.
    EndsWhileClearing,
    /// Hurry may skip the whole ladder.
    HurryKillsFirst,
    /// The whole ends cleanly, whatever happened.
    AlwaysClean,
    /// A force used in a former run is charged to the whole stop.
    OldForceCounts,
    /// What stands still is joined by others.
    StartWhileFrozen,
    /// What a service stood still is held against it.
    StandingCounts,
    /// A service is stopped while others run on it.
    StopPullsTheGround,
    /// Those who go with a service come back before it has gone.
    DependentsStartEarly,
    /// What came due while we stood still ourselves is held against the others.
    OversleepingCounts,
    /// Silence counts while the ground is missing.
    LiveWithoutGround,
    /// Nobody is told that an outage is over.
    OutageNeverEnds,
    /// A start that had no room counts as an attempt.
    WantOfRoomCounts,
    /// A service is started although there is too little room.
    StartWithoutRoom,
    /// A look of a former end is believed.
    StaleLooks,
}

#[cfg(not(test))]
pub(super) const fn is(_: Mutant) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(super) fn is(mutant: Mutant) -> bool {
    PRESENT.get() == Some(mutant)
}

/// Runs `what` with one defect present, in this thread only.
#[cfg(test)]
pub(super) fn with<T>(mutant: Option<Mutant>, what: impl FnOnce() -> T) -> T {
    PRESENT.set(mutant);
    let out = what();
    PRESENT.set(None);
    out
}
