//! Logs: what a container has written, from some line on, and on until the container has ended.

use std::collections::VecDeque;
use std::sync::Arc;

use slipway_log::{Listener, LogLine, LogReader, Waker};
use slipway_proto::slipway::v1 as own;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::container::view::life;
use crate::error::{Error, Result};
use crate::node::{Container, Node};
use crate::own::transfer::Events;

/// Messages that wait for the client.
const BUFFER: usize = 8;
/// About how many bytes a message has.
const BATCH: usize = 64 << 10;
/// About what an entry takes besides what was written.
const ENTRY: usize = 16;

type Output = Sender<Result<own::LogEntries, Status>>;

pub(crate) fn logs(node: &Arc<Node>, request: own::LogsRequest) -> Result<Events<own::LogEntries>> {
    let row = node.containers.find(&request.container)?;
    let (sender, receiver) = channel(BUFFER);
    let waker = Waker::new()?;
    let waking = request.follow.then(|| {
        let (row, sender, waker) = (row.clone(), sender.clone(), waker.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = wake_at_end(&row, &waker) => {}
                () = sender.closed() => waker.wake(),
            }
        })
    });
    let node_too = node.clone();
    node.tasks.spawn_blocking(move || {
        if let Err(error) = read(&node_too, &row, &request, (&waker, &sender)) {
            let _ = sender.blocking_send(Err(Status::from(error)));
        }
        // It holds the stream open.
        if let Some(waking) = waking {
            waking.abort();
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Wakes a reader once the container has ended.
pub(crate) async fn wake_at_end(row: &Container, waker: &Waker) {
    row.over.notified().await;
    waker.wake();
}

fn read(
    node: &Node,
    row: &Container,
    request: &own::LogsRequest,
    (waker, sender): (&Waker, &Output),
) -> Result<()> {
    let Some(path) = &row.record.log_path else {
        return Err(Error::WrongState {
            action: "read the log of",
            kind: "container",
            id: row.id().to_owned(),
            state: "without a log path",
        });
    };
    let is_over = || {
        !request.follow
            || sender.is_closed()
            || life(node, row).finished_at != 0
            || node.tasks.is_closed()
            || node.containers.find(row.id()).is_err()
    };
    let most = request.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let tail = most.map(|most| (most, VecDeque::new()));
    let mut batches = Batches { sender, since: request.since, tail, entries: Vec::new(), size: 0 };
    LogReader::new(path).follow(waker, is_over, &mut batches)?;
    Ok(())
}

/// Entries on their way to a client, many in a message: one each would cost far more than what they say.
struct Batches<'a> {
    sender: &'a Output,
    since: i64,
    /// How many of the last entries are asked for, and those, until all that is there has been read.
    tail: Option<(usize, VecDeque<own::LogEntry>)>,
    entries: Vec<own::LogEntry>,
    size: usize,
}

impl Batches<'_> {
    fn add(&mut self, entry: own::LogEntry) -> bool {
        self.size += entry.data.len() + ENTRY;
        self.entries.push(entry);
        self.size < BATCH || self.send()
    }

    fn send(&mut self) -> bool {
        self.size = 0;
        let entries = std::mem::take(&mut self.entries);
        entries.is_empty() || self.sender.blocking_send(Ok(own::LogEntries { entries })).is_ok()
    }
}

impl Listener for Batches<'_> {
    fn line(&mut self, line: &LogLine<'_>) -> bool {
        let Some(timestamp) = line.timestamp().filter(|timestamp| *timestamp >= self.since) else {
            return true;
        };
        let stream = if line.is_stderr { own::OutputStream::Stderr } else { own::OutputStream::Stdout };
        let entry = own::LogEntry { stream: stream.into(), timestamp, data: line.written() };
        let Some((most, last)) = &mut self.tail else { return self.add(entry) };
        last.push_back(entry);
        if last.len() > *most {
            last.pop_front();
        }
        true
    }

    fn pause(&mut self) -> bool {
        let last = self.tail.take().map(|(_, last)| last).unwrap_or_default();
        last.into_iter().all(|entry| self.add(entry)) && self.send()
    }
}
