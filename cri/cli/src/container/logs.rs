//! `logs`: the log of a container, from the daemon or from its file.

use std::path::Path;
use std::time::Duration;

use slipway_log::LogWatch;
use slipway_proto::runtime::v1::{
    Container, ContainerState, ContainerStatus, ContainerStatusRequest, ReopenContainerLogRequest,
};
use slipway_proto::slipway::v1::{LogsRequest, OutputStream};

use super::log_file::{LogFile, Selection};
use super::log_sink::{Sink, Stream};
use super::select::{self, Which};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::time;

/// The silence of a followed log after which the container's state is asked for.
const PAUSE: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines; -1 for all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what was written since a time (RFC 3339), or within a duration such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only so many bytes; -1 for all
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, default_value_t = -1, hide_default_value = true)]
    limit_bytes: i64,
    /// Only this stream
    #[arg(short, long, value_name = "stdout|stderr")]
    stream: Option<Stream>,
    /// Of the container of the same name in the same pod that ended before this one
    #[arg(short, long)]
    previous: bool,
    /// Have the runtime open the log file anew first
    #[arg(short, long)]
    reopen: bool,
    /// Id (or name, when called slipway)
    container: String,
}

/// A log to be shown.
#[derive(Debug)]
struct Shown {
    container: String,
    follow: bool,
    selection: Selection,
    sink: Sink,
}

impl Shown {
    /// Resolves the flags: has the log reopened, and finds the container before the named one, where they say so.
    async fn new(args: Args, session: &Session) -> Result<Self> {
        let since = args.since.as_deref().map(|text| {
            time::parse_since(text)
                .ok_or_else(|| Error::Usage(format!("{text} is neither a time nor a duration")))
        });
        let tail = args.tail.and_then(|tail| usize::try_from(tail).ok());
        let selection = Selection { tail, since: since.transpose()? };
        let room = usize::try_from(args.limit_bytes).ok();
        let sink = Sink { only: args.stream, room, timestamps: args.timestamps, ..Sink::default() };
        if args.reopen {
            let request = ReopenContainerLogRequest { container_id: args.container.clone() };
            let answer = session.runtime().await?.reopen_container_log(request).await;
            answer.map_err(Error::call(format!("reopen the log of container {}", args.container)))?;
        }
        let container =
            if args.previous { previous(&args.container, session).await? } else { args.container };
        Ok(Self { container, follow: args.follow, selection, sink })
    }
}

/// Shows the log that the daemon sends over slipway.v1, or the file where that is not served.
pub(crate) async fn by_slipway(args: Args, session: &Session) -> Result<()> {
    let mut shown = Shown::new(args, session).await?;
    match receive(&mut shown, session).await {
        Err(error) if error.is_unimplemented() => read(shown, session).await,
        result => result,
    }
}

/// Shows the log from the file that ContainerStatus names, as crictl does.
pub(crate) async fn by_cri(args: Args, session: &Session) -> Result<()> {
    read(Shown::new(args, session).await?, session).await
}

/// The newest container of the same name and pod that has ended.
async fn previous(id: &str, session: &Session) -> Result<String> {
    let all = select::list(&Which::all(), session).await?;
    let known = |container: &&Container| container.id.starts_with(id);
    let this =
        all.iter().find(known).ok_or_else(|| Error::Refused(format!("container {id} does not exist")))?;
    let name = |container: &Container| container.metadata.clone().unwrap_or_default().name;
    let before = all.iter().find(|container| {
        container.id != this.id
            && container.pod_sandbox_id == this.pod_sandbox_id
            && container.state() == ContainerState::ContainerExited
            && name(container) == name(this)
    });
    let none = || Error::Refused(format!("no container {} has ended in that pod before {id}", name(this)));
    Ok(before.ok_or_else(none)?.id.clone())
}

/// Shows the log that the daemon sends.
async fn receive(shown: &mut Shown, session: &Session) -> Result<()> {
    let Shown { container, follow, selection, sink } = shown;
    let action = format!("logs of container {container}");
    let request = LogsRequest {
        container: container.clone(),
        follow: *follow,
        tail: selection.tail.and_then(|tail| u64::try_from(tail).ok()),
        since: selection.since.unwrap_or(0),
    };
    let answer = session.slipway().await?.logs(request).await.map_err(Error::call(action.as_str()))?;
    let mut messages = answer.into_inner();
    let mut starts_line = [true; 2];
    while let Some(message) = messages.message().await.map_err(Error::call(action.as_str()))? {
        for entry in message.entries {
            let [stdout, stderr] = &mut starts_line;
            let is_stderr = entry.stream() == OutputStream::Stderr;
            let starts = if is_stderr { stderr } else { stdout };
            let time =
                if sink.timestamps && *starts { time::rfc3339(entry.timestamp) } else { String::new() };
            *starts = entry.data.ends_with(b"\n");
            if !sink.write(is_stderr, &time, &entry.data)? {
                return sink.flush();
            }
        }
        sink.flush()?;
    }
    Ok(())
}

/// Shows the file that ContainerStatus names.
async fn read(shown: Shown, session: &Session) -> Result<()> {
    let Shown { container: id, follow, selection, mut sink } = shown;
    let (id, sink) = (id.as_str(), &mut sink);
    let found = status(id, session).await?;
    if found.log_path.is_empty() {
        return Err(Error::Refused(format!("container {id} has no log file")));
    }
    let path = Path::new(&found.log_path);
    let mut watch = LogWatch::new(path);
    let mut log = LogFile::open(path)?;
    let rest = Selection { tail: None, ..selection };
    if !log.show(selection, sink)? || !follow {
        return Ok(());
    }
    loop {
        let wait =
            tokio::task::spawn_blocking(move || watch.wait(None, PAUSE).map(|changed| (watch, changed)));
        let fail = |source| Error::Read { path: path.to_owned(), source };
        let (watched, changed) = wait.await.map_err(|error| fail(error.into()))?.map_err(fail)?;
        watch = watched;
        // The state comes first: what was written before an end is read after it was seen.
        let over = !changed && ended(id, session).await?;
        if !log.show(rest, sink)? {
            return Ok(());
        }
        while log.follow_rotation(rest, sink)? {
            log.show(rest, sink)?;
        }
        if over {
            return Ok(());
        }
    }
}

async fn ended(id: &str, session: &Session) -> Result<bool> {
    match status(id, session).await {
        Ok(status) => Ok(status.state() != ContainerState::ContainerRunning),
        Err(Error::Call { status, .. }) if status.code() == tonic::Code::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

async fn status(id: &str, session: &Session) -> Result<ContainerStatus> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = session.runtime().await?.container_status(request).await;
    Ok(answer.map_err(Error::call(format!("find container {id}")))?.into_inner().status.unwrap_or_default())
}
