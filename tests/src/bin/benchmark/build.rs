//! Builds, by the command lines of the builders: the commands come from the environment, the context is theirs.

use crate::Failure;
use crate::life::milliseconds;
use crate::subject::Subject;
use crate::table::Section;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Times the commands of `BENCHMARK_BUILDS`, one a line, in the runtimes' order: `cold`, which may use no cache, and
/// then `again`, where nothing has changed.
pub(crate) fn measure(subjects: &[Subject], rounds: u32) -> Section {
    let mut section = Section::new(subjects, "build of three steps (in containerd's column: BuildKit)");
    let commands = std::env::var("BENCHMARK_BUILDS").unwrap_or_default();
    for (place, command) in commands.lines().enumerate().take(subjects.len()) {
        let mut timed = |what, arguments: &str| match run(&format!("{command} {arguments}")) {
            Ok(time) => section.add(place, (what, "ms"), time),
            Err(error) => section.failed(place, &error),
        };
        for _ in 0..3 {
            timed("build without cache", "--no-cache");
        }
        for _ in 0..rounds.min(10) {
            timed("build of nothing new", "");
        }
    }
    section
}

fn run(command: &str) -> Result<f64, Failure> {
    let mut words = command.split_whitespace();
    let program = words.next().ok_or("no command")?;
    let since = Instant::now();
    let output = Command::new(program).args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(milliseconds(since));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned();
    Err(format!("{program}: {}: {said}", output.status).into())
}
