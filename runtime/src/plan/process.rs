//! The steps between the change of root and exec, shared by a container's first process and every exec.

use super::text;
use crate::capabilities::Capabilities;
use crate::{Error, Result, TerminalSize};
use oci_spec::runtime::{PosixRlimitType, Process};
use slipway_monitor::plan::{Step, sync_point};
use slipway_monitor::wire::List;
use std::ffi::CString;

/// Where a program is looked for when nothing says it.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// An array of `struct sock_filter`.
    pub(crate) program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
}

impl Filter {
    /// The steps that install it. A filter without flags has no step for them, which a monitor of version 1 does not
    /// know.
    fn steps(&self) -> impl Iterator<Item = Step> {
        let flags = (self.flags != 0).then_some(Step::SeccompFlags { flags: self.flags });
        flags.into_iter().chain([Step::Seccomp { program: self.program.clone() }])
    }
}

/// A process of a container: its first, or a further one.
#[derive(Debug)]
pub(crate) struct ProcessInput<'a> {
    /// The specification's process, whole: user, limits, privileges, environment.
    pub(crate) process: &'a Process,
    pub(crate) arguments: &'a [String],
    /// Added to the container's environment.
    pub(crate) environment: &'a [String],
    /// Set over the container's environment.
    pub(crate) raw_environment: &'a [(String, Vec<u8>)],
    pub(crate) cwd: &'a str,
    pub(crate) terminal: bool,
    /// The initial size of its terminal.
    pub(crate) size: Option<TerminalSize>,
    pub(crate) seccomp: Option<Filter>,
}

impl ProcessInput<'_> {
    pub(super) fn steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let deny = self.process.no_new_privileges().unwrap_or(false);
        for limit in self.process.rlimits().iter().flatten() {
            let resource = limit_number(limit.typ());
            steps.push(Step::Limit { resource, soft: limit.soft(), hard: limit.hard() });
        }
        steps.push(Step::OomScore { value: self.process.oom_score_adj().unwrap_or(0) });
        let user = self.process.user();
        let (uid, gid) = (user.uid(), user.gid());
        steps.push(Step::Session { terminal: self.terminal });
        if let Some(TerminalSize { width, height }) = self.size.filter(|_| self.terminal) {
            steps.push(Step::TerminalSize { width, height });
        }
        steps.push(Step::OwnStreams { uid, gid });
        steps.push(Step::Umask { mask: user.umask().unwrap_or(0o022) });
        steps.push(Step::SyncPoint { point: sync_point::EXEC });
        let bits = self.process.capabilities().as_ref().map(Capabilities::of_spec).transpose()?;
        let bits = bits.unwrap_or_default();
        steps.push(Step::Bounding { set: bits.bounding.bits() });
        if let (false, Some(filter)) = (deny, &self.seccomp) {
            // Without no_new_privs only a process with CAP_SYS_ADMIN may install a filter.
            steps.extend(filter.steps());
        }
        let groups = user.additional_gids().clone().unwrap_or_default();
        steps.push(Step::Identity { uid, gid, groups: List(groups) });
        steps.push(Step::Capabilities {
            effective: bits.effective.bits(),
            permitted: bits.permitted.bits(),
            inheritable: bits.inheritable.bits(),
            ambient: bits.ambient.bits(),
        });
        steps.push(Step::WorkingDirectory { path: text(self.cwd)? });
        if deny {
            steps.push(Step::NoNewPrivileges {});
            steps.extend(self.seccomp.iter().flat_map(Filter::steps));
        }
        Ok(())
    }

    /// Returns the environment, each source over the one before: the specification's variables, the request's that are
    /// not UTF-8, the process's own. A terminal without `TERM` gets `TERM=xterm`.
    pub(super) fn environment(&self) -> Vec<Vec<u8>> {
        let whole = self.process.env().as_deref().unwrap_or_default();
        let mut environment: Vec<Vec<u8>> = whole.iter().map(|entry| entry.clone().into_bytes()).collect();
        let mut set = |name: &[u8], value: &[u8]| {
            let entry = [name, b"=", value].concat();
            match environment.iter_mut().find(|known| name_of(known) == name) {
                Some(known) => *known = entry,
                None => environment.push(entry),
            }
        };
        self.raw_environment.iter().for_each(|(name, value)| set(name.as_bytes(), value));
        let own = self.environment.iter().filter_map(|entry| entry.split_once('='));
        own.filter(|(name, _)| !name.is_empty())
            .for_each(|(name, value)| set(name.as_bytes(), value.as_bytes()));
        if self.terminal && !environment.iter().any(|entry| name_of(entry) == b"TERM") {
            environment.push(b"TERM=xterm".to_vec());
        }
        environment
    }

    /// Where the program may be.
    pub(super) fn programs(&self, environment: &[Vec<u8>]) -> Result<Vec<CString>> {
        let program = self.arguments.first().filter(|program| !program.is_empty());
        let program = program
            .ok_or_else(|| Error::Invalid("no command: give one, or use an image that has one".into()))?;
        if program.contains('/') {
            return Ok(vec![text(program)?]);
        }
        let path = environment.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
        path.unwrap_or(DEFAULT_PATH.as_bytes())
            .split(|byte| *byte == b':')
            .map(|directory| if directory.is_empty() { b"." } else { directory })
            .map(|directory| {
                let path = [without_slash(directory), b"/", program.as_bytes()].concat();
                CString::new(path).map_err(|_| Error::Invalid(format!("{program:?} has a NUL byte")))
            })
            .collect()
    }
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn without_slash(mut directory: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = directory {
        directory = rest;
    }
    directory
}

