//! Work that several callers want at once is done once.
//!
//! ```text
//! join(key) --nobody does it--> Lead --land(value)--> every Follow has the value
//!     |                           '---dropped-------> every Follow is told that it was given up
//!     '-------somebody does it--> Follow
//! ```
//! When its leader lands or gives up, the key is free: the next caller leads anew. Work that is done for its followers
//! alone is stopped when the last of them goes ([`Follow::when_deserted`]), which frees the key too.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The work in flight, by key. `S` is shared by the leader and its followers from the beginning, such as a progress meter.
/// Clones are the same.
pub struct SingleFlight<K, V, S = ()>(Arc<Flights<K, V, S>>);

type Flights<K, V, S> = Mutex<HashMap<K, Arc<Flight<V, S>>>>;

struct Flight<V, S> {
    state: Mutex<State<V>>,
    ended: Condvar,
    shared: S,
}

struct State<V> {
    /// The end: a value, or none when it was given up.
    end: Option<Option<V>>,
    followers: usize,
    wakers: Vec<Waker>,
    deserted: Option<Box<dyn FnOnce() + Send>>,
}

/// The part that a caller has in a piece of work.
#[derive(Debug)]
pub enum Joined<K: Hash + Eq, V, S> {
    /// Do it, and land.
    Lead(Lead<K, V, S>),
    /// Wait for the one who does it.
    Follow(Follow<K, V, S>),
}

/// The right to do a piece of work; dropped, it is given up.
pub struct Lead<K: Hash + Eq, V, S> {
    flights: Arc<Flights<K, V, S>>,
    key: K,
    flight: Arc<Flight<V, S>>,
}

/// A place among those who wait for a piece of work.
pub struct Follow<K: Hash + Eq, V, S> {
    flights: Arc<Flights<K, V, S>>,
    key: K,
    flight: Arc<Flight<V, S>>,
}

impl<K: Hash + Eq + Clone, V: Clone, S> SingleFlight<K, V, S> {
    /// Follows the work of this key, or leads it where nobody does it.
    pub fn join(&self, key: &K, shared: impl FnOnce() -> S) -> Joined<K, V, S> {
        let mut flights = locked(&self.0);
        if let Some(flight) = flights.get(key) {
            return Joined::Follow(Follow::new(&self.0, key, flight));
        }
        let state = State { end: None, followers: 0, wakers: Vec::new(), deserted: None };
        let flight = Arc::new(Flight { state: Mutex::new(state), ended: Condvar::new(), shared: shared() });
        flights.insert(key.clone(), Arc::clone(&flight));
        Joined::Lead(Lead { flights: Arc::clone(&self.0), key: key.clone(), flight })
    }

    /// How many pieces of work are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        locked(&self.0).len()
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S> Lead<K, V, S> {
    /// A further place among the followers, for the leader's own caller.
    #[must_use]
    pub fn follow(&self) -> Follow<K, V, S> {
        let _flights = locked(&self.flights);
        Follow::new(&self.flights, &self.key, &self.flight)
    }
}

impl<K: Hash + Eq, V, S> Lead<K, V, S> {
    /// The part that is shared with the followers.
    pub fn shared(&self) -> &S {
        &self.flight.shared
    }

    /// Gives the value to all followers.
    pub fn land(self, value: V) {
        self.end(Some(value));
    }

    fn end(&self, end: Option<V>) {
        // A caller that comes from here on begins anew.
        free(&mut locked(&self.flights), &self.key, &self.flight);
        let mut state = locked(&self.flight.state);
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let (wakers, stop) = (std::mem::take(&mut state.wakers), state.deserted.take());
        drop(state);
        self.flight.ended.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        drop(stop);
    }
}

impl<K: Hash + Eq, V, S> Drop for Lead<K, V, S> {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl<K: Hash + Eq + Clone, V, S> Follow<K, V, S> {
    /// The caller holds the lock of the flights: the last follower can't go at the same time.
    fn new(flights: &Arc<Flights<K, V, S>>, key: &K, flight: &Arc<Flight<V, S>>) -> Self {
        locked(&flight.state).followers += 1;
        Self { flights: Arc::clone(flights), key: key.clone(), flight: Arc::clone(flight) }
    }
}

impl<K: Hash + Eq, V: Clone, S> Follow<K, V, S> {
    /// The part that is shared with the leader.
    pub fn shared(&self) -> &S {
        &self.flight.shared
    }

    /// Has the work stopped when its last follower goes before it has landed: nobody else wants it.
    pub fn when_deserted(&self, stop: impl FnOnce() + Send + 'static) {
        let mut state = locked(&self.flight.state);
        if state.end.is_none() {
            state.deserted = Some(Box::new(stop));
        }
    }

    /// Waits for the end, but no longer than this: the value, or none inside when the work was given up.
    #[must_use]
    pub fn wait(&self, most: Duration) -> Option<Option<V>> {
        let state = locked(&self.flight.state);
        let is_under_way = |state: &mut State<V>| state.end.is_none();
        let waited = self.flight.ended.wait_timeout_while(state, most, is_under_way);
        waited.unwrap_or_else(PoisonError::into_inner).0.end.clone()
    }

