//! Deadlines of calls, as flags.

use std::pin::Pin;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::time;

/// The longest time that a call may take; 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadline(Duration);

impl std::str::FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        time::parse_duration(text).map(Self).ok_or_else(|| format!("{text} is not a duration such as 30s"))
    }
}

impl Deadline {
    /// The deadline of a pull: from the flag, else from the environment.
    pub(crate) fn for_pull(typed: Option<Self>) -> Result<Self> {
        match (typed, std::env::var("CRICTL_PULL_TIMEOUT")) {
            (Some(typed), _) => Ok(typed),
            (None, Ok(text)) if !text.is_empty() => {
                text.parse().map_err(|reason| Error::Usage(format!("CRICTL_PULL_TIMEOUT: {reason}")))
            }
            (None, _) => Ok(Self::default()),
        }
    }

    /// Waits for a call until the deadline, and cancels it then, which the daemon notices.
    pub(crate) fn hold<'a, T: 'a>(
        self,
        action: &'a str,
        call: impl Future<Output = Result<T>> + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T>> + 'a>> {
        if self.0.is_zero() {
            return Box::pin(call);
        }
        Box::pin(async move {
            match tokio::time::timeout(self.0, call).await {
                Ok(result) => result,
                Err(_) => {
                    Err(Error::Refused(format!("{action}: it took more than {:?}: called off", self.0)))
                }
            }
        })
    }
}
