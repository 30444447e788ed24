//! The resource usage of a cgroup, and its count of OOM kills.

use super::files;
use super::hierarchy::Location;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The resource usage of a container; a value that the node's controllers do not count is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time since its creation, in nanoseconds.
    pub cpu_nanoseconds: Option<u64>,
    /// Memory charged, in bytes.
    pub memory_usage: Option<u64>,
    /// Memory that can't be given back easily: usage without inactive file pages.
    pub memory_working_set: Option<u64>,
    /// Anonymous memory.
    pub memory_rss: Option<u64>,
    /// The memory limit; absent when there is none.
    pub memory_limit: Option<u64>,
    /// Swap charged.
    pub swap_usage: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults that waited for a disk.
    pub major_page_faults: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// A version 1 limit of this many bytes or more means no limit.
const NO_LIMIT: u64 = 1 << 62;

pub(super) fn read(location: &Location) -> Result<Stats> {
    if location.unified { unified(location) } else { legacy(location) }
}

fn unified(location: &Location) -> Result<Stats> {
    let Some(path) = location.controller("") else { return Ok(Stats::default()) };
    let memory = files::read_if_there(&path.join("memory.stat"))?.unwrap_or_default();
    let cpu = files::read_if_there(&path.join("cpu.stat"))?.unwrap_or_default();
    let usage = number(path, "memory.current")?;
    Ok(Stats {
        cpu_nanoseconds: files::field(&cpu, "usage_usec").map(|micros| micros.saturating_mul(1000)),
        memory_usage: usage,
        memory_working_set: working_set(usage, files::field(&memory, "inactive_file")),
        memory_rss: files::field(&memory, "anon"),
        memory_limit: number(path, "memory.max")?,
        swap_usage: number(path, "memory.swap.current")?,
        page_faults: files::field(&memory, "pgfault"),
        major_page_faults: files::field(&memory, "pgmajfault"),
        pids: number(path, "pids.current")?,
    })
}

fn legacy(location: &Location) -> Result<Stats> {
    let number = |controller: &str, file: &str| match location.controller(controller) {
        Some(path) => number(path, file),
        None => Ok(None),
    };
    let stat = location.controller("memory").map(|path| files::read_if_there(&path.join("memory.stat")));
    let stat = stat.transpose()?.flatten().unwrap_or_default();
    let usage = number("memory", "memory.usage_in_bytes")?;
    Ok(Stats {
        cpu_nanoseconds: number("cpuacct", "cpuacct.usage")?,
        memory_usage: usage,
        memory_working_set: working_set(usage, files::field(&stat, "total_inactive_file")),
        memory_rss: files::field(&stat, "total_rss"),
        memory_limit: number("memory", "memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT),
        swap_usage: files::field(&stat, "total_swap"),
        page_faults: files::field(&stat, "total_pgfault"),
        major_page_faults: files::field(&stat, "total_pgmajfault"),
        pids: number("pids", "pids.current")?,
    })
}

fn working_set(usage: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    Some(usage?.saturating_sub(inactive.unwrap_or(0)))
}

/// The number in a file; absent with the file, and for `max`.
fn number(path: &Path, file: &str) -> Result<Option<u64>> {
    Ok(files::read_if_there(&path.join(file))?.and_then(|text| text.trim().parse().ok()))
}

pub(super) fn oom_kills(location: &Location) -> Result<u64> {
    let file = if location.unified { "memory.events" } else { "memory.oom_control" };
    let Some(path) = location.controller("memory") else { return Ok(0) };
    let text = files::read_if_there(&path.join(file))?;
    Ok(text.and_then(|text| files::field(&text, "oom_kill")).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Directory;

    #[test]
    fn version_2_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        file("cpu.stat", "usage_usec 12\nuser_usec 5\n");
        file("memory.current", "4096\n");
        file("memory.max", "max\n");
        file("memory.stat", "anon 100\nfile 7\ninactive_file 5000\npgfault 3\npgmajfault 1\n");
        file("memory.events", "low 0\noom 2\noom_kill 3\noom_group_kill 1\n");
        let directories = vec![Directory { controllers: Vec::new(), path: directory.path().to_owned() }];
        let location = Location { unified: true, directories };
        let stats = read(&location).unwrap();
        assert_eq!(stats.cpu_nanoseconds, Some(12_000));
        assert_eq!(
            (stats.memory_usage, stats.memory_working_set, stats.memory_limit),
            (Some(4096), Some(0), None)
        );
        assert_eq!((stats.memory_rss, stats.pids), (Some(100), None));
        assert_eq!(oom_kills(&location).unwrap(), 3);
        assert_eq!(oom_kills(&location.child("gone")).unwrap(), 0);
    }
}
