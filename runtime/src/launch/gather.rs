//! A bundle as a launch plan: its descriptors get numbers, its specification becomes steps.

use crate::bundle::mounts::{BundleMount, Source as Opened};
use crate::bundle::namespaces::{Joined, of_pod, path_of_pod};
use crate::bundle::{Bundle, places};
use crate::cgroup::ContainerCgroup;
use crate::plan::{
    self, ContainerInput, Filter, PreparedDevice, PreparedMount, ProcessInput, Source, filesystem,
};
use crate::pod::{Pod, PodSnapshot, lock};
use crate::rootfs::binds::{self, BindOptions};
use crate::rootfs::links::follow;
use crate::runtime::Shared;
use crate::{Error, Result, TerminalSize, namespace, seccomp};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType, LinuxSeccomp, Process, Spec};
use rustix::fs::makedev;
use slipway_monitor::plan::{Join, Plan};
use slipway_monitor::protocol::DESCRIPTORS;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The descriptors of a plan, in their numbers' order.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    pub(crate) fn add(&mut self, descriptor: OwnedFd) -> Result<u16> {
        // Some come beside the plan's: the plan itself, the log, the cgroups.
        const MOST: usize = DESCRIPTORS - 128;
        let number = u16::try_from(self.0.len()).ok().filter(|number| usize::from(*number) < MOST);
        let number = number.ok_or_else(|| {
            Error::Invalid(format!("a container can't have more than {MOST} mounts, devices and namespaces"))
        })?;
        self.0.push(descriptor);
        Ok(number)
    }

    pub(crate) fn into_vec(self) -> Vec<OwnedFd> {
        self.0
    }
}

/// A plan and its descriptors.
pub(super) struct Gathered {
    pub(super) plan: Plan,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(crate) fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// Compiles a bundle for a container whose cgroup is made.
pub(super) fn container(shared: &Shared, bundle: Bundle, cgroup: &ContainerCgroup) -> Result<Gathered> {
    let mut descriptors = Descriptors::default();
    let mounts = prepare_mounts(bundle.mounts, cgroup, &mut descriptors)?;
    let process = process_of(&bundle.spec)?;
    let cwd = follow(bundle.root.as_fd(), process.cwd(), &places::of(&mounts))?;
    let root = descriptors.add(bundle.root)?;
    let null = descriptors.add(binds::open(Path::new("/dev/null"), BindOptions::read_only())?.mount)?;
    let (clone_flags, joins) = join(bundle.namespaces, &mut descriptors)?;
    let in_user_namespace = joins.iter().any(|join| join.kind == bits(libc::CLONE_NEWUSER));
    let devices = prepare_devices(&bundle.spec, in_user_namespace, &mut descriptors)?;
    let linux = bundle.spec.linux().as_ref();
    let input = ContainerInput {
        spec: &bundle.spec,
        clone_flags,
        joins,
        root,
        null,
        mounts,
        devices,
        working_directory: &cwd,
        process: ProcessInput {
            process,
            arguments: process.args().as_deref().unwrap_or_default(),
            environment: &[],
            raw_environment: &bundle.raw_env,
            cwd: cwd_of(process)?,
            terminal: process.terminal().unwrap_or(false),
            size: process.console_size().map(TerminalSize::of),
            seccomp: filter(shared, linux.and_then(|linux| linux.seccomp().as_ref()))?,
        },
    };
    Ok(Gathered { plan: plan::container(input)?, descriptors: descriptors.into_vec() })
}

fn process_of(spec: &Spec) -> Result<&Process> {
    spec.process().as_ref().ok_or_else(|| Error::Invalid("a specification has no process".into()))
}

/// A process's working directory.
pub(crate) fn cwd_of(process: &Process) -> Result<&str> {
    process.cwd().to_str().ok_or_else(|| Error::Invalid("working directory is not text".into()))
}

fn prepare_mounts(
    mounts: Vec<BundleMount>,
    cgroup: &ContainerCgroup,
    descriptors: &mut Descriptors,
) -> Result<Vec<PreparedMount>> {
    let mut prepared = Vec::with_capacity(mounts.len());
    for BundleMount { destination, place, source } in mounts {
        let source = match source {
            Opened::Cgroup { options } => {
                let at = PreparedMount { destination, place, source: filesystem("cgroup2", &options) };
                cgroup_mounts(at, &options, cgroup, &mut prepared, descriptors)?;
                continue;
            }
            Opened::New { kind, options } => filesystem(&kind, &options),
            Opened::Opened(bind) => {
                let descriptor = descriptors.add(bind.mount)?;
                Source::Detached { descriptor, is_directory: bind.is_directory }
            }
        };
        prepared.push(PreparedMount { destination, place, source });
    }
    Ok(prepared)
}

/// Version 2 is mounted by the child in its own cgroup namespace; of version 1, each hierarchy's directory is bound.
fn cgroup_mounts(
    at: PreparedMount,
    options: &[String],
    cgroup: &ContainerCgroup,
    prepared: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let location = cgroup.location();
    if location.unified {
        prepared.push(at);
        return Ok(());
    }
    let base = ["nosuid", "nodev", "noexec", "mode=755", "size=1m"].map(String::from);
    let (destination, place) = (at.destination.clone(), at.place.clone());
    prepared.push(PreparedMount { source: filesystem("tmpfs", &base), ..at });
    let access = BindOptions::parse(&destination, options)?;
    for directory in &location.directories {
        let name = directory.controllers.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name);
        if name.is_empty() {
            continue;
        }
        let bind = binds::open(&directory.path, access)?;
        let descriptor = descriptors.add(bind.mount)?;
        let source = Source::Detached { descriptor, is_directory: true };
        prepared.push(PreparedMount { destination: destination.join(name), place: place.join(name), source });
    }
    Ok(())
}

