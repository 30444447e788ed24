//! The verbs of pods.

pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod stop;
