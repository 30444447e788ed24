//! The streams of a remote process: its output goes to this program's, this program's input and signals to the daemon.

use std::io::Read as _;

use slipway_proto::slipway::v1::{Exit, StreamOutput, stream_output::Message};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::error::{Error, Result};
use crate::output;

/// The next message of a session.
#[derive(Debug)]
pub(crate) enum Next {
    /// Output of the process, which has been written to this program's.
    Output,
    Exit(Exit),
}

/// Waits until the daemon has connected the streams.
pub(crate) async fn ready(stream: &mut Streaming<StreamOutput>, action: &str) -> Result<()> {
    match stream.message().await.map_err(Error::call(action))?.and_then(|output| output.message) {
        Some(Message::Ready(_)) => Ok(()),
        _ => Err(Error::Ended { action: action.to_owned() }),
    }
}

/// Receives one message, and writes its output.
pub(crate) async fn next(stream: &mut Streaming<StreamOutput>, action: &str) -> Result<Next> {
    let message = stream.message().await.map_err(Error::call(action))?;
    let message = message.ok_or_else(|| Error::Ended { action: action.to_owned() })?;
    match message.message {
        Some(Message::Stdout(data)) => output::bytes(&data)?,
        Some(Message::Stderr(data)) => output::error_bytes(&data)?,
        Some(Message::Exit(exit)) => return Ok(Next::Exit(exit)),
        Some(Message::Ready(_)) | None => {}
    }
    Ok(Next::Output)
}

/// The exit status of this program for the end of a process.
pub(crate) fn status(exit: &Exit) -> u8 {
    let ordinary = matches!(exit.reason.as_str(), "" | "Completed" | "Error");
    if !ordinary {
        output::note(format_args!("the process has ended: {}", exit.reason));
    }
    if !ordinary && !exit.message.is_empty() {
        output::note(&exit.message);
    }
    u8::try_from(exit.code & 0xff).unwrap_or(u8::MAX)
}

/// Sends standard input, then `end`. A thread of its own reads, since a read of a terminal can't be cancelled.
pub(crate) fn forward_stdin<M: Send + 'static>(sender: mpsc::Sender<M>, chunk: fn(Vec<u8>) -> M, end: M) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length) = stdin.read(&mut buffer) {
            let Some(data) = buffer.get(..length).filter(|data| !data.is_empty()) else { break };
            if sender.blocking_send(chunk(data.to_vec())).is_err() {
                return;
            }
        }
        // The session may be over already.
        let _ = sender.blocking_send(end);
    });
}

/// SIGINT and SIGTERM, in the order in which they arrive.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Interrupts {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::Start);
        let interrupt = listen(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: listen(SignalKind::terminate())?, hangup: None })
    }

    /// SIGHUP too, for verbs that have to restore the modes of a terminal. Others leave it to nohup(1).
    pub(crate) fn with_hangup(mut self) -> Result<Self> {
        self.hangup = Some(signal(SignalKind::hangup()).map_err(Error::Start)?);
        Ok(self)
    }

    /// Waits for the next signal, and returns its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            () = hangup(&mut self.hangup) => 1,
        }
    }
}

async fn hangup(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}
