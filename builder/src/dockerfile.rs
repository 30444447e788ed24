//! Dockerfiles: bytes to lines, lines to instructions, and the expansion of variables in them.

pub(crate) mod expand;
mod instruction;
mod lex;
mod parse;
mod words;

pub use instruction::{Command, Copy, Dockerfile, From, Instruction, Stage, Step};
pub use parse::parse;
