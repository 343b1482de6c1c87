//! Waits of requests, cut short when the whole stop begins: whatever the store does, every request is answered within
//! keeper's share of the stop.

use super::decide::Life;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Waits for `work` as long as the life of keeper allows; `None`: time is up. What was waited in a stop is taken off
/// the share that all requests have together.
pub(super) async fn bounded<T>(
    life: &watch::Sender<Life>,
    usual: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut changes = life.subscribe();
    let now = Instant::now();
    let far = now + Duration::from_secs(24 * 3600);
    let mut deadline = now.checked_add(usual).map_or(far, |d| d.min(far));
    let mut stop_seen: Option<Instant> = None;
    tokio::pin!(work);
    let outcome = loop {
        let current = *changes.borrow_and_update();
        let counts = match current {
            Life::Serving => false,
            Life::Stopping { .. } | Life::Draining => true,
        };
        if counts {
            let now = Instant::now();
            stop_seen.get_or_insert(now);
            deadline = deadline.min(now + current.allowance(usual));
        }
        tokio::select! {
            biased;
            done = &mut work => break Some(done),
            () = tokio::time::sleep_until(deadline) => break None,
            changed = changes.changed() => if changed.is_err() { break None },
        }
    };
    if let Some(seen) = stop_seen {
        let waited = seen.elapsed();
        life.send_if_modified(|life| {
            let before = *life;
            *life = life.spent(waited);
            *life != before
        });
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_request_under_way_when_the_stop_begins_is_answered_within_the_share() {
        let (life, _keep) = watch::channel(Life::Serving);
        let share = Duration::from_millis(80);
        let begun = Instant::now();
        let stop = async { life.send_modify(|l| *l = l.announced(share)) };
        let never = std::future::pending::<()>();
        let (answer, ()) = tokio::join!(bounded(&life, USUAL, never), stop);
        assert_eq!(answer, None);
        assert!(begun.elapsed() >= share / 3 && begun.elapsed() < USUAL / 4, "{:?}", begun.elapsed());
        // What it waited is gone from the share: whatever comes next waits for a part of what is left.
        let Life::Stopping { left } = *life.borrow() else { panic!("still stopping") };
        assert!(left <= share - share / 3, "{left:?}");
        assert_eq!(bounded(&life, USUAL, std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() < USUAL / 4);
    }

    #[tokio::test]
    async fn a_store_that_answers_leaves_the_share_for_others() {
        let share = Duration::from_secs(30);
        let (life, _keep) = watch::channel(Life::Stopping { left: share });
        assert_eq!(bounded(&life, USUAL, tokio::task::yield_now()).await, Some(()));
        let Life::Stopping { left } = *life.borrow() else { panic!("still stopping") };
        assert!(left > share / 2, "{left:?}");
    }

    #[tokio::test]
    async fn an_impossible_patience_is_no_panic() {
        let (life, _keep) = watch::channel(Life::Serving);
        assert_eq!(bounded(&life, Duration::MAX, async { 7 }).await, Some(7));
    }
}
