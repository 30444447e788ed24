//! Work on file systems that may never answer (FUSE, a network's, a frozen device's): done on a thread of its own, which is
//! given up. However often the same is tried, the number of threads that wait is bounded.

use crate::guard::lock;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many threads may wait for the same at once; further calls wait for one of them.
const TOGETHER: usize = 4;
/// Once this many threads hang on given-up keys, a call for a path on the mount of such a key fails at once.
const GIVEN_UP: usize = 64;
/// The stack of such a thread, in bytes.
const STACK: usize = 256 * 1024;

/// The threads that wait for the same key.
#[derive(Debug, Default)]
struct Waits {
    threads: usize,
    /// One of them was given up, and none has come back since.
    silent: bool,
}

type Table = BTreeMap<String, Waits>;

/// The threads that wait, by the key that they wait for.
static WAITS: Mutex<Table> = Mutex::new(BTreeMap::new());
static CHANGED: Condvar = Condvar::new();

/// Runs `work` on a thread with this name, for at most ten seconds. `key` names what may be silent: a path, or something
/// else.
///
/// # Errors
/// `TimedOut` when there is no answer in time, and at once for as long as an earlier call with the same key has none;
/// that of the thread's creation.
pub(crate) fn in_time<T: Send + 'static>(
    thread: &str,
    key: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    in_this_time(PATIENCE, thread, key, work)
}

fn in_this_time<T: Send + 'static>(
    patience: Duration,
    thread: &str,
    key: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    if !enter(patience, key) {
        return Err(silent("its file system still does not answer: mend or unmount it"));
    }
    let (sender, receiver) = mpsc::channel();
    let name = key.to_owned();
    let wait = move || {
        let answer = work();
        leave(&mut lock(&WAITS), &name);
        // A caller that waited too long has dropped its end.
        let _ = sender.send(answer);
    };
    if let Err(error) = std::thread::Builder::new().name(thread.into()).stack_size(STACK).spawn(wait) {
        leave(&mut lock(&WAITS), key);
        return Err(error);
    }
    if let Ok(answer) = receiver.recv_timeout(patience) {
        return Ok(answer);
    }
    if let Some(waits) = lock(&WAITS).get_mut(key) {
        waits.silent = true;
        CHANGED.notify_all();
    }
    // The answer may have come between the deadline and the lock.
    receiver.try_recv().map_err(|_| silent("its file system does not answer: mend or unmount it"))
}

fn silent(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// Counts one more thread for the key, once fewer than [`TOGETHER`] wait for it; false when the wait is hopeless or
/// takes longer than `patience`.
fn enter(patience: Duration, key: &str) -> bool {
    let end = Instant::now() + patience;
    let mut all = lock(&WAITS);
    loop {
        if is_hopeless(&all, key) {
            return false;
        }
        let waits = all.entry(key.to_owned()).or_default();
        if waits.threads < TOGETHER {
            waits.threads += 1;
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        all = CHANGED.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Counts one thread less for the key, whose file system has answered, and wakes the callers that wait.
fn leave(all: &mut Table, key: &str) {
    if let Some(waits) = all.get_mut(key) {
        waits.threads = waits.threads.saturating_sub(1);
        waits.silent = false;
        if waits.threads == 0 {
            all.remove(key);
        }
    }
    CHANGED.notify_all();
}

/// Whether a thread for the same key has been given up, or [`GIVEN_UP`] threads hang and the key is a path on the mount
/// of one of them.
fn is_hopeless(all: &Table, key: &str) -> bool {
    if all.get(key).is_some_and(|waits| waits.silent) {
        return true;
    }
    let silent = || all.iter().filter(|(_, waits)| waits.silent);
    if silent().map(|(_, waits)| waits.threads).sum::<usize>() < GIVEN_UP {
        return false;
    }
    // The mount table is read, not the path itself, whose file system may not answer.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = mount_of(&mounts, key);
    silent().any(|(known, _)| mount_of(&mounts, known) == own)
}

/// The mount point, as `proc_pid_mountinfo(5)` lists them, that a path lies below by its name.
fn mount_of<'a>(mounts: &'a str, path: &str) -> Option<&'a str> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(path).starts_with(point)).max_by_key(|point| point.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nobody_waits_twice_for_what_is_silent_until_it_answers() {
        let (answer, question) = mpsc::channel::<u8>();
        let soon = Duration::from_millis(1);
        let first = in_this_time(soon, "test", "silent", move || question.recv());
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let second = in_this_time(PATIENCE, "test", "silent", || 2);
        assert!(second.unwrap_err().to_string().contains("still"));
        assert_eq!(in_this_time(PATIENCE, "test", "other", || 3).unwrap(), 3);
        answer.send(1).unwrap();
        while lock(&WAITS).contains_key("silent") {
            std::thread::yield_now();
        }
        assert_eq!(in_this_time(PATIENCE, "test", "silent", || 4).unwrap(), 4);
    }

    #[test]
    fn a_path_is_of_the_deepest_mount_above_it() {
        let mounts = "1 0 0:1 / / rw - x x x\n2 1 0:2 / /data rw - x x x\n3 1 0:3 / /database rw - x x x\n";
        assert_eq!(mount_of(mounts, "/data/pods/x"), Some("/data"));
        assert_eq!(mount_of(mounts, "/database"), Some("/database"));
        assert_eq!(mount_of(mounts, "/other"), Some("/"));
        assert_eq!(mount_of(mounts, "users of container x"), None);
    }

    #[test]
    fn beyond_a_number_of_paths_a_mount_is_given_up_and_no_other() {
        let one = |number| (format!("/proc/{number}x"), Waits { threads: 1, silent: true });
        let mut all: Table = (0..GIVEN_UP).map(one).collect();
        assert!(is_hopeless(&all, "/proc/1x"));
        assert!(is_hopeless(&all, "/proc/another"));
        assert!(!is_hopeless(&all, "/another"));
        leave(&mut all, "/proc/1x");
        assert!(!is_hopeless(&all, "/proc/another"));
        assert!(!is_hopeless(&all, "/proc/1x"), "it has answered after all");
    }

    #[test]
    fn few_threads_wait_for_the_same_and_the_calls_beyond_them_for_one_of_those() {
        let (held, hold) = mpsc::channel::<()>();
        let hold = Arc::new(Mutex::new(hold));
        let calls: Vec<_> = (0..3 * TOGETHER)
            .map(|_| {
                let hold = Arc::clone(&hold);
                let wait = move || lock(&hold).recv().is_ok();
                std::thread::spawn(move || in_time("test", "few", wait))
            })
            .collect();
        while lock(&WAITS).get("few").is_none_or(|waits| waits.threads < TOGETHER) {
            std::thread::yield_now();
        }
        drop(held);
        assert!(calls.into_iter().all(|call| call.join().unwrap().is_ok()));
        assert!(!lock(&WAITS).contains_key("few"));
    }
}
