//! `attach`: the streams of a container's process, from now to its end. Ctrl-C leaves the container as it is.

use slipway_proto::slipway::v1::{
    AttachRequest, AttachStart, StdinEnd, StreamOutput, attach_request::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::streams::{self, Interrupts, Next};
use crate::terminal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Send standard input to it
    #[arg(short, long)]
    interactive: bool,
    /// Id or name
    container: String,
}

/// The connected streams of a container.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) stream: Streaming<StreamOutput>,
    /// Keeps the client's side of the session open.
    sender: mpsc::Sender<AttachRequest>,
    interactive: bool,
}

impl Attached {
    /// Begins to send standard input, if it is wanted.
    pub(crate) fn send_input(&mut self) {
        if self.interactive {
            let chunk = |data| AttachRequest { message: Some(Message::Stdin(data)) };
            let end = AttachRequest { message: Some(Message::StdinEnd(StdinEnd {})) };
            streams::forward_stdin(self.sender.clone(), chunk, end);
        }
    }

    /// Gives the process's terminal the size of this program's own, now and whenever it changes.
    pub(crate) fn follow_size(&self) -> Result<()> {
        let message = |size| AttachRequest { message: Some(Message::Resize(size)) };
        terminal::follow_size(self.sender.clone(), message)
    }
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<u8> {
    let mut interrupts = Interrupts::listen()?;
    let mut attached = open(&args.container, args.interactive, session).await?;
    attached.send_input();
    let action = format!("follow container {}", args.container);
    loop {
        tokio::select! {
            number = interrupts.next() => return Ok(128 + number),
            next = streams::next(&mut attached.stream, &action) => {
                if let Next::Exit(exit) = next? {
                    return Ok(streams::status(&exit));
                }
            }
        }
    }
}

/// Connects to the streams; no output from now on is missed.
pub(crate) async fn open(container: &str, interactive: bool, session: &Session) -> Result<Attached> {
    let action = format!("attach to container {container}");
    let start =
        AttachStart { container: container.to_owned(), stdin: interactive, stdout: true, stderr: true };
    let (sender, receiver) = mpsc::channel(8);
    // The receiver is held here, so that there is room.
    let _ = sender.send(AttachRequest { message: Some(Message::Start(start)) }).await;
    let answer = session.slipway().await?.attach(ReceiverStream::new(receiver)).await;
    let mut stream = answer.map_err(Error::call(action.as_str()))?.into_inner();
    streams::ready(&mut stream, &action).await?;
    Ok(Attached { stream, sender, interactive })
}
