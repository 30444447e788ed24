//! The process of a specification, made whole: environment, limits, capabilities, user.

use crate::capabilities::{Capabilities, CapabilitySet};
use crate::features::{Features, OPEN_FILES};
use crate::plan::{DEFAULT_PATH, limit_number};
use crate::rootfs::users::Identity;
use crate::{Error, Result};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User};

const DEFAULT_OPEN_FILES: u64 = 1024;
const DEFAULT_UMASK: u32 = 0o022;

/// Facts from outside of the specification that complete its process.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    /// Variables whose values are not UTF-8.
    pub(super) raw_env: &'a [(String, Vec<u8>)],
    pub(super) terminal: bool,
    /// The pod's; empty sets no variable.
    pub(super) hostname: &'a str,
    pub(super) features: Features,
    /// The user; none before the first start.
    pub(super) identity: Option<&'a Identity>,
}

/// Completes a process; gives its capabilities, which are within those available.
pub(super) fn complete(
    process: &mut Process,
    origin: &Origin<'_>,
    available: CapabilitySet,
) -> Result<Capabilities> {
    let capabilities = match process.capabilities() {
        Some(asked) => Capabilities::from_spec(asked, available)?,
        None => Capabilities::default_for(available),
    };
    let defaults = Defaults {
        home: origin.identity.map(|identity| identity.home.as_deref().unwrap_or("/")),
        hostname: origin.hostname,
        terminal: origin.terminal,
    };
    let environment = environment(process.env().as_deref().unwrap_or_default(), origin.raw_env, &defaults);
    let limits = limits(process.rlimits().as_deref().unwrap_or_default(), origin.features)?;
    let mut user = User::default();
    user.set_umask(Some(process.user().umask().unwrap_or(DEFAULT_UMASK)));
    if let Some(identity) = origin.identity {
        user.set_uid(identity.uid).set_gid(identity.gid).set_additional_gids(Some(identity.groups.clone()));
    }
    let adjustment = process.oom_score_adj().unwrap_or(0);
    let deny = process.no_new_privileges().unwrap_or(false);
    let cwd = working_directory(process)?;
    process
        .set_cwd(cwd.into())
        .set_terminal(Some(origin.terminal))
        .set_env(Some(environment))
        .set_rlimits(Some(limits))
        .set_capabilities(Some(capabilities.to_spec()))
        // Without a value of its own it would inherit the daemon's, which is often low to save it from the OOM killer.
        .set_oom_score_adj(Some(adjustment))
        .set_no_new_privileges(Some(deny))
        .set_user(user);
    Ok(capabilities)
}

fn working_directory(process: &Process) -> Result<String> {
    let cwd = process.cwd().to_str().ok_or_else(|| Error::Invalid("working directory is not text".into()))?;
    match cwd {
        "" => Ok("/".into()),
        cwd if cwd.starts_with('/') => Ok(cwd.into()),
        cwd => Err(Error::Invalid(format!("working directory {cwd:?} must be absolute"))),
    }
}

/// Values of variables that a request leaves out.
struct Defaults<'a> {
    /// The user's directory; none before the user is known.
    home: Option<&'a str>,
    /// Of the pod; empty sets none.
    hostname: &'a str,
    terminal: bool,
}

/// The environment: the last value of each name, with PATH, HOME, HOSTNAME and TERM where neither the text nor the other
/// variables have them.
fn environment(own: &[String], raw: &[(String, Vec<u8>)], defaults: &Defaults<'_>) -> Vec<String> {
    let mut environment: Vec<String> = Vec::with_capacity(own.len() + 4);
    let pairs = own.iter().filter(|entry| entry.split_once('=').is_some_and(|(name, _)| !name.is_empty()));
    for entry in pairs {
        match environment.iter_mut().find(|known| name_of(known) == name_of(entry)) {
            Some(known) => known.clone_from(entry),
            None => environment.push(entry.clone()),
        }
    }
    let values = [
        ("PATH", Some(DEFAULT_PATH)),
        ("HOME", defaults.home.map(|home| if home.is_empty() { "/" } else { home })),
        ("HOSTNAME", Some(defaults.hostname).filter(|name| !name.is_empty())),
        ("TERM", defaults.terminal.then_some("xterm")),
    ];
    for (name, value) in values {
        let known = environment.iter().any(|entry| name_of(entry) == name)
            || raw.iter().any(|(raw_name, _)| raw_name == name);
        if let Some(value) = value.filter(|_| !known) {
            environment.push(format!("{name}={value}"));
        }
    }
    environment
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// The limits: what is asked for, as far as the daemon may give it, and one of open files.
fn limits(asked: &[PosixRlimit], features: Features) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::with_capacity(asked.len() + 1);
    for limit in asked {
        let (soft, hard) = (limit.soft(), limit.hard());
        if soft > hard {
            return Err(Error::Invalid(format!(
                "limit {}: the soft limit {soft} is above the hard {hard}",
                limit.typ()
            )));
        }
        let hard = if features.sys_resource { hard } else { hard.min(own_hard(limit_number(limit.typ()))) };
        limits.push(made(limit.typ(), soft, hard)?);
    }
    if asked.iter().all(|limit| limit.typ() != PosixRlimitType::RlimitNofile) {
        let hard = features.open_files.min(OPEN_FILES);
        limits.push(made(PosixRlimitType::RlimitNofile, DEFAULT_OPEN_FILES, hard)?);
    }
    Ok(limits)
}

fn made(kind: PosixRlimitType, soft: u64, hard: u64) -> Result<PosixRlimit> {
    let limit = PosixRlimitBuilder::default().typ(kind).soft(soft.min(hard)).hard(hard).build();
    limit.map_err(|error| Error::Invalid(format!("limit {kind}: {error}")))
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

    fn features() -> Features {
        Features { sys_resource: true, open_files: 2048, ..Features::default() }
    }

    fn owned(entries: &[&str]) -> Vec<String> {
        entries.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_of_a_name_counts_and_a_bare_name_imports_nothing() {
        let own = owned(&["FOO", "A=1", "A=2", "PATH=/x:/y/"]);
        let defaults = Defaults { home: Some(""), hostname: "pod", terminal: false };
        assert_eq!(environment(&own, &[], &defaults), ["A=2", "PATH=/x:/y/", "HOME=/", "HOSTNAME=pod"]);
    }

    #[test]
    fn a_default_gives_way_to_a_value_that_is_no_text() {
        let raw = [("TERM".to_owned(), vec![0xff])];
        let defaults = Defaults { home: None, hostname: "", terminal: true };
        assert_eq!(environment(&[], &raw, &defaults), [format!("PATH={DEFAULT_PATH}")]);
    }

    #[test]
    fn open_files_are_limited_unless_the_request_says_how() {
        let of = |asked: &[PosixRlimit]| {
            let limits = limits(asked, features()).unwrap();
            limits.iter().map(|limit| (limit.typ(), limit.soft(), limit.hard())).collect::<Vec<_>>()
        };
        let files = PosixRlimitType::RlimitNofile;
        assert_eq!(of(&[]), [(files, 1024, 2048)]);
        assert_eq!(of(&[made(files, 5, 7).unwrap()]), [(files, 5, 7)]);
        let above = PosixRlimitBuilder::default().typ(files).soft(8u64).hard(7u64).build().unwrap();
        assert!(limits(&[above], features()).unwrap_err().to_string().contains("soft limit 8"));
    }
}
