//! A plan, read from its memfd, decoded and checked: what a child can rely on.

use super::passage;
use crate::sys::{file, process};
use slipway_monitor::plan::{Plan, Step};
use slipway_monitor::wire::Wire;
use std::os::fd::BorrowedFd;

/// The longest plan: arguments and environment are bounded by the kernel to a fraction of it.
const LONGEST: i64 = 16 << 20;
/// Seals without which the daemon could change a plan after it was checked.
const SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
/// The kind of a pid namespace.
const PROCESSES: u64 = libc::CLONE_NEWPID.cast_unsigned() as u64;
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
    /// The word with which the calls before exec go past them, see [`super::passage`]; 0 where they need none.
    pub(crate) pass: u64,
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
        check_order(&plan)?;
        let mut prepared = Self { plan, filters: Vec::new(), pass: 0 };
        let joins = prepared.joins(PROCESSES);
        if joins {
            check_outside(&prepared.plan)?;
            prepared.pass = process::random().map_err(|error| error.to_string())?;
        }
        for step in &prepared.plan.steps.0 {
            if let Step::Seccomp { program } = step {
                let filter = filter(program)?;
                prepared.filters.push(if joins { passage::open(filter, prepared.pass) } else { filter });
            }
        }
        Ok(prepared)
    }

    /// Whether the child runs in a user namespace that is not the monitor's.
    pub(crate) fn joins_user_namespace(&self) -> bool {
        self.joins(u64::from(libc::CLONE_NEWUSER.cast_unsigned()))
    }

    /// Whether the process that executes is in a pid namespace that others may be in already.
    pub(crate) fn joins_processes(&self) -> bool {
        self.joins(PROCESSES)
    }

    fn joins(&self, kind: u64) -> bool {
        self.plan.join.0.iter().any(|join| join.kind == kind)
    }
}

/// After the change of root, or without one, the child has no descriptor but its channel and its streams.
fn check_order(plan: &Plan) -> Result<(), String> {
    let steps = &plan.steps.0;
    let has_root = steps.iter().any(|step| matches!(step, Step::Root { .. }));
    let pivot = steps.iter().position(|step| matches!(step, Step::Pivot {}));
    let first = match (has_root, pivot) {
        (true, Some(pivot)) => pivot + 1,
        (true, None) => return Err("the plan attaches a root and does not change to it".into()),
        (false, _) => 0,
    };
    match steps.iter().skip(first).position(Step::needs_descriptors) {
        Some(at) => Err(format!("step {} of the plan comes too late: after the change of root", first + at)),
        None => Ok(()),
    }
}

/// The steps of a plan that joins a pid namespace are executed outside of it, where a proc would show the wrong processes.
fn check_outside(plan: &Plan) -> Result<(), String> {
    if plan.clone_flags & PROCESSES != 0 {
        return Err("the plan makes a pid namespace and joins another".into());
    }
    let makes_proc = |step: &Step| match step {
        Step::Mount { kind, .. } => kind.as_c_str() == c"proc",
        step => matches!(step, Step::SendProc {}),
    };
    match plan.steps.0.iter().position(makes_proc) {
        Some(at) => {
            Err(format!("step {at} of the plan makes a proc outside of the pid namespace that it joins"))
        }
        None => Ok(()),
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
        let root = || plan(vec![Step::Root { descriptor: 1 }, Step::Pivot {}]);
        assert!(Prepared::check(root(), 1, false).is_err());
        assert!(Prepared::check(root(), 2, false).is_ok());
    }

    #[test]
    fn a_torn_filter_is_refused() {
        assert!(Prepared::check(plan(vec![Step::Seccomp { program: vec![0; 9] }]), 0, false).is_err());
    }

    #[test]
    fn a_step_that_needs_a_descriptor_comes_before_the_change_of_root() {
        let directory = || Step::MakeDirectory { path: c"x".into(), mode: 0o755 };
        let root = || Step::Root { descriptor: 0 };
        for (steps, fits) in [
            (vec![root(), directory(), Step::Pivot {}], true),
            (vec![root(), Step::Pivot {}, directory()], false),
            (vec![root(), directory()], false),
            (vec![directory()], false),
            (vec![Step::Session { terminal: false }], true),
        ] {
            assert_eq!(Prepared::check(plan(steps), 1, false).is_ok(), fits);
        }
    }

    #[test]
    fn a_proc_is_not_made_outside_of_the_pid_namespace_that_is_joined() {
        let kind = u64::from(libc::CLONE_NEWPID.cast_unsigned());
        let proc = || Step::Mount {
            kind: c"proc".into(),
            target: c"proc".into(),
            attributes: 0,
            parameters: List::default(),
        };
        let steps = || vec![Step::Root { descriptor: 0 }, proc(), Step::Pivot {}];
        assert!(Prepared::check(plan(steps()), 1, false).is_ok());
        let mut joining = plan(steps());
        joining.join = List(vec![slipway_monitor::plan::Join { descriptor: 0, kind }]);
        assert!(Prepared::check(joining, 1, false).is_err());
    }

    #[test]
    fn a_new_user_namespace_is_refused() {
        let mut plan = plan(Vec::new());
        plan.clone_flags = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        assert!(Prepared::check(plan, 0, false).is_err());
    }
}
