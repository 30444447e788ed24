//! A verb of a dialect: a line of the dialect's table.

use std::pin::Pin;

use clap::ArgMatches;

use crate::connection::Session;
use crate::error::{Error, Result};

/// The work of a verb, which ends with the program's exit status.
pub(crate) type Work<'a> = Pin<Box<dyn Future<Output = Result<u8>> + 'a>>;

/// A verb: its name, its place in the help, its flags and arguments, and the function that performs it.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// One line for the list of verbs.
    pub(crate) about: &'static str,
    /// The end of the verb's own help.
    pub(crate) after_help: &'static str,
    /// Adds the flags and arguments to the verb's command.
    pub(crate) flags: fn(clap::Command) -> clap::Command,
    /// Answers with the help when it is called without its arguments.
    pub(crate) helps_without_arguments: bool,
    pub(crate) perform: for<'a> fn(&ArgMatches, &'a Session) -> Work<'a>,
    /// The exit status for an error.
    pub(crate) failed: fn(&Error) -> u8,
}

impl Verb {
    /// The verb's command for the parser.
    pub(crate) fn command(&self) -> clap::Command {
        let command = (self.flags)(clap::Command::new(self.name));
        let command = command.about(self.about).visible_aliases(self.aliases);
        if self.after_help.is_empty() { command } else { command.after_help(self.after_help) }
    }
}

/// No flags and no arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct NoArguments {}

/// The result of a verb's function as an exit status.
pub(crate) trait Status {
    fn code(self) -> u8;
}

impl Status for () {
    fn code(self) -> u8 {
        0
    }
}

impl Status for u8 {
    fn code(self) -> u8 {
        self
    }
}

/// A [`Verb`] by its name, its line of help, the type of its arguments and its function, `async fn(arguments, &Session)`; then
/// the fields that differ from what most verbs have.
macro_rules! verb {
    ($name:literal, $about:literal, $arguments:ty => $perform:path $(, $field:ident: $value:expr)* $(,)?) => {
        $crate::verb::Verb {
            $($field: $value,)*
            ..$crate::verb::Verb {
                name: $name,
                aliases: &[],
                about: $about,
                after_help: "",
                flags: <$arguments as clap::Args>::augment_args,
                helps_without_arguments: false,
                perform: |matches, session| {
                    let arguments = <$arguments as clap::FromArgMatches>::from_arg_matches(matches);
                    Box::pin(async move {
                        let arguments = arguments.map_err(|error| $crate::error::Error::arguments(&error))?;
                        $perform(arguments, session).await.map($crate::verb::Status::code)
                    })
                },
                failed: |_| $crate::error::FAILED,
            }
        }
    };
}
pub(crate) use verb;
