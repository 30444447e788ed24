//! Build: streams events to the client while the steps run. The build is cancelled when its client is gone.

use std::path::PathBuf;
use std::sync::Arc;

use slipway_builder::{BuildRequest, Cancellation, Context, Progress, Session, Stream};
use slipway_image::{Credentials, Reference};
use slipway_proto::slipway::v1 as own;
use slipway_proto::slipway::v1::build_event::Event;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::{Error, Result};
use crate::node::Node;
use crate::own::transfer::Events;

const BUFFER: usize = 256;

type Output = Sender<Result<own::BuildEvent, Status>>;

pub(crate) async fn build(
    node: &Arc<Node>,
    mut requests: Streaming<own::BuildRequest>,
) -> Result<Events<own::BuildEvent>, Status> {
    use own::build_request::Message as Asked;
    let Some(Asked::Start(start)) = requests.message().await?.and_then(|request| request.message) else {
        return Err(Error::invalid("start", "the first message has to be it").into());
    };
    let request = request(start)?;
    let (sender, receiver) = channel(BUFFER);
    let cancel = Cancellation::default();
    let watch = (sender.clone(), cancel.clone());
    let watcher = Watcher(tokio::spawn(async move {
        watch.0.closed().await;
        // The cancellation may wait for a command to be killed.
        let _ = tokio::task::spawn_blocking(move || watch.1.cancel()).await;
    }));
    let (node_too, tasks) = (node.clone(), Handle::current());
    node.tasks.spawn_blocking(move || {
        let outcome = run(&node_too, &request, &Way { sender: &sender, cancel: &cancel, tasks: &tasks });
        // A client that is gone needs no answer.
        let _ = sender.blocking_send(outcome.map_err(Status::from));
        drop(watcher);
    });
    Ok(ReceiverStream::new(receiver))
}

/// Guard of the task that cancels the build when the client is gone. The task holds a sender, which keeps the
/// stream to the client open; so it is aborted with the build, also after a panic, or the client would wait for
/// ever.
struct Watcher(tokio::task::JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Way<'a> {
    sender: &'a Output,
    cancel: &'a Cancellation,
    tasks: &'a Handle,
}

fn run(node: &Node, request: &BuildRequest, way: &Way<'_>) -> Result<own::BuildEvent> {
    let progress = |event| {
        // If the client is gone, the watcher cancels the build.
        let _ = way.sender.blocking_send(Ok(own::BuildEvent { event: Some(told(event)) }));
    };
    let pull = |reference: &Reference| {
        way.tasks.block_on(Box::pin(async {
            tokio::select! {
                pulled = node.store.pull(reference, &Credentials::Anonymous, &|_| {}) => pulled,
                () = way.sender.closed() => {
                    Err(slipway_image::Error::Cancelled { what: format!("the pull of {reference}") })
                }
            }
        }))
    };
    let session = Session { progress: &progress, pull: &pull, cancel: way.cancel };
    let built = node.builder.build(request, &session)?;
    let tags = built.image.tags.iter().map(ToString::to_string).collect();
    let built = own::Built { image_id: built.image.id.to_string(), tags };
    Ok(own::BuildEvent { event: Some(Event::Built(built)) })
}

fn request(start: own::BuildStart) -> Result<BuildRequest> {
    use own::build_start::{Context as Files, Dockerfile};
    let context = match start.context {
        Some(Files::Path(files)) if files.path.starts_with('/') => {
            Context::Path { path: PathBuf::from(files.path), device: files.device, inode: files.inode }
        }
        Some(Files::Path(files)) => {
            let reason = format!("{:?} is no absolute path", files.path);
            return Err(Error::invalid("start.path.path", reason));
        }
        Some(Files::Stream(_)) => return Err(Error::unsupported("start.stream")),
        None => return Err(Error::invalid("start.context", "it is absent")),
    };
    let (dockerfile, dockerfile_contents) = match start.dockerfile {
        Some(Dockerfile::DockerfilePath(path)) if path.is_empty() => (None, None),
        Some(Dockerfile::DockerfilePath(path)) => (Some(PathBuf::from(path)), None),
        Some(Dockerfile::DockerfileContents(text)) => (None, Some(text)),
        None => (None, None),
    };
    Ok(BuildRequest {
        context,
        dockerfile,
        dockerfile_contents,
        dockerignore_contents: start.dockerignore_contents,
        tags: start.tags,
        target: Some(start.target).filter(|target| !target.is_empty()),
        build_args: start.build_args,
        no_cache: start.no_cache,
    })
}

fn told(event: Progress) -> Event {
    let nanos = |elapsed: std::time::Duration| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    match event {
        Progress::StepStarted { step, name } => Event::Started(own::StepStarted { step, name }),
        Progress::Output { step, stream, bytes } => {
            let stream = match stream {
                Stream::Stdout => own::OutputStream::Stdout,
                Stream::Stderr => own::OutputStream::Stderr,
            };
            Event::Output(own::StepOutput { step, stream: stream.into(), data: bytes })
        }
        Progress::StepDone { step, cached, elapsed } => Event::Finished(own::StepFinished {
            step,
            cached,
            duration_nanos: nanos(elapsed),
            error: String::new(),
        }),
        Progress::StepFailed { step, error, elapsed } => {
            Event::Finished(own::StepFinished { step, cached: false, duration_nanos: nanos(elapsed), error })
        }
        Progress::Warning { message } => Event::Warning(message),
    }
}
