//! Opening what a container's plan names: root, binds, devices, namespaces, users.

use super::{mounts, places};
use crate::capabilities::{Capabilities, CapabilitySet};
use crate::cgroup::ContainerCgroup;
use crate::plan::{self, ContainerInput, Filter, PreparedDevice, ProcessInput};
use crate::pod::{Container, Pod, PodRecord};
use crate::rootfs::binds::{self, BindOptions};
use crate::rootfs::links::follow;
use crate::rootfs::users::Identity;
use crate::rootfs::{overlay, users};
use crate::runtime::Shared;
use crate::sandbox::{KEPT, PROC, host_name};
use crate::{
    ContainerPid, ContainerRequest, Error, IpcMode, PidMode, Result, Seccomp, TerminalSize, namespace,
    seccomp, spec,
};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Process, Spec};
use rustix::fs::makedev;
use slipway_monitor::plan::{Join, Plan};
use slipway_monitor::protocol::DESCRIPTORS;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

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

    /// One of them, by its number.
    pub(crate) fn get(&self, number: u16) -> Option<&OwnedFd> {
        self.0.get(usize::from(number))
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

/// A container's root, mounted, and who the user is by its files.
pub(super) struct Found {
    root: OwnedFd,
    pub(super) identity: Identity,
}

impl Found {
    pub(super) fn find(shared: &Shared, pod: &Pod, container: &Container) -> Result<Self> {
        let root = mount_root(shared, pod, container)?;
        let request = &container.record.request;
        let directory = root.try_clone().map_err(|source| Error::Kernel { call: "dup".into(), source })?;
        let files = users::Root { directory, container: request.id.to_string(), mounts: Vec::new() };
        let identity = users::resolve(files, &request.user)?;
        Ok(Self { root, identity })
    }
}

pub(super) fn container(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    cgroup: &ContainerCgroup,
    found: Found,
) -> Result<Gathered> {
    let request = &container.record.request;
    let record = pod.record();
    let Found { root, identity } = found;
    let mut descriptors = Descriptors::default();
    let shared_proc = shared_proc(shared, pod, request)?;
    let opener = &shared.opener;
    let place = mounts::Place { opener, pod, container, cgroup, root: root.as_fd(), shared_proc };
    let mounts = mounts::gather(&place, &mut descriptors)?;
    let process = process_of(request)?;
    let cwd = follow(root.as_fd(), process.cwd(), &places::of(&mounts))?;
    let root = descriptors.add(root)?;
    let null = descriptors.add(binds::open(Path::new("/dev/null"), BindOptions::read_only())?.mount)?;
    let mut joins = Vec::new();
    join_pod(pod, &record, &mut descriptors, &mut joins)?;
    let mut clone_flags = bits(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP);
    if let Some(join) = process_ids(shared, pod, request, &mut descriptors)? {
        joins.push(join);
    } else if request.pid == ContainerPid::Own || record.config.pid == PidMode::Container {
        clone_flags |= bits(libc::CLONE_NEWPID);
    }
    let devices = prepare_devices(&request.spec, record.config.userns.is_some(), &mut descriptors)?;
    let hostname = host_name(&record.config);
    let input = ContainerInput {
        spec: &request.spec,
        clone_flags,
        joins,
        root,
        null,
        readonly_root: request.rootfs.readonly,
        mounts,
        devices,
        working_directory: &cwd,
        process: ProcessInput {
            arguments: process.args().as_deref().unwrap_or_default(),
            cwd: cwd_of(process)?,
            terminal: request.tty,
            size: process.console_size().map(TerminalSize::of),
            ..process_input(shared, request, &identity, &hostname)?
        },
    };
    Ok(Gathered { plan: plan::container(input)?, descriptors: descriptors.into_vec() })
}

/// Mounts the container's root, through the pod's id map when it has one.
fn mount_root(shared: &Shared, pod: &Pod, container: &Container) -> Result<OwnedFd> {
    let rootfs = &container.record.request.rootfs;
    let Some(map) = pod.record().config.userns else {
        return overlay::mount_detached(rootfs, &container.directory, &shared.features, None);
    };
    let namespace = namespace::open(&pod.state.join("user"))?;
    let (uid, gid) = (map.root_uid()?, map.root_gid()?);
    let owner = overlay::Owner { namespace: namespace.as_fd(), uid, gid };
    overlay::mount_detached(rootfs, &container.directory, &shared.features, Some(owner))
}

/// The pid namespace that a container joins; none where it stays in the host's or makes its own.
fn process_ids(
    shared: &Shared,
    pod: &Pod,
    request: &ContainerRequest,
    descriptors: &mut Descriptors,
) -> Result<Option<Join>> {
    let path = match &request.pid {
        ContainerPid::Own => return Ok(None),
        ContainerPid::OfPod if pod.record().config.pid != PidMode::Pod => return Ok(None),
        ContainerPid::OfPod => pod.state.join("pid"),
        ContainerPid::Target(id) => {
            let target = shared.container(id)?;
            if target.record.request.sandbox != request.sandbox {
                return Err(Error::Invalid(format!(
                    "container {id} is of another pod: its processes can't be shared"
                )));
            }
            PathBuf::from(format!("/proc/{}/ns/pid", target.pid("share the processes of")?))
        }
    };
    let descriptor = descriptors.add(namespace::open(&path)?)?;
    Ok(Some(Join { descriptor, kind: bits(libc::CLONE_NEWPID) }))
}

/// A proc of the pid namespace that a container joins, as a detached mount: its own child is in that namespace only once
/// it can't mount any more. None where the container's is new, and in a pod of a monitor that does not know the step by
/// which it is made: that one mounts it from inside.
fn shared_proc(shared: &Shared, pod: &Pod, request: &ContainerRequest) -> Result<Option<OwnedFd>> {
    match &request.pid {
        ContainerPid::OfPod if pod.record().config.pid == PidMode::Pod => {
            let kept = pod.state.join(PROC);
            namespace::exists(&kept).then(|| open_proc(&kept)).transpose()
        }
        ContainerPid::Target(id) => {
            let pid = shared.container(id)?.pid("share the processes of")?;
            namespace::proc_of(id.as_str(), pid).map(Some)
        }
        ContainerPid::OfPod | ContainerPid::Own => Ok(None),
    }
}

/// A clone of a proc that is kept at a path; a directory from which it was unmounted is not mistaken for it.
fn open_proc(kept: &Path) -> Result<OwnedFd> {
    let failed = |source| Error::Io { action: "use the pod's proc at", path: kept.into(), source };
    let mount = binds::open(kept, BindOptions::plain())?.mount;
    if namespace::is_proc(mount.as_fd()).map_err(failed)? {
        return Ok(mount);
    }
    Err(failed(std::io::Error::other("it has been unmounted: make the pod anew")))
}

/// What every process of a container has in common.
pub(crate) fn process_input<'a>(
    shared: &Shared,
    request: &'a ContainerRequest,
    identity: &'a Identity,
    hostname: &'a str,
) -> Result<ProcessInput<'a>> {
    let process = process_of(request)?;
    let available = CapabilitySet::available()?;
    let capabilities = match process.capabilities() {
        Some(asked) => Capabilities::from_spec(asked, available)?,
        None => Capabilities::default_for(available),
    };
    Ok(ProcessInput {
        process,
        arguments: &[],
        environment: &[],
        raw_environment: &request.raw_env,
        cwd: cwd_of(process)?,
        terminal: false,
        size: None,
        hostname,
        identity,
        capabilities,
        seccomp: filter(shared, &request.seccomp, &capabilities)?,
        features: shared.features,
    })
}

