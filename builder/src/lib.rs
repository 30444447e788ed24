//! Dockerfile to image: parser, graph of steps, layer cache.
//!
//! ```text
//! dockerfile/{lex, words, parse, expand}          bytes -> instructions
//! context, ignore, glob, tree                     the files and where they come from
//! graph                                           which stages the target needs
//! stage, setting, step, cache, flight             the changes of an instruction; whether it has run before, or runs
//! copy/{origin, select, walk, hash, archive}      the files that a COPY takes
//! copy/{request, draft, entry, mode, user}, run   the two ways to make a layer
//! builder, build                                  the stages one after another, then layers and configuration -> image
//! progress                                        the events that a client is told
//! ```

mod build;
mod builder;
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
mod lowers;
mod progress;
mod run;
mod setting;
mod stage;
mod step;
mod tree;

pub use build::{BuildRequest, Built, Session};
pub use builder::{Builder, BuilderConfig};
pub use cancel::Cancellation;
pub use context::Context;
pub use dockerfile::{
    Command, Copy, Dockerfile, From, Healthcheck, Heredoc, Instruction, Stage, Step, parse,
};
pub use error::{Error, Result};
pub use progress::{Plain, Progress, Stream};
