//! All that a node has on the machine, so that two moments can be compared: files, mounts, processes, cgroups, links, rules.

use crate::Node;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// All that a node has on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residue(BTreeSet<String>);

impl Residue {
    /// The present state of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let mut found = BTreeSet::new();
        for directory in ["lib", "run"] {
            list(&node.path(directory), directory, &mut found);
        }
        mounts(node, &mut found);
        found.extend(processes(node).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
        cgroups(node, &mut found);
        let links = Command::new("ip").args(["-o", "link", "show", "master", &node.bridge()]).output();
        let links = links.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        found.extend(links.unwrap_or_default().lines().map(|line| format!("link {line}")));
        let rules = Command::new("nft").args(["list", "ruleset"]).output();
        let rules = rules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        found.extend(elements(&rules.unwrap_or_default(), &node.table()));
        Self(found)
    }

    /// The entries that another does not have.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Vec<String> {
        self.0.difference(&other.0).cloned().collect()
    }

    /// Waits until the node has nothing beyond this.
    ///
    /// # Panics
    /// When it still has after some seconds.
    #[track_caller]
    pub fn returns(&self, node: &Node, after: &str) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = Self::of(node).beyond(self);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{after}: left behind: {left:#?}\n{}", node.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Files by their path; the address given last and the locks' files are no one's.
fn list(directory: &Path, name: &str, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        // The files of an image are not compared, only their directory.
        let deep = path.starts_with("lib/layers/") && path.ends_with("/fs");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !deep {
            list(&entry.path(), &path, found);
        }
        if !["lib/addresses/.last", "lib/pause", "run/slipway.sock"].contains(&path.as_str()) {
            found.insert(format!("file {path}"));
        }
    }
}

fn mounts(node: &Node, found: &mut BTreeSet<String>) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = node.path("").display().to_string();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    found.extend(targets.filter(|target| target.starts_with(&below)).map(|target| format!("mount {target}")));
}

/// The processes that a node's daemon has started and their command lines: monitors have its log as their standard error.
/// Containers are found by their cgroups.
///
/// # Panics
/// When there is no /proc.
#[must_use]
pub fn processes(node: &Node) -> Vec<(u32, String)> {
    let log = node.path("slipwayd.log");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let process = entry.path();
        let ours = std::fs::read_link(process.join("fd/2")).is_ok_and(|target| target == log);
        let name = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
        if let (true, false, Ok(pid)) =
            (ours, name.contains("slipwayd"), entry.file_name().to_string_lossy().parse())
        {
            found.push((pid, name));
        }
    }
    found
}

/// The children of a process, zombies too, but for the process of a daemon that opens files for it and lives as long as it
/// does.
///
/// # Panics
/// When the process does not exist.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("the process lives").flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>());
    let opens = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "slipway-opener")
    };
    children.filter(|pid| !opens(pid)).collect()
}

/// A pod's monitor: it has the pod's id as its argument.
///
/// # Panics
/// When the pod has none.
#[must_use]
pub fn monitor(node: &Node, pod: &str) -> u32 {
    let all = processes(node);
    let found = all.iter().find(|(_, command)| command.contains("monitor") && command.contains(pod));
    found.unwrap_or_else(|| panic!("{pod} has no monitor: {all:?}")).0
}

/// Every process of a node but its daemon: monitors, and what is in its cgroups.
///
/// # Panics
/// When there is no /proc.
#[must_use]
pub fn everyone(node: &Node) -> Vec<u32> {
    let mut all: Vec<u32> = processes(node).into_iter().map(|(pid, _)| pid).collect();
    for directory in directories(node) {
        let inside = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        all.extend(inside.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid > 0));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn directories(node: &Node) -> Vec<PathBuf> {
    let tree = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{}*", node.cgroup())])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    tree.unwrap_or_default().lines().map(PathBuf::from).collect()
}

fn cgroups(node: &Node, found: &mut BTreeSet<String>) {
    for directory in directories(node) {
        found.insert(format!("cgroup {}", directory.display()));
        let processes = std::fs::read_to_string(directory.join("cgroup.procs"));
        let leaf = directory.ends_with("slipwayd");
        // Their ids come and go in a container that lives.
        if !leaf && processes.is_ok_and(|processes| !processes.is_empty()) {
            found.insert(format!("processes in {}", directory.display()));
        }
    }
}

/// The lines of a table's sets and maps that hold something.
fn elements(rules: &str, table: &str) -> Vec<String> {
    let mut ours = false;
    let mut found = Vec::new();
    for line in rules.lines() {
        if line.starts_with("table ") {
            ours = line.split(' ').any(|word| word == table);
        }
        if ours && line.contains("elements = ") {
            found.push(format!("rule {}", line.trim()));
        }
    }
    found
}
