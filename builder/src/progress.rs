//! The events of a build while it goes on, and `docker build --progress=plain`'s way of showing it.

use std::collections::BTreeMap;
use std::time::Duration;

/// A stream of a step's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An event of a build. Steps are numbered from 1 in the order in which they start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A step begins.
    StepStarted {
        /// Its number.
        step: u32,
        /// Its line, such as `[2/4] COPY page /www/`.
        name: String,
    },
    /// Its command has written something.
    Output {
        /// The step.
        step: u32,
        /// Where to.
        stream: Stream,
        /// The bytes as they came.
        bytes: Vec<u8>,
    },
    /// A step is done.
    StepDone {
        /// The step.
        step: u32,
        /// Nothing ran: the result was in the cache.
        cached: bool,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step ended badly; the build's error follows.
    StepFailed {
        /// The step.
        step: u32,
        /// Why.
        error: String,
        /// How long it took.
        elapsed: Duration,
    },
    /// Something to tell the user that is no error.
    Warning {
        /// The sentence.
        message: String,
    },
}

/// Turns events into lines of text: pure, but for the half lines that it remembers.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    open: BTreeMap<u32, Vec<u8>>,
}

impl Plain {
    /// The text for an event, with its line ends; possibly none.
    pub fn render(&mut self, event: &Progress) -> String {
        match event {
            Progress::StepStarted { step, name } => format!("#{step} {name}\n"),
            Progress::Output { step, bytes, .. } => self.output(*step, bytes),
            Progress::StepDone { step, cached: true, .. } => {
                format!("{}#{step} CACHED\n\n", self.rest(*step))
            }
            Progress::StepDone { step, elapsed, .. } => {
                format!("{}#{step} DONE {:.1}s\n\n", self.rest(*step), elapsed.as_secs_f64())
            }
            Progress::StepFailed { step, error, .. } => {
                format!("{}#{step} ERROR: {error}\n\n", self.rest(*step))
            }
            Progress::Warning { message } => format!("WARNING: {message}\n"),
        }
    }

    fn output(&mut self, step: u32, bytes: &[u8]) -> String {
        let held = self.open.entry(step).or_default();
        held.extend_from_slice(bytes);
        let complete = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let lines: Vec<u8> = held.drain(..complete).collect();
        let text = String::from_utf8_lossy(&lines);
        text.lines().map(|line| format!("#{step} {line}\n")).collect()
    }

    fn rest(&mut self, step: u32) -> String {
        match self.open.remove(&step) {
            Some(held) if !held.is_empty() => format!("#{step} {}\n", String::from_utf8_lossy(&held)),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lines_wait_for_their_end() {
        let mut plain = Plain::default();
        let mut show = |bytes: &[u8]| {
            plain.render(&Progress::Output { step: 5, stream: Stream::Stdout, bytes: bytes.to_vec() })
        };
        assert_eq!(show(b"a\nb"), "#5 a\n");
        assert_eq!(show(b"c\n\nd"), "#5 bc\n#5 \n");
        let done = Progress::StepDone { step: 5, cached: false, elapsed: Duration::from_millis(140) };
        assert_eq!(plain.render(&done), "#5 d\n#5 DONE 0.1s\n\n");
        let cached = Progress::StepDone { step: 6, cached: true, elapsed: Duration::ZERO };
        assert_eq!(plain.render(&cached), "#6 CACHED\n\n");
    }
}
