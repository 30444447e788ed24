//! slipway's `exec`: a command in a running container, with its streams as they come.

use slipway_proto::runtime::v1::ExecSyncRequest;
use slipway_proto::slipway::v1::{ExecRequest, ExecStart, StdinEnd, exec_request::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;
use crate::streams::{self, Interrupts, Next};
use crate::terminal::{self, Raw};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the output once the command has ended
    #[arg(short, long)]
    sync: bool,
    /// Seconds after which the command is killed, with --sync; 0 for never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: i64,
    /// Send standard input to the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal; with --interactive it is this one
    #[arg(short, long)]
    tty: bool,
    /// Environment of the command
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User and group of the command
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIRECTORY", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Id or name
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    /// Whether this program's own terminal becomes the command's.
    fn takes_terminal(&self) -> bool {
        self.tty && self.interactive
    }

    fn start(&self) -> ExecStart {
        ExecStart {
            container: self.container.clone(),
            command: self.command.clone(),
            env: self.env.clone(),
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            stdin: self.interactive,
            tty: self.tty,
            size: terminal::size().filter(|_| self.tty),
        }
    }
}

pub(crate) async fn perform(args: Args, session: &Session) -> Result<u8> {
    if args.takes_terminal() {
        terminal::required()?;
    }
    // slipway.v1 has no deadline for a command.
    if args.timeout == 0 {
        match stream(&args, session).await {
            Err(error) if error.is_unimplemented() => {}
            result => return result,
        }
    }
    let plain = args.env.is_empty() && args.user.is_empty() && args.workdir.is_empty();
    if args.interactive || args.tty || !plain {
        return Err(Error::Usage(
            "over the CRI only `exec --sync` is served, with no terminal, input, environment, user or directory"
                .to_owned(),
        ));
    }
    sync(args, session).await
}

/// Runs the command over the CRI, and shows its output once it has ended.
async fn sync(args: Args, session: &Session) -> Result<u8> {
    let action = format!("exec in container {}", args.container);
    let request = ExecSyncRequest { container_id: args.container, cmd: args.command, timeout: args.timeout };
    let answer = session.runtime().await?.exec_sync(request).await.map_err(Error::call(action))?.into_inner();
    output::bytes(&answer.stdout)?;
    output::error_bytes(&answer.stderr)?;
    Ok(u8::try_from(answer.exit_code & 0xff).unwrap_or(u8::MAX))
}

/// Runs the command over slipway.v1, with its streams as they come.
async fn stream(args: &Args, session: &Session) -> Result<u8> {
    let action = format!("exec in container {}", args.container);
    let mut interrupts = Interrupts::listen()?;
    if args.takes_terminal() {
        interrupts = interrupts.with_hangup()?;
    }
    let (sender, receiver) = mpsc::channel(8);
    // The receiver is held here, so that there is room.
    let _ = sender.send(ExecRequest { message: Some(Message::Start(args.start())) }).await;
    if args.tty {
        terminal::follow_size(sender.clone(), |size| ExecRequest { message: Some(Message::Resize(size)) })?;
    }
    let answer = session.slipway().await?.exec(ReceiverStream::new(receiver)).await;
    let mut stream = answer.map_err(Error::call(action.as_str()))?.into_inner();
    streams::ready(&mut stream, &action).await?;
    let raw = if args.takes_terminal() { Some(Raw::enter()?) } else { None };
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
                    // A message about the end needs the terminal's own modes, in which lines begin on the left.
                    drop(raw);
                    return Ok(streams::status(&exit));
                }
            }
        }
    }
}
