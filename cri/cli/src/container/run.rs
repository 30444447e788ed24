//! slipway's `run`: a command in a new container. Attached, its streams are connected before it starts, so that no line
//! is lost; Ctrl-C stops it, a second one kills it. With -i and -t the terminal is the container's, Ctrl-C included.

mod arguments;

use slipway_proto::slipway::v1::{
    Exit, RemoveContainerRequest, RunContainerResponse, StartContainerRequest, StopContainerRequest,
};
use tonic::Code;

pub(crate) use self::arguments::Args;
use super::attach;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::streams::{self, Interrupts, Next};
use crate::terminal::{self, Raw};
use crate::{image, output};

/// The grace period of the first Ctrl-C.
const STOP_SECONDS: u32 = 10;

pub(crate) async fn perform(args: Args, session: &Session) -> Result<u8> {
    if args.takes_terminal() {
        terminal::required()?;
    }
    let created = create(&args, session).await?;
    if args.detach {
        return output::line(created.id).map(|()| 0);
    }
    match follow(&created.id, &args, session).await {
        Ok(code) => {
            if args.removes() {
                // The daemon removes it; once that is done, the name is free for the next one.
                remove(&created.id, session).await?;
            }
            Ok(code)
        }
        Err(Failure::BeforeStart(error)) => {
            if let Err(left) = remove(&created.id, session).await {
                output::note(left.describe(session.style));
            }
            Err(error)
        }
        Err(Failure::AfterStart(error)) => Err(error),
    }
}

/// Makes the container, pulling the image when it is not on the node.
async fn create(args: &Args, session: &Session) -> Result<RunContainerResponse> {
    let request = args.request()?;
    let mut client = session.slipway().await?;
    let action = || format!("run {}", args.image);
    match client.run_container(request.clone()).await {
        Err(status) if status.code() == Code::NotFound && !args.no_pull => {
            output::note(format_args!("image {} is not on the node: pulling it", args.image));
            image::pull::pull(&args.image, args.credentials.for_slipway(&args.image)?, false, session)
                .await?;
            let retried = client.run_container(request).await.map_err(Error::call(action()))?;
            Ok(retried.into_inner())
        }
        result => Ok(result.map_err(Error::call(action()))?.into_inner()),
    }
}

/// Removes it, unless the daemon has done so by itself.
async fn remove(id: &str, session: &Session) -> Result<()> {
    let request = RemoveContainerRequest { container: id.to_owned(), force: true };
    match session.slipway().await?.remove_container(request).await {
        Err(status) if status.code() != Code::NotFound => {
            Err(Error::call(format!("remove container {id}"))(status))
        }
        _ => Ok(()),
    }
}

/// An error, by whether there is a process by then, which is left alone.
enum Failure {
    BeforeStart(Error),
    AfterStart(Error),
}

async fn follow(id: &str, args: &Args, session: &Session) -> std::result::Result<u8, Failure> {
    let mut interrupts = Interrupts::listen().map_err(Failure::BeforeStart)?;
    if args.takes_terminal() {
        interrupts = interrupts.with_hangup().map_err(Failure::BeforeStart)?;
    }
    let attached = attach::open(id, args.interactive, session).await.map_err(Failure::BeforeStart)?;
    let mut client = session.slipway().await.map_err(Failure::BeforeStart)?;
    let request = StartContainerRequest { container: id.to_owned() };
    let started = client.start_container(request).await;
    started.map_err(|status| Failure::BeforeStart(Error::call(format!("start container {id}"))(status)))?;
    if args.tty {
        attached.follow_size().map_err(Failure::AfterStart)?;
    }
    let raw = if args.takes_terminal() { Some(Raw::enter().map_err(Failure::AfterStart)?) } else { None };
    let exit = pump(id, attached, &mut interrupts, session).await;
    drop(raw);
    exit.map(|exit| streams::status(&exit)).map_err(Failure::AfterStart)
}

async fn pump(
    id: &str,
    mut attached: attach::Attached,
    interrupts: &mut Interrupts,
    session: &Session,
) -> Result<Exit> {
    attached.send_input();
    let action = format!("follow container {id}");
    let mut timeout = STOP_SECONDS;
    loop {
        tokio::select! {
            _ = interrupts.next() => {
                request_stop(id, timeout, session).await?;
                timeout = 0;
            }
            next = streams::next(&mut attached.stream, &action) => {
                if let Next::Exit(exit) = next? {
                    return Ok(exit);
                }
            }
        }
    }
}

/// Asks for the stop without waiting for it, so that the output is followed meanwhile.
async fn request_stop(id: &str, timeout: u32, session: &Session) -> Result<()> {
    let mut client = session.slipway().await?;
    let request = StopContainerRequest { container: id.to_owned(), timeout: Some(timeout) };
    tokio::spawn(async move {
        if let Err(status) = client.stop_container(request).await {
            output::note(format_args!("stop: {}", status.message()));
        }
    });
    Ok(())
}
