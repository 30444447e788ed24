//! Every file that a node keeps is damaged in every way, in turn. The daemon serves all the same, says which file it is
//! and what to do, loses no process, and lets everything be removed. The files are found by looking: a new kind of
//! record is covered by itself.

use serde_json::json;
use slipway_tests::artifact::Artifact;
use slipway_tests::tarball::Tarball;
use slipway_tests::{Node, Residue, Scripted, residue, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A way in which a file is damaged.
type Way = (&'static str, fn(&Path));

const WAYS: [Way; 8] = [
    ("a flipped bit", flip),
    ("nothing in it", |path| put(path, b"")),
    ("half of it", |path| {
        let bytes = std::fs::read(path).expect("the file");
        put(path, &bytes[..bytes.len() / 2]);
    }),
    ("no file", |path| std::fs::remove_file(path).expect("it is removed")),
    ("a directory", |path| {
        std::fs::remove_file(path).expect("it is removed");
        std::fs::create_dir_all(path.join("below")).expect("a directory");
    }),
    ("a FIFO", |path| {
        std::fs::remove_file(path).expect("it is removed");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    }),
    ("a link", |path| {
        let other = path.with_extension("elsewhere");
        std::fs::rename(path, &other).expect("it is moved");
        std::os::unix::fs::symlink(&other, path).expect("a link");
        // The link's target is not the node's.
        std::fs::remove_file(&other).expect("it is removed");
    }),
    ("a sparse gigabyte", |path| {
        put(path, b"");
        let file = std::fs::File::options().write(true).open(path).expect("the file");
        file.set_len(1 << 30).expect("it is made long");
    }),
];

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("the file");
    let half = bytes.len() / 2;
    match bytes.get_mut(half) {
        Some(byte) => *byte ^= 1,
        None => bytes.push(1),
    }
    put(path, &bytes);
}

/// Puts another file in the place of one: what runs a program or has a file mounted keeps what it has.
fn put(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).expect("it is removed");
    std::fs::write(path, bytes).expect("it is damaged");
}

/// Files of which nothing has to be said: they are made again when they are needed, only a container of the same pod
/// needs them, or another record says the same.
const QUIET: [&str; 9] = [
    "lib/images.lock",
    "lib/slipwayd.lock",
    "run/slipwayd.lock",
    "run/cgroups",
    "lib/pause",
    "lib/pods/*/hosts",
    "lib/pods/*/hostname",
    "lib/pods/*/resolv.conf",
    "lib/addresses/.last",
];

fn is_quiet(kind: &str) -> bool {
    QUIET.contains(&kind) || kind.starts_with("run/copies/") || kind.starts_with("run/pods/")
}

/// Records whose absence is not noticed: the container's monitor tells its end again, and a name that is nowhere can't be told from one that
/// was taken away.
const UNMISSED: [(&str, &str); 2] = [("lib/containers/*/ended.1", "no file"), ("lib/refs/*", "no file")];

/// Whether containers that are made while it is damaged may be refused.
fn is_of_an_image(kind: &str) -> bool {
    ["lib/images/", "lib/refs/", "lib/blobs/", "lib/layers/"].iter().any(|folder| kind.starts_with(folder))
}

/// The kind of a file, by its path: ids, digests and addresses are stars.
fn kind(path: &str) -> String {
    let component = |part: &str| {
        if part.parse::<IpAddr>().is_ok() {
            return "*".to_owned();
        }
        let (name, suffix) = part.split_once('.').map_or((part, None), |(name, suffix)| (name, Some(suffix)));
        let hex = name.rsplit('-').next().unwrap_or_default();
        let name =
            if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) { "*" } else { name };
        suffix.map_or(name.to_owned(), |suffix| format!("{name}.{suffix}"))
    };
    path.split('/').map(component).collect::<Vec<_>>().join("/")
}

/// The files of a node but for what images and containers have in theirs.
fn files(node: &Node) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found = BTreeMap::<String, Vec<PathBuf>>::new();
    for top in ["lib", "run"] {
        let device = node.path(top).symlink_metadata().expect("a directory of the node").dev();
        let mut folders = vec![node.path(top)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let contents = ["fs", "kept", "upper", "etc", "log"].contains(&name.as_str())
                    || name.starts_with("work");
                let metadata = entry.path().symlink_metadata();
                let Ok(metadata) = metadata else { continue };
                if contents || metadata.dev() != device {
                    continue;
                }
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.is_file() {
                    let path = entry.path();
                    let below = path.strip_prefix(node.path("")).expect("a file of the node");
                    found.entry(kind(&below.display().to_string())).or_default().push(path);
                }
            }
        }
    }
    found
}

