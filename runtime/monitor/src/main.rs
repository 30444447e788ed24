//! The pod monitor: parent of a pod's containers, executor of launch plans, owner of streams, logs and exit statuses.
//!
//! Standard input is the listening socket, standard output the cgroup to be in or nothing, standard error the daemon's
//! log; everything else comes by the protocol.

mod attach;
mod cgroup;
mod child;
mod connection;
mod container;
mod exit;
mod launch;
mod log;
mod namespaces;
mod pause;
mod reaper;
mod server;
mod session;
mod setup;
mod stdio;
mod stop;
#[expect(unsafe_code, reason = "the raw system calls of the monitor, one function each")]
mod sys;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let served = if std::env::args_os().next().is_some_and(|name| name == pause::NAME) {
        pause::reap()
    } else {
        setup::begin().and_then(|process| server::Server::new(process).serve())
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            // The error's number tells the daemon why there is no monitor.
            u8::try_from(error.errno).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// Says what went wrong, in the daemon's log.
pub(crate) fn complain(what: &str) {
    // Nothing is left to tell it to when this does not work.
    let _ = writeln!(std::io::stderr(), "slipway-monitor: {what}");
}
