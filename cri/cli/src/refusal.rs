//! The answer to a command line that does not parse: one line, or the help where the dialect gives that.

use std::ffi::OsString;

use clap::error::ErrorKind;

use crate::dialect::{Dialect, UnknownVerb};
use crate::error::USAGE;

/// crictl's exit status for a verb that does not exist.
const NO_HELP_TOPIC: u8 = 3;

/// An answer in place of work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Text that was asked for.
    Text(String),
    /// One line for standard error, and the exit status.
    Line(String, u8),
}

impl Refusal {
    /// The answer to these arguments, in which the parser has found an error.
    pub(crate) fn new(
        error: &clap::Error,
        dialect: &Dialect,
        command: &clap::Command,
        arguments: &[OsString],
    ) -> Self {
        let verb = verb(command, arguments);
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Text(error.to_string()),
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Self::Text(command.clone().render_help().to_string())
            }
            ErrorKind::MissingRequiredArgument => match verb {
                Some(verb) if dialect.verb(&verb).is_some_and(|verb| verb.helps_without_arguments) => {
                    Self::Text(help(command.clone(), &verb))
                }
                verb => Self::line(error, dialect, verb.as_deref()),
            },
            ErrorKind::InvalidSubcommand => Self::unknown(&line(error), dialect),
            _ => Self::line(error, dialect, verb.as_deref()),
        }
    }

    fn line(error: &clap::Error, dialect: &Dialect, verb: Option<&str>) -> Self {
        let program = dialect.style.program;
        let verb = verb.map(|verb| format!(" {verb}")).unwrap_or_default();
        Self::Line(format!("{}: see {program}{verb} --help", line(error)), USAGE)
    }

    /// The answer to a verb that the dialect does not have, which the parser's message quotes.
    fn unknown(message: &str, dialect: &Dialect) -> Self {
        let verb = message.split('\'').nth(1).unwrap_or_default();
        let program = dialect.style.program;
        if dialect.unserved.contains(&verb) {
            let line = format!("the verb {verb} is not served yet: use the original {program} for it");
            return Self::Line(line, USAGE);
        }
        match dialect.unknown_verb {
            UnknownVerb::Usage => Self::Line(format!("{message}: see {program} --help"), USAGE),
            UnknownVerb::NoHelpTopic => {
                Self::Line(format!("no help topic for {verb:?}: see {program} --help"), NO_HELP_TOPIC)
            }
        }
    }
}

/// The first word that is a verb.
fn verb(command: &clap::Command, arguments: &[OsString]) -> Option<String> {
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    words.into_iter().find_map(|word| command.find_subcommand(word)).map(|found| found.get_name().to_owned())
}

fn help(mut command: clap::Command, verb: &str) -> String {
    command.build();
    command.find_subcommand_mut(verb).map(|verb| verb.render_help().to_string()).unwrap_or_default()
}

/// The parser's message without its usage, and the list that may follow, on one line.
fn line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let mut said = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    for listed in lines.take_while(|line| line.starts_with("  ")) {
        said.push(' ');
        said.push_str(listed.trim());
    }
    said
}