/// A node where much has been done.
struct Busy {
    node: Node,
    _registry: Scripted,
    pulled: String,
    base: Residue,
    pod: String,
    running: String,
}

impl Busy {
    fn start() -> Self {
        let (node, registry) = (Node::start(), Scripted::start());
        let artifact = Artifact::of(&[Tarball::new().directory("etc/").file("etc/motd", b"ahoy\n").end()]);
        registry.hold(&artifact, "fleet/app", "1");
        let pulled = registry.name("fleet/app:1");
        // The socket is there before all that the daemon makes at its start.
        let _ = node.crictl(&["version"]).ok();
        let base = Residue::of(&node);
        let (pod, running) = Default::default();
        let mut busy = Self { node, _registry: registry, pulled, base, pod, running };
        busy.fill();
        busy
    }

    fn fill(&mut self) {
        let node = &self.node;
        node.build("busybox:1", "");
        let _ = node.crictl(&["pull", &self.pulled]).ok();
        let options = json!({"network": 0, "pid": 0});
        let more = json!({"hostname": "web", "linux": {"security_context": {"namespace_options": options}}});
        let pod = node.pod("web", more);
        let running = node.container(&pod, "web", "running", "sleep 1000");
        let ended = node.container(&pod, "web", "ended", "exit 7");
        assert_eq!(node.exited(&ended)["exitCode"], 7);
        let _ = node.slipway(&["run", "-d", "--name", "boat", "busybox:1", "sleep", "1000"]).ok();
        (self.pod, self.running) = (pod, running);
    }

    /// Removes everything by the verbs that have to end with nothing left.
    fn clear(&self, after: &str) {
        let node = &self.node;
        for pod in node.crictl(&["pods", "-q", "--no-trunc"]).ok().split_whitespace() {
            let _ = node.crictl(&["rmp", "-f", pod]).ok();
        }
        for container in node.slipway(&["ps", "-a", "-q", "--no-trunc"]).ok().split_whitespace() {
            let _ = node.slipway(&["rm", "-f", container]).ok();
        }
        for image in ["busybox:1", &self.pulled] {
            let _ = node.slipway(&["rmi", "-f", image]).ok();
        }
        let repaired = node.slipway(&["check", "--repair"]);
        assert!(repaired.status < 2, "{after}: {repaired:#?}");
        let left = node.slipway(&["check"]);
        for line in left.stdout.lines().filter(|line| line.contains("rmi -f ")) {
            let id = line.rsplit("rmi -f ").next().expect("an id").split_whitespace().next().expect("an id");
            let _ = node.slipway(&["rmi", "-f", id]).ok();
        }
        let _ = node.slipway(&["prune", "-a"]).ok();
        wait("the end of all processes", || residue::everyone(node).is_empty());
        let _ = std::fs::remove_dir_all(node.path("logs"));
        self.base.returns(node, after);
        let check = node.slipway(&["check"]);
        assert_eq!(check.status, 0, "{after}: {check:#?}");
    }

    /// Everything is as it was made: what ran runs, and nothing is found wrong.
    fn is_whole(&self) -> bool {
        let node = &self.node;
        let listed: BTreeSet<String> = node
            .crictl(&["ps", "-a", "-q", "--no-trunc"])
            .stdout
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        listed.len() == 2
            && listed.contains(&self.running)
            && node.crictl(&["pods", "-q", "--no-trunc"]).stdout.trim() == self.pod
            && node.crictl(&["exec", "-s", &self.running, "echo", "afloat"]).stdout.trim() == "afloat"
            && node.slipway(&["exec", "boat", "echo", "afloat"]).stdout.trim() == "afloat"
            && node.slipway(&["check"]).status == 0
            && node.crictl(&["inspecti", "busybox:1"]).status == 0
            && node.crictl(&["inspecti", &self.pulled]).status == 0
    }

