//! crictl's `exec --sync`: a command in one container, or in every one that the filters find. The output is shown once the
//! command has ended.

use slipway_proto::runtime::v1::{ExecSyncRequest, ExecSyncResponse};

use super::select::{self, Which};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the output once the command has ended
    #[arg(short, long)]
    sync: bool,
    /// Seconds after which the command is killed; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: i64,
    /// Send standard input to the command (not served yet)
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal (not served yet)
    #[arg(short, long)]
    tty: bool,
    /// Transport of a streamed exec; with --sync there is none
    #[arg(short = 'r', long, value_name = "spdy|websocket")]
    transport: Option<String>,
    /// Don't show the ids of several containers
    #[arg(short, long)]
    quiet: bool,
    /// Go on when the command fails
    #[arg(short = 'e', long)]
    ignore_errors: bool,
    /// Accepted for crictl's sake: the containers are served one after another, in the order of the list
    #[arg(short = 'x', long)]
    parallel: bool,
    /// In those whose names fit a regular expression
    #[arg(long)]
    name: Option<String>,
    /// In those of this pod
    #[arg(short, long)]
    pod: Option<String>,
    /// In those of this image
    #[arg(long)]
    image: Option<String>,
    /// In those created, running, exited or unknown
    #[arg(long)]
    state: Option<String>,
    /// In those with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// In the newest
    #[arg(short, long)]
    latest: bool,
    /// In the newest so many
    #[arg(short = 'n', long)]
    last: Option<usize>,
    /// The id, unless a filter is given; then the command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CONTAINER COMMAND"
    )]
    words: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<()> {
    if !args.sync || args.interactive || args.tty {
        let reason =
            "only `exec --sync` is served over the CRI, without a terminal or input: use `slipway exec`";
        return Err(Error::Usage(reason.to_owned()));
    }
    let which = which(&args);
    let (ids, command) = match &which {
        Some(which) => {
            let found = select::list(which, session).await?;
            (found.into_iter().map(|container| container.id).collect(), args.words.as_slice())
        }
        None => {
            let (id, command) =
                args.words.split_first().map_or((String::new(), &[][..]), |(id, rest)| (id.clone(), rest));
            (vec![id], command)
        }
    };
    if ids.is_empty() {
        return Err(Error::Refused("no container fits the filters".to_owned()));
    }
    if command.is_empty() {
        return Err(Error::Usage("no command: write `exec --sync CONTAINER COMMAND`".to_owned()));
    }
    for id in &ids {
        if which.is_some() && !args.quiet && !args.parallel {
            output::line(format_args!("{id}:"))?;
        }
        match run(id, command, args.timeout, session).await {
            Err(error) if args.ignore_errors => output::note(error.describe(session.style)),
            result => result?,
        }
    }
    Ok(())
}

/// The containers that the filters choose; none when no filter is given.
fn which(args: &Args) -> Option<Which> {
    let any = args.name.is_some()
        || args.pod.is_some()
        || args.image.is_some()
        || args.state.is_some()
        || !args.label.is_empty()
        || args.latest
        || args.last.is_some();
    any.then(|| Which {
        name: args.name.clone(),
        pod: args.pod.clone(),
        image: args.image.clone(),
        state: args.state.clone(),
        label: args.label.clone(),
        latest: args.latest,
        last: args.last,
        ..Which::default()
    })
}

/// A command that fails makes crictl's own exit status 1; its code is in the message.
async fn run(id: &str, command: &[String], timeout: i64, session: &Session) -> Result<()> {
    let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout };
    let action = format!("exec in container {id}");
    let answer = session.runtime().await?.exec_sync(request).await.map_err(Error::call(action))?;
    let ExecSyncResponse { stdout, stderr, exit_code } = answer.into_inner();
    if exit_code != 0 {
        let said = String::from_utf8_lossy(&stderr).trim_end().replace('\n', "; ");
        let command = command.join(" ");
        return Err(Error::Refused(format!(
            "command {command:?} in container {id} ended with {exit_code}: {said}"
        )));
    }
    for written in [stdout, stderr] {
        output::bytes(&written)?;
        output::line("")?;
    }
    Ok(())
}
