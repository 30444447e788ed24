//! Killing what is in a cgroup, and removing it.

use super::files;
use super::hierarchy::Location;
use super::is_gone;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The kernel lets go of a cgroup some time after its last process.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);
const FREEZE_LIMIT: Duration = Duration::from_millis(200);

/// Growing pauses until a deadline.
struct Pauses {
    next: Duration,
    end: Instant,
}

impl Pauses {
    fn until(end: Instant) -> Self {
        Self { next: Duration::from_micros(200), end }
    }

    /// Sleep a little; false when the time is over.
    fn pause(&mut self) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        std::thread::sleep(self.next);
        self.next = (self.next * 2).min(Duration::from_millis(50));
        true
    }
}

pub(super) fn kill(location: &Location, at_once: bool, end: Instant) -> Result<()> {
    let mut pauses = Pauses::until(end);
    while !is_empty(location)? {
        if location.unified && at_once {
            kill_at_once(location)?
        } else {
            kill_frozen(location)?
        }
        if is_empty(location)? {
            break;
        }
        if !pauses.pause() {
            let left = processes(location)?;
            return Err(Error::InUse(format!(
                "processes {left:?} survive SIGKILL; the kernel holds them in a system call"
            )));
        }
    }
    Ok(())
}

fn kill_at_once(location: &Location) -> Result<()> {
    for path in location.paths() {
        let file = path.join("cgroup.kill");
        match files::write_raw(&file, "1") {
            Err(error) if is_gone(&error) => signal_all(location)?,
            result => result.map_err(|source| files::rejected(&file, "1", source))?,
        }
    }
    Ok(())
}

/// Without `cgroup.kill`: hold everything still, so that no fork gets away, and kill it before it goes on.
fn kill_frozen(location: &Location) -> Result<()> {
    let Some(freezer) = Freezer::of(location) else { return signal_all(location) };
    freezer.freeze();
    let killed = signal_all(location);
    freezer.thaw()?;
    killed
}

/// The files that hold a cgroup still.
struct Freezer {
    control: PathBuf,
    words: (&'static str, &'static str),
    /// Where it says that all is still, and how.
    state: PathBuf,
    still: fn(&str) -> bool,
}

impl Freezer {
    fn of(location: &Location) -> Option<Self> {
        let directory = location.controller("freezer")?;
        Some(if location.unified {
            Self {
                control: directory.join("cgroup.freeze"),
                words: ("1", "0"),
                state: directory.join("cgroup.events"),
                still: |events| files::field(events, "frozen") == Some(1),
            }
        } else {
            let state = directory.join("freezer.state");
            Self {
                control: state.clone(),
                words: ("FROZEN", "THAWED"),
                state,
                still: |text| text.trim() == "FROZEN",
            }
        })
    }

    /// Best effort: what is not frozen in time is killed all the same.
    fn freeze(&self) {
        let mut pauses = Pauses::until(Instant::now() + FREEZE_LIMIT);
        while files::write_raw(&self.control, self.words.0).is_ok()
            && files::read_raw(&self.state).is_ok_and(|text| !(self.still)(&text))
            && pauses.pause()
        {}
    }

    fn thaw(&self) -> Result<()> {
        match files::write_raw(&self.control, self.words.1) {
            Err(error) if !is_gone(&error) => Err(files::rejected(&self.control, self.words.1, error)),
            _ => Ok(()),
        }
    }
}

fn signal_all(location: &Location) -> Result<()> {
    for pid in processes(location)?.into_iter().filter_map(rustix::process::Pid::from_raw) {
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                return Err(Error::Kernel { call: format!("kill process {pid:?}"), source: error.into() });
            }
        }
    }
    Ok(())
}

/// Processes here and below, in every hierarchy.
pub(super) fn processes(location: &Location) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for path in location.paths() {
        for directory in tree(&path)? {
            let text = files::read_if_there(&directory.join("cgroup.procs"));
            // A threaded cgroup has no list of processes; they are listed by the domain above.
            let text = match text {
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
                text => text?,
            };
            // A process that this pid namespace does not see reads as 0.
            found.extend(
                text.iter()
                    .flat_map(|text| text.lines())
                    .filter_map(|line| line.parse().ok())
                    .filter(|pid: &i32| *pid > 0),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

pub(super) fn is_empty(location: &Location) -> Result<bool> {
    if !location.unified {
        return Ok(processes(location)?.is_empty());
    }
    for path in location.paths() {
        let events = files::read_if_there(&path.join("cgroup.events"))?;
        if events.is_some_and(|events| files::field(&events, "populated") == Some(1)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory and all below it, each before what it contains.
fn tree(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(files::failed("read cgroup", &directory)(error)),
        };
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(below.map(|entry| entry.path()));
        found.push(directory);
    }
    Ok(found)
}

/// A directory of this name at or below a place.
pub(super) fn find(top: &Path, name: &str) -> Option<PathBuf> {
    let tree = tree(top).ok()?;
    tree.into_iter().find(|directory| directory.file_name().is_some_and(|found| found == name))
}

/// Remove a directory with all below; it may be gone.
pub(super) fn remove(path: &Path) -> Result<()> {
    let mut pauses = Pauses::until(Instant::now() + REMOVE_LIMIT);
    loop {
        match remove_once(path) {
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) && pauses.pause() => {
            }
            result => return result,
        }
    }
}

fn remove_once(path: &Path) -> Result<()> {
    if let Err(error) = std::fs::remove_dir(path) {
        if is_gone(&error) {
            return Ok(());
        }
    } else {
        return Ok(());
    }
    for directory in tree(path)?.iter().rev() {
        match std::fs::remove_dir(directory) {
            Err(error) if !is_gone(&error) => return Err(files::failed("remove cgroup", directory)(error)),
            _ => {}
        }
    }
    Ok(())
}
