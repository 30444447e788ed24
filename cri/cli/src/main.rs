//! The command line. Called `crictl` (by a link) it takes crictl's verbs and flags and speaks the CRI to any runtime;
//! called anything else it is `slipway`, which adds building, pushing, housekeeping and containers of every owner.
//!
//! - `command_line`, `refusal`: the arguments as typed, and the answer to those that do not parse
//! - `dialect`: for each of the two names one table with its verbs, style and defaults; `verb`: a line of it
//! - `image`, `pod`, `container`, `system`: one file a verb, by the kind of object that it acts on
//! - `connection`, `config`: the sockets, and where their addresses come from
//! - `credentials`, `deadline`, `filter`, `pod_file`: arguments and files that several verbs take
//! - `output`, `format`, `style`, `table`, `status_view`, `units`, `time`, `yaml`, `protojson`: the form of results
//! - `streams`, `terminal`: the streams of a process, and this program's own terminal
//!
//! Imports point down this list or stay on a level; `.ci/imports` checks that no two modules import each other.

mod command_line;
mod config;
mod connection;
mod container;
mod credentials;
mod deadline;
mod dialect;
mod each;
mod error;
mod filter;
mod format;
mod image;
mod output;
mod pod;
mod pod_file;
mod protojson;
mod refusal;
mod status_view;
mod streams;
mod style;
mod system;
mod table;
mod terminal;
mod time;
mod units;
mod verb;
mod yaml;

use std::process::ExitCode;

use crate::command_line::Invocation;
use crate::connection::Session;
use crate::dialect::Dialect;
use crate::error::{Error, FAILED, Result};
use crate::refusal::Refusal;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let dialect = command_line::dialect(arguments.first().map(AsRef::as_ref));
    let program = dialect.style.program;
    let invocation = match Invocation::parse(dialect, &arguments) {
        Ok(invocation) => invocation,
        Err(Refusal::Text(text)) => {
            return if output::line(text.trim_end()).is_ok() { ExitCode::SUCCESS } else { FAILED.into() };
        }
        Err(Refusal::Line(line, code)) => {
            output::note(format_args!("{program}: {line}"));
            return ExitCode::from(code);
        }
    };
    let failed = invocation.verb.failed;
    match perform(dialect, invocation) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !error.is_broken_pipe() {
                output::note(format_args!("{program}: {}", error.describe(&dialect.style)));
            }
            failed(&error).into()
        }
    }
}

/// Performs the verb; the result is the exit status.
fn perform(dialect: &'static Dialect, invocation: Invocation) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let Invocation { flags, verb, arguments } = invocation;
    let session = Session::new(&dialect.style, &dialect.sources, flags)?;
    let result = runtime.block_on((verb.perform)(&arguments, &session));
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    result
}
