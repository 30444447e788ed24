//! Attach: streams a container's input and outputs to and from a client until the container ends, and from its
//! start if the client attaches before that.
//!
//! The monitor never waits for a client: it cuts a session whose reader is too slow. A client that follows a
//! container of `run` from its start loses nothing by that: the bytes that it was sent are counted, and the rest
//! is read from the container's log, which has every byte of both outputs in order. From then on output arrives by
//! whole lines.

use std::sync::Arc;
use std::time::Duration;

use slipway_log::{LogReader, Streams, Waker};
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::attach_request::Message as Asked;
use slipway_proto::slipway::v1::stream_output::Message;
use slipway_runtime::{
    AttachEnd, AttachEvent, AttachInput, AttachSession, ContainerState, ExitReason, Owner,
};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::sync::mpsc::{Sender, WeakSender, channel};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::container::view::{Life, life, life_of};
use crate::error::{Error, Result};
use crate::node::{Container, Node};
use crate::own::logs::wake_at_end;
use crate::own::streams::{BUFFER, Output, cells, message, spawn};
use crate::own::transfer::Events;

/// How long the daemon's own watch of a monitor may lag behind the session's connection.
const WATCH_DELAY: Duration = Duration::from_secs(5);

/// Follows a container's streams, also before it starts.
pub(crate) async fn attach(
    node: &Arc<Node>,
    mut requests: Streaming<own::AttachRequest>,
) -> Result<Events<own::StreamOutput>, Status> {
    let Some(Asked::Start(start)) = requests.message().await?.and_then(|request| request.message) else {
        return Err(Error::invalid("start", "the first message has to be it").into());
    };
    let row = node.containers.find(&start.container)?;
    let guard = row.streams.clone().read_owned().await;
    let (sender, receiver) = channel(BUFFER);
    if let ContainerState::Exited { .. } = runtime_state(node, &row)? {
        let _ = sender.try_send(Ok(message(Message::Ready(own::StreamReady {}))));
        let _ = sender.try_send(Ok(exit(life(node, &row))));
        return Ok(ReceiverStream::new(receiver));
    }
    let (mut session, from_start) = open(node, &row, start.stdin).await?;
    let _ = sender.try_send(Ok(message(Message::Ready(own::StreamReady {}))));
    let input = session.take_input().map(Arc::new);
    let feed = Feed {
        node: node.clone(),
        row: row.clone(),
        input: input.clone().map(writer).transpose()?,
        asked: start.stdin,
        sender: sender.downgrade(),
    };
    let waker = Waker::new().map_err(Error::from)?;
    let ender = session.ender().map_err(Error::from)?;
    let waking = tokio::spawn(wake(row.clone(), sender.clone(), waker.clone(), ender));
    let log = row.record.log_path.as_deref().filter(|_| from_start).map(LogReader::new);
    let follower = Follower {
        node: node.clone(),
        row,
        wanted: [start.stdout, start.stderr],
        sender,
        waker,
        waking,
        told: Told::default(),
        log,
        input,
        _guard: guard,
    };
    spawn("attach", move || follower.follow(session))?;
    tokio::spawn(feed.take(requests));
    Ok(ReceiverStream::new(receiver))
}

fn runtime_state(node: &Node, row: &Container) -> Result<ContainerState> {
    Ok(node.runtime.container_state(&row.record.id)?)
}

/// Opens a session; the flag says whether it receives a container of `run` from its first byte on.
async fn open(node: &Node, row: &Container, stdin: bool) -> Result<(AttachSession, bool)> {
    let is_created = || Ok::<_, Error>(matches!(runtime_state(node, row)?, ContainerState::Created { .. }));
    // If another request holds the turn, it may be starting the container right now.
    let turn = if is_created()? { row.turn.try_lock().ok() } else { None };
    let (runtime, id) = (node.runtime.clone(), row.record.id.clone());
    let session = node.blocking(move || runtime.attach(&id, stdin)).await?;
    // The log of another owner may be rotated before it is needed.
    let from_start = turn.is_some() && is_created()? && row.record.owner == Owner::Run;
    Ok((session, from_start))
}

/// Wakes the reader of the log when the container has ended, and ends the session when its client is gone.
async fn wake(row: Arc<Container>, sender: Output, waker: Waker, ender: AttachEnd) {
    let over = async {
        wake_at_end(&row, &waker).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = over => {}
        () = sender.closed() => {}
    }
    ender.end();
    waker.wake();
}

