//! The command line as it is typed: the dialect by the program's name, the flags before the verb, the verb with its arguments.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{ArgMatches, Args as _, FromArgMatches as _};

use crate::connection::Flags;
use crate::dialect::Dialect;
use crate::dialect::crictl::CRICTL;
use crate::dialect::slipway::SLIPWAY;
use crate::refusal::Refusal;
use crate::verb::Verb;

/// The dialect for the program's name, the first of its arguments.
pub(crate) fn dialect(program: Option<&OsStr>) -> &'static Dialect {
    let name = program.map(Path::new).and_then(Path::file_name);
    if name == Some(CRICTL.style.program.as_ref()) { &CRICTL } else { &SLIPWAY }
}

/// A whole command line.
pub(crate) struct Invocation {
    pub(crate) flags: Flags,
    pub(crate) verb: &'static Verb,
    /// The verb's own flags and arguments.
    pub(crate) arguments: ArgMatches,
}

impl Invocation {
    /// Parses a command line, the program's name included.
    pub(crate) fn parse(dialect: &'static Dialect, arguments: &[OsString]) -> Result<Self, Refusal> {
        let command = command(dialect);
        let refuse = |error| Refusal::new(&error, dialect, &command, arguments);
        let mut matches = command.clone().try_get_matches_from(arguments).map_err(refuse)?;
        let flags = Flags::from_arg_matches_mut(&mut matches).map_err(refuse)?;
        let found = matches.remove_subcommand();
        match found.and_then(|(name, arguments)| Some((dialect.verb(&name)?, arguments))) {
            Some((verb, arguments)) => Ok(Self { flags, verb, arguments }),
            None => Err(Refusal::Text(command.clone().render_help().to_string())),
        }
    }
}

/// The parser for a dialect.
fn command(dialect: &'static Dialect) -> clap::Command {
    Flags::augment_args(clap::Command::new(dialect.style.program))
        .version(dialect.version)
        .about(dialect.about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(dialect.verbs.iter().map(Verb::command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(dialect: &'static Dialect, words: &[&str]) -> Result<Invocation, Refusal> {
        Invocation::parse(dialect, &words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn refused(words: &[&str]) -> Refusal {
        let dialect = dialect(words.first().map(OsStr::new));
        parse(dialect, words).err().expect("a refusal")
    }

    #[test]
    fn the_definitions_agree_with_themselves() {
        command(&CRICTL).debug_assert();
        command(&SLIPWAY).debug_assert();
    }

    #[test]
    fn the_name_of_the_program_decides_the_dialect() {
        let name = |program: Option<&str>| dialect(program.map(OsStr::new)).style.program;
        assert_eq!(name(Some("/usr/bin/crictl")), "crictl");
        assert_eq!(name(Some("/usr/bin/slipway")), "slipway");
        assert_eq!(name(Some("other")), "slipway");
        assert_eq!(name(None), "slipway");
    }

    #[test]
    fn run_means_two_files_to_crictl_and_an_image_to_slipway() {
        let files = parse(&CRICTL, &["crictl", "-r", "/s", "run", "c.json", "p.json"]).unwrap();
        assert_eq!(files.arguments.get_one::<std::path::PathBuf>("pod").unwrap(), Path::new("p.json"));
        let image = ["slipway", "run", "-d", "-p", "80:80", "busybox", "sh", "-c", "id"];
        let image = parse(&SLIPWAY, &image).unwrap();
        assert_eq!(image.arguments.get_one::<String>("image").unwrap(), "busybox");
        assert!(parse(&CRICTL, &["crictl", "build", "."]).is_err());
    }

    #[test]
    fn a_refusal_is_one_line() {
        let usage = |line: &str| Refusal::Line(line.to_owned(), 1);
        assert_eq!(
            refused(&["crictl", "ps", "--bogus"]),
            usage("unexpected argument '--bogus' found: see crictl ps --help")
        );
        assert_eq!(
            refused(&["crictl", "ps", "-o", "xml"]),
            usage(
                "invalid value 'xml' for '--output <OUTPUT>': output format xml is not known: use json, yaml or table: see crictl ps --help"
            )
        );
        assert_eq!(
            refused(&["crictl", "start"]),
            usage(
                "the following required arguments were not provided: <CONTAINERS>...: see crictl start --help"
            )
        );
        assert_eq!(
            refused(&["crictl", "stats"]),
            usage("the verb stats is not served yet: use the original crictl for it")
        );
        assert_eq!(
            refused(&["crictl", "bogus"]),
            Refusal::Line("no help topic for \"bogus\": see crictl --help".into(), 3)
        );
        let Refusal::Line(line, 1) = refused(&["slipway", "build"]) else { panic!() };
        assert!(line.contains("<CONTEXT>") && line.ends_with("see slipway build --help"), "{line}");
        let Refusal::Line(line, 1) = refused(&["slipway", "bogus"]) else { panic!() };
        assert!(line.contains("bogus") && line.ends_with("see slipway --help"), "{line}");
    }

    #[test]
    fn help_is_given_where_crictl_gives_it() {
        for words in [&["rm"][..], &["run"], &["exec"], &[], &["--help"], &["ps", "-h"]] {
            let words = [&["crictl"], words].concat();
            assert!(matches!(refused(&words), Refusal::Text(text) if text.contains("Usage:")), "{words:?}");
        }
        assert!(
            matches!(refused(&["crictl", "--version"]), Refusal::Text(text) if text.starts_with("crictl version "))
        );
    }
}
