//! One bundle, two runtimes: the specification that a container was started by is given, as it is, to runc, and all that
//! the process sees is compared.
//!
//! There was no whole specification before: user, seccomp filter, volumes, the pod's files, devices and namespaces were
//! added on the way to the kernel, so that no other runtime, hook or tool could have been told what a container is.

use serde_json::{Value, json};
use slipway_tests::{Node, Pod, probe, skip};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says what the process sees, in sections.
const FACTS: &str = r"
section() { echo; echo ==$1; }
section status; grep -E '^(Uid|Gid|Groups|Umask|Cap[A-Z][a-z]+|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status
section limits; cat /proc/self/limits
section environment; env | sort
section directory; pwd
section adjustment; cat /proc/self/oom_score_adj
section namespaces; for n in net ipc uts user pid_for_children; do readlink /proc/self/ns/$n; done
section devices; cd /dev; for d in *; do stat -c '%n %F %t:%T %a %u:%g' $d; done
section links; for l in fd stdin stdout stderr ptmx; do echo $l $(readlink /dev/$l); done
section calls; for c in alg vsock inet userns keyctl; do echo $c $(probe $c); done
section hidden; for p in kcore keys timer_list interrupts; do [ ! -e /proc/$p ] || echo $p $(cat /proc/$p | head -c 1 | wc -c); done
for p in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ ! -e $p ] || echo $p $(ls -A $p | wc -l); done
section fixed; for p in sys/kernel/hostname sysrq-trigger sys/vm/swappiness irq/default_smp_affinity; do
  [ ! -e /proc/$p ] || echo $p $(probe write /proc/$p); done
section host; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf
section files; ls -lnA /data 2>/dev/null | awk '{ print $1, $3, $4, $9 }'; echo root $(probe write /etc/passwd) data $(probe write /data/image)
section mounts; cat /proc/self/mountinfo
";

/// A difference that is meant: where, which lines, and why.
struct Meant {
    section: &'static str,
    part: &'static str,
    /// Why Slipway does it otherwise.
    _reason: &'static str,
}

const EMPTY_DIRECTORY: &str = "a masked directory is a file system that holds nothing and executes nothing";
const NULL: &str =
    "a mask is read-only: through /dev/null's own inode its mode, owner and times could be changed";
const VERSION_1: &str =
    "of version 1 only the hierarchies by which containers are limited are shown, in a bounded tmpfs";

const CORE: &str = "a link to /proc/kcore, which is masked, leads to nothing that a program needs";

const MEANT: &[Meant] = &[
    Meant { section: "devices", part: "core symbolic link ", _reason: CORE },
    Meant {
        section: "mounts",
        part: " tmpfs / ro,nosuid,nodev,noexec,relatime rw ",
        _reason: EMPTY_DIRECTORY,
    },
    Meant {
        section: "mounts",
        part: " tmpfs / ro,relatime ro,size=4k,nr_inodes=1 ",
        _reason: EMPTY_DIRECTORY,
    },
    Meant { section: "mounts", part: " devtmpfs /null ro,relatime ", _reason: NULL },
    Meant { section: "mounts", part: " tmpfs /null rw,nosuid ", _reason: NULL },
    Meant { section: "mounts", part: "/sys/fs/cgroup tmpfs / ", _reason: VERSION_1 },
    Meant { section: "mounts", part: "/sys/fs/cgroup/blkio cgroup ", _reason: VERSION_1 },
    Meant { section: "mounts", part: "/sys/fs/cgroup/systemd cgroup ", _reason: VERSION_1 },
];

type Facts = BTreeMap<String, BTreeSet<String>>;

fn facts(text: &str) -> Facts {
    let mut found = Facts::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("==") {
            name.clone_into(&mut section);
        } else if !line.is_empty() {
            let line = if section == "mounts" { mount(line) } else { Some(line.to_owned()) };
            found.entry(section.clone()).or_default().extend(line);
        }
    }
    found
}

/// A line of `proc_pid_mountinfo(5)` without numbers that no two mounts share. Overlays differ by their directories.
fn mount(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<_> = before.split(' ').collect();
    let after: Vec<_> = after.split(' ').collect();
    let (root, point, options) = (before.get(3)?, before.get(4)?, before.get(5)?);
    let (kind, parameters) = (after.first()?, after.get(2)?);
    let own = matches!(*kind, "tmpfs" | "devpts");
    let parameters = if own { *parameters } else { "" };
    let peers = before.get(6..).unwrap_or_default().join(" ");
    Some(format!("{point} {kind} {root} {options} {parameters} {peers}"))
}

/// runc, as `tests/peers/build runc` has built it.
fn runc() -> Option<PathBuf> {
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/build")).arg("runc").output();
    let built = built.ok().filter(|output| output.status.success())?;
    let program = PathBuf::from(String::from_utf8_lossy(&built.stdout).trim()).join("runc");
    program.exists().then_some(program)
}

/// A directory with a bundle, whose root is mounted until it is dropped.
struct Bundle(PathBuf);

