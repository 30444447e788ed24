//! Times what a node does on CRI runtimes beside each other, in turns, and prints one table of medians and ratios:
//!
//! ```text
//! benchmark ROUNDS IMAGE LARGE-IMAGE NAME=SOCKET=PID [NAME=SOCKET=PID]
//! ```
//! Nothing is asserted: the figures are for people. Each round does the same on the one runtime, then on the other, so
//! that whatever else the machine does meets both. What fails on one runtime is told below its section, and leaves a
//! dash in its column; the others go on.

mod build;
mod crowd;
mod life;
mod memory;
mod pull;
mod subject;
mod table;

use std::time::Duration;
use subject::Subject;
use table::Section;

/// Anything that can go wrong on a runtime, in words.
type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, image, large, runtimes @ ..] = arguments.as_slice() else {
        return Err("usage: benchmark ROUNDS IMAGE LARGE-IMAGE NAME=SOCKET=PID ...".into());
    };
    let rounds: u32 = rounds.parse()?;
    let mut subjects = Vec::new();
    for runtime in runtimes {
        subjects.push(Subject::connect(runtime).await?);
    }
    table::head(&subjects)?;
    memory::idle(&subjects).print()?;
    for network in [life::HOST, life::BRIDGE] {
        let mut section = Section::new(&subjects, network.name);
        within(240, &mut section, Box::pin(life::measure(&mut subjects, rounds, image, network)))
            .await
            .print()?;
    }
    let mut section = Section::new(&subjects, "pull, both cold");
    within(120, &mut section, Box::pin(pull::measure(&mut subjects, large))).await.print()?;
    build::measure(&subjects, rounds).print()?;
    for crowd in [crowd::IN_A_ROW, crowd::AT_ONCE] {
        let mut section = Section::new(&subjects, crowd.name);
        within(240, &mut section, Box::pin(crowd::measure(&mut subjects, image, crowd))).await.print()?;
    }
    Ok(())
}

/// A section, or that it took too long.
async fn within(seconds: u64, late: &mut Section, work: impl Future<Output = Section>) -> Section {
    match tokio::time::timeout(Duration::from_secs(seconds), work).await {
        Ok(section) => section,
        Err(_) => {
            late.note(format!("given up after {seconds} s"));
            late.clone()
        }
    }
}
