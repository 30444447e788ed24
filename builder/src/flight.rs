//! Steps under way, by their keys: of several builds that come to one step at once, one makes it, and the others take what
//! it has made. Equal builds are one image, also when nothing of it was in the cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use slipway_disk::{Follow, Joined, Lead, SingleFlight};
use slipway_image::{Digest, Lease};

use crate::cache::Entry;
use crate::cancel::Cancellation;
use crate::error::Result;

/// How long a build that waits goes without looking whether it was given up.
const LOOK: Duration = Duration::from_millis(50);
/// How long the client of a build may take nothing of what it is told before others don't wait for that build any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The layer that a step has made, with a lease on it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) entry: Entry,
    pub(crate) lease: Option<Lease>,
}

/// The steps under way of all builds. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(SingleFlight<Digest, End, Telling>);

/// Marks the time that a build spends on telling its client; clones mark the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telling(Arc<Mutex<Option<Instant>>>);

impl Telling {
    /// Tells the client, who may be slow or stopped.
    pub(crate) fn tell(&self, tell: impl FnOnce()) {
        *self.since() = Some(Instant::now());
        tell();
        *self.since() = None;
    }

    fn is_stuck(&self) -> bool {
        self.since().is_some_and(|since| since.elapsed() > PATIENCE)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the making of a step ended, for those that wait for it.
#[derive(Clone, Debug)]
enum End {
    Made(Made),
    /// The step failed: each that waits makes it by itself, and has an error of its own.
    Failed,
}

/// The part that a build has in a step to which it comes.
pub(crate) enum Turn {
    /// Make it, and say how that ended; others may wait.
    Mine(Mine),
    /// Make it; nobody waits.
    Alone,
    /// Take what another build has made.
    Made(Made),
}

/// The right to make a step; dropped, it is given up.
pub(crate) struct Mine(Lead<Digest, End, Telling>);

impl Flights {
    /// Waits for the build that makes this step; without one it is the caller's to make. One that is given up is made by
    /// another of those that wait.
    ///
    /// # Errors
    /// When the caller's build is given up.
    pub(crate) fn join(&self, key: &Digest, cancel: &Cancellation) -> Result<Turn> {
        loop {
            let follow = match self.0.join(key, Telling::default) {
                Joined::Lead(lead) => return Ok(Turn::Mine(Mine(lead))),
                Joined::Follow(follow) => follow,
            };
            if let Some(turn) = wait(&follow, cancel)? {
                return Ok(turn);
            }
        }
    }
}

/// Waits for the end of a step; none when it was given up.
fn wait(follow: &Follow<Digest, End, Telling>, cancel: &Cancellation) -> Result<Option<Turn>> {
    loop {
        match follow.wait(LOOK) {
            Some(Some(End::Made(made))) => return Ok(Some(Turn::Made(made))),
            Some(Some(End::Failed)) => return Ok(Some(Turn::Alone)),
            Some(None) => return Ok(None),
            None if follow.shared().is_stuck() => return Ok(Some(Turn::Alone)),
            None => cancel.check()?,
        }
    }
}

impl Mine {
    /// Gives those that wait the layer that was made.
    pub(crate) fn made(self, made: Made) {
        self.0.land(End::Made(made));
    }

    /// Tells those that wait that the step failed.
    pub(crate) fn failed(self) {
        self.0.land(End::Failed);
    }

    /// The mark of the time that the step's build spends on telling its client.
    pub(crate) fn telling(&self) -> Telling {
        self.0.shared().clone()
    }
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
        assert_eq!(flights.0.in_flight(), 0);
    }

    fn follow(flights: &Flights, key: &Digest) -> Follow<Digest, End, Telling> {
        match flights.0.join(key, Telling::default) {
            Joined::Follow(follow) => follow,
            Joined::Lead(_) => panic!("nobody makes it"),
        }
    }

    #[test]
    fn a_step_that_was_given_up_is_another_s_and_one_that_failed_is_each_one_s() {
        let (flights, key, cancel) = (Flights::default(), Digest::of(b"step"), Cancellation::default());
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let waiting = follow(&flights, &key);
        drop(mine);
        assert!(matches!(wait(&waiting, &cancel), Ok(None)));
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let waiting = follow(&flights, &key);
        mine.failed();
        assert!(matches!(wait(&waiting, &cancel), Ok(Some(Turn::Alone))));
    }

    #[test]
    fn a_build_whose_client_takes_nothing_is_not_waited_for() {
        let (flights, key, cancel) = (Flights::default(), Digest::of(b"step"), Cancellation::default());
        let Turn::Mine(mine) = flights.join(&key, &cancel).unwrap() else { panic!("it is taken") };
        let telling = mine.telling();
        telling.tell(|| {
            *telling.since() = Instant::now().checked_sub(PATIENCE * 2);
            assert!(matches!(flights.join(&key, &cancel), Ok(Turn::Alone)));
        });
        assert!(telling.since().is_none());
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
