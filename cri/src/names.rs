//! Reservation of the names of pods and containers. The first request for a name takes it; an equal request joins
//! the creation in flight (single flight), a different one is refused. A failure frees the name. A request for a
//! name whose holder is being removed waits for the end of the removal, because kubelet creates a container's
//! successor before the old one is gone.
//!
//! ```text
//!   free --claim--> in flight --done--> held --leave--> leaving --release--> free
//!    ^                  |                ^------failure-----'                 ^
//!    '-----failure------'                 '---------------release-------------'
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// The longest wait for a removal, shorter than kubelet's wait for an answer.
const LONGEST_REMOVAL: Duration = Duration::from_secs(60);

type Outcome = Option<std::result::Result<String, Arc<Error>>>;

/// SHA-256 of a request's encoding. A request joins a creation in flight that has the same fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(message: &impl prost::Message) -> Self {
        Self(Sha256::digest(message.encode_to_vec()).into())
    }

    /// The fingerprint of a fresh id, for a request that joins no other.
    pub(crate) fn of_fresh(id: &str) -> Self {
        Self(Sha256::digest(id).into())
    }
}

#[derive(Debug)]
enum Entry {
    InFlight {
        request: Fingerprint,
        outcome: watch::Receiver<Outcome>,
    },
    Held {
        id: String,
    },
    /// The sender is dropped when the holder is gone or its removal has failed.
    Leaving {
        id: String,
        over: watch::Sender<()>,
    },
}

/// The state of a name as a request finds it.
enum Found {
    /// The name was free: this request holds it now, until the flight has ended.
    Free(Flight, watch::Receiver<Outcome>),
    /// The creation of an equal request is in flight.
    Joined(watch::Receiver<Outcome>),
    /// The holder of this id is being removed.
    Leaving(String, watch::Receiver<()>),
}

/// The names of one kind of thing.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    kind: &'static str,
    table: Arc<Mutex<HashMap<String, Entry>>>,
    tasks: TaskTracker,
    /// How long a request waits for the removal of its name's holder.
    patience: Duration,
}

impl Names {
    pub(crate) fn new(kind: &'static str, tasks: TaskTracker) -> Self {
        Self { kind, table: Arc::default(), tasks, patience: LONGEST_REMOVAL }
    }

