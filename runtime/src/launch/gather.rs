//! Opening what a container's plan names: root, binds, devices, namespaces, users.

use crate::capabilities::{Capabilities, CapabilitySet};
use crate::cgroup::ContainerCgroup;
use crate::plan::{self, ContainerInput, PreparedDevice, PreparedMount, ProcessInput, Source, filesystem};
use crate::pod::{Container, Pod, PodRecord};
use crate::rootfs::binds::{self, BindOptions};
use crate::rootfs::users::Identity;
use crate::rootfs::{overlay, users};
use crate::runtime::Shared;
use crate::sandbox::{FILES, KEPT, host_name};
use crate::{
    ContainerRequest, Error, IdMap, IpcMode, PidMode, Result, Seccomp, namespace, seccomp, spec, state,
};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Process, Spec};
use rustix::fs::makedev;
use slipway_monitor::plan::{Join, Plan};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The descriptors of a plan, in their numbers' order.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    pub(crate) fn add(&mut self, descriptor: OwnedFd) -> Result<u16> {
        let number = u16::try_from(self.0.len())
            .map_err(|_| Error::Invalid("a container can't have more than 65535 mounts".into()))?;
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

pub(super) fn container(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    cgroup: &ContainerCgroup,
) -> Result<Gathered> {
    let request = &container.record.request;
    let record = pod.record();
    let root = mount_root(shared, pod, container)?;
    let identity = users::resolve(root.as_fd(), &request.user)?;
    let mut descriptors = Descriptors::default();
    let root = descriptors.add(root)?;
    let null = descriptors.add(binds::open(Path::new("/dev/null"), BindOptions::plain())?.mount)?;
    let mut joins = Vec::new();
    join_pod(pod, &record, &mut descriptors, &mut joins)?;
    let mut clone_flags = bits(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP);
    if record.config.pid == PidMode::Container {
        clone_flags |= bits(libc::CLONE_NEWPID);
    }
    let mut mounts = prepare_mounts(&request.spec, cgroup, &mut descriptors)?;
    if record.config.userns.is_some() && record.netns.is_none() {
        bind_host_sysfs(&mut mounts, &mut descriptors)?;
    }
    add_pod_files(pod, &record, &mut mounts, &mut descriptors)?;
    add_volumes(container, record.config.userns.as_ref(), &mut mounts, &mut descriptors)?;
    let devices = prepare_devices(&request.spec, record.config.userns.is_some(), &mut descriptors)?;
    let process = process_of(request)?;
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
        process: ProcessInput {
            arguments: process.args().as_deref().unwrap_or_default(),
            cwd: cwd_of(process)?,
            terminal: request.tty,
            ..process_input(shared, request, &identity, &hostname)?
        },
    };
    Ok(Gathered { plan: plan::container(input)?, descriptors: descriptors.into_vec() })
}

/// Mounts the container's root, through the pod's id map when it has one.
fn mount_root(shared: &Shared, pod: &Pod, container: &Container) -> Result<OwnedFd> {
    let rootfs = &container.record.request.rootfs;
    let append = shared.features.lowerdir_append;
    let Some(map) = pod.record().config.userns else {
        return overlay::mount_detached(rootfs, &container.directory, append, None);
    };
    let namespace = namespace::open(&pod.state.join("user"))?;
    let (uid, gid) = (map.root_uid()?, map.root_gid()?);
    let owner = overlay::Owner { namespace: namespace.as_fd(), uid, gid };
    overlay::mount_detached(rootfs, &container.directory, append, Some(owner))
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
        cwd: cwd_of(process)?,
        terminal: false,
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
fn filter(shared: &Shared, wanted: &Seccomp, capabilities: &Capabilities) -> Result<Option<Vec<u8>>> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(profile) => seccomp::compile(profile).map(Some),
        Seccomp::RuntimeDefault => {
            let machine = seccomp::Machine::native()
                .ok_or_else(|| Error::Unsupported("the default seccomp profile on this machine".into()))?;
            let mut filters = crate::pod::lock(&shared.filters);
            if let Some(known) = filters.get(&capabilities.bounding.bits()) {
                return Ok(Some(known.clone()));
            }
            let program = seccomp::compile(&seccomp::default_profile(capabilities, machine))?;
            filters.insert(capabilities.bounding.bits(), program.clone());
            Ok(Some(program))
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
    let pid = pod.state.join("pid");
    if record.config.pid == PidMode::Pod && namespace::exists(&pid) {
        wanted.push((pid, libc::CLONE_NEWPID));
    }
    for (path, flag) in wanted {
        let descriptor = descriptors.add(namespace::open(&path)?)?;
        joins.push(Join { descriptor, kind: bits(flag) });
    }
    Ok(())
}

fn prepare_mounts(
    spec: &Spec,
    cgroup: &ContainerCgroup,
    descriptors: &mut Descriptors,
) -> Result<Vec<PreparedMount>> {
    let mut prepared = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let options = mount.options().as_deref().unwrap_or_default();
        let kind = mount.typ().as_deref().unwrap_or("bind");
        let destination = mount.destination().clone();
        if kind == "bind" || options.iter().any(|option| option == "bind" || option == "rbind") {
            prepared.push(bind(mount, options, descriptors)?);
        } else if kind == "cgroup" || kind == "cgroup2" {
            cgroup_mounts(&destination, options, cgroup, &mut prepared, descriptors)?;
        } else {
            prepared.push(PreparedMount { source: filesystem(kind, options), destination });
        }
    }
    Ok(prepared)
}

