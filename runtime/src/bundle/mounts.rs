//! A container's mounts: those of the request, the pod's files and the image's volumes. Each destination is resolved
//! through the image's symbolic links, and a mount below another one comes after it.

use super::{places, pod_files, volumes};
use crate::opener::Opener;
use crate::plan::attributes;
use crate::pod::{Container, Pod, PodSnapshot};
use crate::rootfs::binds::{self, Bind, BindOptions};
use crate::sys::mount::{MountChange, change_mount};
use crate::{Error, Network, Result};
use oci_spec::runtime::Mount;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The pod, its record and the container, from which the mounts are planned.
#[derive(Clone, Copy)]
pub(super) struct Origins<'a> {
    pub(super) pod: &'a Pod,
    pub(super) record: &'a PodSnapshot,
    pub(super) container: &'a Container,
}

/// A container whose mounts are opened.
pub(super) struct Place<'a> {
    pub(super) opener: &'a Opener,
    pub(super) origins: Origins<'a>,
    /// Its root, mounted.
    pub(super) root: BorrowedFd<'a>,
    /// A proc of the pid namespace that it joins, detached.
    pub(super) proc: Option<OwnedFd>,
}

/// Where the source of a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The request: a path may belong to a file server that is gone.
    Request,
    /// A path of the node's own.
    Node,
    /// A file of the pod's, copied for the container.
    PodFile(&'static str),
    /// A VOLUME of the image.
    Volume,
}

/// A mount of a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedMount {
    pub(super) mount: Mount,
    pub(super) origin: Origin,
}

impl PlannedMount {
    /// A private bind of a path of the node's, with these options besides.
    pub(super) fn bind(source: PathBuf, destination: &Path, options: &[&str], origin: Origin) -> Self {
        let all = ["bind", "rprivate"].iter().chain(options);
        let mut mount = Mount::default();
        mount
            .set_destination(destination.into())
            .set_typ(Some("bind".into()))
            .set_source(Some(source))
            .set_options(Some(all.map(ToString::to_string).collect()));
        Self { mount, origin }
    }

    /// Whether the source of the mount exists. Only a volume's may be absent: a start makes those of the volumes that
    /// no other mount covers.
    pub(super) fn is_prepared(&self) -> bool {
        self.origin != Origin::Volume || self.mount.source().as_ref().is_some_and(|source| source.exists())
    }

    pub(super) fn destination(&self) -> &Path {
        self.mount.destination()
    }
}

/// All mounts of a container, parents before what is below them as far as that is known without its root.
pub(super) fn plan(origins: &Origins<'_>) -> Result<Vec<PlannedMount>> {
    let request = &origins.container.record.request;
    let config = &origins.record.config;
    let asked = request.spec.mounts().iter().flatten().cloned();
    let mut mounts: Vec<_> = asked.map(|mount| PlannedMount { mount, origin: Origin::Request }).collect();
    if config.userns.is_some() && config.network == Network::Host {
        bind_host_sysfs(&mut mounts);
    }
    pod_files::plan(origins, &mut mounts);
    let volumes = volumes::plan(origins, &mounts)?;
    // The sort is stable: at the same depth a pod's file stays after a volume, and is mounted on top of it.
    let mut all: Vec<_> = volumes.into_iter().chain(mounts).collect();
    all.sort_by_key(|planned| depth(planned.destination()));
    Ok(all)
}

pub(super) fn depth(path: &Path) -> usize {
    path.components().count()
}

pub(super) fn taken(mounts: &[PlannedMount], destination: &Path) -> bool {
    mounts.iter().any(|planned| planned.destination() == destination)
}

/// sysfs shows a network, so a user namespace that does not own one can't mount it: the host's is bound, read-only.
fn bind_host_sysfs(mounts: &mut [PlannedMount]) {
    for planned in mounts.iter_mut().filter(|planned| kind(&planned.mount) == "sysfs") {
        planned.mount.set_typ(Some("bind".into()));
        planned.mount.set_source(Some("/sys".into()));
        planned.mount.set_options(Some(vec!["rbind".into(), "rro".into()]));
        planned.origin = Origin::Node;
    }
}

fn kind(mount: &Mount) -> &str {
    mount.typ().as_deref().unwrap_or("bind")
}

fn options(mount: &Mount) -> &[String] {
    mount.options().as_deref().unwrap_or_default()
}

