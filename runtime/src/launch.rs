//! Starting a container: everything its plan needs is opened and decided here, then the monitor is asked.

mod gather;

use crate::bundle::{self, Bundle};
use crate::cgroup::{ContainerCgroup, Placement, PodCgroup};
use crate::life::{LifeEvent, PodState};
use crate::monitor_client::Connection;
use crate::monitor_process::{borrowed, sealed};
use crate::opener::Opener;
use crate::pod::{Container, EndRecord, Pod, StartRecord, lock, now};
use crate::runtime::Shared;
use crate::sandbox::{PROC, pause_program};
use crate::{ContainerId, ContainerRequest, Error, Result, namespace, patience, state};
pub(crate) use gather::{Descriptors, bits, cwd_of, filter};
use oci_spec::runtime::{LinuxMemory, LinuxResources, LinuxResourcesBuilder};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::mount::MountAttrFlags;
use slipway_monitor::plan::{Plan, Step};
use slipway_monitor::protocol::{Reply, Request, Start};
use slipway_monitor::wire::{List, Wire};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A container whose program has not begun by then is given up.
const START: Duration = Duration::from_secs(60);

impl Shared {
    pub(crate) fn start_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let (container, pod) = self.adopted(id)?;
        let _operation = lock(&container.operation);
        container.happened(LifeEvent::Start)?;
        if let Some(damage) = &container.record.damage {
            let why = format!("{}: remove container {id} and create it again", damage.reason);
            return Err(Error::Record { path: damage.path.clone(), why });
        }
        let record = pod.record();
        let Some(cgroup) = record.cgroup.filter(|_| record.state == PodState::Ready) else {
            return Err(Error::WrongState {
                kind: "sandbox",
                id: record.config.id.to_string(),
                state: "not ready",
                action: "start a container in",
            });
        };
        // A monitor that can't be asked is no failure of the container: it is as it was, and can be started later.
        let place = Place { pod: &pod, connection: &self.connect(&pod)? };
        let begun = self.begin(&place, &cgroup, &container);
        begun.map_err(|error| error.explained(&container.directory)).inspect_err(|error| {
            self.finish(&container, &EndRecord::not_started(error));
            // Attached clients are told that nothing comes. Without its monitor nobody is attached any more.
            let _ = self.forget(&pod, id);
        })
    }

    /// The start itself. What fails here is for good, but for the death of the daemon: then the next one finds a record
    /// of a start without an end, and the container as it was created.
    fn begin(&self, place: &Place<'_>, cgroup: &PodCgroup, container: &Container) -> Result<()> {
        let id = &container.record.request.id;
        let bundle = Bundle::resolve(self, place.pod, container)?;
        let resources = bundle.resources();
        let planned = cgroup.plan(id.as_str())?;
        let identity = Some(bundle.identity.clone());
        let record = StartRecord {
            cgroup: planned.clone(),
            at: now(),
            identity: identity.clone(),
            sandbox: Some(container.record.request.sandbox.clone()),
        };
        container.place.started(container.run).write(&record)?;
        container.runs_as(identity);
        let started = cgroup.container(id.as_str(), &resources);
        let started = started.and_then(|cgroup| {
            let launched = self.launch(place, container, &cgroup, bundle);
            launched.map_err(|error| starved(error, id, &cgroup, &resources))
        });
        started.inspect_err(|_| {
            if let Err(error) = planned.kill(&self.features) {
                tracing::warn!(container = %id, %error, "what its failed start left is not killed");
            }
        })
    }

    fn launch(
        &self,
        place: &Place<'_>,
        container: &Container,
        cgroup: &ContainerCgroup,
        bundle: Bundle,
    ) -> Result<()> {
        let request = &container.record.request;
        let kill_rest = bundle.shares_processes();
        let gathered = gather::container(self, bundle, cgroup)?;
        let log = request.log_path.as_deref().map(|path| open_log_in_time(&self.opener, path)).transpose()?;
        let order = Order {
            container: request.id.as_str(),
            plan: gathered.plan,
            log,
            placement: cgroup.placement(&self.features)?,
            streams: Streams::of(request),
            kill_rest,
        };
        let started = order.send(place.connection, gathered.descriptors)?;
        container.happened(LifeEvent::Started { pid: started.pid, at: started.at })?;
        Ok(())
    }
}

