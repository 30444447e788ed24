//! The progress of a build, in the form of docker build's plain output: every line with its step's number, on standard error.

use std::collections::BTreeMap;
use std::time::Instant;

use slipway_proto::slipway::v1::build_event::Event;
use slipway_proto::slipway::v1::{Built, OutputStream, StepFinished, StepOutput};

use crate::output;

/// The length at which a line without an end is shown, in bytes.
const LINE_LIMIT: usize = 64 << 10;

/// The steps that have been reported so far.
#[derive(Debug)]
pub(super) struct Progress {
    quiet: bool,
    started: BTreeMap<u32, Instant>,
    /// Beginnings of lines, by step and whether it is the error stream.
    pending: BTreeMap<(u32, bool), Vec<u8>>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, started: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// Prints an event; the last one is returned.
    pub(super) fn show(&mut self, event: Event) -> Option<Built> {
        match event {
            Event::Started(step) => {
                self.started.insert(step.step, Instant::now());
                self.tell(format_args!("#{} {}", step.step, step.name));
            }
            Event::Output(written) => {
                for line in self.lines(&written) {
                    self.tell(line);
                }
            }
            Event::Finished(step) => {
                for line in self.rest(step.step) {
                    self.tell(line);
                }
                self.tell(ending(&step));
                self.tell("");
            }
            Event::Warning(text) => output::note(format_args!("warning: {text}")),
            Event::Built(built) => return Some(built),
        }
        None
    }

    fn tell(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            output::note(line);
        }
    }

    /// Adds output, and takes the lines that are complete.
    fn lines(&mut self, written: &StepOutput) -> Vec<String> {
        let is_error = written.stream() == OutputStream::Stderr;
        let step = written.step;
        let prefix = self.prefix(step);
        let pending = self.pending.entry((step, is_error)).or_default();
        pending.extend_from_slice(&written.data);
        let whole = match pending.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if pending.len() > LINE_LIMIT => pending.len(),
            None => return Vec::new(),
        };
        let lines: Vec<u8> = pending.drain(..whole).collect();
        String::from_utf8_lossy(&lines).lines().map(|line| format!("{prefix}{line}")).collect()
    }

    /// The last lines of a step, which have no end of line.
    fn rest(&mut self, step: u32) -> Vec<String> {
        let prefix = self.prefix(step);
        let rest = [false, true].map(|is_error| self.pending.remove(&(step, is_error)).unwrap_or_default());
        let rest = rest.iter().filter(|line| !line.is_empty());
        rest.map(|line| format!("{prefix}{}", String::from_utf8_lossy(line))).collect()
    }

    fn prefix(&self, step: u32) -> String {
        let seconds = self.started.get(&step).map_or(0.0, |started| started.elapsed().as_secs_f64());
        format!("#{step} {seconds:.3} ")
    }
}

fn ending(step: &StepFinished) -> String {
    let number = step.step;
    if !step.error.is_empty() {
        return format!("#{number} ERROR: {}", step.error);
    }
    if step.cached {
        return format!("#{number} CACHED");
    }
    let tenths = step.duration_nanos / 100_000_000;
    format!("#{number} DONE {}.{}s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(data: &str, stream: OutputStream) -> StepOutput {
        StepOutput { step: 1, stream: stream.into(), data: data.as_bytes().to_vec() }
    }

    #[test]
    fn only_whole_lines_are_shown_and_the_streams_do_not_mix() {
        let mut progress = Progress::new(true);
        assert!(progress.lines(&written("a", OutputStream::Stdout)).is_empty());
        assert_eq!(progress.lines(&written("x\n", OutputStream::Stderr)), ["#1 0.000 x"]);
        assert_eq!(progress.lines(&written("b\nc\nd", OutputStream::Stdout)), ["#1 0.000 ab", "#1 0.000 c"]);
        assert_eq!(progress.rest(1), ["#1 0.000 d"]);
        assert!(progress.rest(1).is_empty());
    }

    #[test]
    fn steps_end_in_one_of_three_ways() {
        let step = StepFinished { step: 2, duration_nanos: 1_250_000_000, ..StepFinished::default() };
        assert_eq!(ending(&step), "#2 DONE 1.2s");
        assert_eq!(ending(&StepFinished { cached: true, ..step.clone() }), "#2 CACHED");
        assert_eq!(ending(&StepFinished { error: "no".to_owned(), ..step }), "#2 ERROR: no");
    }
}
