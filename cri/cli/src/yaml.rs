//! YAML to and from JSON values: the files that crictl takes, and `-o yaml`.

mod read;
mod write;

pub(crate) use read::parse;
pub(crate) use write::text;
