//! Exec, and the parts that it shares with Attach: threads that copy between a client's stream and a container's.
//! They block for as long as a process lives, so they are not among the tasks that the daemon's shutdown waits
//! for.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::stream_output::Message;
use slipway_runtime::{Exec, ExecSession, TerminalSize};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::{Error, Result};
use crate::node::Node;
use crate::own::transfer::Events;

/// Capacity of a channel to a client, in messages.
pub(crate) const BUFFER: usize = 64;

/// The sender of messages to a client.
pub(crate) type Output = Sender<Result<own::StreamOutput, Status>>;

pub(crate) fn message(message: Message) -> own::StreamOutput {
    own::StreamOutput { message: Some(message) }
}

/// Runs a command with its streams connected to the client; kills it when the client is gone.
pub(crate) async fn exec(
    node: &Arc<Node>,
    mut requests: Streaming<own::ExecRequest>,
) -> Result<Events<own::StreamOutput>, Status> {
    use own::exec_request::Message as Asked;
    let Some(Asked::Start(start)) = requests.message().await?.and_then(|request| request.message) else {
        return Err(Error::invalid("start", "the first message has to be it").into());
    };
    if start.command.is_empty() {
        return Err(Error::invalid("start.command", "it is empty").into());
    }
    let row = node.containers.find(&start.container)?;
    let exec = Exec {
        argv: start.command,
        env: start.env,
        cwd: Some(start.working_dir).filter(|path| !path.is_empty()),
        user: Some(start.user).filter(|user| !user.is_empty()),
        tty: start.tty,
        size: start.size.map(|size| {
            let (width, height) = cells(size);
            TerminalSize { width, height }
        }),
        stdin: start.stdin,
        timeout: None,
    };
    let runtime = node.runtime.clone();
    let mut session = node.blocking(move || runtime.exec(&row.record.id, &exec)).await?;
    let (sender, receiver) = channel(BUFFER);
    let _ = sender.try_send(Ok(message(Message::Ready(own::StreamReady {}))));
    let input = writer(&mut session)?;
    let terminal = terminal(&session)?;
    kill_with_client(&session, &sender)?;
    spawn("exec", move || run_out(session, &sender))?;
    tokio::spawn(async move {
        let mut input = input;
        while let Ok(Some(request)) = requests.message().await {
            match request.message {
                Some(Asked::Stdin(bytes)) => {
                    if let Some(held) = &input {
                        let _ = held.send(bytes).await;
                    }
                }
                Some(Asked::StdinEnd(_)) => input = None,
                Some(Asked::Resize(size)) => resize(terminal.as_ref(), size),
                Some(Asked::Start(_)) | None => {}
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

fn terminal(session: &ExecSession) -> Result<Option<OwnedFd>> {
    let copy = session.terminal.as_ref().map(OwnedFd::try_clone).transpose();
    copy.map_err(Error::io("duplicate", "the terminal"))
}

fn resize(terminal: Option<&OwnedFd>, size: own::TerminalSize) {
    let (ws_col, ws_row) = cells(size);
    if let Some(terminal) = terminal {
        let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        // It fails when the terminal is closed already.
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// Columns and rows of a terminal.
pub(crate) fn cells(size: own::TerminalSize) -> (u16, u16) {
    let cell = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    (cell(size.width), cell(size.height))
}

/// Starts a thread that writes the received bytes to the command's input and closes it once the sender is dropped.
fn writer(session: &mut ExecSession) -> Result<Option<Sender<Vec<u8>>>> {
    let target = match session.stdin.take() {
        Some(stdin) => stdin,
        None => match terminal(session)? {
            Some(terminal) => terminal,
            None => return Ok(None),
        },
    };
    let (sender, mut receiver) = channel::<Vec<u8>>(BUFFER);
    spawn("exec-input", move || {
        let mut target = File::from(target);
        while let Some(bytes) = receiver.blocking_recv() {
            if target.write_all(&bytes).is_err() {
                return;
            }
        }
    })?;
    Ok(Some(sender))
}

/// Kills the command and ends the session when the client is gone, also if the monitor does not answer.
fn kill_with_client(session: &ExecSession, sender: &Output) -> Result<()> {
    let ender = session.ender()?;
    let process = Pid::from_raw(session.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let sender = sender.downgrade();
    tokio::spawn(async move {
        let Some(strong) = sender.upgrade() else { return };
        strong.closed().await;
        if let Some(process) = process {
            // A process that has ended needs no signal.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        ender.end();
    });
    Ok(())
}

fn run_out(mut session: ExecSession, sender: &Output) {
    let outputs = [
        (session.stdout.take(), Message::Stdout as fn(Vec<u8>) -> Message),
        (session.stderr.take(), Message::Stderr),
        (session.terminal.take(), Message::Stdout),
    ];
    let outputs = outputs.into_iter().filter_map(|(source, wrap)| Some((source?, wrap)));
    let readers: Vec<_> = outputs
        .filter_map(|(source, wrap)| {
            let sender = sender.clone();
            thread::Builder::new()
                .name("exec-output".to_owned())
                .spawn(move || read_out(&source, wrap, &sender))
                .ok()
        })
        .collect();
    let outcome = session.wait();
    for reader in readers {
        let _ = reader.join();
    }
    let end = match outcome {
        Ok(code) => {
            let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            Ok(message(Message::Exit(own::Exit { code, reason, message: String::new() })))
        }
        Err(error) => Err(Status::from(Error::from(error))),
    };
    let _ = sender.blocking_send(end);
}

fn read_out(source: &OwnedFd, wrap: fn(Vec<u8>) -> Message, sender: &Output) {
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        match rustix::io::read(source, &mut buffer) {
            // A terminal's master returns EIO once its last slave is closed.
            Ok(0) | Err(Errno::IO) => return,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.blocking_send(Ok(message(wrap(bytes)))).is_err() {
                    return;
                }
            }
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)], None);
            }
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Starts a thread for work that blocks.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(Error::io("start thread", name))
}
