//! Faults at an exact moment: strace, as an injector, kills a process as one of its threads enters a system call.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// System calls that change what a node has, or speak with someone who does.
const EFFECTS: &str = "mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,link,linkat,\
    write,pwrite64,ftruncate,chmod,fchmod,fchmodat,chown,fchown,fchownat,setxattr,fsetxattr,mknodat,utimensat,\
    mount,umount2,move_mount,open_tree,fsopen,fsconfig,fsmount,mount_setattr,unshare,setns,clone,clone3,vfork,\
    socket,bind,listen,connect,sendmsg,sendto,recvmsg,memfd_create,kill,syncfs,fsync,fdatasync,bpf";

/// Moments of one system call in a full run.
const OFTEN: u32 = 40;

/// A moment in the life of a process: a thread's `nth` entry into a system call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moment {
    /// The system call's name.
    pub call: String,
    /// Counted from one, for each thread by itself.
    pub nth: u32,
}

/// An strace that is attached to every thread of a process.
#[derive(Debug)]
pub struct Strace {
    child: Child,
}

impl Strace {
    /// Kills the process with SIGKILL at a moment from now on.
    ///
    /// # Panics
    /// When strace can't attach.
    #[must_use]
    pub fn kill_at(pid: u32, moment: &Moment) -> Self {
        let (call, nth) = (&moment.call, moment.nth);
        Self::attach(pid, &[&format!("--inject={call}:signal=SIGKILL:when={nth}"), "-o", "/dev/null"])
    }

    /// Writes the calls with effects to a file.
    ///
    /// # Panics
    /// When strace can't attach.
    #[must_use]
    pub fn record(pid: u32, file: &Path) -> Self {
        Self::attach(pid, &[&format!("--trace={EFFECTS}"), "-o", &file.display().to_string()])
    }

    fn attach(pid: u32, options: &[&str]) -> Self {
        Self::attach_to_all(pid, &[&["--detach-on=execve"], options].concat())
    }

    /// Attaches with options of the caller's, also to what the process becomes by its children.
    ///
    /// # Panics
    /// When strace can't attach.
    #[must_use]
    pub fn attach_to_all(pid: u32, options: &[&str]) -> Self {
        let mut child = Command::new("strace")
            .args(["--follow-forks", "--attach", &pid.to_string()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        assert!(first.contains("attached"), "strace does not attach to {pid}: {first}");
        // Nothing that it says later may block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }
}

impl Strace {
    /// Ends the record: what was traced goes on.
    ///
    /// # Panics
    /// When strace can't be waited for.
    pub fn finish(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("strace is told to end");
        self.child.wait().expect("strace is reaped");
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Told to detach from a process that is just dying, strace waits for ever; killed, the kernel detaches for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The moments of a recorded run, in the order of their first occurrence.
///
/// # Panics
/// When the file can't be read.
#[must_use]
pub fn moments(file: &Path) -> Vec<Moment> {
    let text = std::fs::read_to_string(file).expect("strace's record");
    let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        // `<thread> <call>(…`; the second half of an interrupted line begins with `<...`.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.is_empty() || !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        let moment = Moment { call: call.to_owned(), nth: *count };
        if !found.contains(&moment) {
            found.push(moment);
        }
    }
    found
}

/// So many of the moments as a quick run takes, spread over all of them. Where `SLIPWAY_CRASHES` is `all`, every one, but
/// of a call that a run makes hundreds of times (the files of a layer) only some.
#[must_use]
pub fn some(moments: &[Moment], quick: usize) -> Vec<Moment> {
    if std::env::var("SLIPWAY_CRASHES").is_ok_and(|wanted| wanted == "all") {
        let last = |call: &str| moments.iter().filter(|one| one.call == call).map(|one| one.nth).max();
        let often = |one: &&Moment| {
            let step = last(&one.call).unwrap_or(1).div_ceil(OFTEN);
            one.nth.is_multiple_of(step) || one.nth <= 3
        };
        return moments.iter().filter(often).cloned().collect();
    }
    let quick = quick.min(moments.len());
    (0..quick).map(|index| moments[index * moments.len() / quick].clone()).collect()
}

/// The process that strace's record shows to be held by a SIGSTOP.
#[must_use]
pub fn stopped(record: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(record).ok()?;
    let line = text.lines().find(|line| line.contains("stopped by SIGSTOP"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `kill -9`.
///
/// # Panics
/// When there is no such process.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("the process is killed");
}

/// A process that is held still by SIGSTOP, until it is told to go on or this is dropped.
#[derive(Debug)]
pub struct Held(rustix::process::Pid);

impl Held {
    /// Stops a process.
    ///
    /// # Panics
    /// When it can't be stopped.
    #[must_use]
    pub fn stop(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is stopped");
        Self(pid)
    }

    /// Lets it go on.
    pub fn go_on(self) {
        drop(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A process that has been killed meanwhile needs no SIGCONT.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// How many threads a process has.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn threads(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let count = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a count of threads")
}
