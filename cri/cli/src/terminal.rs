//! This program's own terminal, when a process elsewhere is used through it: its size, and its modes.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use slipway_proto::slipway::v1::TerminalSize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// Refuses a standard input that is no terminal, in crictl's words.
pub(crate) fn required() -> Result<()> {
    if io::stdin().is_terminal() { Ok(()) } else { Err(Error::Usage("input is not a terminal".to_owned())) }
}

/// The terminal of standard input passes on what is typed as it is, and echoes nothing: both are done by the terminal
/// that the process has. Dropping this gives the terminal its modes back.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// # Errors
    /// When standard input is no terminal, or a terminal that is gone.
    pub(crate) fn enter() -> Result<Self> {
        let fail = |errno: rustix::io::Errno| Error::Terminal(errno.into());
        let before = tcgetattr(io::stdin()).map_err(fail)?;
        let mut modes = before.clone();
        modes.make_raw();
        let raw = Self { before };
        tcsetattr(io::stdin(), OptionalActions::Now, &modes).map_err(fail)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Not once the output is drained, which can take for ever. A terminal that is gone has no modes.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Sends the size now and whenever it changes. A task of its own does it: input that waits for its reader would hold up
/// the output with it.
pub(crate) fn follow_size<M: Send + 'static>(
    sender: mpsc::Sender<M>,
    message: fn(TerminalSize) -> M,
) -> Result<()> {
    let mut changes = signal(SignalKind::window_change()).map_err(Error::Start)?;
    tokio::spawn(async move {
        loop {
            if let Some(size) = size()
                && sender.send(message(size)).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// The size of the terminal that shows the output, else of the one that is typed at. Nothing where neither has one.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then(|| TerminalSize { width: size.ws_col.into(), height: size.ws_row.into() })
}
