//! `logs`: what a container has written. Called slipway the daemon sends it; called crictl it is read from the file that
//! ContainerStatus names, as crictl does.

use std::path::Path;
use std::time::Duration;

use slipway_proto::runtime::v1::{ContainerState, ContainerStatus, ContainerStatusRequest};
use slipway_proto::slipway::v1::{LogEntry, LogsRequest, OutputStream};

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::log_file::{LogFile, Selection};
use crate::{output, time};

const POLL: Duration = Duration::from_millis(150);

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
    /// Id (or name, when called slipway)
    container: String,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    let since = args.since.as_deref().map(|text| {
        time::parse_since(text)
            .ok_or_else(|| Error::Usage(format!("{text} is neither a time nor a duration")))
    });
    let since = since.transpose()?;
    if session.speaks_own() {
        match own(&args, since, session).await {
            Err(error) if error.is_unimplemented() => {}
            result => return result,
        }
    }
    let tail = args.tail.and_then(|tail| usize::try_from(tail).ok());
    cri(&args, Selection { tail, since, timestamps: args.timestamps }, session).await
}

async fn own(args: &Args, since: Option<i64>, session: &Session) -> Result<()> {
    let action = format!("logs of container {}", args.container);
    let request = LogsRequest {
        container: args.container.clone(),
        follow: args.follow,
        tail: args.tail.and_then(|tail| u64::try_from(tail).ok()),
        since: since.unwrap_or(0),
    };
    let answer = session.own().await?.logs(request).await.map_err(Error::call(action.as_str()))?;
    let mut entries = answer.into_inner();
    let mut starts_line = [true; 2];
    while let Some(entry) = entries.message().await.map_err(Error::call(action.as_str()))? {
        let [stdout, stderr] = &mut starts_line;
        let is_stderr = entry.stream() == OutputStream::Stderr;
        let starts = if is_stderr { stderr } else { stdout };
        let data = rendered(&entry, args.timestamps && *starts);
        *starts = entry.data.ends_with(b"\n");
        if is_stderr { output::error_bytes(&data)? } else { output::bytes(&data)? }
    }
    Ok(())
}

fn rendered(entry: &LogEntry, timestamp: bool) -> Vec<u8> {
    let mut data =
        if timestamp { format!("{} ", time::rfc3339(entry.timestamp)).into_bytes() } else { Vec::new() };
    data.extend_from_slice(&entry.data);
    data
}

async fn cri(args: &Args, selection: Selection, session: &Session) -> Result<()> {
    let id = &args.container;
    let found = status(id, session).await?;
    if found.log_path.is_empty() {
        return Err(Error::Refused(format!("container {id} has no log file")));
    }
    let mut log = LogFile::open(Path::new(&found.log_path))?;
    log.show(selection)?;
    let rest = Selection { tail: None, ..selection };
    if !args.follow {
        return Ok(());
    }
    loop {
        let ended = match status(id, session).await {
            Ok(status) => status.state() != ContainerState::ContainerRunning,
            Err(Error::Call { status, .. }) if status.code() == tonic::Code::NotFound => true,
            Err(error) => return Err(error),
        };
        log.show(rest)?;
        if log.follow_rotation() {
            continue;
        }
        if ended {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn status(id: &str, session: &Session) -> Result<ContainerStatus> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = session.runtime().await?.container_status(request).await;
    Ok(answer.map_err(Error::call(format!("find container {id}")))?.into_inner().status.unwrap_or_default())
}
