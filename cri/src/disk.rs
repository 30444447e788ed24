//! What the containers have written: walked when someone asks, and remembered for as long as the walk was dear.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_disk::walker;

use crate::error::{Error, Result};
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
        let node_too = node.clone();
        let fresh = node
            .blocking(move || {
                let (began, timestamp) = (Instant::now(), now());
                let (bytes, inodes) = usage(&node_too, &top)?;
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

/// Bytes and inodes below a directory, which a live container may change meanwhile. What can't be read is not counted and
/// logged.
///
/// # Errors
/// When the directory can't be read at all, or the daemon is ending.
pub(crate) fn usage(node: &Node, top: &Path) -> Result<(u64, u64)> {
    let usage = walker::usage(top, &|| node.is_ending()).map_err(|error| {
        let (action, path, source) = error.into_parts();
        Error::io(action, path)(source)
    })?;
    if let Some(error) = usage.uncounted {
        tracing::warn!(top = %top.display(), error = walker::told(&error), "not counted as disk usage");
    }
    Ok((usage.bytes, usage.inodes))
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
