//! The instructions of a Dockerfile. Texts are as written: variables are expanded when the step runs.

use super::heredoc::Heredoc;

/// One instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line it begins on, from 1.
    pub line: usize,
    /// The instruction as written, in one line.
    pub text: String,
    /// The parsed instruction.
    pub instruction: Instruction,
}

/// An instruction inside a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD` of local files.
    Add(Copy),
    /// `ARG name[=default] …`.
    Arg(Vec<(String, Option<String>)>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`, both forms.
    Env(Vec<(String, String)>),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`, both forms.
    Label(Vec<(String, String)>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: the instruction for who builds on the image.
    OnBuild(String),
    /// `RUN`.
    Run(Command),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell.
    Shell(String),
    /// Arguments as they are.
    Exec(Vec<String>),
    /// A heredoc of RUN that names its interpreter in its first line: the shell runs it as a file.
    Script {
        /// The file's name.
        name: String,
        /// Its content.
        text: String,
    },
}

/// `COPY`, or an `ADD` of local files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// `--from`: a stage's name or index, or an image; the context when absent.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// The sources, at least one with those below.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile itself.
    pub inline: Vec<Heredoc>,
    /// The destination.
    pub destination: String,
}

/// The command that tells whether a container is well; the image keeps it for its readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Nanoseconds by their names in the configuration: `Interval`, `Timeout`, `StartPeriod`, `StartInterval`.
    pub durations: Vec<(&'static str, u64)>,
    /// After how many failures it counts.
    pub retries: Option<u64>,
}

/// `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// `--platform`.
    pub platform: Option<String>,
    /// The image, stage or `scratch`.
    pub base: String,
    /// `AS`, in lower case.
    pub name: Option<String>,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line of its FROM.
    pub line: usize,
    /// The FROM as written.
    pub text: String,
    /// The image or stage that it is built on.
    pub from: From,
    /// Its instructions.
    pub steps: Vec<Step>,
}

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character.
    pub escape: char,
    /// The `ARG`s before the first FROM, with their lines.
    pub args: Vec<(usize, String, Option<String>)>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
}

impl Instruction {
    /// Whether a run of it shows as a step of its own.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Copy(_) | Self::Run(_) | Self::Workdir(_))
    }
}
