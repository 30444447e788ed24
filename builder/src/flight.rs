//! Steps under way, by their keys: of several builds that come to one step at once, one makes it, and the others take what
//! it has made. Equal builds are one image, also when nothing of it was in the cache.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipway_image::{Digest, Lease};

use crate::cache::Entry;
use crate::cancel::Cancellation;
use crate::error::Result;

/// How long a build that waits goes without looking whether it was given up.
const LOOK: Duration = Duration::from_millis(50);
/// How long the client of a build may take nothing of what it is told before others don't wait for that build any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a step has made, with a lease on its layer.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) entry: Entry,
    pub(crate) lease: Option<Lease>,
}

/// The steps under way of all builds. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<Digest, Arc<Flight>>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    /// Since when the build waits for its client to take what it is told.
    telling: Option<Instant>,
}

/// Marks the time that a build spends on telling its client; clones mark the same.
#[derive(Clone, Debug)]
pub(crate) struct Telling(Arc<Flight>);

impl Telling {
    /// Tells the client, who may be slow or stopped.
    pub(crate) fn tell(&self, tell: impl FnOnce()) {
        locked(&self.0.state).telling = Some(Instant::now());
        tell();
        locked(&self.0.state).telling = None;
    }
}

/// How the making of a step ended, for those that wait for it.
#[derive(Clone, Debug)]
enum End {
    Made(Made),
    /// The step failed, or its build's client is stuck: each that waits makes it by itself, and has an error of its own.
    Failed,
    /// Its build was given up: another makes it.
    GivenUp,
}

/// What a build that comes to a step is to do.
pub(crate) enum Turn {
    /// Make it, and say how that ended; others may wait.
    Mine(Mine),
    /// Make it; nobody waits.
    Alone,
    /// Take what another build has made.
    Made(Made),
}

/// The right to make a step; dropped, it is given up.
pub(crate) struct Mine {
    flights: Flights,
    key: Digest,
    flight: Arc<Flight>,
}

impl Flights {
    /// Waits for the build that makes this step; without one it is the caller's to make.
    ///
    /// # Errors
    /// When the caller's build is given up.
    pub(crate) fn join(&self, key: &Digest, cancel: &Cancellation) -> Result<Turn> {
        loop {
            let flight = {
                let mut under_way = locked(&self.0);
                match under_way.get(key) {
                    Some(flight) => Arc::clone(flight),
                    None => {
                        let flight = Arc::new(Flight::default());
                        under_way.insert(*key, Arc::clone(&flight));
                        return Ok(Turn::Mine(Mine { flights: self.clone(), key: *key, flight }));
                    }
                }
            };
            match flight.wait(cancel)? {
                End::Made(made) => return Ok(Turn::Made(made)),
                End::Failed => return Ok(Turn::Alone),
                End::GivenUp => {}
            }
        }
    }
}

impl Flight {
    fn wait(&self, cancel: &Cancellation) -> Result<End> {
        let mut state = locked(&self.state);
        loop {
            if let Some(end) = &state.end {
                return Ok(end.clone());
            }
            if state.telling.is_some_and(|since| since.elapsed() > PATIENCE) {
                return Ok(End::Failed);
            }
            cancel.check()?;
            state = self.ended.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Mine {
    /// Gives those that wait what was made.
    pub(crate) fn made(self, made: Made) {
        self.end(End::Made(made));
    }

    /// Tells those that wait that the step failed.
    pub(crate) fn failed(self) {
        self.end(End::Failed);
    }

    /// What marks the time that the step's build spends on telling its client.
    pub(crate) fn telling(&self) -> Telling {
        Telling(Arc::clone(&self.flight))
    }

    fn end(&self, end: End) {
        // From here on who comes to the step begins anew, and finds in the cache what was made.
        locked(&self.flights.0).remove(&self.key);
        locked(&self.flight.state).end.get_or_insert(end);
        self.flight.ended.notify_all();
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        if locked(&self.flight.state).end.is_none() {
            self.end(End::GivenUp);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn made(created: &str) -> Made {
        Made { entry: Entry { layer: None, created: created.into() }, lease: None }
    }

    #[test]
    fn one_makes_a_step_and_those_that_wait_take_it() {
        let (flights, key, cancel) = (Flights::default(), Digest::of(b"step"), Cancellation::default());
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let take = || match flights.join(&key, &cancel).unwrap() {
            Turn::Made(made) => Some(made.entry.created),
            // It came when all was over, and would find the step in the cache.
            Turn::Mine(_) => None,
            Turn::Alone => panic!("the step did not fail"),
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            mine.made(made("then"));
            for other in others {
                assert!(other.join().unwrap().is_none_or(|created| created == "then"));
            }
        });
        assert!(locked(&flights.0).is_empty());
    }

    #[test]
    fn a_step_that_was_given_up_is_another_s_and_one_that_failed_is_each_one_s() {
        let (flights, key, cancel) = (Flights::default(), Digest::of(b"step"), Cancellation::default());
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let flight = Arc::clone(&mine.flight);
        drop(mine);
        assert!(matches!(flight.wait(&cancel), Ok(End::GivenUp)));
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let flight = Arc::clone(&mine.flight);
        mine.failed();
        assert!(matches!(flight.wait(&cancel), Ok(End::Failed)));
    }

    #[test]
    fn a_build_whose_client_takes_nothing_is_not_waited_for() {
        let (flights, key, cancel) = (Flights::default(), Digest::of(b"step"), Cancellation::default());
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        mine.telling().tell(|| {
            let long_ago = Instant::now().checked_sub(PATIENCE * 2);
            locked(&mine.flight.state).telling = long_ago;
            assert!(matches!(flights.join(&key, &cancel), Ok(Turn::Alone)));
        });
        assert!(locked(&mine.flight.state).telling.is_none());
    }

    #[test]
    fn who_waits_can_be_given_up() {
        let (flights, key) = (Flights::default(), Digest::of(b"step"));
        let Turn::Mine(_mine) = flights.join(&key, &Cancellation::default()).unwrap() else {
            panic!("taken")
        };
        let cancel = Cancellation::default();
        cancel.cancel();
        assert!(matches!(flights.join(&key, &cancel), Err(Error::Cancelled)));
    }
}
