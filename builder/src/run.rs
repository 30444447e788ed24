//! RUN: a container in the build's one sandbox, its output told as it comes, its upper directory the layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use oci_spec::runtime::Mount;
use slipway_log::{LogReader, Streams, Waker};
use slipway_runtime::capabilities::CapabilitySet;
use slipway_runtime::spec::{Privilege, default_spec, mount_points};
use slipway_runtime::{
    ContainerId, ContainerPid, ContainerRequest, ContainerState, Dns, Document, IpcMode, Network, Owner,
    PidMode, RootFs, Runtime, SandboxConfig, SandboxId, Seccomp, User,
};

use crate::cancel::Cancellation;
use crate::copy::Draft;
use crate::error::{Error, Result};
use crate::progress::Stream;

/// How long one look for a command's end takes.
const WAIT: Duration = Duration::from_secs(60);

/// Where a command finds the heredoc that it is.
pub(crate) const SCRIPTS: &str = "/dev/pipes";

/// The line that stands where output was lost.
const LOST: &[u8] = b"[some of the output is lost: it could not be kept on the disk]\n";

/// The sandbox of a build. Dropping it removes it with its containers.
#[derive(Debug)]
pub(crate) struct Sandbox {
    runtime: Runtime,
    id: SandboxId,
    containers: usize,
    last: Option<ContainerId>,
}

/// A command to run.
#[derive(Debug)]
pub(crate) struct Process {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Variables.
    pub(crate) env: BTreeMap<String, String>,
    /// The working directory.
    pub(crate) cwd: String,
    /// As USER says.
    pub(crate) user: String,
    /// The layers' directories, the topmost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// A directory that the command sees at [`SCRIPTS`] and can't change.
    pub(crate) script: Option<PathBuf>,
}

impl Sandbox {
    /// Makes the sandbox, on the bridge like a pod: a build never gets the host's network for want of one.
    pub(crate) fn create(runtime: &Runtime, build: &str) -> Result<Self> {
        let id = SandboxId::new(format!("build-{build}"))?;
        let sandbox = Self { runtime: runtime.clone(), id: id.clone(), containers: 0, last: None };
        runtime.create_sandbox(&SandboxConfig {
            id,
            owner: Owner::Build,
            document: Document::default(),
            hostname: "build".to_owned(),
            network: Network::Pod { ports: Vec::new() },
            cgroup_parent: None,
            sysctls: BTreeMap::new(),
            pid: PidMode::Container,
            ipc: IpcMode::Pod,
            userns: None,
            dns: Dns::default(),
            shm_size: 0,
            // A RUN has the default ones, so that nothing that it starts can get more.
            capabilities: Some(CapabilitySet::default_set()),
        })?;
        Ok(sandbox)
    }

    /// Runs a command to its end; its upper directory, valid until [`Sandbox::forget_last`], and its exit code.
    pub(crate) fn run(
        &mut self,
        process: &Process,
        cancel: &Cancellation,
        output: &dyn Fn(Stream, Vec<u8>),
    ) -> Result<(PathBuf, i32)> {
        self.containers = self.containers.saturating_add(1);
        let id = ContainerId::new(format!("{}-{}", self.id, self.containers))?;
        self.runtime.create_container(self.request(&id, process)?)?;
        self.last = Some(id.clone());
        cancel.check()?;
        self.runtime.start_container(&id)?;
        // A command that was cancelled meanwhile ends with the sandbox.
        cancel.running(&self.runtime, &id)?;
        let ended = self.follow(&id, output);
        cancel.ended();
        cancel.check()?;
        Ok((self.runtime.upper_dir(&id), ended?))
    }

