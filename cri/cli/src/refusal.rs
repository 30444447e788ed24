//! What a command line that does not parse is answered: one line, or crictl's help where crictl gives that.

use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::args::Dialect;
use crate::error::USAGE;

/// crictl's verbs that this program does not have.
const ABSENT: [&str; 16] = [
    "attach",
    "checkpoint",
    "completion",
    "config",
    "event",
    "events",
    "metricdescs",
    "metricsp",
    "port-forward",
    "runtime-config",
    "stats",
    "statsp",
    "update",
    "update-runtime-config",
    "pod-checkpoint",
    "pod-restore",
];

/// crictl's verbs that answer with their help when they are called without what they act on.
const HELPFUL: [&str; 8] = ["create", "exec", "rm", "rmi", "rmp", "run", "runp", "stopp"];

/// An answer in place of work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Text that was asked for.
    Text(String),
    /// One line for standard error, and the exit status.
    Line(String, u8),
}

impl Refusal {
    pub(crate) fn of<P: CommandFactory>(
        error: &clap::Error,
        dialect: Dialect,
        arguments: &[OsString],
    ) -> Self {
        let mut command = P::command();
        let verb = verb(&command, arguments);
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Text(error.to_string()),
            ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Self::Text(command.render_help().to_string())
            }
            ErrorKind::MissingRequiredArgument if dialect == Dialect::Crictl => match verb {
                Some(verb) if HELPFUL.contains(&verb.as_str()) => Self::Text(help(&mut command, &verb)),
                verb => Self::line(error, dialect, verb.as_deref()),
            },
            ErrorKind::InvalidSubcommand if dialect == Dialect::Crictl => unknown(&line(error)),
            _ => Self::line(error, dialect, verb.as_deref()),
        }
    }

    fn line(error: &clap::Error, dialect: Dialect, verb: Option<&str>) -> Self {
        let program = dialect.name();
        let verb = verb.map(|verb| format!(" {verb}")).unwrap_or_default();
        Self::Line(format!("{}: see {program}{verb} --help", line(error)), USAGE)
    }
}

/// The first word that is a verb.
fn verb(command: &clap::Command, arguments: &[OsString]) -> Option<String> {
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    words.into_iter().find_map(|word| command.find_subcommand(word)).map(|found| found.get_name().to_owned())
}

fn help(command: &mut clap::Command, verb: &str) -> String {
    command.build();
    command.find_subcommand_mut(verb).map(|verb| verb.render_help().to_string()).unwrap_or_default()
}

fn unknown(said: &str) -> Refusal {
    let verb = said.split('\'').nth(1).unwrap_or_default();
    if ABSENT.contains(&verb) {
        return Refusal::Line(
            format!("the verb {verb} is not served yet: use the original crictl for it"),
            USAGE,
        );
    }
    Refusal::Line(format!("no help topic for {verb:?}: see crictl --help"), 3)
}

/// The error without its usage: what it says, and the list that may follow, on one line.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Crictl, Slipway};
    use clap::Parser as _;

    fn crictl(words: &[&str]) -> Refusal {
        let words: Vec<OsString> = ["crictl"].iter().chain(words).map(OsString::from).collect();
        Refusal::of::<Crictl>(&Crictl::try_parse_from(&words).unwrap_err(), Dialect::Crictl, &words)
    }

    #[test]
    fn what_is_wrong_is_one_line() {
        let refused = |line: &str| Refusal::Line(line.to_owned(), 1);
        assert_eq!(
            crictl(&["ps", "--bogus"]),
            refused("unexpected argument '--bogus' found: see crictl ps --help")
        );
        assert_eq!(
            crictl(&["ps", "-o", "xml"]),
            refused(
                "invalid value 'xml' for '--output <OUTPUT>': output format xml is not known: use json, yaml or table: see crictl ps --help"
            )
        );
        assert_eq!(
            crictl(&["start"]),
            refused(
                "the following required arguments were not provided: <CONTAINERS>...: see crictl start --help"
            )
        );
        assert_eq!(
            crictl(&["stats"]),
            refused("the verb stats is not served yet: use the original crictl for it")
        );
        assert_eq!(
            crictl(&["bogus"]),
            Refusal::Line("no help topic for \"bogus\": see crictl --help".into(), 3)
        );
        let words: Vec<OsString> = ["slipway", "build"].map(OsString::from).into();
        let error = Slipway::try_parse_from(&words).unwrap_err();
        let Refusal::Line(line, 1) = Refusal::of::<Slipway>(&error, Dialect::Slipway, &words) else {
            panic!()
        };
        assert!(line.contains("<CONTEXT>") && line.ends_with("see slipway build --help"), "{line}");
    }

    #[test]
    fn help_is_given_where_crictl_gives_it() {
        for words in [&["rm"][..], &["run"], &["exec"], &[], &["--help"], &["ps", "-h"]] {
            assert!(matches!(crictl(words), Refusal::Text(text) if text.contains("Usage:")), "{words:?}");
        }
        assert!(matches!(crictl(&["--version"]), Refusal::Text(text) if text.starts_with("crictl version ")));
    }
}