/// Starts a thread that writes the received bytes to the container's input and closes it once the sender is
/// dropped.
fn writer(input: Arc<AttachInput>) -> Result<Sender<Vec<u8>>> {
    let (sender, mut receiver) = channel::<Vec<u8>>(BUFFER);
    spawn("attach-input", move || {
        while let Some(bytes) = receiver.blocking_recv() {
            if input.write(&bytes).is_err() {
                return;
            }
        }
        // If the monitor is gone there is no input to close.
        let _ = input.close();
    })?;
    Ok(sender)
}

/// The client's side of a session.
struct Feed {
    node: Arc<Node>,
    row: Arc<Container>,
    /// The sender to the container's input; `None` once the client has ended it.
    input: Option<Sender<Vec<u8>>>,
    /// Whether the start message asked for an input.
    asked: bool,
    /// A weak sender, which does not keep the stream to the client open.
    sender: WeakSender<Result<own::StreamOutput, Status>>,
}

impl Feed {
    async fn take(mut self, mut requests: Streaming<own::AttachRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            match request.message {
                Some(Asked::Stdin(_)) if !self.asked => return self.refuse().await,
                Some(Asked::Stdin(bytes)) => {
                    if let Some(input) = &self.input {
                        // The bytes are dropped when the container has closed its input.
                        let _ = input.send(bytes).await;
                    }
                }
                Some(Asked::StdinEnd(_)) => self.input = None,
                Some(Asked::Resize(size)) => self.resize(size).await,
                Some(Asked::Start(_)) | None => {}
            }
        }
    }

    async fn refuse(&self) {
        let refused = Error::invalid("stdin", "the start of the session did not ask for it");
        if let Some(sender) = self.sender.upgrade() {
            // A client that is gone needs no answer.
            let _ = sender.send(Err(refused.into())).await;
        }
    }

    async fn resize(&self, size: own::TerminalSize) {
        let (width, height) = cells(size);
        let (runtime, id) = (self.node.runtime.clone(), self.row.record.id.clone());
        if let Err(error) = self.node.blocking(move || runtime.resize(&id, width, height)).await {
            tracing::debug!(container = self.row.id(), error = error.chain(), "resize");
        }
    }
}

/// The reason why reading from the monitor has ended.
enum Heard {
    Exit(i32),
    Cut,
    /// The client is gone.
    Nothing,
}

/// How many bytes of standard output and of standard error the client was sent, or would have been if it wanted them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told([u64; 2]);

impl Told {
    fn of(&mut self, is_stderr: bool) -> &mut u64 {
        let Self([stdout, stderr]) = self;
        if is_stderr { stderr } else { stdout }
    }

    fn add(&mut self, is_stderr: bool, bytes: &[u8]) {
        *self.of(is_stderr) += u64::try_from(bytes.len()).unwrap_or_default();
    }

    /// Removes from the front of the log's bytes those that the client was sent before, and counts them down.
    fn pass(&mut self, is_stderr: bool, bytes: &mut Vec<u8>) {
        let told = self.of(is_stderr);
        let passed = usize::try_from(*told).unwrap_or(usize::MAX).min(bytes.len());
        *told -= u64::try_from(passed).unwrap_or_default();
        bytes.drain(..passed);
    }
}

/// The container's side of a session.
struct Follower {
    node: Arc<Node>,
    row: Arc<Container>,
    /// Standard output, standard error.
    wanted: [bool; 2],
    sender: Output,
    waker: Waker,
    waking: JoinHandle<()>,
    told: Told,
    /// The log to continue from when the session is cut. It is opened at the first byte, so that a later removal
    /// of the file does not matter.
    log: Option<LogReader>,
    /// The container's input, kept until the session is over: a drop would lose the bytes that the container has
    /// not read yet.
    input: Option<Arc<AttachInput>>,
    /// The read lock on the container's streams: the automatic stop or removal of its pod waits for it, 5 s at
    /// most.
    _guard: OwnedRwLockReadGuard<()>,
}

impl Follower {
    fn follow(mut self, mut session: AttachSession) {
        let last = match self.listen(&mut session) {
            Ok(Heard::Exit(code)) => Some(Ok(end(&session, code))),
            Ok(Heard::Cut) => self.go_on(&session).transpose(),
            Ok(Heard::Nothing) => None,
            Err(error) => Some(Err(error.into())),
        };
        if let Some(last) = last {
            let _ = self.sender.blocking_send(last);
        }
        if let Some(input) = &self.input {
            input.abandon();
        }
        // The task holds a sender, which keeps the stream to the client open.
        self.waking.abort();
    }

