//! The plans of the tests' containers and sessions.

use crate::places::open;
use crate::pod::{Options, shell};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use slipway_monitor::plan::{Join, Plan, Step};
use slipway_monitor::wire::{List, Wire};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) fn exec_plan(init: i32, script: &str, kinds: &[(&str, u64)], terminal: bool) -> Vec<OwnedFd> {
    let mut plan = plan(&shell(script), vec![Step::Session { terminal }]);
    let mut descriptors = Vec::new();
    for (number, (name, kind)) in kinds.iter().enumerate() {
        descriptors.push(open(Path::new(&format!("/proc/{init}/ns/{name}")), OFlags::RDONLY));
        plan.join.0.push(Join { descriptor: u16::try_from(number).unwrap(), kind: *kind });
    }
    descriptors.insert(0, sealed(&plan));
    descriptors
}

pub(crate) fn plan(options: &Options, steps: Vec<Step>) -> Plan {
    let text = |text: &str| CString::new(text).unwrap();
    Plan {
        clone_flags: 0,
        join: List::default(),
        steps: List(steps),
        pause_at: options.pause_at,
        environment: List(vec![text("PATH=/bin")]),
        arguments: List(vec![text("sh"), text("-c"), text(&options.script)]),
        programs: List(vec![text(&options.program)]),
    }
}

pub(crate) fn container_steps(options: &Options, devices: bool) -> Vec<Step> {
    let directory = |path: &str| Step::MakeDirectory { path: CString::new(path).unwrap(), mode: 0o755 };
    let mount = |kind: &str| Step::Mount {
        kind: CString::new(kind).unwrap(),
        target: CString::new(if kind == "tmpfs" { "dev" } else { &kind[..3] }).unwrap(),
        attributes: 0,
        parameters: List::default(),
    };
    let device = |path: &str, minor| Step::MakeDevice {
        path: CString::new(path).unwrap(),
        mode: 0o20666,
        device: rustix::fs::makedev(1, minor),
        uid: 0,
        gid: 0,
    };
    let link = |path: &str, target: &str| Step::MakeLink {
        path: CString::new(path).unwrap(),
        target: CString::new(target).unwrap(),
    };
    let mut steps = vec![Step::Root { descriptor: 0 }, directory("pro"), directory("sys"), directory("dev")];
    steps.extend([link("proc", "pro"), mount("proc"), mount("tmpfs"), link("dev/stdout", "/proc/self/fd/1")]);
    if devices {
        steps.extend([device("dev/null", 3), device("dev/zero", 5)]);
    } else {
        steps.push(mount("sysfs"));
    }
    let in_root = |step: &Step| {
        matches!(
            step,
            Step::MakeDirectory { .. }
                | Step::MakeDevice { .. }
                | Step::Mount { .. }
                | Step::Mask { .. }
                | Step::ReadOnly { .. }
        )
    };
    let (early, late): (Vec<_>, Vec<_>) = options.steps.iter().cloned().partition(in_root);
    steps.extend(early);
    if options.processes.is_some() {
        // It is executed where another proc would be made.
        steps.retain(|step| !matches!(step, Step::Mount { kind, .. } if kind.as_c_str() == c"proc"));
    }
    steps.extend([Step::SyncPoint { point: 1 }, Step::SyncPoint { point: 2 }, Step::Pivot {}]);
    steps.extend([Step::Session { terminal: options.terminal }, Step::Umask { mask: 0o022 }]);
    steps.extend([Step::WorkingDirectory { path: c"/".into() }, Step::SyncPoint { point: 4 }]);
    steps.extend(late);
    steps
}

pub(crate) fn sealed(plan: &Plan) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = rustix::fs::memfd_create("plan", flags).unwrap();
    rustix::io::write(&memfd, &plan.encode()).unwrap();
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
    memfd
}