fn bind(mount: &Mount, options: &[String], descriptors: &mut Descriptors) -> Result<PreparedMount> {
    let destination = mount.destination().clone();
    let source = mount.source().as_deref();
    let source = source
        .ok_or_else(|| Error::Invalid(format!("mount {}: a bind needs a source", destination.display())))?;
    let bind = binds::open(source, BindOptions::parse(&destination, options)?)?;
    let descriptor = descriptors.add(bind.mount)?;
    Ok(PreparedMount {
        destination,
        source: Source::Detached { descriptor, is_directory: bind.is_directory },
    })
}

/// Version 2 is mounted by the child in its own cgroup namespace; of version 1, each hierarchy's directory is bound.
fn cgroup_mounts(
    destination: &Path,
    options: &[String],
    cgroup: &ContainerCgroup,
    prepared: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let location = cgroup.location();
    if location.unified {
        prepared
            .push(PreparedMount { destination: destination.into(), source: filesystem("cgroup2", options) });
        return Ok(());
    }
    let base = ["nosuid", "nodev", "noexec", "mode=755", "size=1m"].map(String::from);
    prepared.push(PreparedMount { destination: destination.into(), source: filesystem("tmpfs", &base) });
    let access = if options.iter().any(|option| option == "ro") {
        BindOptions::read_only()
    } else {
        BindOptions::plain()
    };
    for directory in &location.directories {
        let name = directory.controllers.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name);
        if name.is_empty() {
            continue;
        }
        let bind = binds::open(&directory.path, access)?;
        let descriptor = descriptors.add(bind.mount)?;
        prepared.push(PreparedMount {
            destination: destination.join(name),
            source: Source::Detached { descriptor, is_directory: true },
        });
    }
    Ok(())
}

/// sysfs shows a network, so a user namespace that does not own one can't mount it: the host's is bound, read-only.
fn bind_host_sysfs(mounts: &mut [PreparedMount], descriptors: &mut Descriptors) -> Result<()> {
    for mount in mounts {
        if matches!(&mount.source, Source::New { kind, .. } if kind == "sysfs") {
            let options = BindOptions::parse(&mount.destination, &["rbind".into(), "rro".into()])?;
            let descriptor = descriptors.add(binds::open(Path::new("/sys"), options)?.mount)?;
            mount.source = Source::Detached { descriptor, is_directory: true };
        }
    }
    Ok(())
}

fn taken(mounts: &[PreparedMount], destination: &Path) -> bool {
    mounts.iter().any(|mount| mount.destination == destination)
}

/// The pod's /dev/shm and /etc files, where the specification mounts nothing there.
fn add_pod_files(
    pod: &Pod,
    record: &PodRecord,
    mounts: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    let shm = match record.config.ipc {
        IpcMode::Pod => pod.state.join("shm"),
        IpcMode::Host => "/dev/shm".into(),
    };
    let files = FILES.iter().map(|(name, destination)| (pod.root.join(name), Path::new(destination)));
    for (source, destination) in files.chain([(shm, Path::new("/dev/shm"))]) {
        if taken(mounts, destination) {
            continue;
        }
        let bind = binds::open(&source, BindOptions::plain())?;
        let descriptor = descriptors.add(bind.mount)?;
        let source = Source::Detached { descriptor, is_directory: bind.is_directory };
        mounts.push(PreparedMount { destination: destination.into(), source });
    }
    Ok(())
}

/// A directory for each VOLUME of the image, where nothing else is mounted.
fn add_volumes(
    container: &Container,
    map: Option<&IdMap>,
    mounts: &mut Vec<PreparedMount>,
    descriptors: &mut Descriptors,
) -> Result<()> {
    for (number, volume) in container.record.request.volumes.iter().enumerate() {
        if taken(mounts, volume) {
            continue;
        }
        let directory = container.directory.join("volumes").join(number.to_string());
        state::make_directory(&directory)?;
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|source| Error::Io { action: "set mode of", path: directory.clone(), source })?;
        if let Some(map) = map {
            std::os::unix::fs::chown(&directory, Some(map.root_uid()?), Some(map.root_gid()?))
                .map_err(|source| Error::Io { action: "set owner of", path: directory.clone(), source })?;
        }
        let bind = binds::open(&directory, BindOptions::plain())?;
        let descriptor = descriptors.add(bind.mount)?;
        let source = Source::Detached { descriptor, is_directory: true };
        mounts.push(PreparedMount { destination: volume.clone(), source });
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
        let descriptor = descriptors.add(binds::open(&path, BindOptions::plain())?.mount)?;
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