    fn listen(&mut self, session: &mut AttachSession) -> Result<Heard> {
        loop {
            let (is_stderr, bytes) = match session.next_event()? {
                Some(AttachEvent::Stdout(bytes)) => (false, bytes),
                Some(AttachEvent::Stderr(bytes)) => (true, bytes),
                Some(AttachEvent::Exited(code)) => return Ok(Heard::Exit(code)),
                None if self.sender.is_closed() => return Ok(Heard::Nothing),
                None => return Ok(Heard::Cut),
            };
            if let Some(Err(error)) = self.log.as_mut().map(LogReader::open) {
                let error = Error::from(error);
                tracing::warn!(container = self.row.id(), error = error.chain(), "a slow client will be cut");
                self.log = None;
            }
            self.told.add(is_stderr, &bytes);
            if !self.send(is_stderr, bytes) {
                return Ok(Heard::Nothing);
            }
        }
    }

    fn send(&self, is_stderr: bool, bytes: Vec<u8>) -> bool {
        let [stdout, stderr] = self.wanted;
        let wanted = if is_stderr { stderr } else { stdout };
        let event = if is_stderr { Message::Stderr(bytes) } else { Message::Stdout(bytes) };
        !wanted || self.sender.blocking_send(Ok(message(event))).is_ok()
    }

    /// Sends the rest from the log; returns the last message, or `None` if the client is gone.
    fn go_on(&mut self, session: &AttachSession) -> Result<Option<own::StreamOutput>, Status> {
        let cut = "the stream was cut: its reader is too slow";
        let Some(mut log) = self.log.take() else {
            return Err(Status::data_loss(format!("{cut}, read the logs")));
        };
        let mut told = std::mem::take(&mut self.told);
        let mut rest = Streams::new(|is_stderr, mut bytes| {
            told.pass(is_stderr, &mut bytes);
            bytes.is_empty() || self.send(is_stderr, bytes)
        });
        let ended = || session.wait(Duration::ZERO);
        let is_over = || self.sender.is_closed() || ended().is_some() || self.node.tasks.is_closed();
        let listens = log.follow(&self.waker, is_over, &mut rest).map_err(Error::from)?;
        if !listens || self.sender.is_closed() {
            return Ok(None);
        }
        let life = match ended() {
            None => return Err(Status::unavailable("the daemon ends: the container goes on, read its logs")),
            Some(state @ ContainerState::Exited { reason: ExitReason::MonitorLost, .. }) => life_of(&state),
            Some(state) if session.log_writes_dropped() == Some(0) && told == Told::default() => {
                life_of(&state)
            }
            Some(_) => return Err(Status::data_loss(format!("{cut}, and the container's log is not whole"))),
        };
        Ok(Some(exit(life)))
    }
}

/// Makes the exit message. The monitor reports an exit to the session and to the daemon's own watch separately,
/// and only the latter knows the reason. Waiting for it, [`WATCH_DELAY`] at most, also keeps a client from
/// learning of an exit while the daemon still reports the container as running.
fn end(session: &AttachSession, code: i32) -> own::StreamOutput {
    match session.wait(WATCH_DELAY) {
        Some(state) => exit(life_of(&state)),
        None => message(Message::Exit(own::Exit { code, ..own::Exit::default() })),
    }
}

fn exit(life: Life) -> own::StreamOutput {
    message(Message::Exit(own::Exit {
        code: life.code,
        reason: life.reason.to_owned(),
        message: life.message,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_passed_over_in_each_stream_by_itself() {
        let mut told = Told::default();
        told.add(false, b"one\ntwo");
        told.add(true, b"e");
        let mut rest = Vec::new();
        for (is_stderr, bytes) in [(false, "one\n"), (true, "err\n"), (false, "two\r\0\n"), (false, "three")]
        {
            let mut bytes = bytes.as_bytes().to_vec();
            told.pass(is_stderr, &mut bytes);
            rest.push(String::from_utf8(bytes).unwrap());
        }
        assert_eq!(rest, ["", "rr\n", "\r\0\n", "three"]);
        assert_eq!(told, Told::default());
    }
}
