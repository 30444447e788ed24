//! Giving a build up from another thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slipway_runtime::{ContainerId, Runtime};

use crate::error::{Error, Result};

/// A build's way to be stopped; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancellation {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    running: Option<(Runtime, ContainerId)>,
}

impl Cancellation {
    /// Ends the build at its next step and kills the command that runs.
    pub fn cancel(&self) {
        let running = {
            let mut state = self.lock();
            state.cancelled = true;
            state.running.take()
        };
        if let Some((runtime, container)) = running {
            const KILL: i32 = 9;
            if let Err(error) = runtime.stop_container(&container, KILL, std::time::Duration::ZERO) {
                tracing::warn!(%container, %error, "stop a cancelled build step");
            }
        }
    }

    /// Whether the build is given up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// An error once the build is given up.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Names the container to kill, which has been started; an error when the build was given up before.
    pub(crate) fn running(&self, runtime: &Runtime, container: &ContainerId) -> Result<()> {
        let mut state = self.lock();
        if state.cancelled {
            return Err(Error::Cancelled);
        }
        state.running = Some((runtime.clone(), container.clone()));
        Ok(())
    }

    /// Nothing runs any more.
    pub(crate) fn ended(&self) {
        self.lock().running = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