    /// Runs the creation under `name` in a task of its own, which outlives the caller, or joins that of an equal
    /// request in flight; returns the id.
    pub(crate) async fn create<F>(&self, name: &str, request: Fingerprint, work: F) -> Result<String>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let mut outcome = self.claim(name, request, work).await?;
        let settled = outcome.wait_for(Option::is_some).await.map(|value| value.clone());
        match settled {
            Ok(Some(Ok(id))) => Ok(id),
            Ok(Some(Err(error))) => Err(Error::Joined(error)),
            Ok(None) | Err(_) => Err(Error::Lost { what: format!("creation of {} {name}", self.kind) }),
        }
    }

    /// Marks a name as held by `id`: at the daemon's start, and by a creation before others can find and remove
    /// its result.
    pub(crate) fn hold(&self, name: &str, id: &str) {
        self.lock().insert(name.to_owned(), Entry::Held { id: id.to_owned() });
    }

    /// Frees a name if `id` holds it.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut table = self.lock();
        if let Some(Entry::Held { id: holder } | Entry::Leaving { id: holder, .. }) = table.get(name)
            && holder == id
        {
            table.remove(name);
        }
    }

    /// Marks the holder of a name as being removed until the returned guard is dropped: requests for the name wait
    /// for that.
    pub(crate) fn leave(&self, name: &str, id: &str) -> Leaving {
        let mut table = self.lock();
        let held = matches!(table.get(name), Some(Entry::Held { id: holder }) if holder == id);
        if held {
            let (over, _) = watch::channel(());
            table.insert(name.to_owned(), Entry::Leaving { id: id.to_owned(), over });
        }
        drop(table);
        Leaving { names: self.clone(), name: name.to_owned(), id: id.to_owned(), began: held }
    }

    async fn claim<F>(&self, name: &str, request: Fingerprint, work: F) -> Result<watch::Receiver<Outcome>>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.find(name, request)? {
                Found::Joined(outcome) => return Ok(outcome),
                Found::Free(flight, outcome) => {
                    self.tasks.spawn(async move {
                        let result = work.await;
                        flight.settle(result);
                    });
                    return Ok(outcome);
                }
                Found::Leaving(id, mut over) => {
                    // Nothing is ever sent: the wait is for the sender's drop.
                    let waited = timeout_at(deadline, over.changed()).await;
                    if waited.is_err() {
                        return Err(Error::Leaving { kind: self.kind, name: name.to_owned(), id });
                    }
                }
            }
        }
    }

    fn find(&self, name: &str, request: Fingerprint) -> Result<Found> {
        let mut table = self.lock();
        match table.get(name) {
            Some(Entry::InFlight { request: first, outcome }) if *first == request => {
                return Ok(Found::Joined(outcome.clone()));
            }
            Some(Entry::InFlight { .. }) => {
                return Err(Error::InFlight { kind: self.kind, name: name.to_owned() });
            }
            Some(Entry::Held { id }) => {
                return Err(Error::Exists { kind: self.kind, name: name.to_owned(), id: id.clone() });
            }
            Some(Entry::Leaving { id, over }) => return Ok(Found::Leaving(id.clone(), over.subscribe())),
            None => {}
        }
        let (sender, outcome) = watch::channel(None);
        table.insert(name.to_owned(), Entry::InFlight { request, outcome: outcome.clone() });
        drop(table);
        let flight = Flight { names: self.clone(), name: name.to_owned(), sender, settled: false };
        Ok(Found::Free(flight, outcome))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a removal under way. If the name is still taken when it is dropped, the removal has failed, and the
/// name is held as before.
#[derive(Debug)]
pub(crate) struct Leaving {
    names: Names,
    name: String,
    id: String,
    /// Whether this guard made the name's entry: a second guard of the same removal changes nothing.
    began: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut table = self.names.lock();
        let ours = matches!(table.get(&self.name), Some(Entry::Leaving { id, .. }) if *id == self.id);
        if self.began && ours {
            table.insert(self.name.clone(), Entry::Held { id: self.id.clone() });
        }
    }
}

/// A creation in flight; its drop without an outcome (a panic) frees the name, too.
struct Flight {
    names: Names,
    name: String,
    sender: watch::Sender<Outcome>,
    settled: bool,
}

impl Flight {
    fn settle(mut self, result: Result<String>) {
        self.settled = true;
        self.leave(result.as_ref().ok());
        self.sender.send_replace(Some(result.map_err(Arc::new)));
    }

