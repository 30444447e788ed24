//! The command line. Called `crictl` (by a link) it takes crictl's verbs and flags and speaks the CRI to any runtime;
//! called anything else it is `slipway`, which adds building, pushing, housekeeping and containers of every owner.

mod args;
mod config;
mod connection;
mod deadline;
mod error;
mod log_file;
mod log_sink;
mod output;
mod pod_file;
mod progress;
mod protojson;
mod refusal;
mod status_view;
mod streams;
mod table;
mod terminal;
mod time;
mod units;
mod verb;
mod yaml;

use std::process::ExitCode;

use crate::args::{Command, Dialect, Invocation, OwnCommand};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::refusal::Refusal;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let dialect = Dialect::of(arguments.first());
    let invocation = match Invocation::parse(dialect, &arguments) {
        Ok(invocation) => invocation,
        Err(Refusal::Text(text)) => {
            return if output::line(text.trim_end()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(Refusal::Line(line, code)) => {
            output::note(format_args!("{}: {line}", dialect.name()));
            return ExitCode::from(code);
        }
    };
    let runs = matches!(invocation.command, Command::Own(OwnCommand::Run(_)));
    match perform(dialect, invocation) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !error.is_broken_pipe() {
                output::note(format_args!("{}: {}", dialect.name(), error.describe(dialect)));
            }
            if runs { ExitCode::from(error.status_of_run()) } else { ExitCode::FAILURE }
        }
    }
}

fn perform(dialect: Dialect, invocation: Invocation) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let result = runtime.block_on(async {
        let session = Session::new(dialect, invocation.global)?;
        verb::perform(invocation.command, &session).await
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    result
}
