//! Disk usage of the containers: scanned on request, and cached in proportion to the cost of the scan.

use std::path::Path;
use std::time::{Duration, Instant};

use slipway_disk::walker::{self, Stop};

use crate::error::{Error, Result};

/// A result is cached for so many times as long as its scan took, so that scanning costs at most 5 % of the time.
const SHARE: u32 = 20;

/// The bytes and inodes that a scan found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// The time of the scan, in nanoseconds since the epoch.
    pub(crate) timestamp: i64,
    ended: Instant,
    cost: Duration,
}

impl Written {
    /// Scans a directory at this time.
    ///
    /// # Errors
    /// As [`usage`].
    pub(crate) fn scan(top: &Path, timestamp: i64, stop: Stop<'_>) -> Result<Self> {
        let began = Instant::now();
        let (bytes, inodes) = usage(top, stop)?;
        Ok(Self { bytes, inodes, timestamp, ended: Instant::now(), cost: began.elapsed() })
    }

    fn is_fresh(&self) -> bool {
        is_fresh(self.ended.elapsed(), self.cost)
    }
}

/// The result of the last scan.
#[derive(Debug, Default)]
pub(crate) struct LastScan(tokio::sync::Mutex<Option<Written>>);

impl LastScan {
    /// The cached result, or that of `scan` where the cached one is out of date. Concurrent callers wait for one scan.
    pub(crate) async fn or(&self, scan: impl Future<Output = Result<Written>>) -> Result<Written> {
        let mut last = self.0.lock().await;
        if let Some(known) = last.filter(Written::is_fresh) {
            return Ok(known);
        }
        Ok(*last.insert(scan.await?))
    }
}

/// Bytes and inodes below a directory, which a live container may change meanwhile. An entry that can't be read is not counted,
/// and logged.
///
/// # Errors
/// When the directory can't be read at all, or once `stop` says so.
pub(crate) fn usage(top: &Path, stop: Stop<'_>) -> Result<(u64, u64)> {
    let usage = walker::usage(top, stop).map_err(|error| {
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
    fn the_result_of_a_long_scan_is_cached_for_longer() {
        let ten = Duration::from_secs(10);
        assert!(!is_fresh(ten, Duration::from_millis(20)));
        assert!(is_fresh(ten, Duration::from_secs(1)));
        assert!(!is_fresh(Duration::from_secs(21), Duration::from_secs(1)));
    }
}
