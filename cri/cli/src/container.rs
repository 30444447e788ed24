//! The verbs of containers. Those with two forms have two functions: `by_cri` reaches containers of pods on any runtime,
//! `by_slipway` containers of every owner, and falls back to the CRI where slipway.v1 is not served.

pub(crate) mod attach;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod exec_sync;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod list_of_all;
mod log_file;
mod log_sink;
pub(crate) mod logs;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod run_files;
mod select;
pub(crate) mod start;
pub(crate) mod stop;
