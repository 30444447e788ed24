//! A dialect: all that depends on the name by which the program was called, in one table.

pub(crate) mod crictl;
pub(crate) mod slipway;

use crate::connection::Sources;
use crate::style::Style;
use crate::verb::Verb;

/// The language that the program speaks under one of its names.
pub(crate) struct Dialect {
    pub(crate) style: Style,
    pub(crate) about: &'static str,
    /// The answer to `--version`, after the program's name.
    pub(crate) version: &'static str,
    pub(crate) sources: Sources,
    /// The verbs, in the order of the help.
    pub(crate) verbs: &'static [Verb],
    /// Verbs of the original that are not served: the answer to one says so.
    pub(crate) unserved: &'static [&'static str],
    /// The answer to a verb that does not exist.
    pub(crate) unknown_verb: UnknownVerb,
}

/// The answer to a verb that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UnknownVerb {
    /// That of any wrong argument.
    Usage,
    /// crictl's: it takes the word for a help topic, and has an exit status for that.
    NoHelpTopic,
}

impl Dialect {
    /// A verb by its name.
    pub(crate) fn verb(&self, name: &str) -> Option<&'static Verb> {
        self.verbs.iter().find(|verb| verb.name == name)
    }
}