    fn damage(&mut self, kind: &str, path: &Path, (way, damage): &Way) {
        let told = format!("{} is {way}", path.display());
        self.node.kill();
        let before = residue::everyone(&self.node);
        damage(path);
        self.node.launch();
        self.works(kind, &told);
        let after = residue::everyone(&self.node);
        let lost: Vec<_> = before.iter().filter(|pid| !after.contains(pid)).collect();
        assert!(lost.is_empty(), "{told}: {lost:?} are gone\n{}", self.node.log());
        let check = self.node.slipway(&["check"]);
        // Of a layer it is said as a whole that its files don't make its tar.
        let named = if kind.starts_with("lib/layers/") { path.parent() } else { Some(path) };
        let name = named.expect("a path").display().to_string();
        let quiet = is_quiet(kind) || UNMISSED.contains(&(kind, *way));
        assert!(check.stdout.contains(&name) || quiet, "{told}: {check:#?}\n{}", self.node.log());
        let info = self.node.crictl(&["info"]).json();
        assert_eq!(info["status"]["conditions"][0]["status"], true, "{told}: {info:#}");
    }

    /// The daemon serves: a pod is made, and a container where its image is not what was damaged; prune works.
    fn works(&self, kind: &str, told: &str) {
        let node = &self.node;
        let more = json!({"linux": {"security_context": {"namespace_options": {"network": 0}}}});
        let made = node.crictl(&["runp", &node.pod_file("probe", more)]);
        assert_eq!(made.status, 0, "{told}: {made:#?}\n{}", node.log());
        let pod = made.ok();
        if !is_of_an_image(kind) {
            let container = node.container(pod, "probe", "main", "exit 3");
            assert_eq!(node.exited(&container)["exitCode"], 3, "{told}");
        }
        let _ = node.crictl(&["rmp", "-f", pod]).ok();
        let pruned = node.slipway(&["prune"]);
        assert_eq!(pruned.status, 0, "{told}: {pruned:#?}");
    }

    /// Damages one file in these ways; what is not whole again after a repair is removed and made anew.
    fn suffer(&mut self, kind: &str, sample: usize, ways: &[Way]) {
        for (at, way) in ways.iter().enumerate() {
            let found = files(&self.node);
            let Some(path) = found.get(kind).and_then(|paths| paths.get(sample)).cloned() else { return };
            self.damage(kind, &path, way);
            let told = format!("{} is {}", path.display(), way.0);
            // The last time nothing is repaired: what is damaged is removed as it is.
            let last = at + 1 == ways.len();
            if !last {
                let repaired = self.node.slipway(&["check", "--repair"]);
                assert!(repaired.status < 2, "{told}: {repaired:#?}");
            }
            if last || !self.is_whole() {
                self.clear(&told);
                self.fill();
            }
        }
    }
}

/// Damages each kind of file that is below one of the folders, or of none of them.
fn every(wanted: impl Fn(&str) -> bool) {
    let mut busy = Busy::start();
    let kinds: Vec<(String, usize)> =
        files(&busy.node).into_iter().map(|(kind, paths)| (kind, paths.len())).collect();
    let kinds: Vec<_> = kinds.into_iter().filter(|(kind, _)| wanted(kind)).collect();
    assert!(!kinds.is_empty());
    for (kind, count) in kinds {
        busy.suffer(&kind, 0, &WAYS);
        // Files of one kind may belong to things in other states: an image that was built, a container that has ended.
        for sample in 1..count.min(4) {
            busy.suffer(&kind, sample, &[WAYS[3], WAYS[0]]);
        }
    }
    busy.clear("at the end");
}

const FOLDERS: [&str; 4] = ["lib/pods/", "lib/containers/", "lib/blobs/", "lib/layers/"];

#[test]
fn every_file_of_pods_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with(FOLDERS[0]));
}

#[test]
fn every_file_of_containers_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with(FOLDERS[1]));
}

#[test]
fn every_object_of_the_store_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with(FOLDERS[2]));
}

#[test]
fn every_file_that_describes_a_layer_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with(FOLDERS[3]));
}

#[test]
fn every_other_file_below_the_root_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with("lib/") && !FOLDERS.iter().any(|folder| kind.starts_with(folder)));
}

#[test]
fn every_file_of_the_state_directory_can_be_damaged_in_every_way() {
    every(|kind| kind.starts_with("run/"));
}
