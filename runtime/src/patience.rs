//! Work on file systems that may never answer (FUSE, a network's): done on a thread of its own, which is given up.

use crate::pod::lock;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The work that has not answered in time, nor since: nobody waits for it a second time, so that at most one thread is
/// held by each.
static SILENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Runs `work` on a thread with this name, for at most ten seconds. `key` names what may be silent.
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
    if lock(&SILENT).contains(key) {
        return Err(silent("its file system still does not answer: mend or unmount it"));
    }
    let (sender, receiver) = mpsc::channel();
    let name = key.to_owned();
    std::thread::Builder::new().name(thread.into()).spawn(move || {
        let answer = work();
        let mut silent = lock(&SILENT);
        silent.remove(&name);
        // A caller that waited too long has dropped its end.
        let _ = sender.send(answer);
    })?;
    if let Ok(answer) = receiver.recv_timeout(patience) {
        return Ok(answer);
    }
    let mut all = lock(&SILENT);
    // The answer may have come between the deadline and the lock.
    if let Ok(answer) = receiver.try_recv() {
        return Ok(answer);
    }
    all.insert(key.to_owned());
    Err(silent("its file system does not answer: mend or unmount it"))
}

fn silent(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        while lock(&SILENT).contains("silent") {
            std::thread::yield_now();
        }
        assert_eq!(in_this_time(PATIENCE, "test", "silent", || 4).unwrap(), 4);
    }
}