/// A child that the kernel has killed for want of memory, or that got none, says so in words that help.
fn starved(error: Error, id: &ContainerId, cgroup: &ContainerCgroup, resources: &LinuxResources) -> Error {
    let no_memory = std::io::Error::from_raw_os_error(libc::ENOMEM);
    let refused = matches!(&error, Error::Start { source, .. } | Error::Program { source, .. }
        if source.kind() == no_memory.kind());
    if !refused && !cgroup.oom_kills().is_ok_and(|kills| kills > 0) {
        return error;
    }
    let limit = resources.memory().as_ref().and_then(LinuxMemory::limit).filter(|limit| *limit > 0);
    let what = match limit {
        Some(limit) => {
            format!("its memory limit of {limit} bytes is too small to start its program: raise it")
        }
        None => "memory ran out before its program was started: raise the limit of its pod".to_owned(),
    };
    Error::Start { id: id.to_string(), what, source: no_memory }
}

/// As [`starved`], of a further process in a container that had so many kills for memory before.
pub(crate) fn starved_command(error: Error, id: &ContainerId, cgroup: &ContainerCgroup, kills: u64) -> Error {
    let no_memory = std::io::Error::from_raw_os_error(libc::ENOMEM);
    let refused = matches!(&error, Error::Start { source, .. } | Error::Program { source, .. }
        if source.kind() == no_memory.kind());
    if !refused && !cgroup.oom_kills().is_ok_and(|now| now > kills) {
        return error;
    }
    let limit = cgroup.stats().ok().and_then(|stats| stats.memory_limit);
    let what = match limit {
        Some(limit) => format!(
            "the container is at its memory limit of {limit} bytes, which leaves none to start a command with: raise \
             the limit"
        ),
        None => "memory ran out before the command was started: raise the limit of its pod".to_owned(),
    };
    Error::Start { id: id.to_string(), what, source: no_memory }
}

/// Where a container is started.
struct Place<'a> {
    pod: &'a Pod,
    /// To the pod's monitor.
    connection: &'a Connection,
}

/// A process that a monitor is asked to start.
struct Order<'a> {
    container: &'a str,
    plan: Plan,
    log: Option<OwnedFd>,
    placement: Placement,
    streams: Streams,
    /// Whether the monitor kills the rest of the cgroup when the first process has ended: without a pid namespace of its
    /// own the kernel does not.
    kill_rest: bool,
}

/// The standard streams of a container's first process.
#[derive(Debug, Clone, Copy, Default)]
struct Streams {
    /// Standard input stays open for clients that attach.
    stdin: bool,
    /// The first client's end of input closes it.
    stdin_once: bool,
    terminal: bool,
}

impl Streams {
    fn of(request: &ContainerRequest) -> Self {
        Self { stdin: request.stdin, stdin_once: request.stdin_once, terminal: request.tty }
    }
}

/// A container's first process.
struct Started {
    pid: i32,
    /// Nanoseconds since the epoch.
    at: i64,
    /// The mount that the plan's `SendProc` has made.
    proc: Option<OwnedFd>,
}

impl Order<'_> {
    fn send(self, connection: &Connection, own: Vec<OwnedFd>) -> Result<Started> {
        let (plan, placement) = (connection.plan(self.plan)?, self.placement);
        let mut descriptors = vec![sealed(c"plan", &plan.encode())?];
        let log = self.log.is_some();
        descriptors.extend(self.log);
        let cgroups = u16::try_from(placement.directories.len()).unwrap_or(u16::MAX);
        descriptors.extend(placement.directories);
        descriptors.extend(own);
        let Streams { stdin, stdin_once, terminal } = self.streams;
        let start = Start {
            container: self.container.into(),
            log,
            cgroups,
            hierarchy: placement.hierarchy,
            stdin,
            stdin_once,
            terminal,
            kill_rest: self.kill_rest,
        };
        let answer = connection.request(&Request::Start { start }, &borrowed(&descriptors), START)?;
        match answer.reply {
            Reply::Started { pid, started_at } => {
                Ok(Started { pid, at: started_at, proc: answer.descriptors.into_iter().next() })
            }
            Reply::StepFailed { step, what, errno } => {
                Err(step_failed(self.container, &plan, step, &what, errno))
            }
            other => Err(connection.unexpected(&other)),
        }
    }
}

/// Says which step of a plan failed.
pub(crate) fn step_failed(container: &str, plan: &Plan, step: u32, what: &str, errno: i32) -> Error {
    let source = std::io::Error::from_raw_os_error(errno);
    let id = container.to_owned();
    let steps = plan.steps.0.len();
    match plan.steps.0.get(step as usize) {
        Some(step) => Error::Start { id, what: format!("{}: {what}", step.describe()), source },
        None if step as usize == steps && !what.starts_with("exec") => {
            Error::Start { id, what: what.into(), source }
        }
        None if step == u32::MAX => Error::Start { id, what: what.into(), source },
        None => {
            let program =
                plan.arguments.0.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Error::Program { id, program, source }
        }
    }
}

