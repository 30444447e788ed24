//! The steps between the change of root and exec, shared by a container's first process and every exec.

use super::text;
use crate::capabilities::Capabilities;
use crate::features::{Features, OPEN_FILES};
use crate::rootfs::users::Identity;
use crate::{Error, Result, TerminalSize};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};
use slipway_monitor::plan::{Step, sync_point};
use slipway_monitor::wire::List;
use std::ffi::CString;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_OPEN_FILES: u64 = 1024;

/// A seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// An array of `struct sock_filter`.
    pub(crate) program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
}

impl Filter {
    /// The steps that install it. One without flags has no step for them: a monitor of version 1 does not know it.
    fn steps(&self) -> impl Iterator<Item = Step> {
        let flags = (self.flags != 0).then_some(Step::SeccompFlags { flags: self.flags });
        flags.into_iter().chain([Step::Seccomp { program: self.program.clone() }])
    }
}

/// What a process is made of.
#[derive(Debug)]
pub(crate) struct ProcessInput<'a> {
    /// The container's process: limits, privileges, environment.
    pub(crate) process: &'a Process,
    pub(crate) arguments: &'a [String],
    /// Added to the container's environment.
    pub(crate) environment: &'a [String],
    /// Set over the container's environment.
    pub(crate) raw_environment: &'a [(String, Vec<u8>)],
    pub(crate) cwd: &'a str,
    pub(crate) terminal: bool,
    /// What its terminal begins with.
    pub(crate) size: Option<TerminalSize>,
    pub(crate) hostname: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) capabilities: Capabilities,
    pub(crate) seccomp: Option<Filter>,
    pub(crate) features: Features,
}

