//! Dockerfile to image: parser, graph of steps, layer cache.
//!
//! ```text
//! dockerfile/{lex, words, parse, expand}          bytes -> instructions
//! context, ignore, glob, tree                     where files come from
//! graph                                           which stages the target needs
//! stage, setting, step, cache, flight             what an instruction changes, and whether it has run before, or runs
//! copy/{select, draft, mode, user, archive}, run  the two ways to make a layer
//! build                                           the stages one after another, then layers and configuration -> image
//! progress                                        what is told meanwhile
//! ```

mod build;
mod cache;
mod cancel;
mod clock;
mod context;
mod copy;
mod dockerfile;
mod error;
mod flight;
mod glob;
mod graph;
mod ignore;
mod progress;
mod run;
mod setting;
mod stage;
mod step;
mod tree;

pub use build::{BuildRequest, Builder, BuilderConfig, Built, Session};
pub use cancel::Cancellation;
pub use context::Context;
pub use dockerfile::{
    Command, Copy, Dockerfile, From, Healthcheck, Heredoc, Instruction, Stage, Step, parse,
};
pub use error::{Error, Result};
pub use progress::{Plain, Progress, Stream};