/// As [`open_log`], of a file system that may not answer. The directory stands for all logs in it.
pub(crate) fn open_log_in_time(opener: &Opener, path: &Path) -> Result<OwnedFd> {
    let (opener, log) = (opener.clone(), path.to_owned());
    let directory = path.parent().unwrap_or(path).display().to_string();
    let opened = patience::in_time("log", &directory, move || opener.log(log));
    opened.map_err(|source| Error::Io { action: "open log", path: path.into(), source })?
}

/// Opens a log for appending; the directory may be a link's target, the file itself never is.
pub(crate) fn open_log(path: &Path) -> Result<OwnedFd> {
    let failed = |errno: rustix::io::Errno| Error::Io {
        action: "open log",
        path: path.into(),
        source: slipway_disk::explained(path, errno.into()),
    };
    let name = path
        .file_name()
        .ok_or_else(|| Error::Invalid(format!("log path {} names no file", path.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // To make what is there already waits for a frozen file system, too.
    if !parent.is_dir() {
        std::fs::create_dir_all(parent).map_err(|source| Error::Io {
            action: "create directory",
            path: parent.into(),
            source: slipway_disk::explained(parent, source),
        })?;
    }
    let parent = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let mode = Mode::from_raw_mode(0o640);
    let log = slipway_disk::openat2(&parent, name, flags, mode, resolve).map_err(failed)?;
    let stat = rustix::fs::fstat(&log).map_err(failed)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Error::Invalid(format!("log path {} is not a regular file", path.display())));
    }
    Ok(log)
}

/// Starts the first process of a pod's shared pid namespace: it sleeps and reaps. While it is alone in there it makes the
/// proc that the pod's containers get: later a process that may mount would be in reach of a container that may trace.
pub(crate) fn start_pause(shared: &Shared, pod: &Pod, connection: &Connection) -> Result<()> {
    let record = pod.record();
    let Some(cgroup) = record.cgroup else { return Ok(()) };
    let resources = LinuxResourcesBuilder::default().build().unwrap_or_default();
    // Pods may have one parent, and each its own first process.
    let name = format!("pause-{}", record.config.id);
    // The pod's record names it: what a crash leaves of it is found.
    let cgroup = cgroup.container(&name, &bundle::resources(Some(&resources)))?;
    let mut descriptors = Descriptors::default();
    let program = pause_program(&shared.config.root)?;
    let (uid, gid) = match &record.config.userns {
        Some(map) => (map.root_uid()?.to_string(), map.root_gid()?.to_string()),
        None => ("0".to_owned(), "0".to_owned()),
    };
    let parameters = [("mode", "0755"), ("size", "64k"), ("uid", &uid), ("gid", &gid)];
    let root = descriptors.add(namespace::tmpfs(&parameters, MountAttrFlags::empty())?)?;
    let options = crate::rootfs::binds::BindOptions::read_only();
    let bind = descriptors.add(crate::rootfs::binds::open(&program, options)?.mount)?;
    let joins = gather::join_pod(pod, &pod.record(), &mut descriptors)?;
    let plan = Plan {
        clone_flags: bits(libc::CLONE_NEWNS | libc::CLONE_NEWPID),
        join: List(joins),
        steps: List(vec![
            Step::SendProc {},
            Step::Root { descriptor: root },
            Step::MakeFile { path: c"pause".into(), mode: 0o555 },
            Step::Attach { descriptor: bind, target: c"pause".into() },
            Step::Pivot {},
            Step::ReadOnlyRoot {},
            Step::OomScore { value: 0 },
            Step::Session { terminal: false },
            Step::Bounding { set: 0 },
            Step::Identity { uid: 65_534, gid: 65_534, groups: List::default() },
            Step::Capabilities { effective: 0, permitted: 0, inheritable: 0, ambient: 0 },
            Step::NoNewPrivileges {},
        ]),
        pause_at: 0,
        environment: List::default(),
        arguments: List(vec![c"pause".into()]),
        programs: List(vec![c"/pause".into()]),
    };
    let order = Order {
        container: "pause",
        plan,
        log: None,
        placement: cgroup.placement(&shared.features)?,
        streams: Streams::default(),
        kill_rest: false,
    };
    let started = order.send(connection, descriptors.into_vec())?;
    let namespace = namespace::open(Path::new(&format!("/proc/{}/ns/pid", started.pid)))?;
    namespace::keep(namespace.as_fd(), &pod.state.join("pid"))?;
    let proc = started.proc.ok_or_else(|| Error::Kernel {
        call: "mount proc in the pod's pid namespace".into(),
        source: std::io::Error::other("the monitor has sent none"),
    })?;
    let kept = pod.state.join(PROC);
    state::make_directory(&kept)?;
    namespace::attach(proc.as_fd(), &kept)
}
