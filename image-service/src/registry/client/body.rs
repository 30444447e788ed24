//! The body of a request, and how far the other side has taken it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

const PIECE: usize = 128 << 10;

pub(super) type Payload = UnsyncBoxBody<Bytes, io::Error>;

/// The content of a request.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Nothing,
    Bytes(Bytes),
    File { path: PathBuf, size: u64 },
}

/// How much of a body the connection has taken. A connection takes a piece when the one before is on its way, so that this
/// is ahead of the other side by what the buffers of the socket hold.
#[derive(Debug)]
pub(super) struct Sent {
    /// The bytes left; the sender belongs to the body. None for a body that is sent as a whole.
    left: Option<watch::Receiver<u64>>,
}

impl Sent {
    /// Whether nothing of the body is left to take, or the connection has dropped it.
    pub(super) fn is_whole(&self) -> bool {
        self.left.as_ref().is_none_or(|left| *left.borrow() == 0)
    }

    /// Waits until a piece is taken or the body is dropped.
    pub(super) async fn moved(&mut self) {
        if let Some(left) = &mut self.left
            && left.changed().await.is_err()
        {
            self.left = None;
        }
    }
}

/// The body of a request, and what tells how much of it is taken.
pub(super) fn payload(content: &Content) -> Result<(Payload, Sent), String> {
    let whole = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    match content {
        Content::Nothing => Ok((whole(Bytes::new()), Sent { left: None })),
        Content::Bytes(bytes) => Ok((whole(bytes.clone()), Sent { left: None })),
        Content::File { path, size } => {
            let file =
                std::fs::File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
            let (sender, receiver) = mpsc::channel(4);
            tokio::task::spawn_blocking(move || read_pieces(file, &sender));
            let (left, sent) = watch::channel(*size);
            Ok((FileBody { receiver, left }.boxed_unsync(), Sent { left: Some(sent) }))
        }
    }
}

fn read_pieces(mut file: std::fs::File, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = vec![0_u8; PIECE];
        let piece = file.read(&mut buffer).map(|count| {
            buffer.truncate(count);
            Bytes::from(buffer)
        });
        let last = !piece.as_ref().is_ok_and(|piece| !piece.is_empty());
        if sender.blocking_send(piece).is_err() || last {
            return;
        }
    }
}

/// A file as a request's body.
struct FileBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: watch::Sender<u64>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.receiver.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) if !bytes.is_empty() => {
                self.left.send_modify(|left| *left = left.saturating_sub(bytes.len() as u64));
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        *self.left.borrow() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(*self.left.borrow())
    }
}
