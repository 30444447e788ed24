//! What the containers have written: walked when someone asks, and remembered for as long as the walk was dear.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::images::disk_usage;
use crate::node::{Node, now};

/// A walk may take this part of the time: one of a second is good for twenty.
const SHARE: u32 = 20;

/// What was found by a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// When it was so, in nanoseconds of the epoch.
    pub(crate) timestamp: i64,
    ended: Instant,
    cost: Duration,
}

/// The last walk. Whoever asks during one waits for it.
#[derive(Debug, Default)]
pub(crate) struct LastWalk(tokio::sync::Mutex<Option<Written>>);

impl LastWalk {
    /// What is below the directory of containers, as of a moment that the answer tells.
    pub(crate) async fn written(&self, node: &Arc<Node>, top: PathBuf) -> Result<Written> {
        let mut last = self.0.lock().await;
        if let Some(known) = last.filter(|known| is_fresh(known.ended.elapsed(), known.cost)) {
            return Ok(known);
        }
        let fresh = node
            .blocking(move || {
                let (began, timestamp) = (Instant::now(), now());
                let (bytes, inodes) = disk_usage(&top);
                Ok::<_, Error>(Written {
                    bytes,
                    inodes,
                    timestamp,
                    ended: Instant::now(),
                    cost: began.elapsed(),
                })
            })
            .await?;
        *last = Some(fresh);
        Ok(fresh)
    }
}

fn is_fresh(age: Duration, cost: Duration) -> bool {
    age < cost.saturating_mul(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_walk_is_good_for_longer() {
        let ten = Duration::from_secs(10);
        assert!(!is_fresh(ten, Duration::from_millis(20)));
        assert!(is_fresh(ten, Duration::from_secs(1)));
        assert!(!is_fresh(Duration::from_secs(21), Duration::from_secs(1)));
    }
}
