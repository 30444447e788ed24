//! The file that keeps a container's end: `<container>.exit` in the pod's state directory, a `key=value` a line.
//!
//! It is renamed into place before anyone is told, and it is all that is left of a container whose monitor is gone.

use crate::protocol::Exit;

/// The name of a container's exit file.
#[must_use]
pub fn name(container: &str) -> String {
    format!("{container}.exit")
}

/// The name of the file that keeps the deadline of a container's stop, in nanoseconds of the clock since boot.
#[must_use]
pub fn stop_name(container: &str) -> String {
    format!("{container}.stop")
}

/// The file's content.
#[must_use]
pub fn format(exit: &Exit, log_writes_dropped: u64) -> String {
    let Exit { wait_status, oom_kills, started_at, finished_at, timed_out } = exit;
    format!(
        "wait_status={wait_status}\noom_kills={oom_kills}\nstarted_at={started_at}\nfinished_at={finished_at}\n\
         timed_out={timed_out}\nlog_writes_dropped={log_writes_dropped}\n"
    )
}

/// Reads a file's content; unknown keys are those of a newer monitor. None where a known one is absent.
#[must_use]
pub fn parse(text: &str) -> Option<Exit> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    Some(Exit {
        wait_status: value("wait_status")?.parse().ok()?,
        oom_kills: value("oom_kills")?.parse().ok()?,
        started_at: value("started_at")?.parse().ok()?,
        finished_at: value("finished_at")?.parse().ok()?,
        timed_out: value("timed_out")?.parse().ok()?,
    })
}

/// How many writes to the container's log were lost; none where the file does not say.
#[must_use]
pub fn log_writes_dropped(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("log_writes_dropped="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_survives_its_file() {
        let exit = Exit { wait_status: 9, oom_kills: 1, started_at: -5, finished_at: 7, timed_out: true };
        assert_eq!(parse(&format(&exit, 3)).as_ref(), Some(&exit));
        assert_eq!(log_writes_dropped(&format(&exit, 3)), Some(3));
        assert_eq!(log_writes_dropped("wait_status=9\n"), None);
    }

    #[test]
    fn a_torn_file_is_none() {
        assert_eq!(parse("wait_status=9\noom_ki"), None);
    }
}
