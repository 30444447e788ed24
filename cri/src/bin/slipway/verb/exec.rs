//! `exec`: a command in a container that runs. Called slipway its streams are followed as they come; called crictl it is
//! the synchronous form.

use slipway_proto::runtime::v1::ExecSyncRequest;
use slipway_proto::slipway::v1::{ExecRequest, ExecStart, StdinEnd, exec_request::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;
use crate::streams::{self, Interrupts, Next};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Wait for the command to end, then show what it has written
    #[arg(short, long)]
    sync: bool,
    /// Seconds after which the command is killed, with --sync; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: i64,
    /// Send standard input to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Environment of the command
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// As whom to run it
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    user: String,
    /// Where to run it
    #[arg(short, long, value_name = "DIRECTORY", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Id (or name, when called slipway)
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<u8> {
    if session.speaks_own() && args.timeout == 0 {
        match own(&args, session).await {
            Err(error) if error.is_unimplemented() => {}
            result => return result,
        }
    }
    let plain = args.env.is_empty() && args.user.is_empty() && args.workdir.is_empty();
    if !args.sync && session.speaks_own() && !args.interactive && !args.tty && plain {
        return cri(args, session).await;
    }
    if !args.sync || args.interactive || args.tty || !plain {
        return Err(Error::Usage(
            "over the CRI only `exec --sync` is served, with no terminal, input, environment, user or directory"
                .to_owned(),
        ));
    }
    cri(args, session).await
}

async fn cri(args: Args, session: &Session) -> Result<u8> {
    let action = format!("exec in container {}", args.container);
    let request = ExecSyncRequest { container_id: args.container, cmd: args.command, timeout: args.timeout };
    let answer = session.runtime().await?.exec_sync(request).await.map_err(Error::call(action))?.into_inner();
    output::bytes(&answer.stdout)?;
    output::error_bytes(&answer.stderr)?;
    Ok(u8::try_from(answer.exit_code & 0xff).unwrap_or(u8::MAX))
}

async fn own(args: &Args, session: &Session) -> Result<u8> {
    let action = format!("exec in container {}", args.container);
    let start = ExecStart {
        container: args.container.clone(),
        command: args.command.clone(),
        env: args.env.clone(),
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        stdin: args.interactive,
        tty: args.tty,
    };
    let mut interrupts = Interrupts::listen()?;
    let (sender, receiver) = mpsc::channel(8);
    let start = ExecRequest { message: Some(Message::Start(start)) };
    // The receiver is held here, so that there is room.
    let _ = sender.send(start).await;
    let answer = session.own().await?.exec(ReceiverStream::new(receiver)).await;
    let mut stream = answer.map_err(Error::call(action.as_str()))?.into_inner();
    streams::ready(&mut stream, &action).await?;
    if args.interactive {
        let chunk = |data| ExecRequest { message: Some(Message::Stdin(data)) };
        let end = ExecRequest { message: Some(Message::StdinEnd(StdinEnd {})) };
        streams::forward_stdin(sender.clone(), chunk, end);
    }
    loop {
        tokio::select! {
            // Leaving ends the session, and that ends the command.
            number = interrupts.next() => return Ok(128 + number),
            next = streams::next(&mut stream, &action) => {
                if let Next::Exit(exit) = next? {
                    return Ok(streams::status(&exit));
                }
            }
        }
    }
}