fn process_of(request: &ContainerRequest) -> Result<&Process> {
    let process = request.spec.process().as_ref();
    process
        .ok_or_else(|| Error::Invalid(format!("container {}: its specification has no process", request.id)))
}

fn cwd_of(process: &Process) -> Result<&str> {
    let cwd = process.cwd().to_str().ok_or_else(|| Error::Invalid("working directory is not text".into()))?;
    match cwd {
        "" => Ok("/"),
        cwd if cwd.starts_with('/') => Ok(cwd),
        cwd => Err(Error::Invalid(format!("working directory {cwd:?} must be absolute"))),
    }
}

/// The filter, compiled once for each set of capabilities and kept.
fn filter(shared: &Shared, wanted: &Seccomp, capabilities: &Capabilities) -> Result<Option<Filter>> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(profile) => {
            let flags = seccomp::flags(profile)?;
            Ok(Some(Filter { program: seccomp::compile(profile)?, flags }))
        }
        Seccomp::RuntimeDefault => {
            let machine = seccomp::Machine::native()
                .ok_or_else(|| Error::Unsupported("the default seccomp profile on this machine".into()))?;
            let mut filters = crate::pod::lock(&shared.filters);
            if let Some(known) = filters.get(&capabilities.bounding.bits()) {
                return Ok(Some(Filter { program: known.clone(), flags: 0 }));
            }
            let program = seccomp::compile(&seccomp::default_profile(capabilities, machine))?;
            filters.insert(capabilities.bounding.bits(), program.clone());
            Ok(Some(Filter { program, flags: 0 }))
        }
    }
}

/// Joins of a pod's kept namespaces, the user namespace first.
pub(super) fn join_pod(
    pod: &Pod,
    record: &PodRecord,
    descriptors: &mut Descriptors,
    joins: &mut Vec<Join>,
) -> Result<()> {
    let mut wanted: Vec<(PathBuf, i32)> = Vec::new();
    if record.config.userns.is_some() {
        wanted.push((pod.state.join("user"), libc::CLONE_NEWUSER));
    }
    for (name, flag) in KEPT.iter().filter(|(name, _)| matches!(*name, "uts" | "ipc")) {
        if *name == "uts" || record.config.ipc == IpcMode::Pod {
            wanted.push((pod.state.join(name), *flag));
        }
    }
    if let Some(netns) = &record.netns {
        wanted.push((netns.clone(), libc::CLONE_NEWNET));
    }
    for (path, flag) in wanted {
        let descriptor = descriptors.add(namespace::open(&path)?)?;
        joins.push(Join { descriptor, kind: bits(flag) });
    }
    Ok(())
}

fn prepare_devices(spec: &Spec, bound: bool, descriptors: &mut Descriptors) -> Result<Vec<PreparedDevice>> {
    let own = spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
    spec::default_devices()
        .iter()
        .chain(&own)
        .map(|device| prepare_device(device, bound, descriptors))
        .collect()
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
