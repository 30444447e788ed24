//! Further processes in a running container.

use crate::bundle::ContainerSpec;
use crate::launch::{self, Descriptors, bits};
use crate::monitor_client::{Connection, PROMPT};
use crate::monitor_process::{borrowed, sealed};
use crate::plan::{self, ProcessInput};
use crate::pod::{Container, EndRecord};
use crate::process::timespec;
use crate::rootfs::users::{self, Identity};
use crate::runtime::Shared;
use crate::{AttachEnd, ContainerId, Error, Result, TerminalSize, User, namespace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use slipway_monitor::plan::Join;
use slipway_monitor::protocol::{Reply, Request};
use slipway_monitor::wire::Wire;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The most that is kept of each output of a collected process, in bytes.
const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;
/// Reads of an output whose process has ended: a pipe holds no more (1 MiB, `/proc/sys/fs/pipe-max-size`).
const LAST_READS: usize = 17;
/// A process whose program has not begun by then is given up.
const START: Duration = Duration::from_secs(60);
/// A container's namespaces in the order of joining: the user namespace decides what may be joined after it.
const NAMESPACES: [(&str, i32); 7] = [
    ("user", libc::CLONE_NEWUSER),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("net", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("mnt", libc::CLONE_NEWNS),
];

/// A process to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// Arguments, the program's name first.
    pub argv: Vec<String>,
    /// `NAME=value`s added to the container's own.
    pub env: Vec<String>,
    /// The working directory; the container's own when absent.
    pub cwd: Option<String>,
    /// The user, as [`crate::User::name`]; the container's own user when absent.
    pub user: Option<String>,
    /// It gets a terminal.
    pub tty: bool,
    /// The first size of its terminal.
    pub size: Option<TerminalSize>,
    /// It reads standard input ([`crate::Runtime::exec`] only).
    pub stdin: bool,
    /// After so long it is killed.
    pub timeout: Option<Duration>,
}

/// The output and the end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// At most 16 MiB of standard output.
    pub stdout: Vec<u8>,
    /// At most 16 MiB of standard error.
    pub stderr: Vec<u8>,
    /// The exit code, or 128 and the signal.
    pub code: i32,
    /// Whether the timeout ended it.
    pub timed_out: bool,
    /// Bytes of standard output and of standard error beyond those.
    pub dropped: [u64; 2],
}

/// A running process whose streams belong to the caller; dropping it kills the process.
#[derive(Debug)]
pub struct ExecSession {
    /// The process.
    pub pid: i32,
    /// Standard input's writing end, when asked for.
    pub stdin: Option<OwnedFd>,
    /// Standard output's reading end, without a terminal.
    pub stdout: Option<OwnedFd>,
    /// Standard error's reading end, without a terminal.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// By when its monitor has told its end, if it has a deadline.
    latest: Option<Instant>,
    sandbox: String,
    connection: Connection,
}