impl Bundle {
    fn of(node: &Node, name: &str, info: &Value) -> Self {
        let directory = node.path(format!("bundle-{name}"));
        for part in ["rootfs", "upper", "work"] {
            fs::create_dir_all(directory.join(part)).expect("a directory of the bundle");
        }
        fs::write(directory.join("config.json"), info["runtimeSpec"].to_string()).expect("it is written");
        let lowers: Vec<_> =
            info["rootfs"]["lowers"].as_array().expect("layers").iter().filter_map(Value::as_str).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            directory.join("upper").display(),
            directory.join("work").display()
        );
        let mounted = Command::new("mount")
            .args(["-t", "overlay", "-o", &options, "overlay"])
            .arg(directory.join("rootfs"))
            .status();
        assert!(mounted.expect("mount runs").success(), "{options}");
        Self(directory)
    }

    fn run(&self, program: &Path) -> String {
        let state = self.0.join("state");
        let id = self.0.file_name().expect("a name");
        let mut command = Command::new(program);
        command.arg("--root").arg(&state).arg("run").arg("--bundle").arg(&self.0).arg(id);
        let output = command.output().expect("the runtime runs");
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {said}\n{errors}", program.display());
        said.into_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.join("rootfs")).status();
    }
}

/// Runs a container to its end, then its bundle by runc, and gives the differences that are not meant.
fn compare(node: &Node, pod: &Pod<'_>, name: &str, more: Value) -> Vec<String> {
    let id = pod.run(name, FACTS, more);
    let status = node.exited(&id);
    let ours = node.crictl(&["logs", &id]).stdout;
    assert_eq!(status["exitCode"], 0, "{status:#}\n{ours}");
    let info = node.crictl(&["inspect", &id]).json()["info"].clone();
    assert_eq!(info["runtimeSpec"]["root"]["path"], "rootfs", "the container has ended: {info:#}");
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().expect("namespaces");
    let new_processes = namespaces.iter().any(|one| one["type"] == "pid" && one["path"].is_null());
    let facts = |text: &str| {
        let mut found = facts(text);
        if let Some(lines) = found.get_mut("namespaces").filter(|_| new_processes) {
            lines.retain(|line| !line.starts_with("pid:"));
        }
        found
    };
    let ours = facts(&ours);
    for section in ["status", "limits", "environment", "namespaces", "devices", "calls", "mounts"] {
        assert!(ours.get(section).is_some_and(|lines| !lines.is_empty()), "{section}: {ours:#?}");
    }
    let Some(program) = runc() else {
        skip("a_bundle_is_the_same_container_to_runc", "runc");
        return Vec::new();
    };
    let bundle = Bundle::of(node, name, &info);
    let different = differences(&ours, &facts(&bundle.run(&program)));
    different.into_iter().map(|one| format!("{name}: {one}")).collect()
}

/// Lines that one alone has and that no entry of [`MEANT`] explains.
fn differences(ours: &Facts, theirs: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for section in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let none = BTreeSet::new();
        let (mine, other) = (ours.get(section).unwrap_or(&none), theirs.get(section).unwrap_or(&none));
        for (line, who) in mine
            .difference(other)
            .map(|line| (line, "slipway"))
            .chain(other.difference(mine).map(|line| (line, "runc")))
        {
            let meant = |entry: &Meant| entry.section == section && line.contains(entry.part);
            if !MEANT.iter().any(meant) {
                found.push(format!("{section}: {who} alone: {line}"));
            }
        }
    }
    found
}

#[test]
fn a_bundle_is_the_same_container_to_runc() {
    let node = Node::start();
    probe::build(&node, "busybox:1", "RUN mkdir /data && echo image >/data/image\nVOLUME /data\n");
    let pod = Pod::start(&node, "web", json!({}));
    let mut found = compare(&node, &pod, "plain", json!({}));
    let shared = node.path("shared");
    fs::create_dir(&shared).expect("a host path");
    let hardened = json!({
        "envs": [{"key": "COLOUR", "value": "blue"}, {"key": "HOME", "value": "/srv"}],
        "working_dir": "/tmp/new",
        "mounts": [{"container_path": "/shared", "host_path": shared, "readonly": true}],
        "linux": {
            "resources": {"memory_limit_in_bytes": 268_435_456, "oom_score_adj": 500},
            "security_context": {
                "run_as_user": {"value": 1000},
                "supplemental_groups": [7, 1001],
                "readonly_rootfs": true,
                "no_new_privs": true,
                "capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_BIND_SERVICE"]},
                "seccomp": {"profile_type": 0},
                "masked_paths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/proc/scsi", "/sys/firmware", "/root"],
                "readonly_paths": ["/proc/sys", "/proc/irq", "/proc/sysrq-trigger", "/tmp"],
            },
        },
    });
    found.extend(compare(&node, &pod, "hardened", hardened));
    let beside = json!({"linux": {"security_context": {"namespace_options": {"network": 2, "pid": 0}}}});
    let pod = Pod::start(&node, "shared", beside.clone());
    found.extend(compare(&node, &pod, "beside", beside));
    assert!(found.is_empty(), "{}", found.join("\n"));
}
