//! Whether a pod's monitor can be reached.
//!
//! ```text
//!             adopted                 a call is not answered in time
//!   Pending ───────────► Answering ──────────────────────────────────► Silent
//!      │                     ▲          it answers: a call, or the probe  │
//!      ├─────────► Silent    └────────────────────────────────────────────┘
//!      └─────────► Gone ◄──── its process is proven dead (from every state)
//! ```
//! A call waits here while the monitor is pending or silent, at most [`PROMPT`], so that however many there are, they hold
//! no descriptors and leave the monitor's listen backlog alone.

use crate::monitor_client::{Connection, PROMPT};
use crate::pod::{lock, now};
use slipway_monitor::protocol::{Request, VERSION};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// The daemon's contact with a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contact {
    /// This daemon has not heard of it yet.
    Pending,
    /// It has answered, and no call since has waited in vain.
    Answering,
    /// It does not answer, or can't be asked.
    Silent {
        /// Since when, in nanoseconds since the epoch.
        since: i64,
        /// The reason: the call that failed or was not answered, and its error.
        why: String,
    },
    /// It has ended.
    Gone,
}

/// The way to a pod's monitor.
#[derive(Debug)]
pub(crate) struct Link {
    contact: Mutex<Contact>,
    changed: Condvar,
    /// The connection that its watch listens to.
    watched: Mutex<Option<Arc<Connection>>>,
}

impl Link {
    pub(crate) fn new(contact: Contact) -> Self {
        Self { contact: Mutex::new(contact), changed: Condvar::new(), watched: Mutex::new(None) }
    }

    pub(crate) fn contact(&self) -> Contact {
        lock(&self.contact).clone()
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(*lock(&self.contact), Contact::Silent { .. })
    }

    /// Marks the monitor as answering.
    pub(crate) fn answers(&self) {
        self.set(Contact::Answering);
    }

    /// Marks the monitor as ended, which is final.
    pub(crate) fn is_gone(&self) {
        self.set(Contact::Gone);
    }

    fn set(&self, contact: Contact) {
        let mut held = lock(&self.contact);
        if *held != Contact::Gone {
            *held = contact;
        }
        self.changed.notify_all();
    }

    /// Marks the monitor as silent, unless it is gone. Returns whether it was pending or answering before: the caller
    /// then reports it and sends a probe.
    pub(crate) fn is_lost_sight_of(&self, why: &str) -> bool {
        let mut held = lock(&self.contact);
        match &mut *held {
            Contact::Gone => false,
            Contact::Silent { why: known, .. } => {
                why.clone_into(known);
                false
            }
            Contact::Pending | Contact::Answering => {
                *held = Contact::Silent { since: now(), why: why.to_owned() };
                self.changed.notify_all();
                true
            }
        }
    }

    /// Sets the connection that the monitor's watch listens to.
    pub(crate) fn watch_by(&self, connection: Option<Arc<Connection>>) {
        *lock(&self.watched) = connection;
    }

    /// Asks the monitor for a sign of life on the connection that is listened to: the answer comes when it can answer.
    pub(crate) fn probe(&self) {
        if let Some(connection) = &*lock(&self.watched) {
            // When the connection is gone, the thread that listens to it connects again.
            let _ = connection.send_at_once(&Request::Hello { version: VERSION });
        }
    }

    /// Waits until the monitor is no longer pending, or until `end`.
    pub(crate) fn wait_heard_of(&self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now());
        let held = lock(&self.contact);
        let pending = |contact: &mut Contact| *contact == Contact::Pending;
        drop(self.changed.wait_timeout_while(held, left, pending).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the monitor answers or is gone.
    ///
    /// # Errors
    /// The reason why it can't be asked, when it is still pending or silent after [`PROMPT`].
    pub(crate) fn wait(&self) -> Result<(), String> {
        let end = Instant::now() + PROMPT;
        let mut held = lock(&self.contact);
        loop {
            let why = match &*held {
                Contact::Answering | Contact::Gone => return Ok(()),
                Contact::Pending => "it has not been heard of since the daemon has started",
                Contact::Silent { why, .. } => why,
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(why.to_owned());
            }
            held = self.changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_news_once_and_keeps_its_beginning() {
        let link = Link::new(Contact::Pending);
        assert!(link.is_lost_sight_of("connect: timed out"));
        let Contact::Silent { since, .. } = link.contact() else { panic!("{link:?}") };
        assert!(!link.is_lost_sight_of("no answer"));
        assert_eq!(link.contact(), Contact::Silent { since, why: "no answer".into() });
        link.answers();
        assert_eq!(link.wait(), Ok(()));
        assert!(link.is_lost_sight_of("no answer"));
    }

    #[test]
    fn the_dead_do_not_answer_again() {
        let link = Link::new(Contact::Answering);
        link.is_gone();
        link.answers();
        assert!(!link.is_lost_sight_of("no answer"));
        assert_eq!((link.contact(), link.wait()), (Contact::Gone, Ok(())));
    }
}