    /// Gives the name to an id or back, unless it is another's by now: what was made may have been removed already.
    fn leave(&self, holder: Option<&String>) {
        let mut table = self.names.lock();
        let ours = matches!(
            table.get(&self.name),
            Some(Entry::InFlight { outcome, .. }) if outcome.same_channel(&self.sender.subscribe())
        );
        match holder {
            Some(id) if ours => drop(table.insert(self.name.clone(), Entry::Held { id: id.clone() })),
            None if ours => drop(table.remove(&self.name)),
            Some(_) | None => {}
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.settled {
            self.leave(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_proto::runtime::v1::VersionRequest;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    fn request(text: &str) -> Fingerprint {
        Fingerprint::of(&VersionRequest { version: text.to_owned() })
    }

    fn names() -> Names {
        Names::new("pod", TaskTracker::new())
    }

    #[tokio::test]
    async fn an_equal_retry_joins_the_work_in_flight() {
        let names = names();
        let runs = Arc::new(AtomicUsize::new(0));
        let (go, gate) = oneshot::channel::<()>();
        let first = names.claim("a", request("1"), {
            let runs = runs.clone();
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                gate.await.unwrap();
                Ok("id".to_owned())
            }
        });
        drop(first.await.unwrap());
        let second = tokio::spawn({
            let names = names.clone();
            async move { names.create("a", request("1"), async { Ok("other".to_owned()) }).await }
        });
        tokio::task::yield_now().await;
        let different = names.create("a", request("2"), async { Ok("other".to_owned()) }).await;
        assert!(matches!(different, Err(Error::InFlight { .. })));
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap().unwrap(), "id");
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let late = names.create("a", request("1"), async { Ok("other".to_owned()) }).await;
        assert!(matches!(late, Err(Error::Exists { id, .. }) if id == "id"));
    }

    #[tokio::test]
    async fn a_failure_gives_the_name_back() {
        let names = names();
        let fail = async { Err(Error::Lost { what: "it".to_owned() }) };
        assert!(names.create("a", request("1"), fail).await.is_err());
        assert_eq!(names.create("a", request("2"), async { Ok("id".to_owned()) }).await.unwrap(), "id");
    }

    #[tokio::test]
    async fn a_panic_gives_the_name_back() {
        let names = names();
        let fail = async { panic!("on purpose") };
        assert!(matches!(names.create("a", request("1"), fail).await, Err(Error::Lost { .. })));
        assert!(names.create("a", request("1"), async { Ok("id".to_owned()) }).await.is_ok());
    }

    /// A removal that came between the making of a thing and the end of its creation left the name taken for good.
    #[tokio::test]
    async fn a_thing_that_is_removed_before_its_creation_has_ended_leaves_its_name_free() {
        for ends_well in [true, false] {
            let names = names();
            let work = {
                let names = names.clone();
                async move {
                    names.hold("a", "1");
                    names.release("a", "1");
                    drop(names.claim("a", request("2"), std::future::pending()).await);
                    if ends_well { Ok("1".to_owned()) } else { Err(Error::Lost { what: "it".to_owned() }) }
                }
            };
            assert_eq!(names.create("a", request("1"), work).await.is_ok(), ends_well);
            let third = names.claim("a", request("3"), async { Ok("3".to_owned()) }).await;
            assert!(matches!(third, Err(Error::InFlight { .. })), "the second has the name");
        }
    }

    #[tokio::test]
    async fn only_the_holder_gives_a_name_back() {
        let names = names();
        names.hold("a", "1");
        names.release("a", "2");
        assert!(names.create("a", request("1"), async { Ok("3".to_owned()) }).await.is_err());
        names.release("a", "1");
        assert!(names.create("a", request("1"), async { Ok("3".to_owned()) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_waits_for_the_removal_of_what_has_its_name() {
        for removed in [true, false] {
            let names = names();
            names.hold("a", "1");
            let leaving = names.leave("a", "1");
            // Another part of the same removal changes nothing.
            drop(names.leave("a", "1"));
            let waiting = [request("1"), request("1")].map(|request| {
                let names = names.clone();
                tokio::spawn(async move { names.create("a", request, async { Ok("2".to_owned()) }).await })
            });
            tokio::task::yield_now().await;
            assert!(waiting.iter().all(|one| !one.is_finished()));
            if removed {
                names.release("a", "1");
            }
            drop(leaving);
            for one in waiting {
                match one.await.unwrap() {
                    Ok(id) => assert!(removed && id == "2"),
                    Err(Error::Exists { id, .. }) => assert!(id == "1" && !removed || id == "2" && removed),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_removal_that_does_not_end_is_told() {
        let names = Names { patience: Duration::from_millis(20), ..names() };
        names.hold("a", "1");
        let _leaving = names.leave("a", "1");
        let outcome = names.create("a", request("1"), async { Ok("2".to_owned()) }).await;
        assert!(matches!(outcome, Err(Error::Leaving { id, .. }) if id == "1"));
    }
}