impl ExecSession {
    /// Waits for the process to end and gives its exit code, or 128 and the signal.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn wait(&mut self) -> Result<i32> {
        self.exit().map(|(code, _)| code)
    }

    /// A handle that ends the session, and so the process, from another thread: its end is no longer waited for.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn ender(&self) -> Result<AttachEnd> {
        Ok(AttachEnd { connection: self.connection.duplicate()? })
    }

    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When there is no terminal.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let terminal =
            self.terminal.as_ref().ok_or_else(|| Error::Invalid("the process has no terminal".into()))?;
        let size = Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(terminal, size)
            .map_err(|errno| Error::Kernel { call: "TIOCSWINSZ".into(), source: errno.into() })
    }

    fn exit(&self) -> Result<(i32, bool)> {
        loop {
            let answer = self.connection.receive(None)?;
            match answer.map(|answer| answer.reply) {
                Some(Reply::Exited { exit, .. }) => return Ok((EndRecord::seen(&exit).code, exit.timed_out)),
                Some(other @ (Reply::Refused { .. } | Reply::StepFailed { .. })) => {
                    return Err(self.connection.unexpected(&other));
                }
                Some(_) => {}
                None => {
                    return Err(Error::Kernel {
                        call: "wait for a process".into(),
                        source: ErrorKind::BrokenPipe.into(),
                    });
                }
            }
        }
    }

    fn overdue(&self) -> Error {
        let why = "a command's deadline has passed, and its end is not told".into();
        Error::Unreachable { sandbox: self.sandbox.clone(), why }
    }

    /// Reads both outputs until the process has ended and nothing is left in them, or nobody wants them any more.
    pub(crate) fn collect(mut self, client: &OwnedFd) -> Result<ExecOutput> {
        let mut outputs = [Output::new(self.stdout.take()), Output::new(self.stderr.take())];
        loop {
            let ended = {
                let mut polled = vec![
                    PollFd::new(&self.connection, PollFlags::IN),
                    PollFd::new(client, PollFlags::empty()),
                ];
                polled.extend(
                    outputs
                        .iter()
                        .filter_map(|output| output.source.as_ref())
                        .map(|source| PollFd::new(source, PollFlags::IN)),
                );
                let left = self.latest.map(|latest| latest.saturating_duration_since(Instant::now()));
                match poll(&mut polled, left.map(timespec).as_ref()) {
                    Ok(0) => return Err(self.overdue()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(Error::Kernel { call: "poll".into(), source: errno.into() }),
                }
                let told =
                    |at: usize| polled.get(at).is_some_and(|one: &PollFd<'_>| !one.revents().is_empty());
                if told(1) {
                    // The end of this session kills the process.
                    return Err(Error::Kernel {
                        call: "wait for a process that nobody waits for".into(),
                        source: ErrorKind::BrokenPipe.into(),
                    });
                }
                told(0)
            };
            if ended {
                break;
            }
            for output in &mut outputs {
                output.read_some();
            }
        }
        let (code, timed_out) = self.exit()?;
        // All output of the process is in the pipes now; a descendant that keeps their other end is not waited for.
        for output in &mut outputs {
            let _ = (0..LAST_READS).find(|_| !output.read_some());
        }
        let dropped = outputs.each_ref().map(|output| output.dropped);
        let [stdout, stderr] = outputs.map(|output| output.bytes);
        Ok(ExecOutput { stdout, stderr, code, timed_out, dropped })
    }
}

/// One output being collected.
struct Output {
    source: Option<OwnedFd>,
    bytes: Vec<u8>,
    dropped: u64,
}

impl Output {
    fn new(source: Option<OwnedFd>) -> Self {
        Self { source, bytes: Vec::new(), dropped: 0 }
    }

    /// Reads what is there; beyond the limit it is read and dropped, so that the process goes on. Returns whether there
    /// may be more at once.
    fn read_some(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        while let Some(source) = &self.source {
            match rustix::io::read(source, &mut chunk) {
                Ok(length) if length > 0 => {
                    let room = LARGEST_OUTPUT.saturating_sub(self.bytes.len());
                    self.bytes.extend(chunk.iter().take(length.min(room)));
                    if length > room {
                        let beyond = u64::try_from(length.saturating_sub(room)).unwrap_or(u64::MAX);
                        self.dropped = self.dropped.saturating_add(beyond);
                        // Poll again before reading on: an endless writer must not hide the end of the process.
                        return true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                _ => self.source = None,
            }
        }
        false
    }
}

impl Shared {
    pub(crate) fn exec(&self, id: &ContainerId, exec: &Exec) -> Result<ExecSession> {
        let (container, pod) = self.adopted(id)?;
        let request = &container.record.request;
        let pid = container.pid("run a process in")?;
        let mut descriptors = Descriptors::default();
        let joins = join_container(pid, &mut descriptors)?;
        let identity = identity(&container, exec, pid)?;
        let whole = ContainerSpec::of(self, &pod, &container, Some(&identity))?;
        let process = whole.process()?;
        let input = ProcessInput {
            process,
            arguments: &exec.argv,
            environment: &exec.env,
            raw_environment: &request.raw_env,
            cwd: exec.cwd.as_deref().map_or_else(|| launch::cwd_of(process), Ok)?,
            terminal: exec.tty,
            size: exec.size,
            seccomp: launch::filter(self, whole.seccomp())?,
        };
        let connection = self.connect(&pod)?;
        let plan = connection.plan(plan::exec(joins, &input)?)?;
        let streams = if exec.tty { Streams::default() } else { Streams::pipes(exec.stdin)? };
        let mut sent = vec![sealed(c"plan", &plan.encode())?];
        sent.extend(descriptors.into_vec());
        sent.extend(streams.theirs);
        let deadline_ms =
            exec.timeout.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
        let order = Request::Exec { container: id.to_string(), terminal: exec.tty, deadline_ms };
        let cgroup = self.cgroup_of(&container);
        let kills = cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok());
        let answer = connection.request(&order, &borrowed(&sent), START)?;
        let [stdin, stdout, stderr] = streams.ours;
        match answer.reply {
            Reply::Started { pid, .. } => Ok(ExecSession {
                pid,
                stdin,
                stdout,
                stderr,
                terminal: answer.descriptors.into_iter().next(),
                latest: exec.timeout.and_then(|limit| Instant::now().checked_add(limit)?.checked_add(PROMPT)),
                sandbox: request.sandbox.to_string(),
                connection,
            }),
            Reply::StepFailed { step, what, errno } => {
                let error = launch::step_failed(id.as_str(), &plan, step, &what, errno);
                Err(match (cgroup, kills) {
                    (Some(cgroup), Some(kills)) => launch::starved_command(error, id, &cgroup, kills),
                    _ => error,
                })
            }
            other => Err(connection.unexpected(&other)),
        }
    }
}

/// The user of a process: the container's own was found when it started, whatever it has made of its files since.
fn identity(container: &Container, exec: &Exec, pid: i32) -> Result<Identity> {
    let known = if exec.user.is_none() { container.identity() } else { None };
    if let Some(identity) = known {
        return Ok(identity);
    }
    let request = &container.record.request;
    let named = |name: &String| User { name: name.clone(), ..User::default() };
    let user = exec.user.as_ref().map_or_else(|| request.user.clone(), named);
    let root = users::Root {
        directory: namespace::open(Path::new(&format!("/proc/{pid}/root")))?,
        container: request.id.to_string(),
        mounts: request.mounted(),
    };
    users::resolve(root, &user)
}

/// Both ends of a process's standard streams.
#[derive(Default)]
struct Streams {
    theirs: Vec<OwnedFd>,
    ours: [Option<OwnedFd>; 3],
}

impl Streams {
    fn pipes(stdin: bool) -> Result<Self> {
        let failed = |errno: Errno| Error::Kernel { call: "pipe2".into(), source: errno.into() };
        let (input, ours) = if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
            (read, Some(write))
        } else {
            (namespace::open(Path::new("/dev/null"))?, None)
        };
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (error_read, error_write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        for reader in [&out_read, &error_read] {
            if !stdin {
                rustix::io::ioctl_fionbio(reader, true).map_err(failed)?;
            }
        }
        Ok(Self {
            theirs: vec![input, out_write, error_write],
            ours: [ours, Some(out_read), Some(error_read)],
        })
    }
}

/// The namespaces of a container's first process that differ from the daemon's.
fn join_container(pid: i32, descriptors: &mut Descriptors) -> Result<Vec<Join>> {
    let mut joins = Vec::new();
    for (name, flag) in NAMESPACES {
        let theirs = namespace::open(Path::new(&format!("/proc/{pid}/ns/{name}")))?;
        let own = namespace::open(Path::new(&format!("/proc/self/ns/{name}")))?;
        if namespace::same(theirs.as_fd(), own.as_fd()) {
            continue;
        }
        joins.push(Join { descriptor: descriptors.add(theirs)?, kind: bits(flag) });
    }
    Ok(joins)
}
