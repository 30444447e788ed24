//! Work that several want is done once. It runs in a task of its own; when the last who waits for it goes, it is aborted.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Pieces of work in flight, by key. `M` is what everyone who joins gets at once, such as a progress meter.
pub(crate) struct Once<K, V, M = ()> {
    flights: Arc<Mutex<Flights<K, V, M>>>,
}

struct Flights<K, V, M> {
    next: u64,
    flying: HashMap<K, Flight<V, M>>,
}

struct Flight<V, M> {
    number: u64,
    waiters: usize,
    result: watch::Receiver<Option<V>>,
    task: Option<AbortHandle>,
    meter: M,
}

/// A place among those who wait; dropped, it is given up.
pub(crate) struct Seat<K: Hash + Eq, V, M> {
    flights: Arc<Mutex<Flights<K, V, M>>>,
    key: K,
    number: u64,
    result: watch::Receiver<Option<V>>,
    pub(crate) meter: M,
}

impl<K, V, M> Default for Once<K, V, M> {
    fn default() -> Self {
        Self { flights: Arc::new(Mutex::new(Flights { next: 0, flying: HashMap::new() })) }
    }
}

impl<K, V, M> fmt::Debug for Once<K, V, M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Once")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V, M> Once<K, V, M>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    M: Clone + Send + 'static,
{
    /// Joins the work of this key, starting it where it is not under way.
    pub(crate) fn join<F>(&self, key: &K, meter: M, start: impl FnOnce(M) -> F) -> Seat<K, V, M>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        let seat = |number, result, meter| Seat {
            flights: Arc::clone(&self.flights),
            key: key.clone(),
            number,
            result,
            meter,
        };
        if let Some(flight) = flights.flying.get_mut(key) {
            flight.waiters += 1;
            return seat(flight.number, flight.result.clone(), flight.meter.clone());
        }
        flights.next += 1;
        let number = flights.next;
        let (sender, result) = watch::channel(None);
        let (work, all, own) = (start(meter.clone()), Arc::clone(&self.flights), key.clone());
        let task = tokio::spawn(async move {
            let value = work.await;
            {
                let mut flights = lock(&all);
                if flights.flying.get(&own).is_some_and(|flight| flight.number == number) {
                    flights.flying.remove(&own);
                }
            }
            sender.send_replace(Some(value));
        });
        let task = Some(task.abort_handle());
        let flight = Flight { number, waiters: 1, result: result.clone(), task, meter: meter.clone() };
        flights.flying.insert(key.clone(), flight);
        seat(number, result, meter)
    }
}

impl<K: Hash + Eq, V: Clone, M> Seat<K, V, M> {
    /// The result; none when the work died.
    pub(crate) async fn wait(&mut self) -> Option<V> {
        self.result.wait_for(Option::is_some).await.ok().and_then(|value| value.clone())
    }
}

impl<K: Hash + Eq, V, M> Drop for Seat<K, V, M> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        let Some(flight) = flights.flying.get_mut(&self.key).filter(|flight| flight.number == self.number)
        else {
            return;
        };
        flight.waiters -= 1;
        if flight.waiters == 0 {
            if let Some(task) = flight.task.take() {
                task.abort();
            }
            flights.flying.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn two_who_want_the_same_share_one_run() {
        let (once, runs) = (Once::<u8, usize>::default(), Arc::new(AtomicUsize::new(0)));
        let start = |()| {
            let runs = Arc::clone(&runs);
            async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let (mut one, mut two) = (once.join(&1, (), start), once.join(&1, (), start));
        assert_eq!((one.wait().await, two.wait().await), (Some(1), Some(1)));
    }

    #[tokio::test]
    async fn the_last_who_goes_ends_the_work() {
        let once = Once::<u8, ()>::default();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let start = |()| async move {
            let _held = sender;
            std::future::pending::<()>().await;
        };
        let one = once.join(&1, (), start);
        let two = once.join(&1, (), |()| async {});
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(lock(&once.flights).flying.len(), 1);
        drop(two);
        let ended = tokio::time::timeout(Duration::from_secs(5), receiver).await;
        assert!(ended.is_ok_and(|result| result.is_err()));
    }
}
