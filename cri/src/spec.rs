//! Compiles the configurations of a container, its pod and its image to an OCI specification and the settings that
//! the specification has no field for.

mod mounts;
mod process;
pub(crate) mod resources;
mod security;
pub(crate) mod signal;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::Config as ImageConfig;
use oci_spec::runtime::Spec;
use slipway_image::Image;
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::spec::{Privilege, default_spec};
use slipway_runtime::{SandboxId, Seccomp, User};

use crate::annotations;
use crate::container::create::Extra;
use crate::error::Result;
use crate::node::Node;

/// The inputs of a specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) config: &'a cri::ContainerConfig,
    pub(crate) pod_id: &'a SandboxId,
    pub(crate) pod: &'a cri::PodSandboxConfig,
    pub(crate) image: &'a Image,
    pub(crate) extra: &'a Extra,
}

impl Sources<'_> {
    fn image_config(&self) -> ImageConfig {
        self.image.config.config().clone().unwrap_or_default()
    }

    fn context(&self) -> Option<&cri::LinuxContainerSecurityContext> {
        self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref())
    }

    fn is_privileged(&self) -> bool {
        self.context().is_some_and(|context| context.privileged)
    }
}

/// A specification and the settings that it has no field for.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) spec: Spec,
    pub(crate) readonly_rootfs: bool,
    pub(crate) volumes: Vec<PathBuf>,
    pub(crate) user: User,
    pub(crate) seccomp: Seccomp,
    pub(crate) stop_signal: i32,
    pub(crate) raw_env: Vec<(String, Vec<u8>)>,
}

/// Compiles the specification, or refuses a field by its name.
pub(crate) fn compile(node: &Node, sources: &Sources<'_>) -> Result<Compiled> {
    let privilege = if sources.is_privileged() { Privilege::Privileged } else { Privilege::Confined };
    let mut spec = default_spec(privilege);
    let annotations = annotations::of_container(sources.pod_id, sources.pod, sources.config);
    spec.set_annotations(Some(annotations));
    let mounted = mounts::fill(&mut spec, sources.config)?;
    let raw_env = process::fill(&mut spec, sources)?;
    security::fill(&mut spec, sources)?;
    resources::fill(&mut spec, sources.config)?;
    mounts::devices(&mut spec, sources.config)?;
    Ok(Compiled {
        readonly_rootfs: sources.context().is_some_and(|context| context.readonly_rootfs),
        volumes: volumes(sources, &mounted),
        user: process::user(sources)?,
        seccomp: security::seccomp(node, sources)?,
        stop_signal: signal::of(sources)?,
        raw_env,
        spec,
    })
}

/// The image's volumes (`VOLUME`) at whose paths the request mounts nothing.
fn volumes(sources: &Sources<'_>, mounted: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let named = sources.image_config().volumes().clone().unwrap_or_default();
    let clean = |path: &String| -> PathBuf {
        let parts = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        Path::new("/").join(parts.collect::<PathBuf>())
    };
    let paths: BTreeSet<PathBuf> = named.iter().map(clean).collect();
    paths.into_iter().filter(|path| path != Path::new("/") && !mounted.contains(path)).collect()
}
