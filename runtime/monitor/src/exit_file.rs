//! The file that keeps a container's end: `<container>.exit` in the pod's state directory, a `key=value` a line.
//!
//! ```text
//! sum=<FNV-1a, 64 bits, of the container's id, a line feed and all that follows this line; 16 hexadecimal digits>
//! wait_status=<as waitpid(2) gives it>
//! oom_kills=… started_at=… finished_at=… timed_out=… log_writes_dropped=…      each on its line
//! ```
//! Older monitors write it without the first line. FNV-1a finds every changed byte and needs
//! no library: whoever could forge it could as well write the file.
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

/// The longest file that is read, in bytes.
pub const LONGEST: u64 = 4096;

/// The file's content.
#[must_use]
pub fn format(container: &str, exit: &Exit, log_writes_dropped: u64) -> String {
    let Exit { wait_status, oom_kills, started_at, finished_at, timed_out } = exit;
    let text = format!(
        "wait_status={wait_status}\noom_kills={oom_kills}\nstarted_at={started_at}\nfinished_at={finished_at}\n\
         timed_out={timed_out}\nlog_writes_dropped={log_writes_dropped}\n"
    );
    format!("sum={:016x}\n{text}", sum(container, &text))
}

fn sum(container: &str, text: &str) -> u64 {
    let bytes = container.bytes().chain([b'\n']).chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The lines of a container's file; none where it is damaged or another's.
fn lines<'a>(container: &str, text: &'a str) -> Option<&'a str> {
    if text.starts_with("wait_status=") {
        return Some(text);
    }
    let (head, text) = text.strip_prefix("sum=")?.split_once('\n')?;
    (head == format!("{:016x}", sum(container, text))).then_some(text)
}

fn value<'a>(lines: &'a str, key: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Reads a file's content; unknown keys are those of a newer monitor. None where it is damaged, another container's, or
/// a known key is absent.
#[must_use]
pub fn parse(container: &str, text: &str) -> Option<Exit> {
    let lines = lines(container, text)?;
    Some(Exit {
        wait_status: value(lines, "wait_status")?.parse().ok()?,
        oom_kills: value(lines, "oom_kills")?.parse().ok()?,
        started_at: value(lines, "started_at")?.parse().ok()?,
        finished_at: value(lines, "finished_at")?.parse().ok()?,
        timed_out: value(lines, "timed_out")?.parse().ok()?,
    })
}

/// How many writes to the container's log were lost; none where the file does not say.
#[must_use]
pub fn log_writes_dropped(container: &str, text: &str) -> Option<u64> {
    value(lines(container, text)?, "log_writes_dropped")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Exit = Exit { wait_status: 9, oom_kills: 1, started_at: -5, finished_at: 7, timed_out: true };

    #[test]
    fn an_exit_survives_its_file() {
        let text = format("one", &EXIT, 3);
        assert_eq!(parse("one", &text).as_ref(), Some(&EXIT));
        assert_eq!(log_writes_dropped("one", &text), Some(3));
        assert_eq!(log_writes_dropped("one", "wait_status=9\n"), None);
    }

    #[test]
    fn a_file_of_a_former_monitor_is_read() {
        let text = format("one", &EXIT, 3);
        let (_, former) = text.split_once('\n').unwrap();
        assert_eq!(parse("one", former).as_ref(), Some(&EXIT));
        assert_eq!(parse("one", "wait_status=9\noom_ki"), None);
    }

    #[test]
    fn a_file_that_is_damaged_or_cut_or_another_s_is_none() {
        let text = format("one", &EXIT, 3);
        assert_eq!(parse("two", &text), None);
        for at in 0..text.len() {
            assert_eq!(parse("one", &text[..at]), None, "cut at {at}");
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                assert_eq!(parse("one", &flipped), None, "{flipped}");
            }
        }
    }
}
