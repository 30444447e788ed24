//! Dockerfile to image: parser, graph of steps, layer cache.

mod dockerfile;
mod error;
mod glob;
mod ignore;

pub use dockerfile::{Command, Copy, Dockerfile, From, Instruction, Stage, Step, parse};
pub use error::{Error, Result};
