//! From a specification to a launch plan: pure, every descriptor and id already found.
//!
//! The order of a container's steps: kernel parameters, root, mounts and devices, masked and read-only paths, the
//! change of root, then the process: limits, session, bounding set, seccomp (here unless new privileges are denied),
//! ids, capabilities, working directory, `no_new_privs`, seccomp, exec.

mod mounts;
mod process;

pub(crate) use mounts::{PreparedDevice, PreparedMount, Source, attributes, filesystem};
pub(crate) use process::{DEFAULT_PATH, Filter, ProcessInput, limit_number};

use crate::{Error, Result};
use oci_spec::runtime::{Root, Spec};
use slipway_monitor::plan::{Join, Plan, Step, sync_point};
use slipway_monitor::wire::List;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

/// The input of a container's plan: the specification, with descriptors and paths resolved.
#[derive(Debug)]
pub(crate) struct ContainerInput<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) clone_flags: u64,
    pub(crate) joins: Vec<Join>,
    /// The root mount's descriptor.
    pub(crate) root: u16,
    /// A clone of /dev/null to hide files with.
    pub(crate) null: u16,
    pub(crate) mounts: Vec<PreparedMount>,
    pub(crate) devices: Vec<PreparedDevice>,
    /// Where the image's links lead from the process's working directory, which is made when it is absent.
    pub(crate) working_directory: &'a Path,
    pub(crate) process: ProcessInput<'a>,
}

/// The plan of a container's first process.
pub(crate) fn container(input: ContainerInput<'_>) -> Result<Plan> {
    let linux = input.spec.linux().as_ref();
    let mut steps = vec![Step::SyncPoint { point: sync_point::NAMESPACES }];
    let sysctls: BTreeMap<_, _> =
        linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten().collect();
    for (name, value) in sysctls {
        steps.push(Step::Sysctl { name: text(&name.replace('.', "/"))?, value: value.clone().into_bytes() });
    }
    steps.push(Step::Root { descriptor: input.root });
    mounts::steps(&input.mounts, &input.devices, input.process.terminal, &mut steps)?;
    mounts::make_directories(input.working_directory, &mut steps)?;
    let paths = |list: Option<&Vec<String>>| {
        list.into_iter().flatten().map(|path| relative(path)).collect::<Result<Vec<_>>>()
    };
    for path in paths(linux.and_then(|linux| linux.masked_paths().as_ref()))? {
        steps.push(Step::Mask { path, file: input.null });
    }
    for path in paths(linux.and_then(|linux| linux.readonly_paths().as_ref()))? {
        steps.push(Step::ReadOnly { path });
    }
    steps.push(Step::SyncPoint { point: sync_point::MOUNTS });
    steps.push(Step::Pivot {});
    if input.spec.root().as_ref().and_then(Root::readonly).unwrap_or(false) {
        steps.push(Step::ReadOnlyRoot {});
    }
    input.process.steps(&mut steps)?;
    assemble(input.clone_flags, input.joins, steps, &input.process)
}

/// The plan of a further process in a container.
pub(crate) fn exec(joins: Vec<Join>, process: &ProcessInput<'_>) -> Result<Plan> {
    let mut steps = Vec::new();
    process.steps(&mut steps)?;
    assemble(0, joins, steps, process)
}

fn assemble(
    clone_flags: u64,
    joins: Vec<Join>,
    steps: Vec<Step>,
    process: &ProcessInput<'_>,
) -> Result<Plan> {
    let environment = process.environment();
    let variable = |variable: &Vec<u8>| {
        let shown = || format!("variable {:?} has a NUL byte", String::from_utf8_lossy(variable));
        CString::new(variable.clone()).map_err(|_| Error::Invalid(shown()))
    };
    Ok(Plan {
        clone_flags,
        join: List(joins),
        steps: List(steps),
        pause_at: 0,
        programs: List(process.programs(&environment)?),
        environment: List(environment.iter().map(variable).collect::<Result<_>>()?),
        arguments: texts(process.arguments)?,
    })
}

fn texts(values: &[String]) -> Result<List<CString>> {
    values.iter().map(|value| text(value)).collect::<Result<Vec<_>>>().map(List)
}

/// Text for the kernel.
pub(crate) fn text(value: &str) -> Result<CString> {
    CString::new(value).map_err(|_| Error::Invalid(format!("{value:?} has a NUL byte")))
}

/// A path of the container relative to its root.
pub(crate) fn relative(path: &str) -> Result<CString> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Error::Invalid(format!("path {path:?} in a container must not have ..")));
    }
    text(if parts.is_empty() { ".".into() } else { parts.join("/") }.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_climbs() {
        assert_eq!(relative("/a//./b").unwrap().as_c_str(), c"a/b");
        assert_eq!(relative("/").unwrap().as_c_str(), c".");
        assert!(relative("/a/../../etc").is_err());
        assert!(relative("/a\0b").is_err());
    }
}
