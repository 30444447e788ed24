//! PullImage and Push: streams progress events to the client. A transfer is cancelled when its client is gone.

use std::sync::Arc;

use slipway_image::{Credentials, PullProgress, Reference};
use slipway_proto::slipway::v1 as own;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::error::Result;
use crate::node::Node;

/// The stream of events to a client.
pub(crate) type Events<T> = ReceiverStream<Result<T, Status>>;

const BUFFER: usize = 64;

pub(crate) fn pull(node: &Arc<Node>, request: own::PullImageRequest) -> Result<Events<own::TransferEvent>> {
    let reference: Reference = request.image.parse()?;
    let credentials = credentials(request.credentials);
    let (sender, receiver) = channel(BUFFER);
    let node_too = node.clone();
    node.tasks.spawn(async move {
        let progress = tell(&sender);
        let work = async {
            let image = node_too.store.pull(&reference, &credentials, &progress).await?.image;
            let name = format!("{}@", reference.name());
            let digest = image.digests.iter().find_map(|digest| digest.strip_prefix(&name));
            Ok(done(image.id.to_string(), digest.unwrap_or_default().to_owned(), &reference))
        };
        finish(&sender, work).await;
    });
    Ok(ReceiverStream::new(receiver))
}

pub(crate) fn push(node: &Arc<Node>, request: own::PushRequest) -> Result<Events<own::TransferEvent>> {
    let reference: Reference = request.image.parse()?;
    let credentials = credentials(request.credentials);
    let image = node.store.resolve(&reference.to_string())?;
    let (sender, receiver) = channel(BUFFER);
    let node_too = node.clone();
    node.tasks.spawn(async move {
        let progress = tell(&sender);
        let work = async {
            let digest = node_too.store.push(&reference, &credentials, &progress).await?;
            Ok(done(image.id.to_string(), digest.to_string(), &reference))
        };
        finish(&sender, work).await;
    });
    Ok(ReceiverStream::new(receiver))
}

async fn finish(
    sender: &Sender<Result<own::TransferEvent, Status>>,
    work: impl Future<Output = Result<own::TransferEvent>>,
) {
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = sender.closed() => return,
    };
    // A client that is gone needs no answer.
    let _ = sender.send(outcome.map_err(Status::from)).await;
}

/// Makes a progress callback. It drops events that the channel has no room for, and leaves room for the last
/// message: a client that reads slowly misses progress, never the result.
fn tell(
    sender: &Sender<Result<own::TransferEvent, Status>>,
) -> impl Fn(PullProgress) + Sync + Send + 'static {
    let sender = sender.clone();
    move |progress| {
        let event = own::BlobProgress {
            digest: String::new(),
            phase: own::BlobPhase::Transfer.into(),
            offset: progress.bytes_done,
            total: progress.bytes,
        };
        let event = own::transfer_event::Event::Progress(event);
        if sender.capacity() > 1 {
            let _ = sender.try_send(Ok(own::TransferEvent { event: Some(event) }));
        }
    }
}

fn done(image_id: String, digest: String, reference: &Reference) -> own::TransferEvent {
    let done = own::TransferDone { image_id, digest, reference: reference.to_string() };
    own::TransferEvent { event: Some(own::transfer_event::Event::Done(done)) }
}

fn credentials(given: Option<own::Credentials>) -> Credentials {
    let given = given.unwrap_or_default();
    if !given.registry_token.is_empty() {
        Credentials::RegistryToken(given.registry_token)
    } else if !given.identity_token.is_empty() {
        Credentials::IdentityToken(given.identity_token)
    } else if !given.username.is_empty() {
        Credentials::Basic { username: given.username, password: given.password }
    } else {
        Credentials::Anonymous
    }
}
