//! Arguments as they are typed: what comes before the verb, and which verbs each of the two names has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::refusal::Refusal;
use crate::verb;

/// By which name the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Crictl,
    Slipway,
}

impl Dialect {
    pub(crate) fn of(program: Option<&OsString>) -> Self {
        let name = program.map(Path::new).and_then(Path::file_name);
        if name.is_some_and(|name| name == "crictl") { Self::Crictl } else { Self::Slipway }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crictl => "crictl",
            Self::Slipway => "slipway",
        }
    }
}

/// What comes before the verb.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Global {
    /// Socket of the daemon (default unix:///run/slipway/slipway.sock)
    #[arg(short = 'r', long, visible_alias = "address", value_name = "ENDPOINT")]
    pub(crate) runtime_endpoint: Option<String>,
    /// Socket of the image service (default: the same)
    #[arg(short = 'i', long, value_name = "ENDPOINT")]
    pub(crate) image_endpoint: Option<String>,
    /// How long to wait for a connection, such as 2s
    #[arg(short = 't', long, value_name = "DURATION")]
    pub(crate) timeout: Option<String>,
    /// crictl's configuration file (default: /etc/crictl.yaml when called crictl)
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say on standard error what is being done
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
}

#[derive(Debug, Parser)]
#[command(name = "crictl", version = concat!("version v", env!("CARGO_PKG_VERSION")), about = "Speaks the Container Runtime Interface to a runtime")]
pub(crate) struct Crictl {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: CrictlCommand,
}

#[derive(Debug, Parser)]
#[command(name = "slipway", version, about = "Builds, ships and runs containers with the Slipway daemon")]
pub(crate) struct Slipway {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: SlipwayCommand,
}

#[derive(Debug, Subcommand)]
enum CrictlCommand {
    #[command(flatten)]
    Cri(CriCommand),
    /// Run a new container in a new pod
    Run(verb::run_files::Args),
    /// Run a command in containers
    Exec(verb::exec_sync::Args),
}

#[derive(Debug, Subcommand)]
enum SlipwayCommand {
    #[command(flatten)]
    Cri(CriCommand),
    #[command(flatten)]
    Own(OwnCommand),
}

/// The verbs that both names have.
#[derive(Debug, Subcommand)]
pub(crate) enum CriCommand {
    /// Show the versions
    Version,
    /// Show whether the runtime is ready and what it can do
    Info(verb::info::Args),
    #[command(flatten)]
    Image(ImageCommand),
    #[command(flatten)]
    Pod(PodCommand),
    /// Create a container in a pod
    Create(verb::create::Args),
    /// Start created containers
    Start(verb::start::Args),
    /// List containers
    Ps(verb::ps::Args),
    /// Show the state of containers
    Inspect(verb::inspect::Args),
    /// Show what a container has written
    Logs(verb::logs::Args),
    /// Stop containers
    Stop(verb::stop::Args),
    /// Remove containers
    Rm(verb::rm::Args),
}

/// The verbs of images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Pull an image from its registry
    Pull(verb::pull::Args),
    /// List images
    #[command(visible_aliases = ["image", "img"])]
    Images(verb::images::Args),
    /// Show the state of images
    Inspecti(verb::inspecti::Args),
    /// Remove images
    Rmi(verb::rmi::Args),
    /// Show the room that images take
    Imagefsinfo(verb::imagefsinfo::Args),
}

/// The verbs of pods.
#[derive(Debug, Subcommand)]
pub(crate) enum PodCommand {
    /// Run a new pod
    Runp(verb::runp::Args),
    /// List pods
    Pods(verb::pods::Args),
    /// Show the state of pods
    Inspectp(verb::inspectp::Args),
    /// Stop pods
    Stopp(verb::stopp::Args),
    /// Remove pods
    Rmp(verb::rmp::Args),
}

const RUN_STATUS: &str = "\
Exit status:
  that of the command, or 128 and the signal that ended it
  125 when slipway fails: no such image, a name or port in use, the daemon lost
  126 when the program can't be executed
  127 when there is no such program";

/// The verbs of `slipway` alone.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnCommand {
    /// Run a command in a new container
    #[command(after_help = RUN_STATUS)]
    Run(Box<verb::run::Args>),
    /// Run a command in a container
    Exec(verb::exec::Args),
    /// Follow the streams of a container
    Attach(verb::attach::Args),
    /// Build an image from a Dockerfile
    Build(verb::build::Args),
    /// Push an image to its registry
    Push(verb::push::Args),
    /// Give an image one more name
    Tag(verb::tag::Args),
    /// Take names of images away
    Untag(verb::untag::Args),
    /// Remove what nothing uses
    Prune(verb::prune::Args),
    /// Show where the room on the disk goes
    Df(verb::df::Args),
    /// Verify the store
    Check(verb::check::Args),
}

/// The verb and its arguments.
#[derive(Debug)]
pub(crate) enum Command {
    Cri(CriCommand),
    RunFiles(verb::run_files::Args),
    ExecSync(verb::exec_sync::Args),
    Own(OwnCommand),
}

/// A whole command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) global: Global,
    pub(crate) command: Command,
}

impl Invocation {
    pub(crate) fn parse(dialect: Dialect, arguments: &[OsString]) -> Result<Self, Refusal> {
        match dialect {
            Dialect::Crictl => Crictl::try_parse_from(arguments)
                .map_err(|error| Refusal::of::<Crictl>(&error, dialect, arguments))
                .map(|Crictl { global, command }| {
                    let command = match command {
                        CrictlCommand::Cri(command) => Command::Cri(command),
                        CrictlCommand::Run(args) => Command::RunFiles(args),
                        CrictlCommand::Exec(args) => Command::ExecSync(args),
                    };
                    Self { global, command }
                }),
            Dialect::Slipway => Slipway::try_parse_from(arguments)
                .map_err(|error| Refusal::of::<Slipway>(&error, dialect, arguments))
                .map(|Slipway { global, command }| {
                    let command = match command {
                        SlipwayCommand::Cri(command) => Command::Cri(command),
                        SlipwayCommand::Own(command) => Command::Own(command),
                    };
                    Self { global, command }
                }),
        }
    }
}

/// How a list or a state is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "go-template" => Err("go-template is not served: use json, and jq to pick from it".to_owned()),
            other => Err(format!("output format {other} is not known: use json, yaml or table")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_agree_with_themselves() {
        Crictl::command().debug_assert();
        Slipway::command().debug_assert();
    }

    #[test]
    fn the_name_of_the_program_decides_the_dialect() {
        assert_eq!(Dialect::of(Some(&"/usr/bin/crictl".into())), Dialect::Crictl);
        assert_eq!(Dialect::of(Some(&"/usr/bin/slipway".into())), Dialect::Slipway);
        assert_eq!(Dialect::of(None), Dialect::Slipway);
    }

    #[test]
    fn run_means_two_files_to_crictl_and_an_image_to_slipway() {
        let parse = |dialect, words: &[&str]| {
            Invocation::parse(dialect, &words.iter().map(OsString::from).collect::<Vec<_>>())
                .map(|parsed| parsed.command)
        };
        assert!(matches!(
            parse(Dialect::Crictl, &["crictl", "-r", "/s", "run", "c.json", "p.json"]),
            Ok(Command::RunFiles(_))
        ));
        assert!(matches!(
            parse(Dialect::Slipway, &["slipway", "run", "-d", "-p", "80:80", "busybox", "sh", "-c", "id"]),
            Ok(Command::Own(OwnCommand::Run(_)))
        ));
        assert!(parse(Dialect::Crictl, &["crictl", "build", "."]).is_err());
    }
}