    /// Reads the command's log to its end: it waits for nobody, and whoever is told of the output may be slow.
    fn follow(&self, id: &ContainerId, output: &dyn Fn(Stream, Vec<u8>)) -> Result<i32> {
        let waker = Waker::new()?;
        let ended = |wait| {
            // A container that is not known any more has ended too.
            self.runtime.wait(id, wait).map_or(true, |state| state.is_some())
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended(WAIT) {}
                waker.wake();
            });
            let mut told = Streams::new(|is_stderr, bytes| {
                output(if is_stderr { Stream::Stderr } else { Stream::Stdout }, bytes);
                true
            });
            LogReader::new(&self.log(id)).follow(&waker, || ended(Duration::ZERO), &mut told)
        })?;
        if self.runtime.log_writes_dropped(id)?.is_none_or(|dropped| dropped > 0) {
            output(Stream::Stderr, LOST.to_vec());
        }
        loop {
            if let Some(ContainerState::Exited { code, .. }) = self.runtime.wait(id, WAIT)? {
                return Ok(code);
            }
        }
    }

    /// Beside the upper directory, so that it goes with the container.
    fn log(&self, id: &ContainerId) -> PathBuf {
        self.runtime.upper_dir(id).with_file_name("log")
    }

    /// Removes the container that ran last.
    pub(crate) fn forget_last(&mut self) -> Result<()> {
        match self.last.take() {
            Some(id) => Ok(self.runtime.remove_container(&id)?),
            None => Ok(()),
        }
    }

    fn request(&self, id: &ContainerId, process: &Process) -> Result<ContainerRequest> {
        let mut spec = default_spec(Privilege::Confined);
        let mut wanted = spec.process().clone().unwrap_or_default();
        wanted.set_args(Some(process.argv.clone()));
        wanted.set_env(Some(process.env.iter().map(|(name, value)| format!("{name}={value}")).collect()));
        wanted.set_cwd(Path::new(&process.cwd).to_owned());
        wanted.set_terminal(Some(false));
        wanted.set_no_new_privileges(Some(false));
        spec.set_process(Some(wanted));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.extend(process.script.as_deref().map(scripts));
        spec.set_mounts(Some(mounts));
        Ok(ContainerRequest {
            id: id.clone(),
            sandbox: self.id.clone(),
            owner: Owner::Build,
            document: Document::default(),
            spec,
            rootfs: RootFs { lowers: process.lowers.clone(), readonly: false, volatile: true },
            log_path: Some(self.log(id)),
            stdin: false,
            stdin_once: false,
            tty: false,
            volumes: Vec::new(),
            user: User { name: process.user.clone(), ..User::default() },
            seccomp: Seccomp::RuntimeDefault,
            raw_env: Vec::new(),
            pid: ContainerPid::OfPod,
        })
    }
}

fn scripts(folder: &Path) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(SCRIPTS.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(folder.to_owned()))
        .set_options(Some(["bind", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec()));
    mount
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.remove_sandbox(&self.id) {
            tracing::warn!(sandbox = %self.id, %error, "remove a build's sandbox");
        }
    }
}

/// The layers that a command runs on, the topmost first: where the image lacks what is mounted on, a draft that has it
/// comes on top, and not the command's own layer, for it is the sandbox's and not the image's. The draft shows the
/// directories above as they are below, so that they are changed by the command alone.
pub(crate) fn with_mount_points(mut draft: Draft, lowers: Vec<PathBuf>, cwd: &str) -> Result<Vec<PathBuf>> {
    let points = mount_points();
    let mut made = false;
    for directory in points.directories.iter().map(PathBuf::as_path).chain([Path::new(cwd)]) {
        made |= draft.make_directory(directory, Some((0, 0)))?;
    }
    for file in &points.files {
        made |= draft.make_file(file)?;
    }
    let top = draft.finish()?;
    Ok(if made { [vec![top], lowers].concat() } else { lowers })
}

/// An exit code as an error.
pub(crate) fn failed(command: &str, code: i32) -> Error {
    let hint = match code {
        126 => ": the program can't be executed",
        127 => ": the program is not in the image, or not in PATH",
        137 => ": it was killed, perhaps for want of memory",
        _ => "",
    };
    Error::RunFailed { command: command.to_owned(), code, hint }
}