/// The kernel's number of a limit, `setrlimit(2)`.
pub(crate) fn limit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(process: &'a Process, arguments: &'a [String]) -> ProcessInput<'a> {
        ProcessInput {
            process,
            arguments,
            environment: &[],
            raw_environment: &[],
            cwd: "/",
            terminal: false,
            size: None,
            seccomp: Some(Filter { program: vec![0; 8], flags: 2 }),
        }
    }

    fn process(deny: bool) -> Process {
        let mut process = Process::default();
        process.set_env(Some(vec!["A=2".into(), "PATH=/x:/y/".into()]));
        process.set_rlimits(None).set_no_new_privileges(Some(deny));
        process
    }

    fn place(steps: &[Step], wanted: fn(&Step) -> bool) -> usize {
        steps.iter().position(wanted).unwrap()
    }

    #[test]
    fn seccomp_is_last_when_new_privileges_are_denied_and_before_ids_otherwise() {
        for deny in [true, false] {
            let process = process(deny);
            let mut steps = Vec::new();
            input(&process, &[]).steps(&mut steps).unwrap();
            let seccomp = place(&steps, |step| matches!(step, Step::Seccomp { .. }));
            let ids = place(&steps, |step| matches!(step, Step::Identity { .. }));
            assert_eq!(steps.get(seccomp - 1), Some(&Step::SeccompFlags { flags: 2 }));
            assert_eq!(seccomp + 1 == steps.len(), deny);
            assert_eq!(seccomp < ids, !deny);
        }
    }

    #[test]
    fn a_value_need_not_be_text_and_the_process_has_the_last_word() {
        let process = process(false);
        let raw = [("A".to_owned(), vec![0xff]), ("B".to_owned(), vec![b'=', 0xfe])];
        let own = ["B=3".to_owned(), "bare".to_owned()];
        let raw_alone = ProcessInput { raw_environment: &raw, ..input(&process, &[]) };
        assert_eq!(raw_alone.environment()[..2], [b"A=\xff".to_vec(), b"PATH=/x:/y/".to_vec()]);
        assert!(raw_alone.environment().contains(&b"B==\xfe".to_vec()));
        let both = ProcessInput { environment: &own, terminal: true, ..raw_alone };
        assert_eq!(both.environment()[2..], [b"B=3".to_vec(), b"TERM=xterm".to_vec()]);
    }

    #[test]
    fn a_bare_program_is_looked_for_in_path() {
        let process = process(false);
        let arguments = ["sh".to_owned()];
        let input = input(&process, &arguments);
        let programs = input.programs(&input.environment()).unwrap();
        assert_eq!(programs, [c"/x/sh".into(), c"/y/sh".into()] as [CString; 2]);
    }
}