impl ProcessInput<'_> {
    pub(super) fn steps(&self, steps: &mut Vec<Step>) -> Result<()> {
        let deny = self.process.no_new_privileges().unwrap_or(false);
        self.limits(steps)?;
        // Without a value of its own it would keep the daemon's, which may well be the node's last to be killed.
        steps.push(Step::OomScore { value: self.process.oom_score_adj().unwrap_or(0) });
        let (uid, gid) = (self.identity.uid, self.identity.gid);
        steps.push(Step::Session { terminal: self.terminal });
        if let Some(TerminalSize { width, height }) = self.size.filter(|_| self.terminal) {
            steps.push(Step::TerminalSize { width, height });
        }
        steps.push(Step::OwnStreams { uid, gid });
        steps.push(Step::Umask { mask: self.process.user().umask().unwrap_or(0o022) });
        steps.push(Step::SyncPoint { point: sync_point::EXEC });
        steps.push(Step::Bounding { set: self.capabilities.bounding.bits() });
        if let (false, Some(filter)) = (deny, &self.seccomp) {
            // Without no_new_privs only a process with CAP_SYS_ADMIN may install a filter.
            steps.extend(filter.steps());
        }
        steps.push(Step::Identity { uid, gid, groups: List(self.identity.groups.clone()) });
        let bits = &self.capabilities;
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

    fn limits(&self, steps: &mut Vec<Step>) -> Result<()> {
        let asked = self.process.rlimits().as_deref().unwrap_or_default();
        for limit in asked {
            let (resource, soft, hard) = (number(limit)?, limit.soft(), limit.hard());
            if soft > hard {
                return Err(Error::Invalid(format!(
                    "limit {}: the soft limit {soft} is above the hard {hard}",
                    limit.typ()
                )));
            }
            let hard = if self.features.sys_resource { hard } else { hard.min(own_hard(resource)) };
            steps.push(Step::Limit { resource, soft: soft.min(hard), hard });
        }
        if asked.iter().all(|limit| limit.typ() != PosixRlimitType::RlimitNofile) {
            let hard = self.features.open_files.min(OPEN_FILES);
            steps.push(Step::Limit {
                resource: libc::RLIMIT_NOFILE,
                soft: DEFAULT_OPEN_FILES.min(hard),
                hard,
            });
        }
        Ok(())
    }

    /// The environment: what was asked, the last of each name, with PATH, HOME, HOSTNAME and TERM where absent.
    pub(super) fn environment(&self) -> Vec<Vec<u8>> {
        let own = self.process.env().as_deref().unwrap_or_default();
        let mut environment: Vec<Vec<u8>> = Vec::with_capacity(own.len() + 4);
        let mut set = |name: &[u8], value: &[u8], replaces: bool| {
            let entry = [name, b"=", value].concat();
            match environment.iter_mut().find(|known| name_of(known) == name) {
                Some(known) if replaces => *known = entry,
                Some(_) => {}
                None => environment.push(entry),
            }
        };
        let pairs = |entries| {
            let entries: &[String] = entries;
            entries.iter().filter_map(|entry| entry.split_once('=').filter(|(name, _)| !name.is_empty()))
        };
        pairs(own).for_each(|(name, value)| set(name.as_bytes(), value.as_bytes(), true));
        self.raw_environment.iter().for_each(|(name, value)| set(name.as_bytes(), value, true));
        pairs(self.environment).for_each(|(name, value)| set(name.as_bytes(), value.as_bytes(), true));
        let home = self.identity.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/");
        let mut defaults = vec![("PATH", DEFAULT_PATH), ("HOME", home)];
        if !self.hostname.is_empty() {
            defaults.push(("HOSTNAME", self.hostname));
        }
        if self.terminal {
            defaults.push(("TERM", "xterm"));
        }
        defaults.iter().for_each(|(name, value)| set(name.as_bytes(), value.as_bytes(), false));
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

fn number(limit: &PosixRlimit) -> Result<u32> {
    Ok(match limit.typ() {
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
    })
}

/// This process's own hard limit, which a child can't pass without `CAP_SYS_RESOURCE`.
fn own_hard(resource: u32) -> u64 {
    let name = match resource {
        libc::RLIMIT_AS => "Max address space",
        libc::RLIMIT_CORE => "Max core file size",
        libc::RLIMIT_CPU => "Max cpu time",
        libc::RLIMIT_DATA => "Max data size",
        libc::RLIMIT_FSIZE => "Max file size",
        libc::RLIMIT_LOCKS => "Max file locks",
        libc::RLIMIT_MEMLOCK => "Max locked memory",
        libc::RLIMIT_MSGQUEUE => "Max msgqueue size",
        libc::RLIMIT_NICE => "Max nice priority",
        libc::RLIMIT_NOFILE => "Max open files",
        libc::RLIMIT_NPROC => "Max processes",
        libc::RLIMIT_RSS => "Max resident set",
        libc::RLIMIT_RTPRIO => "Max realtime priority",
        libc::RLIMIT_RTTIME => "Max realtime timeout",
        libc::RLIMIT_SIGPENDING => "Max pending signals",
        _ => "Max stack size",
    };
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|hard| hard.parse().ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input<'a>(process: &'a Process, identity: &'a Identity, arguments: &'a [String]) -> ProcessInput<'a> {
        ProcessInput {
            process,
            arguments,
            environment: &[],
            raw_environment: &[],
            cwd: "/",
            terminal: false,
            size: None,
            hostname: "pod",
            identity,
            capabilities: Capabilities::default(),
            seccomp: Some(Filter { program: vec![0; 8], flags: 2 }),
            features: Features { sys_resource: true, open_files: 2048, ..Features::default() },
        }
    }

    fn process(deny: bool) -> Process {
        let mut process = Process::default();
        process.set_env(Some(vec!["FOO".into(), "A=1".into(), "A=2".into(), "PATH=/x:/y/".into()]));
        process.set_rlimits(None).set_no_new_privileges(Some(deny));
        process
    }

    fn place(steps: &[Step], wanted: fn(&Step) -> bool) -> usize {
        steps.iter().position(wanted).unwrap()
    }

    #[test]
    fn seccomp_is_last_when_new_privileges_are_denied_and_before_ids_otherwise() {
        let identity = Identity::default();
        for deny in [true, false] {
            let process = process(deny);
            let mut steps = Vec::new();
            input(&process, &identity, &[]).steps(&mut steps).unwrap();
            let seccomp = place(&steps, |step| matches!(step, Step::Seccomp { .. }));
            let ids = place(&steps, |step| matches!(step, Step::Identity { .. }));
            assert_eq!(steps.get(seccomp - 1), Some(&Step::SeccompFlags { flags: 2 }));
            assert_eq!(seccomp + 1 == steps.len(), deny);
            assert_eq!(seccomp < ids, !deny);
        }
    }

    #[test]
    fn the_last_of_a_name_counts_and_a_bare_name_imports_nothing() {
        let (process, identity) = (process(false), Identity::default());
        let environment = input(&process, &identity, &[]).environment();
        assert_eq!(environment, [&b"A=2"[..], b"PATH=/x:/y/", b"HOME=/", b"HOSTNAME=pod"]);
    }

    #[test]
    fn a_value_need_not_be_text() {
        let (process, identity) = (process(false), Identity::default());
        let raw = [("A".to_owned(), vec![0xff]), ("B".to_owned(), vec![b'=', 0xfe])];
        let input = ProcessInput { raw_environment: &raw, ..input(&process, &identity, &[]) };
        assert_eq!(input.environment()[..2], [b"A=\xff".to_vec(), b"PATH=/x:/y/".to_vec()]);
        assert!(input.environment().contains(&b"B==\xfe".to_vec()));
    }

    #[test]
    fn a_bare_program_is_looked_for_in_path() {
        let (process, identity) = (process(false), Identity::default());
        let arguments = ["sh".to_owned()];
        let input = input(&process, &identity, &arguments);
        let programs = input.programs(&input.environment()).unwrap();
        assert_eq!(programs, [c"/x/sh".into(), c"/y/sh".into()] as [CString; 2]);
    }
}
