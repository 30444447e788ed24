//! Single flights whose work is a task of its own: it is aborted when the last caller that waits for it goes.

use std::hash::Hash;

use slipway_disk::{Follow, Joined, SingleFlight};

/// Joins the work of a key, or starts it as a task where it is not under way. `meter` is for all that join.
pub(crate) fn join<K, V, M, F>(
    flights: &SingleFlight<K, V, M>,
    key: &K,
    meter: M,
    start: impl FnOnce(M) -> F,
) -> Follow<K, V, M>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
    M: Clone + Send + Sync + 'static,
    F: Future<Output = V> + Send + 'static,
{
    let lead = match flights.join(key, || meter) {
        Joined::Follow(follow) => return follow,
        Joined::Lead(lead) => lead,
    };
    let (follow, work) = (lead.follow(), start(lead.shared().clone()));
    let task = tokio::spawn(async move { lead.land(work.await) });
    follow.when_deserted(move || task.abort());
    follow
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn two_who_want_the_same_share_one_run() {
        let (flights, runs) = (SingleFlight::<u8, usize>::default(), Arc::new(AtomicUsize::new(0)));
        let start = |()| {
            let runs = Arc::clone(&runs);
            async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let (one, two) = (join(&flights, &1, (), start), join(&flights, &1, (), start));
        assert_eq!((one.value().await, two.value().await), (Some(1), Some(1)));
    }

    #[tokio::test]
    async fn the_last_who_goes_ends_the_work() {
        let flights = SingleFlight::<u8, ()>::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let start = |()| async move {
            let _held = sender;
            std::future::pending::<()>().await;
        };
        let one = join(&flights, &1, (), start);
        let two = join(&flights, &1, (), |()| async {});
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(flights.in_flight(), 1);
        drop(two);
        let ended = tokio::time::timeout(Duration::from_secs(5), receiver).await;
        assert!(ended.is_ok_and(|result| result.is_err()));
        assert_eq!(flights.in_flight(), 0);
    }

    #[tokio::test]
    async fn work_that_panics_is_given_up_for_all_that_wait() {
        let flights = SingleFlight::<u8, ()>::default();
        let one = join(&flights, &1, (), |()| async { panic!("it is meant to") });
        assert_eq!(one.value().await, None);
    }
}
