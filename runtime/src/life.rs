//! The lives of sandboxes and containers: every state, every event, and the state after it.
//!
//! The functions here are pure and are the only ones that say which transition is legal: the daemon uses them when
//! something happens, and recovery when it reads back from the disk what has happened. ARCHITECTURE.md prints both as
//! tables; a test compares them.

use crate::end::EndRecord;
use crate::{ContainerState, Error, Owner};
use serde::{Deserialize, Serialize};

/// An event that a state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    state: &'static str,
    action: &'static str,
}

impl Refused {
    /// The error that names the object.
    pub(crate) fn of(self, kind: &'static str, id: &str) -> Error {
        Error::WrongState { kind, id: id.to_owned(), state: self.state, action: self.action }
    }
}

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// It is being made. The next daemon removes it.
    Creating,
    /// Containers can start.
    Ready,
    /// Its monitor has ended: nothing runs in it.
    Lost,
    /// It is stopped, or being stopped: teardown is repeated until it is done.
    Stopped,
    /// It is being removed: removal is repeated until nothing is left.
    Removing,
}

/// An event in the life of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodEvent {
    /// All of it is made.
    Made,
    /// Its monitor has ended without having been asked to.
    MonitorLost,
    /// Someone wants it stopped, its creation has failed, or the machine has been restarted.
    Stop,
    /// Someone wants it removed.
    Remove,
}

impl PodState {
    /// The state after an event.
    pub(crate) fn after(self, event: PodEvent) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Creating, PodEvent::Made) => Ok(Self::Ready),
            (Self::Ready | Self::Lost | Self::Stopped | Self::Removing, PodEvent::Made) => {
                Err(Refused { state: self.name(), action: "make ready" })
            }
            // The creation fails by itself.
            (Self::Creating, PodEvent::MonitorLost) => Ok(Self::Creating),
            (Self::Ready | Self::Lost, PodEvent::MonitorLost) => Ok(Self::Lost),
            // The teardown ends the monitor.
            (Self::Stopped, PodEvent::MonitorLost) => Ok(Self::Stopped),
            (Self::Creating | Self::Ready | Self::Lost | Self::Stopped, PodEvent::Stop) => Ok(Self::Stopped),
            (Self::Removing, PodEvent::MonitorLost | PodEvent::Stop | PodEvent::Remove)
            | (Self::Creating | Self::Ready | Self::Lost | Self::Stopped, PodEvent::Remove) => {
                Ok(Self::Removing)
            }
        }
    }

    /// The state after several events; a refused one changes nothing.
    pub(crate) fn folded(events: impl IntoIterator<Item = PodEvent>) -> Self {
        events.into_iter().fold(Self::Creating, |state, event| state.after(event).unwrap_or(state))
    }

    /// Whether its monitor is to be listened to.
    pub(crate) fn has_monitor(self) -> bool {
        match self {
            Self::Ready | Self::Lost => true,
            Self::Creating | Self::Stopped | Self::Removing => false,
        }
    }

    /// The state as a word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
            Self::Removing => "removing",
        }
    }
}

/// An event in the life of a container.
#[derive(Debug, Clone)]
pub(crate) enum LifeEvent {
    /// Someone wants it started. It counts as created until its program runs.
    Start,
    /// The record of a start was found. Its monitor will say whether it runs.
    StartFound {
        /// When it was begun, in nanoseconds since the epoch.
        at: i64,
    },
    /// Its program runs.
    Started {
        /// Its first process.
        pid: i32,
        /// Nanoseconds since the epoch.
        at: i64,
    },
    /// The start whose record was found never reached the monitor.
    NeverStarted {
        /// When it was created, in nanoseconds since the epoch.
        created_at: i64,
    },
    /// It has ended, or could not be started.
    Ended(EndRecord),
    /// It is to be started once more, which only containers of `slipway run` are.
    Renewed {
        /// Its owner.
        owner: Owner,
        /// When it was created, in nanoseconds since the epoch.
        created_at: i64,
    },
}

impl ContainerState {
    /// The state after an event.
    pub(crate) fn after(self, event: LifeEvent) -> Result<Self, Refused> {
        use LifeEvent::{Ended, NeverStarted, Renewed, Start, StartFound, Started};
        match (self, event) {
            (state @ Self::Created { .. }, Start) => Ok(state),
            (state @ (Self::Running { .. } | Self::Exited { .. }), Start) => Err(state.refused("start")),
            // Of two records without an end between them the later one counts.
            (Self::Created { .. } | Self::Running { .. }, StartFound { at }) => {
                Ok(Self::Running { pid: 0, started_at: at })
            }
            (state @ Self::Exited { .. }, StartFound { .. }) => Err(state.refused("start")),
            (Self::Created { .. } | Self::Running { pid: 0, .. }, Started { pid, at }) => {
                Ok(Self::Running { pid, started_at: at })
            }
            // Its end may be heard of before the answer to its start.
            (state @ (Self::Running { .. } | Self::Exited { .. }), Started { .. }) => Ok(state),
            (Self::Running { pid: 0, .. }, NeverStarted { created_at }) => {
                Ok(Self::Created { at: created_at })
            }
            (
                state @ (Self::Created { .. } | Self::Running { .. } | Self::Exited { .. }),
                NeverStarted { .. },
            ) => Ok(state),
            (Self::Created { .. } | Self::Running { .. }, Ended(end)) => Ok(end.state()),
            // The first end counts.
            (state @ Self::Exited { .. }, Ended(_)) => Ok(state),
            (Self::Exited { .. }, Renewed { owner: Owner::Run, created_at }) => {
                Ok(Self::Created { at: created_at })
            }
            (
                state @ Self::Exited { .. },
                Renewed { owner: Owner::Cri | Owner::Build | Owner::Cluster, .. },
            )
            | (state @ (Self::Created { .. } | Self::Running { .. }), Renewed { .. }) => {
                Err(state.refused("start again"))
            }
        }
    }

    /// The state after several events; a refused one changes nothing.
    pub(crate) fn folded(created_at: i64, events: impl IntoIterator<Item = LifeEvent>) -> Self {
        let created = Self::Created { at: created_at };
        events.into_iter().fold(created, |state, event| state.clone().after(event).unwrap_or(state))
    }

    /// The state as a word for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
        }
    }

    fn refused(&self, action: &'static str) -> Refused {
        Refused { state: self.name(), action }
    }
}

#[cfg(test)]
mod tests;
