//! One file a verb: its arguments as typed, and what they ask of the daemon.

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod create;
pub(crate) mod credentials;
pub(crate) mod df;
pub(crate) mod exec;
pub(crate) mod exec_sync;
pub(crate) mod filter;
pub(crate) mod imagefsinfo;
pub(crate) mod images;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod inspecti;
pub(crate) mod inspectp;
pub(crate) mod logs;
pub(crate) mod pods;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod rmp;
pub(crate) mod run;
pub(crate) mod run_files;
pub(crate) mod runp;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod stopp;
pub(crate) mod tag;
pub(crate) mod untag;
pub(crate) mod version;

use std::fmt::Display;

use crate::args::{Command, CriCommand, ImageCommand, OwnCommand, PodCommand};
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::output;

/// Does what was asked for. The number is the exit status.
pub(crate) async fn perform(command: Command, session: &Session) -> Result<u8> {
    match command {
        Command::Cri(command) => Box::pin(perform_cri(command, session)).await,
        Command::RunFiles(args) => done(Box::pin(run_files::perform(args, session)).await),
        Command::ExecSync(args) => done(Box::pin(exec_sync::perform(args, session)).await),
        Command::Own(command) => Box::pin(perform_own(command, session)).await,
    }
}

async fn perform_cri(command: CriCommand, session: &Session) -> Result<u8> {
    match command {
        CriCommand::Version => done(version::perform(session).await),
        CriCommand::Info(args) => done(info::perform(args, session).await),
        CriCommand::Image(command) => done(perform_image(command, session).await),
        CriCommand::Pod(command) => done(perform_pod(command, session).await),
        CriCommand::Create(args) => done(Box::pin(create::perform(args, session)).await),
        CriCommand::Start(args) => done(start::perform(args, session).await),
        CriCommand::Ps(args) => done(ps::perform(args, session).await),
        CriCommand::Inspect(args) => done(inspect::perform(args, session).await),
        CriCommand::Logs(args) => done(logs::perform(args, session).await),
        CriCommand::Stop(args) => done(stop::perform(args, session).await),
        CriCommand::Rm(args) => done(rm::perform(args, session).await),
    }
}

async fn perform_image(command: ImageCommand, session: &Session) -> Result<()> {
    match command {
        ImageCommand::Pull(args) => pull::perform(args, session).await,
        ImageCommand::Images(args) => images::perform(args, session).await,
        ImageCommand::Inspecti(args) => inspecti::perform(args, session).await,
        ImageCommand::Rmi(args) => rmi::perform(args, session).await,
        ImageCommand::Imagefsinfo(args) => imagefsinfo::perform(args, session).await,
    }
}

async fn perform_pod(command: PodCommand, session: &Session) -> Result<()> {
    match command {
        PodCommand::Runp(args) => runp::perform(args, session).await,
        PodCommand::Pods(args) => pods::perform(args, session).await,
        PodCommand::Inspectp(args) => inspectp::perform(args, session).await,
        PodCommand::Stopp(args) => stopp::perform(args, session).await,
        PodCommand::Rmp(args) => rmp::perform(args, session).await,
    }
}

async fn perform_own(command: OwnCommand, session: &Session) -> Result<u8> {
    match command {
        OwnCommand::Run(args) => run::perform(*args, session).await,
        OwnCommand::Exec(args) => exec::perform(args, session).await,
        OwnCommand::Attach(args) => attach::perform(args, session).await,
        OwnCommand::Build(args) => done(build::perform(args, session).await),
        OwnCommand::Push(args) => done(push::perform(args, session).await),
        OwnCommand::Tag(args) => done(tag::perform(args, session).await),
        OwnCommand::Untag(args) => done(untag::perform(args, session).await),
        OwnCommand::Prune(args) => done(prune::perform(args, session).await),
        OwnCommand::Df(args) => done(df::perform(args, session).await),
        OwnCommand::Check(args) => check::perform(args, session).await,
    }
}

fn done(result: Result<()>) -> Result<u8> {
    result.map(|()| 0)
}

/// Does the same for each thing. One failure among several is told at once and does not keep the others from it.
async fn each<T: Display>(
    things: &[T],
    mut act: impl AsyncFnMut(&T) -> Result<()>,
    session: &Session,
) -> Result<()> {
    let mut failed = 0;
    for thing in things {
        match act(thing).await {
            Err(error) if things.len() > 1 => {
                output::note(format_args!("{}: {}", session.dialect.name(), error.describe(session.dialect)));
                failed += 1;
            }
            result => result?,
        }
    }
    if failed == 0 { Ok(()) } else { Err(Error::Several { failed, total: things.len() }) }
}