    /// The value; none when the work was given up.
    pub async fn value(&self) -> Option<V> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<V>> {
        let mut state = locked(&self.flight.state);
        if let Some(end) = &state.end {
            return Poll::Ready(end.clone());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<K: Hash + Eq, V, S> Drop for Follow<K, V, S> {
    fn drop(&mut self) {
        let stop = {
            let mut flights = locked(&self.flights);
            let mut state = locked(&self.flight.state);
            state.followers = state.followers.saturating_sub(1);
            let stop = if state.followers == 0 { state.deserted.take() } else { None };
            if stop.is_some() {
                free(&mut flights, &self.key, &self.flight);
            }
            stop
        };
        // Without the locks: it may drop the leader.
        if let Some(stop) = stop {
            stop();
        }
    }
}

/// Takes a piece of work off the list, unless another of its key has begun.
fn free<K: Hash + Eq, V, S>(
    flights: &mut HashMap<K, Arc<Flight<V, S>>>,
    key: &K,
    flight: &Arc<Flight<V, S>>,
) {
    if flights.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
        flights.remove(key);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V, S> Default for SingleFlight<K, V, S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, V, S> Clone for SingleFlight<K, V, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V, S> fmt::Debug for SingleFlight<K, V, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SingleFlight")
    }
}

impl<K: Hash + Eq, V, S> fmt::Debug for Lead<K, V, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lead")
    }
}

impl<K: Hash + Eq, V, S> fmt::Debug for Follow<K, V, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Follow")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    type Numbers = SingleFlight<&'static str, u32, AtomicBool>;

    fn lead(flights: &Numbers) -> Lead<&'static str, u32, AtomicBool> {
        match flights.join(&"key", AtomicBool::default) {
            Joined::Lead(lead) => lead,
            Joined::Follow(_) => panic!("somebody does it"),
        }
    }

    fn follow(flights: &Numbers) -> Follow<&'static str, u32, AtomicBool> {
        match flights.join(&"key", AtomicBool::default) {
            Joined::Lead(_) => panic!("nobody does it"),
            Joined::Follow(follow) => follow,
        }
    }

    /// Polls once with a waker that sets a flag.
    fn poll(follow: &Follow<&'static str, u32, AtomicBool>, flag: &Arc<Flag>) -> Poll<Option<u32>> {
        follow.poll(&mut Context::from_waker(&Waker::from(Arc::clone(flag))))
    }

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_does_the_work_and_all_that_came_meanwhile_have_its_value() {
        let flights = Numbers::default();
        let leader = lead(&flights);
        leader.shared().store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4)
                .map(|_| follow(&flights))
                .map(|one| scope.spawn(move || one.wait(Duration::from_secs(60))))
                .collect();
            let (asynchronous, flag) = (follow(&flights), Arc::new(Flag::default()));
            assert!(asynchronous.shared().load(Ordering::SeqCst));
            assert_eq!(poll(&asynchronous, &flag), Poll::Pending);
            assert_eq!(asynchronous.wait(Duration::ZERO), None);
            leader.land(7);
            assert!(waiting.into_iter().all(|one| one.join().unwrap() == Some(Some(7))));
            assert!(flag.0.load(Ordering::SeqCst));
            assert_eq!(poll(&asynchronous, &flag), Poll::Ready(Some(7)));
        });
        assert_eq!(flights.in_flight(), 0);
    }

    #[test]
    fn work_that_was_given_up_is_the_next_caller_s() {
        let flights = Numbers::default();
        let leader = lead(&flights);
        let waiting = follow(&flights);
        drop(leader);
        assert_eq!(waiting.wait(Duration::from_secs(60)), Some(None));
        lead(&flights).land(1);
    }

    #[test]
    fn followers_that_go_stop_only_work_that_is_done_for_them_alone() {
        let flights = Numbers::default();
        let leader = lead(&flights);
        drop(follow(&flights));
        assert_eq!(flights.in_flight(), 1);
        let stopped = Arc::new(AtomicBool::new(false));
        let (one, two, flag) = (leader.follow(), follow(&flights), Arc::clone(&stopped));
        one.when_deserted(move || flag.store(true, Ordering::SeqCst));
        drop(one);
        assert!(!stopped.load(Ordering::SeqCst));
        drop(two);
        assert!(stopped.load(Ordering::SeqCst));
        // The next caller's work is not ended by what is left of the first.
        let next = lead(&flights);
        leader.land(1);
        assert_eq!(flights.in_flight(), 1);
        let waiting = follow(&flights);
        next.land(2);
        assert_eq!(waiting.wait(Duration::ZERO), Some(Some(2)));
    }

    #[test]
    fn followers_that_go_after_the_landing_stop_nothing() {
        let flights = Numbers::default();
        let leader = lead(&flights);
        let waiting = leader.follow();
        waiting.when_deserted(|| panic!("it has landed"));
        leader.land(3);
        assert_eq!(waiting.wait(Duration::ZERO), Some(Some(3)));
        drop(waiting);
        assert_eq!(flights.in_flight(), 0);
    }
}
