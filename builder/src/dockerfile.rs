//! Dockerfiles: bytes to lines, lines to instructions, and the expansion of variables in them.

pub(crate) mod expand;
pub(crate) mod heredoc;
mod instruction;
mod lex;
mod parse;
mod words;

pub use heredoc::Heredoc;
pub use instruction::{Command, Copy, Dockerfile, From, Healthcheck, Instruction, Stage, Step};
pub use parse::parse;
pub(crate) use parse::trigger;
