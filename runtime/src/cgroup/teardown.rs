//! Killing what is in a cgroup, and removing it.
//!
//! A privileged container nests cgroups as deep as it likes, beyond what a path may hold, so that trees are walked by
//! descriptors ([`slipway_disk::walker`]).

use super::files::{self, is_gone};
use super::hierarchy::Location;
use crate::{Error, Result};
use rustix::fs::{AtFlags, unlinkat};
use slipway_disk::walker::{self, Options, Step, Walker};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The kernel lets go of a cgroup some time after its last process.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);
const FREEZE_LIMIT: Duration = Duration::from_millis(200);
/// The longest path below the top of a hierarchy that is looked for, in bytes: `PATH_MAX` less that of the top.
const LONGEST_PATH: usize = 3584;

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
        walk(&path, |step, walker| {
            if step == Step::Left {
                return Ok(());
            }
            let text = walker.directory().map_err(unwalked)?;
            let text = match files::read_at(text, "cgroup.procs") {
                Ok(text) => text,
                // A threaded cgroup has no list of processes; they are listed by the domain above.
                Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    return Ok(());
                }
                Err(error) => return Err(files::failed("read the processes of", &walker.shown())(error)),
            };
            // A process that this pid namespace does not see reads as 0.
            let listed = text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0);
            found.extend(listed);
            Ok(())
        })?;
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

/// Visits a cgroup and all below it: each is found before those that it contains, and left after them. One that goes
/// meanwhile is passed over.
fn walk(top: &Path, mut visit: impl FnMut(Step, &Walker<'_>) -> Result<()>) -> Result<()> {
    let mut walker = match Walker::open(top, Options::default()) {
        Ok(walker) => walker,
        Err(error) => return unless_gone(error),
    };
    visit(Step::Found, &walker)?;
    loop {
        match walker.next() {
            Ok(Some(Step::Left)) => visit(Step::Left, &walker)?,
            Ok(Some(Step::Found)) => match enter(&mut walker) {
                Ok(true) => visit(Step::Found, &walker)?,
                Ok(false) => {}
                Err(error) => unless_gone(error)?,
            },
            Ok(None) => return Ok(()),
            Err(error) => unless_gone(error)?,
        }
    }
}

/// Goes into the entry that was found, if it is a directory.
fn enter(walker: &mut Walker<'_>) -> std::result::Result<bool, walker::Error> {
    let is_directory = walker.is_directory()?;
    if is_directory {
        walker.enter()?;
    }
    Ok(is_directory)
}

fn unless_gone(error: walker::Error) -> Result<()> {
    match &error {
        walker::Error::Io { source, .. } if is_gone(source) => Ok(()),
        _ => Err(unwalked(error)),
    }
}

fn unwalked(error: walker::Error) -> Error {
    let (_, path, source) = error.into_parts();
    Error::Io { action: "read cgroup", path, source }
}

/// The path, relative to `top`, of a directory of this name below it.
pub(super) fn find(top: &Path, name: &str) -> Option<PathBuf> {
    let mut found = None;
    let outcome = walk(top, |step, walker| {
        // No path leads to one that a container has nested deeper than that.
        let is_it = step == Step::Found && walker.name() == name && walker.path().len() < LONGEST_PATH;
        if is_it && found.is_none() {
            found = Some(PathBuf::from(std::ffi::OsStr::from_bytes(walker.path())));
        }
        Ok(())
    });
    outcome.ok().and(found)
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
    match std::fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(_) => {}
    }
    walk(path, |step, walker| match step {
        Step::Found => Ok(()),
        Step::Left => {
            let mut name = OsString::from("../");
            name.push(walker.name());
            let directory = walker.directory().map_err(unwalked)?;
            removed(unlinkat(directory, &name, AtFlags::REMOVEDIR).map_err(Into::into), || walker.shown())
        }
    })?;
    removed(std::fs::remove_dir(path), || path.to_owned())
}

fn removed(outcome: std::io::Result<()>, path: impl FnOnce() -> PathBuf) -> Result<()> {
    match outcome {
        Err(error) if !is_gone(&error) => Err(files::failed("remove cgroup", &path())(error)),
        _ => Ok(()),
    }
}
