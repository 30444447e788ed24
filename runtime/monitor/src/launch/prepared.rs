//! A plan, read from its memfd, decoded and checked: what a child can rely on.

use crate::sys::file;
use slipway_monitor::plan::{Plan, Step};
use slipway_monitor::wire::Wire;
use std::os::fd::BorrowedFd;

/// The longest plan: arguments and environment are bounded by the kernel to a fraction of it.
const LONGEST: i64 = 16 << 20;
/// Seals without which the daemon could change a plan after it was checked.
const SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
/// Bytes of a `struct sock_filter`.
const INSTRUCTION: usize = 8;

/// Namespaces that a plan may make. A user namespace is made ahead, for its maps are written from outside.
const NEW: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | 0x80; // CLONE_NEWTIME, which libc knows as a signal's bit.

/// A plan that a child can execute.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The plan.
    pub(crate) plan: Plan,
    /// The filters of its seccomp steps, in order.
    pub(crate) filters: Vec<Vec<libc::sock_filter>>,
}

impl Prepared {
    /// Reads the plan of a memfd, for a child with so many descriptors.
    pub(crate) fn read(memfd: BorrowedFd<'_>, descriptors: usize, terminal: bool) -> Result<Self, String> {
        let seals = file::seals(memfd).map_err(|error| format!("the plan is no memfd: {error}"))?;
        if seals & SEALS != SEALS {
            return Err("the plan's memfd is not sealed against writing, shrinking and growing".into());
        }
        let size = file::fstat(memfd).map_err(|error| format!("the plan: {error}"))?.size;
        if !(0..=LONGEST).contains(&size) {
            return Err(format!("the plan has {size} bytes, more than {LONGEST}"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = file::pread(memfd, &mut bytes, 0).map_err(|error| format!("the plan: {error}"))?;
        if read != bytes.len() {
            return Err(format!("the plan has {size} bytes, but only {read} can be read"));
        }
        let plan = Plan::decode(&bytes).map_err(|error| format!("the plan: {error}"))?;
        Self::check(plan, descriptors, terminal)
    }

    fn check(plan: Plan, descriptors: usize, terminal: bool) -> Result<Self, String> {
        if plan.clone_flags & !u64::from(NEW.cast_unsigned()) != 0 {
            return Err(format!("the plan's clone flags {:#x} are not all of namespaces", plan.clone_flags));
        }
        if plan.programs.0.is_empty() || plan.arguments.0.is_empty() {
            return Err("the plan names no program or no arguments".into());
        }
        let missing = |number: &u16| usize::from(*number) >= descriptors;
        let joined = plan.join.0.iter().map(|join| join.descriptor);
        if let Some(number) = joined.chain(plan.steps.0.iter().filter_map(descriptor)).find(missing) {
            return Err(format!("the plan uses descriptor {number}, and {descriptors} came with it"));
        }
        let has_terminal = plan.steps.0.iter().any(|step| matches!(step, Step::Session { terminal: true }));
        if terminal != has_terminal {
            return Err("the request and the plan's session step differ about a terminal".into());
        }
        let mut filters = Vec::new();
        for step in &plan.steps.0 {
            if let Step::Seccomp { program } = step {
                filters.push(filter(program)?);
            }
        }
        Ok(Self { plan, filters })
    }

    /// Whether the child runs in a user namespace that is not the monitor's.
    pub(crate) fn joins_user_namespace(&self) -> bool {
        let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        self.plan.join.0.iter().any(|join| join.kind == user)
    }
}

/// The descriptor that a step uses.
fn descriptor(step: &Step) -> Option<u16> {
    match step {
        Step::Root { descriptor } | Step::Attach { descriptor, .. } => Some(*descriptor),
        Step::Mask { file, .. } => Some(*file),
        _ => None,
    }
}

fn filter(bytes: &[u8]) -> Result<Vec<libc::sock_filter>, String> {
    let (instructions, rest) = bytes.as_chunks::<INSTRUCTION>();
    if instructions.is_empty() || !rest.is_empty() {
        return Err(format!("a seccomp program of {} bytes", bytes.len()));
    }
    let instruction = |[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; INSTRUCTION]| libc::sock_filter {
        code: u16::from_ne_bytes([*c0, *c1]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
    };
    Ok(instructions.iter().map(instruction).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_monitor::wire::List;

    fn plan(steps: Vec<Step>) -> Plan {
        Plan {
            clone_flags: 0,
            join: List::default(),
            steps: List(steps),
            pause_at: 0,
            environment: List::default(),
            arguments: List(vec![c"true".into()]),
            programs: List(vec![c"/bin/true".into()]),
        }
    }

    #[test]
    fn a_descriptor_that_did_not_come_is_refused() {
        let root = || plan(vec![Step::Root { descriptor: 1 }]);
        assert!(Prepared::check(root(), 1, false).is_err());
        assert!(Prepared::check(root(), 2, false).is_ok());
    }

    #[test]
    fn a_torn_filter_is_refused() {
        assert!(Prepared::check(plan(vec![Step::Seccomp { program: vec![0; 9] }]), 0, false).is_err());
    }

    #[test]
    fn a_new_user_namespace_is_refused() {
        let mut plan = plan(Vec::new());
        plan.clone_flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        assert!(Prepared::check(plan, 0, false).is_err());
    }
}