/// A mount with its source open.
#[derive(Debug)]
pub(crate) struct BundleMount {
    /// As asked for.
    pub(crate) destination: PathBuf,
    /// Where the image's links lead from there.
    pub(crate) place: PathBuf,
    pub(crate) source: Source,
}

/// The file system of a mount.
#[derive(Debug)]
pub(crate) enum Source {
    /// An existing file system: a detached clone of its mount.
    Opened(Bind),
    /// A new one, of a type and with its options.
    New { kind: String, options: Vec<String> },
    /// The container's own cgroup, with the mount's options.
    Cgroup { options: Vec<String> },
}

/// Opens all mounts of a container, in the order in which they are made; the specification's are given in that order, too.
pub(super) fn open(
    place: &Place<'_>,
    mut planned: Vec<PlannedMount>,
) -> Result<(Vec<Mount>, Vec<BundleMount>)> {
    let hidden = volumes::drop_covered(place.root, &mut planned)?;
    let settled = places::settle(place.root, planned)?;
    let contents = pod_files::contents(&place.origins)?;
    let mut proc = match &place.proc {
        Some(shared) => Proc::Shared(shared),
        None => Proc::New,
    };
    let mut mounts = Vec::with_capacity(settled.len());
    let mut listed = Vec::with_capacity(settled.len());
    for (at, planned) in settled {
        match &planned.origin {
            Origin::PodFile(name) => {
                let contents = contents.get(name).map(Vec::as_slice).unwrap_or_default();
                pod_files::copy(&place.origins, contents, &planned)?;
            }
            Origin::Volume => volumes::fill(place, &planned, hidden.contains(planned.destination()))?,
            Origin::Request | Origin::Node => {}
        }
        let destination = planned.destination().to_owned();
        let source = source(place.opener, &planned, &mut proc)?;
        let mount = BundleMount { destination, place: at, source };
        places::check(&mount)?;
        mounts.push(mount);
        listed.push(planned.mount);
    }
    Ok((listed, mounts))
}

/// The proc that a container gets.
enum Proc<'a> {
    /// Of its own processes: it mounts as many as it wants.
    New,
    /// Of processes that others share: this mount.
    Shared(&'a OwnedFd),
    /// The shared one is mounted already.
    Used,
}

fn source(opener: &Opener, planned: &PlannedMount, proc: &mut Proc<'_>) -> Result<Source> {
    let (kind, options) = (kind(&planned.mount), options(&planned.mount));
    if kind == "bind" || options.iter().any(|option| option == "bind" || option == "rbind") {
        return bind(opener, planned, options).map(Source::Opened);
    }
    match kind {
        "cgroup" | "cgroup2" => Ok(Source::Cgroup { options: options.to_vec() }),
        "proc" if !matches!(proc, Proc::New) => shared_proc(&planned.mount, proc).map(Source::Opened),
        kind => Ok(Source::New { kind: kind.into(), options: options.to_vec() }),
    }
}

fn bind(opener: &Opener, planned: &PlannedMount, options: &[String]) -> Result<Bind> {
    let destination = planned.destination();
    let source = planned.mount.source().as_deref();
    let source = source
        .ok_or_else(|| Error::Invalid(format!("mount {}: a bind needs a source", destination.display())))?;
    let options = BindOptions::parse(destination, options)?;
    match planned.origin {
        Origin::Request => binds::open_in_time(opener, source, options),
        Origin::Node | Origin::PodFile(_) | Origin::Volume => binds::open(source, options),
    }
}

/// The shared proc, with the attributes that a mount asks for.
fn shared_proc(mount: &Mount, proc: &mut Proc<'_>) -> Result<Bind> {
    let at = mount.destination().display();
    let (attributes, parameters) = attributes(options(mount));
    if let Some((key, _)) = parameters.first() {
        return Err(Error::Unsupported(format!("mount {at}: option {key} of a proc that others share")));
    }
    let Proc::Shared(shared) = std::mem::replace(proc, Proc::Used) else {
        return Err(Error::Unsupported(format!("mount {at}: a second proc of processes that are shared")));
    };
    let change = MountChange { set: attributes, ..MountChange::default() };
    change_mount(shared.as_fd(), change)
        .map_err(|source| Error::Kernel { call: "mount_setattr of a shared proc".into(), source })?;
    let copy = shared.try_clone();
    let mount = copy.map_err(|source| Error::Kernel { call: "duplicate a descriptor".into(), source })?;
    Ok(Bind { mount, is_directory: true })
}