/// The filter of a profile; those of the last few profiles are kept, for most containers have one of a few.
pub(crate) fn filter(shared: &Shared, profile: Option<&LinuxSeccomp>) -> Result<Option<Filter>> {
    const KEPT: usize = 8;
    let Some(profile) = profile else { return Ok(None) };
    if let Some((_, known)) = lock(&shared.filters).iter().find(|(known, _)| known == profile) {
        return Ok(Some(known.clone()));
    }
    let filter = Filter { flags: seccomp::flags(profile)?, program: seccomp::compile(profile)? };
    let mut filters = lock(&shared.filters);
    if filters.len() >= KEPT {
        filters.remove(0);
    }
    filters.push((profile.clone(), filter.clone()));
    Ok(Some(filter))
}

/// The flags of the namespaces that are new, and how the others are joined.
fn join(namespaces: Vec<Joined>, descriptors: &mut Descriptors) -> Result<(u64, Vec<Join>)> {
    let (mut new, mut joins) = (0, Vec::new());
    for Joined { kind, descriptor } in namespaces {
        let kind = clone_flag(kind);
        match descriptor {
            Some(descriptor) => joins.push(Join { descriptor: descriptors.add(descriptor)?, kind }),
            None => new |= kind,
        }
    }
    Ok((new, joins))
}

fn clone_flag(kind: LinuxNamespaceType) -> u64 {
    bits(match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    })
}

/// Joins of a pod's kept namespaces, the user namespace first.
pub(super) fn join_pod(pod: &Pod, record: &PodSnapshot, descriptors: &mut Descriptors) -> Result<Vec<Join>> {
    let mut joins = Vec::new();
    for kind in of_pod(&record.config) {
        if let Some(path) = path_of_pod(pod, kind) {
            let descriptor = descriptors.add(namespace::open(&path)?)?;
            joins.push(Join { descriptor, kind: clone_flag(kind) });
        }
    }
    Ok(joins)
}

fn prepare_devices(spec: &Spec, bound: bool, descriptors: &mut Descriptors) -> Result<Vec<PreparedDevice>> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    devices.iter().map(|device| prepare_device(device, bound, descriptors)).collect()
}

fn prepare_device(
    device: &LinuxDevice,
    bound: bool,
    descriptors: &mut Descriptors,
) -> Result<PreparedDevice> {
    let path = device.path().clone();
    let invalid =
        || Error::Invalid(format!("device {}: its type or number does not exist", device.path().display()));
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(invalid()),
    };
    if bound {
        // Read-only: the device works as ever, but its node, which is the host's, keeps its mode, owner and times.
        let descriptor = descriptors.add(binds::open(&path, BindOptions::read_only())?.mount)?;
        return Ok(PreparedDevice::Bind { path, descriptor });
    }
    let number = |number: i64| u32::try_from(number).map_err(|_| invalid());
    Ok(PreparedDevice::Node {
        mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
        device: makedev(number(device.major())?, number(device.minor())?),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        path,
    })
}
