//! The size and modes of this program's own terminal, when a remote process is used through it.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use slipway_proto::slipway::v1::TerminalSize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// Refuses a standard input that is no terminal, with crictl's message.
pub(crate) fn required() -> Result<()> {
    if io::stdin().is_terminal() { Ok(()) } else { Err(Error::Usage("input is not a terminal".to_owned())) }
}

/// The terminal of standard input in raw mode: line editing and echo are the business of the remote process's terminal.
/// Dropping this restores the modes.
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

/// Sends the size now and whenever it changes, from a task of its own: where the session's input is blocked, sending from the
/// caller would block the output, too.
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

/// The size of the terminal of standard output, else of standard input; none where neither is a terminal.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let known = size.ws_col > 0 && size.ws_row > 0;
    known.then(|| TerminalSize { width: size.ws_col.into(), height: size.ws_row.into() })
}
